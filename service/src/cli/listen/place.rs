//! Where a client stands in the stream, by the frames that it reads.

use std::{borrow::Cow, collections::BTreeSet, time::Duration};

use daisi_ws_domain::resume::Cursor;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Sequences remembered above the cursor: many times what a gateway replays at once.
const REMEMBERED: usize = 4096;

/// The cursor, and what was read above it. A frame that comes again, after a reconnect or on a move's second socket, is known
/// by it.
#[derive(Debug, Default)]
pub(super) struct Place {
    cursor: Option<Cursor>,
    /// What was read above the floor.
    above: BTreeSet<u64>,
    /// Up to here nothing comes again. It is the cursor, but for a move: the second socket goes on from where the cursor was,
    /// and it alone says how far it has come.
    floor: u64,
    held: bool,
}

/// What a frame is to a listener.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Something to show.
    New,
    /// An event that was shown before.
    Known,
    /// The session is there; this is said of it.
    Ready(String),
    /// The answer to a question for the newest place.
    Echo,
    /// A second socket shall be opened, for this reason.
    Move {
        /// So long the first one serves.
        within: Duration,
        reason: String,
    },
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    seq: Option<u64>,
    safe: Option<u64>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

#[derive(Default, Deserialize)]
struct Standing {
    pod_id: Option<String>,
    stream: Option<String>,
    safe: Option<u64>,
    resumed: Option<bool>,
    replayed: Option<u64>,
    reason: Option<String>,
}

#[derive(Default, Deserialize)]
struct Asked {
    #[serde(default)]
    within_ms: u64,
    #[serde(default)]
    reason: String,
}

impl Place {
    /// Begins where an earlier listener ended, or nowhere.
    pub(super) fn new(cursor: Option<Cursor>) -> Self {
        Self { floor: cursor.as_ref().map_or(0, |cursor| cursor.safe), cursor, ..Self::default() }
    }

