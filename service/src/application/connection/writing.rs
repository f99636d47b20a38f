//! What is on its way to one socket, and what is counted of it once the system has taken it.

use bytes::Bytes;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use crate::{
    application::{
        mailbox::{Item, Items},
        outgoing::Outgoing,
    },
    clock,
    domain::frame::{Frame, FrameKind},
    metrics::Metrics,
    websocket::{Agreement, WebSocket, deflate::Deflater, encode},
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
            Some(agreed) if agreed.server_alone => Kind::Shared { window_bits: agreed.server_window_bits },
            Some(agreed) => Kind::Own(Box::new(Deflater::new(agreed.server_window_bits))),
        };
        Self { threshold, kind }
    }

    fn event(&mut self, event: &Outgoing) -> Bytes {
        match &mut self.kind {
            _ if event.len() < self.threshold => event.frame().clone(),
            Kind::Off => event.frame().clone(),
            Kind::Shared { window_bits } => event.compressed(*window_bits).clone(),
            Kind::Own(deflater) => encode::compressed_text(&deflater.deflate(event.text())),
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
    /// It has not taken everything since then.
    Stuck(Instant),
    /// Nor for so long that the socket counts as taking no bytes.
    Stalled(Instant),
}

/// The frames of one write and what has to be counted of them.
#[derive(Debug, Default)]
pub(super) struct Writing {
    items: Items,
    /// Open while the traced ones among the items are written.
    spans: Vec<tracing::Span>,
    /// A frame that is no item; there is at most one or two, as nothing is read meanwhile.
    others: Vec<FrameKind>,
    bytes: usize,
    progress: Progress,
}

impl Writing {
    /// Queues items of the mailbox.
    pub(super) fn add_items<S>(&mut self, items: Items, compressor: &mut Compressor, socket: &mut WebSocket<S>)
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        for item in &items {
            let frame = match item {
                Item::Event(event) => {
                    if event.is_traced() {
                        self.spans.extend(event.write_span(clock::now()));
                    }
                    compressor.event(event)
                }
                Item::Gap(gap) => Compressor::frame(&Frame::gap(gap)),
            };
            self.bytes += frame.len();
            socket.queue(frame);
        }
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
        self.others.push(frame.kind());
        socket.queue(bytes);
    }

    /// Notes that the system did not take everything now. True if that is news.
    pub(super) fn is_stuck_since(&mut self, now: Instant) -> bool {
        let news = matches!(self.progress, Progress::Free);
        if news {
            self.progress = Progress::Stuck(now);
        }
        news
    }

    /// Since when the system has not taken everything, if so.
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

    /// The system has taken all of it: only now is an event delivered, as far as can be seen from here. One look at the clock for all.
    pub(super) fn done(&mut self, metrics: &Metrics) {
        let Self { items, spans, others, bytes, .. } = std::mem::take(self);
        drop(spans);
        if !metrics.recording() || bytes == 0 {
            return;
        }
        metrics.bytes_out().inc_by(bytes as u64);
        for kind in others {
            metrics.sent(kind, 1);
        }
        if items.is_empty() {
            return;
        }
        let now = clock::now();
        let mut events = 0;
        for item in &items {
            if let Item::Event(event) = item {
                events += 1;
                let end_to_end = event.event_time.map(|at| now.saturating_sub(at));
                metrics.written(event.path, now.saturating_sub(event.stored_at), end_to_end);
            }
        }
        metrics.sent(FrameKind::Event, events);
        metrics.sent(FrameKind::Gap, items.len() as u64 - events);
    }
}
