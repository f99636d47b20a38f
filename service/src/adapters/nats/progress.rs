//! How far the shared consumer is, and what it passed over: decided here from what is read of it, without a wait.
//!
//! Every pod reads for itself, once a second, and each tells its own sessions; so nobody has to be asked, and nobody has to be
//! there.

use std::time::Duration;

use async_nats::jetstream::consumer::DeliverPolicy;
use daisi_ws_domain::{
    event::StreamId,
    gap::{Gap, GapCause},
};
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::ports::SettledUpTo;

/// The description of a consumer that goes on where another one stood. It is how pods that see it for the first time know that
/// nothing was passed over.
pub(super) const CONTINUES: &str = "goes on where the consumer before it stood";

/// A server that restarts says of a consumer that it was made when its file was, a moment after it said before that it was made.
/// One that was made so soon after another had no time to stand anywhere, and is told by its counts.
const SAME_BIRTH: Duration = Duration::from_secs(1);

/// What the server says of a consumer, as far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Reading {
    /// When it was made, which is its identity, give or take [`SAME_BIRTH`].
    pub(super) created: String,
    pub(super) delivered: Place,
    pub(super) ack_floor: Place,
    pub(super) num_ack_pending: usize,
    pub(super) num_pending: u64,
    /// The server's clock; servers before 2.10 do not say.
    ts: Option<String>,
    config: Begun,
}

/// A place in the consumer's own count and in the stream.
#[derive(Debug, Clone, Copy, Deserialize)]
pub(super) struct Place {
    #[serde(rename = "consumer_seq")]
    pub(super) consumer: u64,
    #[serde(rename = "stream_seq")]
    pub(super) stream: u64,
}

/// Where a consumer began.
#[derive(Debug, Clone, Deserialize)]
struct Begun {
    deliver_policy: String,
    opt_start_seq: Option<u64>,
    description: Option<String>,
}

impl Reading {
    /// When it was read, by the server's clock, if the server says so.
    pub(super) fn at(&self) -> Option<Duration> {
        let at = OffsetDateTime::parse(self.ts.as_deref()?, &Rfc3339).ok()?;
        u64::try_from(at.unix_timestamp_nanos()).ok().map(Duration::from_nanos)
    }
}

/// Where a consumer that is to be made should begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// With what is stored next: nothing is known of one before it.
    New,
    /// After this sequence.
    After(u64),
    /// With what was stored since: its stream is another one.
    Since(Duration),
}

impl Start {
    /// As JetStream has it. A time that can't be written is none.
    pub(super) fn policy(self) -> DeliverPolicy {
        match self {
            Self::New => DeliverPolicy::New,
            Self::After(seq) => DeliverPolicy::ByStartSequence { start_sequence: seq.saturating_add(1) },
            Self::Since(at) => {
                let nanos = i128::try_from(at.as_nanos()).unwrap_or(i128::MAX);
                OffsetDateTime::from_unix_timestamp_nanos(nanos)
                    .map_or(DeliverPolicy::New, |at| DeliverPolicy::ByStartTime { start_time: at })
            }
        }
    }
}

/// What is known of the stream and its consumer.
#[derive(Debug, Default)]
pub(super) struct Progress {
    stream: Option<StreamId>,
    consumer: Option<Consumer>,
    /// Everything up to here is settled; 0 if nothing is, or it is not known what.
    floor: u64,
    /// Highest sequence that was ever delivered.
    highest: u64,
    /// When the consumer was read last, by the server's clock.
    at: Option<Duration>,
    /// What was passed over and not told yet.
    missed: Option<Gap>,
}

#[derive(Debug)]
struct Consumer {
    created: String,
    /// Its own count of deliveries, which never falls unless its state was lost.
    deliveries: u64,
}

impl Progress {
    /// Takes in which stream is there, and its last sequence.
    pub(super) fn stream(&mut self, stream: StreamId, last: u64) {
        match self.stream {
            Some(known) if known != stream => {
                self.miss(Gap::unknown(GapCause::GivenUp));
                (self.consumer, self.floor, self.highest) = (None, 0, 0);
            }
            Some(_) if last < self.highest => {
                // The server came back without its last events: who had them has them, who had not never will.
                self.miss(Gap::unknown(GapCause::GivenUp));
                (self.floor, self.highest) = (self.floor.min(last), last);
            }
            _ => {}
        }
        self.stream = Some(stream);
    }

    /// Takes in how the consumer is, and when that was by the server's clock, if anything tells.
    pub(super) fn read(&mut self, reading: &Reading, at: Option<Duration>) {
        if let Some(known) = &self.consumer
            && (reading.is_another(&known.created)
                || reading.has_begun_anew(known.deliveries, self.highest)
                || (reading.created != known.created && reading.has_jumped(known.deliveries, self.highest)))
            && let Some(begun) = reading.hole_up_to(self.floor)
        {
            let (first_seq, last_seq) = (Some(self.floor + 1), Some(begun));
            self.miss(Gap { dropped: None, first_seq, last_seq, cause: GapCause::GivenUp });
        }
        self.consumer = Some(Consumer { created: reading.created.clone(), deliveries: reading.delivered.consumer });
        self.floor = self.floor.max(reading.floor());
        self.highest = self.highest.max(reading.delivered.stream);
        self.at = at.or(self.at);
    }