    /// Where to go on, if any gateway has said so.
    pub(super) fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }

    /// A second socket is asked for, from the cursor of now on or a later one: what is read from here on is remembered.
    pub(super) fn hold(&mut self) {
        self.held = true;
    }

    /// The second socket has the session, or there will be none.
    pub(super) fn let_go(&mut self) {
        self.held = false;
    }

    /// Takes in a frame of the socket that has the session. One that is no frame of the protocol is something to show.
    pub(super) fn take(&mut self, text: &str) -> Frame {
        let Ok(Envelope { r#type, seq, safe, payload }) = serde_json::from_str(text) else { return Frame::New };
        match &*r#type {
            "event" => self.event(seq, safe),
            "move" => {
                let Asked { within_ms, reason } = read(payload);
                Frame::Move { within: Duration::from_millis(within_ms), reason }
            }
            "ready" => {
                let standing: Standing = read(payload);
                self.stand(&standing);
                standing.pod_id.as_ref().map_or(Frame::Echo, |pod| Frame::Ready(standing.describe(pod)))
            }
            _ => Frame::New,
        }
    }

    /// Takes in a frame of a first socket while the second has the session. Only events count, and none that the second says
    /// that it has brought: it brings what is missing here too, and the cursor is its own.
    pub(super) fn beside(&mut self, text: &str) -> Frame {
        match serde_json::from_str(text) {
            Ok(Envelope { r#type, seq, .. }) if r#type == "event" && seq.is_none_or(|seq| seq > self.floor) => {
                self.event(seq, None)
            }
            _ => Frame::Known,
        }
    }

    fn event(&mut self, seq: Option<u64>, safe: Option<u64>) -> Frame {
        let known = seq.is_some_and(|seq| !self.above.insert(seq));
        if self.above.len() > REMEMBERED {
            self.above.pop_first();
        }
        self.reach(safe);
        if known { Frame::Known } else { Frame::New }
    }

    fn stand(&mut self, standing: &Standing) {
        let Standing { stream: Some(stream), safe: Some(safe), reason, .. } = standing else { return };
        let same = self.cursor.as_ref().is_some_and(|cursor| cursor.stream() == stream);
        if same && reason.as_deref() != Some("stream_changed") {
            return self.reach(Some(*safe));
        }
        if self.cursor.is_some() {
            // Made anew, so it counts from one again.
            self.above.clear();
        }
        self.cursor = Cursor::parse(&format!("{stream}:{safe}")).ok();
        self.floor = *safe;
    }

    fn reach(&mut self, safe: Option<u64>) {
        let (Some(cursor), Some(safe)) = (&mut self.cursor, safe) else { return };
        cursor.safe = cursor.safe.max(safe);
        if !self.held && safe > self.floor {
            self.floor = safe;
            self.above = self.above.split_off(&safe.saturating_add(1));
        }
    }
}

fn read<'a, T: Default + Deserialize<'a>>(payload: Option<&'a RawValue>) -> T {
    payload.and_then(|payload| serde_json::from_str(payload.get()).ok()).unwrap_or_default()
}

impl Standing {
    fn describe(&self, pod: &str) -> String {
        match (self.resumed, self.replayed, &self.reason) {
            (Some(true), Some(0), _) => format!("ready on {pod}, resumed: nothing was missed"),
            (Some(true), replayed, _) => format!("ready on {pod}, resumed: {} events follow", replayed.unwrap_or_default()),
            (_, _, Some(reason)) => format!("ready on {pod}, not resumed ({reason}): what was missed does not come"),
            _ => format!("ready on {pod}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(place: &mut Place, payload: &str) -> Frame {
        place.take(&format!(r#"{{"type":"ready","payload":{{"pod_id":"p1",{payload}}}}}"#))
    }

    fn event(place: &mut Place, seq: u64, safe: u64) -> Frame {
        place.take(&format!(r#"{{"type":"event","seq":{seq},"safe":{safe},"payload":{{"event_id":"1"}}}}"#))
    }

    fn cursor(place: &Place) -> String {
        place.cursor().map_or_else(String::new, Cursor::to_string)
    }

    #[test]
    fn the_cursor_is_the_highest_safe_of_ready_events_and_echoes() {
        let mut place = Place::new(None);
        assert_eq!(cursor(&place), "");
        ready(&mut place, r#""stream":"s1","safe":40"#);
        event(&mut place, 50, 45);
        event(&mut place, 51, 44);
        assert_eq!(cursor(&place), "s1:45");
        assert_eq!(place.take(r#"{"type":"ready","payload":{"stream":"s1","safe":60}}"#), Frame::Echo);
        assert_eq!(place.take(r#"{"type":"ready"}"#), Frame::Echo);
        assert_eq!(cursor(&place), "s1:60");
    }

    #[test]
    fn what_was_shown_above_the_cursor_is_known_when_it_comes_again() {
        let mut place = Place::new(None);
        ready(&mut place, r#""stream":"s1","safe":40"#);
        assert_eq!([event(&mut place, 42, 40), event(&mut place, 44, 40)], [Frame::New, Frame::New]);
        ready(&mut place, r#""stream":"s1","safe":40,"resumed":true,"replayed":3"#);
        let again = [event(&mut place, 42, 42), event(&mut place, 43, 43), event(&mut place, 44, 44)];
        assert_eq!(again, [Frame::Known, Frame::New, Frame::Known]);
        assert_eq!((cursor(&place).as_str(), place.above.len()), ("s1:44", 0));
    }

    #[test]
    fn another_stream_and_one_that_lost_its_end_begin_anew() {
        for changed in [r#""stream":"s2","safe":3"#, r#""stream":"s1","safe":3,"resumed":false,"reason":"stream_changed""#] {
            let mut place = Place::new(None);
            ready(&mut place, r#""stream":"s1","safe":40"#);
            event(&mut place, 41, 40);
            ready(&mut place, changed);
            assert_eq!(event(&mut place, 41, 3), Frame::New, "{changed}");
            assert!(cursor(&place).ends_with(":3"), "{changed}");
        }
    }

    #[test]
    fn what_both_sockets_of_a_move_bring_is_shown_once_whatever_their_cursors_say() {
        let mut place = Place::new(None);
        ready(&mut place, r#""stream":"s1","safe":40"#);
        assert_eq!(event(&mut place, 41, 40), Frame::New);
        let asked = place.take(r#"{"type":"move","payload":{"within_ms":15000,"reason":"drain"}}"#);
        assert_eq!(asked, Frame::Move { within: Duration::from_secs(15), reason: "drain".to_owned() });
        place.hold();
        // The first goes on, and its cursor is past what the second is to bring.
        assert_eq!([event(&mut place, 42, 41), event(&mut place, 44, 43)], [Frame::New, Frame::New]);
        assert_eq!(cursor(&place), "s1:43");
        place.let_go();
        ready(&mut place, r#""stream":"s1","safe":40,"resumed":true,"replayed":4"#);
        let second = [event(&mut place, 41, 41), event(&mut place, 42, 42), event(&mut place, 43, 43)];
        assert_eq!(second, [Frame::Known, Frame::Known, Frame::New]);
        // What the first still brings may be new, or be there by the second, and its cursor counts no more.
        let beside =
            |place: &mut Place, seq: u64| place.beside(&format!(r#"{{"type":"event","seq":{seq},"safe":60,"payload":{{}}}}"#));
        assert_eq!([43, 44, 45].map(|seq| beside(&mut place, seq)), [Frame::Known, Frame::Known, Frame::New]);
        assert_eq!(place.beside(r#"{"type":"gap","payload":{"dropped":1,"first_seq":44,"last_seq":46}}"#), Frame::Known);
        assert_eq!(cursor(&place), "s1:43");
        assert_eq!([event(&mut place, 45, 45), event(&mut place, 46, 46)], [Frame::Known, Frame::New]);
        assert_eq!((cursor(&place).as_str(), place.above.len()), ("s1:46", 0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut place = Place::new(None);
        (1..=10_000).for_each(|seq| assert_eq!(event(&mut place, seq, 0), Frame::New));
        assert_eq!(place.above.len(), REMEMBERED);
    }

    #[test]
    fn what_is_no_frame_or_has_no_place_is_shown() {
        let mut place = Place::new(None);
        for text in
            ["", "{", "[]", r#"{"type":1}"#, r#"{"type":"gap","payload":{"dropped":1}}"#, r#"{"type":"event","payload":{}}"#]
        {
            assert_eq!(place.take(text), Frame::New, "{text}");
        }
    }

    #[test]
    fn a_ready_says_what_became_of_the_wish_to_resume() {
        for (payload, expected) in [
            (r#""chat_id":"c1""#, "ready on p1"),
            (r#""resumed":true,"replayed":0"#, "ready on p1, resumed: nothing was missed"),
            (r#""resumed":true,"replayed":3"#, "ready on p1, resumed: 3 events follow"),
            (r#""resumed":false,"reason":"too_old""#, "ready on p1, not resumed (too_old): what was missed does not come"),
        ] {
            assert_eq!(ready(&mut Place::new(None), payload), Frame::Ready(expected.to_owned()));
        }
    }
}
