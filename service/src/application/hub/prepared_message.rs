//! An event on its way to the sockets of this pod: encoded once, compressed at most once a window, shared by all.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use daisi_ws_domain::{
    event::{Event, Path, StreamId},
    frame::{Frame, Stamp},
};
use daisi_ws_websocket::{
    deflate::{self, MAX_WINDOW_BITS, MIN_WINDOW_BITS},
    encode,
};

use super::memory::{Charge, Kind, Memory};
use crate::telemetry::spans;

/// Sockets of one pod whose write of a traced event gets a span; an event for a thousand sockets must not be a thousand spans.
const TRACED_WRITES: usize = 16;
/// Windows that a client may ask for.
const WINDOWS: usize = (MAX_WINDOW_BITS - MIN_WINDOW_BITS + 1) as usize;

/// What an event counts for beside its bytes, in bytes: that of small ones is most of what they take.
pub(crate) const EVENT_OVERHEAD: usize = 256;

/// An encoded event, made once and shared by every socket of the pod that gets it. A clone shares all that is large.
#[derive(Debug, Clone)]
pub struct PreparedMessage {
    /// Its stream sequence; 0 if it has no place in a stream.
    pub seq: u64,
    /// The stream that it is in.
    pub stream: StreamId,
    /// Which way it came here.
    pub path: Path,
    /// When the stream stored it, since the Unix epoch.
    pub stored_at: Duration,
    /// When it happened, as the publisher says.
    pub event_time: Option<Duration>,
    text: Bytes,
    frame: Bytes,
    later: Arc<Later>,
    is_traced: bool,
    stamp: Stamp,
}

/// What few events need, and what all of an event's clones end together.
#[derive(Debug)]
struct Later {
    /// What it counts for among what the pod holds.
    charge: Charge,
    /// The frame with its text compressed by itself, by window; made when the first socket wants it.
    compressed: OnceLock<Box<[OnceLock<Copied>; WINDOWS]>>,
    /// If it is traced: under which span its writes are, and how many more get one.
    trace: Option<(String, AtomicUsize)>,
}

/// The frame for those who want it compressed.
#[derive(Debug)]
struct Copied {
    frame: Bytes,
    _charge: Charge,
}

impl Later {
    fn of(frame: &Bytes, memory: &Arc<Memory>) -> Self {
        Self { charge: memory.charge(Kind::Events, frame.len() + EVENT_OVERHEAD), compressed: OnceLock::new(), trace: None }
    }
}

impl PreparedMessage {
    /// Encodes an event, which counts as held until the last socket has written it.
    #[must_use]
    pub fn new(event: &Event, path: Path, stamp: Stamp, memory: &Arc<Memory>) -> Self {
        let traceparent = event.traceparent.as_ref().filter(|text| spans::follow(Some(text)));
        let frame = encode::text(Frame::event(event, stamp).bytes());
        let trace = traceparent.map(|text| (text.clone(), AtomicUsize::new(TRACED_WRITES)));
        let later = Later { trace, ..Later::of(&frame, memory) };
        Self {
            seq: if event.is_sequenced() { event.seq } else { 0 },
            stream: event.stream,
            text: encode::payload(&frame),
            frame,
            path,
            stored_at: event.stored_at,
            event_time: event.payload.event_time(),
            is_traced: traceparent.is_some(),
            later: Arc::new(later),
            stamp,
        }
    }

    /// Up to where who reads it has everything, if that is known; see [`Stamp`].
    #[must_use]
    pub fn safe(&self) -> Option<u64> {
        self.stamp.safe
    }

    /// The same event for a session that knows less.
    #[must_use]
    pub(crate) fn restamped(&self, safe: Option<u64>) -> Self {
        let stamp = Stamp { safe, ..self.stamp };
        let frame = encode::text(&self.stamp.replaced(stamp, self.seq, &self.text));
        let later = Later { trace: None, ..Later::of(&frame, self.memory()) };
        let text = encode::payload(&frame);
        Self { text, frame, later: Arc::new(later), is_traced: false, stamp, ..*self }
    }

    /// How many bytes of events the pod holds for its sockets, this one among them.
    #[must_use]
    pub fn held(&self) -> usize {
        self.memory().of(Kind::Events)
    }

    /// Where it is counted.
    pub(crate) fn memory(&self) -> &Arc<Memory> {
        self.later.charge.memory()
    }

    /// Bytes of its text, without framing and not compressed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Has it no text? Never so for an event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Its text, which is UTF-8.
    #[must_use]
    pub fn text(&self) -> &Bytes {
        &self.text
    }