    /// Where a consumer of this stream should begin, if it has to be made.
    pub(super) fn start(&self, stream: StreamId) -> Start {
        match (self.stream, self.consumer.as_ref(), self.at) {
            (Some(known), Some(_), _) if known == stream && self.floor > 0 => Start::After(self.floor),
            (Some(_), _, Some(at)) => Start::Since(at),
            _ => Start::New,
        }
    }

    /// A consumer was made here. One that does not begin after a known sequence passes over what was stored before, if anything
    /// was.
    pub(super) fn began(&mut self, start: Start) {
        let nothing_before = matches!(start, Start::Since(_)) && self.highest == 0;
        if !matches!(start, Start::After(_)) && !nothing_before {
            self.miss(Gap::unknown(GapCause::GivenUp));
        }
    }

    /// What is settled of which stream.
    pub(super) fn settled(&self) -> Option<SettledUpTo> {
        let (stream, _, at) = (self.stream?, self.consumer.as_ref()?, self.at?);
        Some(SettledUpTo { stream, seq: self.floor, at })
    }

    /// Takes what was passed over since the last time.
    pub(super) fn take_missed(&mut self) -> Option<Gap> {
        self.missed.take()
    }

    /// Notes that events were passed over.
    pub(super) fn miss(&mut self, gap: Gap) {
        self.missed = Some(self.missed.map_or(gap, |known| known.merge(gap)));
    }
}

impl Reading {
    /// Up to where all is settled. One that has delivered nothing yet says 0, and means what lies before its beginning.
    fn floor(&self) -> u64 {
        if self.delivered.consumer == 0 { self.delivered.stream } else { self.ack_floor.stream }
    }

    /// Has the server lost the state of the consumer, which had delivered so often and so far? Then its deliveries are counted
    /// from behind all that was delivered. A restart alone takes the state back by the last moments too: but of what it counts
    /// then, something lies before that place, and nothing is passed over.
    fn has_begun_anew(&self, deliveries: u64, delivered: u64) -> bool {
        let Place { consumer, stream } = self.delivered;
        consumer < deliveries && stream >= delivered.saturating_add(consumer)
    }

    /// Is it further on, without one more delivery?
    fn has_jumped(&self, deliveries: u64, delivered: u64) -> bool {
        self.delivered.consumer == deliveries && self.delivered.stream > delivered
    }

    /// Was it made at another time than the one that was made then?
    fn is_another(&self, created: &str) -> bool {
        let parse = |text| OffsetDateTime::parse(text, &Rfc3339);
        match (parse(&self.created), parse(created)) {
            (Ok(one), Ok(other)) => (one - other).unsigned_abs() >= SAME_BIRTH,
            _ => self.created != created,
        }
    }

