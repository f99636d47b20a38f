//! Reads again from the stream what a session lacks, and writes it before anything newer.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use daisi_ws_domain::{
    close::CloseReason,
    frame::{Frame, Place},
    gap::{Gap, GapCause},
    ids::ChatId,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, count_dropped};
use crate::application::{
    admission::connect::Start,
    hub::mailbox::{
        item::{Item, Items},
        repair::MendOrder,
    },
    replay::{Mended, Mending},
};
use crate::metrics::labels::Dropped;

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Connection<S> {
    /// Says `ready`, and then what the client missed.
    pub(super) fn greet(&mut self, start: Start, chat: Option<&ChatId>) {
        let Start { place, resumption, replay, stays } = start;
        let ready = Frame::ready(self.session.owner().pod.as_str(), chat, place.as_ref(), resumption);
        self.safe = place.map_or(0, |place| place.safe);
        self.stays = stays;
        self.send(&ready);
        if !replay.is_empty() {
            self.write_later(replay.into_iter().map(Item::Event).collect());
        }
    }

    /// Tells the client to open a second socket, if it is to be told.
    pub(super) fn ask_to_move(&mut self) {
        if let Some(moving) = self.session.take_move() {
            let left = moving.within.saturating_sub(moving.asked.elapsed());
            self.send(&Frame::move_on(moving.reason, left));
        }
    }

    /// Queues items behind what is queued.
    fn write_later(&mut self, items: Items) {
        let items = self.stamped(items);
        self.outbound.add_items(items, &mut self.compressor, &mut self.socket);
    }

    /// Has items say no more than the session may be told, and notes how far that is.
    pub(super) fn stamped(&mut self, mut items: Items) -> Items {
        for item in &mut items {
            let Item::Event(event) = item else { continue };
            let Some(safe) = event.safe() else { continue };
            if self.stays {
                *event = Arc::new(event.restamped(Some(self.safe)));
            } else {
                self.safe = self.safe.max(safe);
            }
        }
        items
    }

    /// Where the session stands, as its client may be told now: it has everything up to there, as nothing waits that is older.
    /// In a stream that was made anew since, nothing of the one before counts.
    pub(super) fn place(&mut self) -> Option<Place> {
        let settled = self.services.hub.floor()?;
        if !self.session.mailbox().is_in(settled.stream) {
            if self.stays {
                return None;
            }
            self.session.mailbox().begin_after(settled.stream, 0);
            self.safe = 0;
        }
        if self.stays {
            return Some(Place::new(settled.stream, self.safe));
        }
        // What was taken before the floor was asked for may be on its way to the mailbox.
        self.services.hub.catch_up(&self.session);
        let mailbox = self.session.mailbox();
        let has_all = mailbox.is_empty() && !mailbox.is_behind();
        Some(Place::new(settled.stream, if has_all { self.safe.max(settled.seq) } else { self.safe }))
    }

    /// Begins to read what the session lacks.
    pub(super) fn begin_mending(&mut self, order: MendOrder) {
        self.mending = Some(Box::new(Mending::begin(&self.services.replayer, &self.session, order)));
    }

    /// True when something was read, and is written.
    pub(super) fn poll_mending(&mut self, cx: &mut Context<'_>) -> Result<bool, CloseReason> {
        let Some(mending) = &mut self.mending else { return Ok(false) };
        let Poll::Ready(read) = mending.poll(cx) else { return Ok(false) };
        let cause = mending.cause();
        self.mending = None;
        let items = self.mended(cause, read);
        let written = self.outbound.write_items(cx, items, &mut self.compressor, &mut self.socket);
        written.map_err(|_| CloseReason::ConnectionLost)?;
        if self.socket.is_flushed() {
            self.outbound.done(&self.services.metrics);
        }
        Ok(true)
    }

    fn mended(&mut self, cause: GapCause, read: Option<Mended>) -> Items {
        // Frames of it say no more than was known before: what is older may still be on its way.
        let safe = self.safe;
        let mailbox = self.session.mailbox();
        let (told, events) = match read {
            None => (mailbox.mended(None, &[]), Vec::new()),
            Some((reading, mut events)) => {
                // What it has all the same was there to be read: nothing of that is told.
                mailbox.retain_missing(&mut events);
                (mailbox.mended(Some(reading), &events), events)
            }
        };
        match told {
            None => self.services.metrics.gaps_mended_total.with_label_values(&[cause.as_str()]).inc(),
            Some(gap) => {
                let dropped = gap.dropped.and_then(|dropped| usize::try_from(dropped).ok()).unwrap_or(0);
                count_dropped(&self.services.metrics, Dropped::BufferFull, self.session.kind(), dropped);
            }
        }
        let mut items: Items = told.map(|gap| Item::Gap(Box::new(gap))).into_iter().collect();
        items.extend(events.iter().map(|event| Item::Event(Arc::new(event.restamped(Some(safe))))));
        items
    }

    /// Nothing more is read: what the session lacks is told, in its place.
    pub(super) fn give_up_mending(&mut self) -> Option<Gap> {
        let mailbox = self.session.mailbox();
        self.mending = None;
        mailbox.mended(None, &[])
    }
}
