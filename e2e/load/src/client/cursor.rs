//! Where a socket stands in the stream, as its server names it, and what it is sent when it comes back to there.

use memchr::memmem;
use serde::Deserialize;

/// In the envelope of an event that was read again.
const REPLAYED: &[u8] = br#""replayed":true"#;
/// An event's payload, which may hold anything, begins behind this.
const PAYLOAD: &[u8] = br#""payload":"#;

/// A place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    stream: Box<str>,
    safe: u64,
}

/// What a socket that follows the stream was told of it.
#[derive(Debug, Default)]
pub(super) struct Following {
    cursor: Option<Cursor>,
    /// It came back for so many events.
    missed: Option<u32>,
    /// What became of that: so many events were announced, or why none were.
    announced: Option<Result<u32, String>>,
    replayed: u32,
    /// Events of the present that came so far.
    live: u32,
    /// Replayed events that came after one of the present.
    late: u32,
}

/// How a socket fared that follows the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Return {
    /// It was sent again what it had missed, all of it, nothing else, and before anything newer.
    Whole,
    /// It was told that it goes without, for this reason.
    Told(String),
    /// Something else, which is wrong.
    Wrong(String),
}

#[derive(Deserialize)]
struct Ready<'a> {
    #[serde(borrow, default)]
    payload: Payload<'a>,
}

#[derive(Default, Deserialize)]
struct Payload<'a> {
    stream: Option<&'a str>,
    safe: Option<u64>,
    resumed: Option<bool>,
    replayed: Option<u32>,
    reason: Option<&'a str>,
}

impl Cursor {
    /// As a client says it in the query.
    pub(super) fn query(&self) -> String {
        format!("{}:{}", self.stream, self.safe)
    }
}

impl Following {
    /// Of a socket that comes back for so many events, or for none.
    pub(super) fn new(missed: Option<u32>) -> Self {
        Self { missed, ..Self::default() }
    }

    /// Where it stands.
    pub(super) fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// Is everything up to there behind it?
    pub(super) fn has(&self, sequence: u64) -> bool {
        self.cursor.as_ref().is_some_and(|cursor| cursor.safe >= sequence)
    }

    /// Reads a `ready`, the first or an answer to the client's own.
    pub(super) fn on_ready(&mut self, text: &[u8]) {
        let Ok(Ready { payload }) = serde_json::from_slice::<Ready<'_>>(text) else { return };
        if let (Some(stream), Some(safe)) = (payload.stream, payload.safe) {
            self.cursor = Some(Cursor { stream: stream.into(), safe });
        }
        self.announced = self.announced.take().or(match payload.resumed {
            Some(true) => Some(Ok(payload.replayed.unwrap_or_default())),
            Some(false) => Some(Err(payload.reason.unwrap_or_default().to_owned())),
            None => None,
        });
    }

    /// Looks at the envelope of an event.
    pub(super) fn on_event(&mut self, text: &[u8]) {
        let envelope = memmem::find(text, PAYLOAD).and_then(|end| text.get(..end)).unwrap_or_default();
        if memmem::find(envelope, REPLAYED).is_none() {
            self.live += 1;
        } else {
            self.replayed += 1;
            self.late += u32::from(self.live > 0);
        }
    }

    /// How it fared so far.
    pub(super) fn verdict(&self) -> Return {
        let missed = self.missed.unwrap_or_default();
        match &self.announced {
            Some(Err(reason)) if self.replayed == 0 => Return::Told(reason.clone()),
            None if self.missed.is_some() => Return::Wrong("the wish to resume was not answered".to_owned()),
            Some(Ok(announced)) if *announced != missed => Return::Wrong(format!("{announced} of {missed} were announced")),
            _ if self.replayed != missed => Return::Wrong(format!("{} of {missed} were replayed", self.replayed)),
            _ if self.late > 0 => Return::Wrong(format!("{} were replayed after something newer", self.late)),
            _ => Return::Whole,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESUMED: &[u8] = br#"{"type":"ready","payload":{"pod_id":"p","stream":"2a","safe":41,"resumed":true,"replayed":2}}"#;
    const AGAIN: &[u8] = br#"{"type":"event","seq":42,"safe":42,"replayed":true,"payload":{"event_id":"x"}}"#;
    const LIVE: &[u8] = br#"{"type":"event","seq":44,"safe":43,"payload":{"event_id":"\"replayed\":true"}}"#;

    fn after(missed: Option<u32>, ready: &[u8], events: &[&[u8]]) -> Return {
        let mut following = Following::new(missed);
        following.on_ready(ready);
        events.iter().for_each(|event| following.on_event(event));
        following.verdict()
    }

    #[test]
    fn the_place_is_what_the_last_ready_says() {
        let mut following = Following::new(None);
        following.on_ready(RESUMED);
        following.on_ready(br#"{"type":"ready","payload":{"stream":"2a","safe":50}}"#);
        // A pod that does not know it now does not take it back.
        following.on_ready(br#"{"type":"ready"}"#);
        assert_eq!(following.cursor().unwrap().query(), "2a:50");
        assert!(following.has(50) && !following.has(51));
    }

    #[test]
    fn a_replay_is_whole_with_all_that_was_missed_before_what_is_newer() {
        let wrong = |what: &str| Return::Wrong(what.to_owned());
        assert_eq!(after(Some(2), RESUMED, &[AGAIN, AGAIN, LIVE]), Return::Whole);
        assert_eq!(after(Some(2), RESUMED, &[AGAIN, LIVE, AGAIN]), wrong("1 were replayed after something newer"));
        assert_eq!(after(Some(2), RESUMED, &[AGAIN, LIVE]), wrong("1 of 2 were replayed"));
        assert_eq!(after(Some(3), RESUMED, &[AGAIN, AGAIN]), wrong("2 of 3 were announced"));
    }

    #[test]
    fn who_asks_is_answered_and_who_does_not_is_sent_nothing_again() {
        let refused = br#"{"type":"ready","payload":{"stream":"2a","safe":41,"resumed":false,"reason":"busy"}}"#;
        assert_eq!(after(Some(2), refused, &[LIVE]), Return::Told("busy".to_owned()));
        assert!(matches!(after(Some(2), refused, &[AGAIN]), Return::Wrong(_)));
        let plain = br#"{"type":"ready","payload":{"stream":"2a","safe":41}}"#;
        assert!(matches!(after(Some(2), plain, &[]), Return::Wrong(_)));
        assert_eq!(after(None, plain, &[LIVE]), Return::Whole);
        assert!(matches!(after(None, plain, &[AGAIN]), Return::Wrong(_)));
    }
}