    /// The last event that a consumer which came after another one did not begin with, if the one before it had not settled all
    /// up to there.
    fn hole_up_to(&self, floor: u64) -> Option<u64> {
        if self.config.description.as_deref() == Some(CONTINUES) {
            return None;
        }
        let begun = match self.config.deliver_policy.as_str() {
            "all" => 0,
            "by_start_sequence" => self.config.opt_start_seq.unwrap_or(0).saturating_sub(1),
            // It says where it is, not where it began: it was not further.
            _ if self.floor() > 0 => self.floor(),
            _ => self.delivered.stream.saturating_sub(1),
        };
        (begun > floor).then_some(begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: StreamId = StreamId(7);

    fn reading(created: &str, policy: &str, (deliveries, delivered, floor): (u64, u64, u64)) -> Reading {
        let text = format!(
            r#"{{"created":"{created}","delivered":{{"consumer_seq":{deliveries},"stream_seq":{delivered}}},
            "ack_floor":{{"consumer_seq":0,"stream_seq":{floor}}},"num_ack_pending":0,"num_pending":0,
            "ts":"2026-01-02T03:04:05.5Z","config":{{{policy}}}}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    const NEW: &str = r#""deliver_policy":"new""#;

    fn read(progress: &mut Progress, reading: &Reading) {
        progress.read(reading, reading.at());
    }

    fn known(floor: u64) -> Progress {
        let mut progress = Progress::default();
        progress.stream(STREAM, 100);
        read(&mut progress, &reading("a", NEW, (90, 95, floor)));
        assert_eq!(progress.take_missed(), None);
        progress
    }

    #[test]
    fn a_consumer_that_vanished_goes_on_where_it_stood() {
        assert_eq!(Progress::default().start(STREAM), Start::New);
        let mut progress = known(80);
        assert_eq!(progress.start(STREAM), Start::After(80));
        let policy = format!(r#""deliver_policy":"by_start_sequence","opt_start_seq":86,"description":"{CONTINUES}""#);
        read(&mut progress, &reading("b", &policy, (3, 88, 85)));
        assert_eq!((progress.take_missed(), progress.settled().unwrap().seq), (None, 85));
    }

    #[test]
    fn a_consumer_that_somebody_else_made_further_on_is_a_gap() {
        let gap = |policy: &str| {
            let mut progress = known(80);
            read(&mut progress, &reading("b", policy, (0, 120, 120)));
            progress.take_missed().map(|gap| (gap.first_seq.unwrap(), gap.last_seq.unwrap()))
        };
        assert_eq!(gap(NEW), Some((81, 120)));
        assert_eq!(gap(r#""deliver_policy":"by_start_sequence","opt_start_seq":100"#), Some((81, 99)));
        assert_eq!(gap(r#""deliver_policy":"by_start_sequence","opt_start_seq":81"#), None);
        assert_eq!(gap(r#""deliver_policy":"all""#), None);
    }

    #[test]
    fn a_consumer_that_settled_nothing_yet_does_not_make_the_next_one_begin_with_the_first_event() {
        let mut progress = Progress::default();
        progress.stream(STREAM, 1000);
        read(&mut progress, &reading("a", NEW, (0, 1000, 0)));
        read(&mut progress, &reading("a", NEW, (5, 1005, 0)));
        assert_eq!(progress.start(STREAM), Start::After(1000));
        let mut late = Progress::default();
        late.stream(STREAM, 1005);
        read(&mut late, &reading("a", NEW, (5, 1005, 0)));
        assert!(matches!(late.start(STREAM), Start::Since(_)));
        late.began(late.start(STREAM));
        assert_eq!(late.take_missed(), Some(Gap::unknown(GapCause::GivenUp)));
    }

    #[test]
    fn a_consumer_whose_state_was_lost_is_another_one() {
        let mut progress = known(80);
        read(&mut progress, &reading("a", NEW, (0, 130, 130)));
        assert_eq!(progress.take_missed().and_then(|gap| gap.last_seq), Some(130));
    }

    #[test]
    fn a_consumer_whose_state_was_lost_is_another_one_also_when_it_has_delivered_since() {
        let mut progress = known(80);
        read(&mut progress, &reading("a", NEW, (20, 150, 148)));
        assert_eq!(progress.take_missed().and_then(|gap| gap.last_seq), Some(148));
    }

    #[test]
    fn a_server_that_restarts_and_remembers_the_consumer_as_it_was_a_moment_before_is_no_gap() {
        // Ten deliveries are forgotten, and one that was settled since the last look is not.
        let mut progress = known(80);
        read(&mut progress, &reading("a", NEW, (80, 90, 85)));
        assert_eq!((progress.take_missed(), progress.settled().unwrap().seq), (None, 85));
        // It has gone on since: those ten again, and twenty that are new.
        let mut progress = known(80);
        read(&mut progress, &reading("a", NEW, (85, 115, 110)));
        assert_eq!(progress.take_missed(), None);
    }

    #[test]
    fn a_restarted_server_that_says_of_a_consumer_that_it_was_made_a_moment_later_is_no_gap() {
        let (before, restarted) = ("2026-11-30T06:53:05.150956768Z", "2026-11-30T06:53:05.151235893Z");
        let later = |created: &str, counts: (u64, u64, u64)| {
            let mut progress = Progress::default();
            progress.stream(STREAM, 100);
            read(&mut progress, &reading(before, NEW, (90, 95, 80)));
            read(&mut progress, &reading(created, NEW, counts));
            progress.take_missed().and_then(|gap| gap.last_seq)
        };
        assert_eq!(later(restarted, (113, 118, 118)), None);
        // Another consumer, made at once after the first: its counts are not of one that went on.
        assert_eq!(later(restarted, (0, 118, 118)), Some(118));
        assert_eq!(later(restarted, (90, 118, 118)), Some(118));
        assert_eq!(later("2026-11-30T06:53:06.2Z", (113, 118, 118)), Some(118));
    }

    #[test]
    fn progress_is_no_gap_and_the_floor_never_falls() {
        let mut progress = known(80);
        read(&mut progress, &reading("a", NEW, (200, 205, 204)));
        read(&mut progress, &reading("b", r#""deliver_policy":"all""#, (10, 10, 9)));
        assert_eq!((progress.take_missed(), progress.settled().unwrap().seq), (None, 204));
    }

    #[test]
    fn a_stream_made_anew_or_gone_back_is_a_gap_of_unknown_size() {
        let mut progress = known(80);
        progress.stream(StreamId(8), 3);
        assert_eq!(progress.take_missed(), Some(Gap::unknown(GapCause::GivenUp)));
        assert_eq!(progress.start(StreamId(8)), Start::Since(Duration::from_millis(1_767_323_045_500)));
        let mut progress = known(80);
        progress.stream(STREAM, 60);
        assert_eq!(progress.take_missed(), Some(Gap::unknown(GapCause::GivenUp)));
        assert_eq!(progress.start(STREAM), Start::After(60));
    }
}