    /// The frame as it goes to every socket that does not compress by itself.
    #[must_use]
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// The frame with its text compressed by itself, with a window of 2^`window_bits` bytes; the plain one where that is no
    /// longer.
    #[must_use]
    pub fn compressed(&self, window_bits: u8) -> &Bytes {
        let windows = self.later.compressed.get_or_init(Box::default);
        let place = usize::from(window_bits.clamp(MIN_WINDOW_BITS, MAX_WINDOW_BITS) - MIN_WINDOW_BITS);
        let copied = windows[place].get_or_init(|| {
            let shorter = deflate::shared(&self.text, window_bits);
            let (frame, bytes) = if shorter.len() < self.text.len() {
                (encode::compressed_text(&shorter), shorter.len())
            } else {
                (self.frame.clone(), 0)
            };
            Copied { frame, _charge: self.memory().charge(Kind::Events, bytes) }
        });
        &copied.frame
    }

    /// The span of its write to one socket, if that is traced.
    #[must_use]
    pub(crate) fn write_span(&self, now: Duration) -> Option<tracing::Span> {
        let (traceparent, left) = self.later.trace.as_ref()?;
        left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).ok()?;
        let age = now.saturating_sub(self.stored_at);
        Some(spans::write(traceparent, self.path.as_str(), self.seq, age.as_secs_f64() * 1000.0))
    }

    /// Is its write traced?
    #[must_use]
    pub(crate) fn is_traced(&self) -> bool {
        self.is_traced
    }
}

#[cfg(test)]
impl PreparedMessage {
    /// An event of this text, for tests of what holds events.
    pub(crate) fn of_text(seq: u64, text: &str) -> Self {
        Self::of_held_text(seq, text, &Arc::default())
    }

    /// The same, counted among what is held.
    pub(crate) fn of_held_text(seq: u64, text: &str, memory: &Arc<Memory>) -> Self {
        let frame = encode::text(text.as_bytes());
        let (stored_at, path) = (Duration::ZERO, Path::Local);
        let text = encode::payload(&frame);
        let later = Later::of(&frame, memory);
        let stream = StreamId(1);
        Self {
            seq,
            stream,
            path,
            stored_at,
            event_time: None,
            text,
            frame,
            later: Arc::new(later),
            is_traced: false,
            stamp: Stamp::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use daisi_ws_domain::event::{Address, Payload};
    use daisi_ws_websocket::{Message, decode::Decoder, deflate::Inflater};

    use super::*;

    #[test]
    fn an_event_is_compressed_once_and_the_same_bytes_go_to_every_socket() {
        let event = PreparedMessage::of_text(1, &"all work and no play ".repeat(50));
        let (first, second) = (event.compressed(15), event.compressed(15));
        assert!(first.len() < event.len() / 4);
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_ne!(event.compressed(9).as_ptr(), first.as_ptr());
        // As a client would frame it.
        let (header, payload) = (&first[..2], &first[2..]);
        let masked = [&[header[0], header[1] | 0x80, 0, 0, 0, 0], payload].concat();
        let mut decoder = Decoder::new(4096, Inflater::Shared);
        decoder.push(&masked);
        let text = String::from_utf8(event.text().to_vec()).unwrap();
        assert_eq!(decoder.next_message(), Ok(Some(Message::Text(text))));
    }

    #[test]
    fn an_event_is_held_once_until_its_last_clone_is_gone() {
        let held = Arc::<Memory>::default();
        let event = PreparedMessage::of_held_text(1, &"12345678".repeat(20), &held);
        let (once, clone) = (held.used(), event.clone());
        assert_eq!((once, event.held()), (event.frame().len() + EVENT_OVERHEAD, once));
        drop(event);
        assert_eq!(held.used(), once);
        // A copy for those who want it compressed is memory as well.
        let copy = clone.compressed(15).len();
        assert!(copy < 100 && held.used() > once + copy / 2, "{copy}");
        drop(clone);
        assert_eq!(held.used(), 0);
    }

    #[test]
    fn what_does_not_shrink_is_sent_as_it_is() {
        let event = PreparedMessage::of_text(1, "q8w");
        assert_eq!(event.compressed(15), event.frame());
    }

    #[test]
    fn an_event_without_a_place_in_a_stream_names_none_when_it_is_lost() {
        let event = Event {
            address: Address::parse("wa", "wa.a.b.chats").unwrap(),
            payload: Payload::parse(&Bytes::from_static(b"{}")).unwrap(),
            stream: StreamId::UNKNOWN,
            seq: 7,
            stored_at: Duration::ZERO,
            request_id: None,
            traceparent: None,
        };
        assert_eq!(PreparedMessage::new(&event, Path::Forwarded, Stamp::default(), &Arc::default()).seq, 0);
        assert_eq!(
            PreparedMessage::new(&Event { stream: StreamId(1), ..event }, Path::Forwarded, Stamp::default(), &Arc::default()).seq,
            7
        );
    }
}
