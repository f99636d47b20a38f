//! What is on its way to one socket, and what is counted of it once the system has taken it.

use std::{borrow::Cow, io, task::Context};

use bytes::Bytes;
use daisi_ws_domain::frame::{Frame, FrameKind};
use daisi_ws_websocket::{Agreement, WebSocket, deflate::Deflater, encode};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    application::hub::{
        mailbox::item::{Item, Items},
        prepared_message::PreparedMessage,
    },
    metrics::Metrics,
    runtime::clock,
};

/// Compresses what one socket is sent, as agreed on with its client.
#[derive(Debug)]
pub(super) struct Compressor {
    /// Shorter texts are sent as they are.
    threshold: usize,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Off,
    /// Each message by itself, so that its compressed bytes are made once for all sockets.
    Shared {
        window_bits: u8,
    },
    Own(Box<Deflater>),
}

impl Compressor {
    pub(super) fn new(agreement: Option<Agreement>, threshold: usize) -> Self {
        let kind = match agreement {
            None => Kind::Off,
            Some(agreed) if agreed.server_no_context_takeover => Kind::Shared { window_bits: agreed.server_window_bits },
            Some(agreed) => Kind::Own(Box::new(Deflater::new(agreed.server_window_bits))),
        };
        Self { threshold, kind }
    }

    fn event<'a>(&mut self, event: &'a PreparedMessage) -> Cow<'a, Bytes> {
        match &mut self.kind {
            _ if event.len() < self.threshold => Cow::Borrowed(event.frame()),
            Kind::Off => Cow::Borrowed(event.frame()),
            Kind::Shared { window_bits } => Cow::Borrowed(event.compressed(*window_bits)),
            Kind::Own(deflater) => Cow::Owned(encode::compressed_text(&deflater.deflate(event.text()))),
        }
    }

    fn item<'a>(&mut self, item: &'a Item) -> Cow<'a, Bytes> {
        match item {
            Item::Event(event) => self.event(event),
            Item::Gap(gap) => Cow::Owned(Self::frame(&Frame::gap(gap))),
            Item::Hole(hole) => Cow::Owned(Self::frame(&Frame::gap(&hole.gap))),
        }
    }

    /// Frames for one socket are short and few.
    fn frame(frame: &Frame) -> Bytes {
        encode::text(frame.bytes())
    }
}

/// How it stands with the write.
#[derive(Debug, Default)]
enum Progress {
    /// The system takes what it is given.
    #[default]
    Free,
    /// It has not taken everything, and nothing since then.
    Stuck(Instant),
    /// Nothing for so long that the socket counts as taking no bytes.
    Stalled(Instant),
}

/// The frames of one write and what has to be counted of them.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    items: Items,
    bytes: usize,
    progress: Progress,
    /// In a box, as most writes have none.
    extras: Option<Box<Extras>>,
}

/// What few writes have.
#[derive(Debug, Default)]
struct Extras {
    /// Open while the traced ones among the items are written.
    spans: Vec<tracing::Span>,
    /// Frames that are no items; there are at most one or two, as nothing is read meanwhile.
    frames: Vec<FrameKind>,
}

impl Outbound {
    /// Writes items of the mailbox, or queues them. One by itself, as it most often is, goes to the system without a detour:
    /// where an event goes to thousands of sockets, every one that holds its bytes is counted twice in memory that all threads
    /// share.
    pub(super) fn write_items<S>(
        &mut self,
        cx: &mut Context<'_>,
        items: Items,
        compressor: &mut Compressor,
        socket: &mut WebSocket<S>,
    ) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if let [item] = items.as_slice() {
            self.open_span(item);
            let frame = compressor.item(item);
            socket.write(cx, &frame)?;
            self.bytes += frame.len();
            drop(frame);
            self.keep(items);
        } else {
            self.add_items(items, compressor, socket);
        }
        Ok(())
    }

    /// Queues items of the mailbox.
    pub(super) fn add_items<S>(&mut self, items: Items, compressor: &mut Compressor, socket: &mut WebSocket<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for item in &items {
            self.open_span(item);
            let frame = compressor.item(item);
            self.bytes += frame.len();
            socket.queue(frame.into_owned());
        }
        self.keep(items);
    }

    fn open_span(&mut self, item: &Item) {
        if let Item::Event(event) = item
            && event.is_traced()
        {
            self.extras.get_or_insert_default().spans.extend(event.write_span(clock::now()));
        }
    }

    fn keep(&mut self, items: Items) {
        if self.items.is_empty() {
            self.items = items;
        } else {
            self.items.extend(items);
        }
    }

    /// Queues another frame.
    pub(super) fn add_frame<S>(&mut self, frame: &Frame, socket: &mut WebSocket<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let bytes = Compressor::frame(frame);
        self.bytes += bytes.len();
        self.extras.get_or_insert_default().frames.push(frame.kind());
        socket.queue(bytes);
    }

    /// Bytes of it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Is there nothing that would have to be counted?
    pub(super) fn is_idle(&self) -> bool {
        self.bytes == 0
    }

    /// Notes that the system has not taken everything, and that the last it took was now.
    pub(super) fn set_stuck(&mut self, now: Instant) {
        self.progress = Progress::Stuck(now);
    }

    /// Since when the system has taken nothing, if it has not taken everything.
    pub(super) fn stuck_since(&self) -> Option<Instant> {
        match self.progress {
            Progress::Free => None,
            Progress::Stuck(since) | Progress::Stalled(since) => Some(since),
        }
    }

    pub(super) fn was_stuck(&self) -> bool {
        self.stuck_since().is_some()
    }

    pub(super) fn is_stalled(&self) -> bool {
        matches!(self.progress, Progress::Stalled(_))
    }

    /// Notes that the socket counts as taking no bytes.
    pub(super) fn set_stalled(&mut self) {
        if let Progress::Stuck(since) = self.progress {
            self.progress = Progress::Stalled(since);
        }
    }

    /// Events that the system has not taken, as far as is known.
    pub(super) fn events(&self) -> usize {
        self.items.iter().filter(|item| matches!(item, Item::Event(_))).count()
    }

    /// The system has taken all of it: only now is an event delivered, as far as can be seen from here. One look at the clock for
    /// all.
    pub(super) fn done(&mut self, metrics: &Metrics) {
        let Self { items, extras, bytes, .. } = std::mem::take(self);
        let Extras { spans, frames } = extras.map(|extras| *extras).unwrap_or_default();
        drop(spans);
        if !metrics.recording() || bytes == 0 {
            return;
        }
        let mut counters = metrics.sharded();
        counters.bytes_out(bytes);
        for kind in frames {
            counters.sent(kind, 1);
        }
        if items.is_empty() {
            return;
        }
        let now = clock::now();
        let mut events = 0;
        for item in &items {
            match item {
                Item::Event(event) => {
                    events += 1;
                    let end_to_end = event.event_time.map(|at| now.saturating_sub(at));
                    counters.written(event.path, now.saturating_sub(event.stored_at), end_to_end);
                }
                Item::Gap(gap) => metrics.gaps_announced_total.with_label_values(&[gap.cause.as_str()]).inc(),
                Item::Hole(hole) => metrics.gaps_announced_total.with_label_values(&[hole.gap.cause.as_str()]).inc(),
            }
        }
        counters.sent(FrameKind::Event, events);
        counters.sent(FrameKind::Gap, items.len() - events);
    }
}
