//! Whether a stream and a consumer that others made can keep what is promised: decided from their configuration alone.
//!
//! What can be lived with is a warning, what can't is refused with what to change. Nothing that exists is changed.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, Config as Consumer, ReplayPolicy},
    stream::{Config as Stream, DiscardPolicy, RetentionPolicy},
};

use super::subjects::{covers, overlap};

/// Each pod has two requests out at most; a fleet has more than a few pods.
const FEW_REQUESTS: i64 = 16;

/// The kinds of subject that events have.
fn ours(prefix: &str) -> [String; 3] {
    [format!("{prefix}.*.*.chats"), format!("{prefix}.*.*.messages.>"), format!("{prefix}.*.*.agents")]
}

/// What is to be said of them.
#[derive(Debug, Default)]
struct Findings {
    refused: Vec<String>,
    warned: Vec<String>,
}

impl Findings {
    fn refuse(&mut self, unfit: bool, why: impl FnOnce() -> String) {
        if unfit {
            self.refused.push(why());
        }
    }

    fn warn(&mut self, doubtful: bool, why: impl FnOnce() -> String) {
        if doubtful {
            self.warned.push(why());
        }
    }

    /// All of our subjects must be among `given`, or some at least.
    fn subjects(&mut self, prefix: &str, given: &[&str], whose: &str, change: &str) {
        let ours = ours(prefix);
        let list = given.join(", ");
        if !ours.iter().any(|kind| given.iter().any(|subject| overlap(subject, kind))) {
            self.refused.push(format!(
                "{whose} has none of the subjects {prefix}.> (it has: {list}), so no event would ever come: {change}, or set \
                nats.subject_prefix"
            ));
        } else if !ours.iter().all(|kind| given.iter().any(|subject| covers(subject, kind))) {
            self.warned.push(format!(
                "{whose} has not all of the subjects {prefix}.> (it has: {list}): events of the others never come; {change}"
            ));
        }
    }
}

/// What to say of them as warnings.
///
/// # Errors
/// Why they can't be used, with what to change.
pub(super) fn judge(prefix: &str, stream: &Stream, consumer: &Consumer, max_payload: usize) -> Result<Vec<String>, String> {
    let mut found = Findings::default();
    judge_stream(prefix, stream, consumer, &mut found);
    judge_consumer(prefix, consumer, max_payload, &mut found);
    if found.refused.is_empty() { Ok(found.warned) } else { Err(found.refused.join("; ")) }
}

fn judge_consumer(prefix: &str, consumer: &Consumer, max_payload: usize, found: &mut Findings) {
    const ANEW: &str = "make the consumer anew without it, or set nats.consumer_name to another name";
    found.refuse(consumer.ack_policy != AckPolicy::Explicit, || {
        let policy = if consumer.ack_policy == AckPolicy::None { "none" } else { "all" };
        format!(
            "the consumer has ack policy {policy}, so an event counts as done before every pod that wants it has it: make the \
             consumer anew with ack policy explicit, or set nats.consumer_name to another name"
        )
    });
    found.refuse(consumer.headers_only, || {
        format!("the consumer delivers headers only, and no event has its content (headers_only): {ANEW}")
    });
    found.refuse(consumer.replay_policy == ReplayPolicy::Original, || {
        format!(
            "the consumer delivers at the pace of publishing, and never catches up after an outage (replay policy original): \
             {ANEW}"
        )
    });
    found.warn(consumer.max_deliver > 0, || {
        format!(
            "the consumer gives an event up after {} deliveries (max_deliver), whether a pod could bring it to anybody or not; \
             each is told as a gap to every session. Set it to -1: pods give up by themselves, later, and tell only whom it concerns",
            consumer.max_deliver
        )
    });
    found.warn(!consumer.inactive_threshold.is_zero(), || {
        format!(
            "the consumer vanishes, with what it has not delivered, when no pod asks for events for {:?} (inactive_threshold): \
            set it to 0",
            consumer.inactive_threshold
        )
    });
    found.warn(consumer.memory_storage, || {
        "the consumer's state is in memory only (mem_storage): after a restart of its server it begins anew, and may pass over \
        events"
            .to_owned()
    });
    found.warn((1..FEW_REQUESTS).contains(&consumer.max_waiting), || {
        format!(
            "the consumer takes only {} requests at a time (max_waiting), and each pod has two: raise it",
            consumer.max_waiting
        )
    });
    let too_small = usize::try_from(consumer.max_bytes).is_ok_and(|limit| limit > 0 && limit < max_payload);
    found.warn(too_small, || {
        format!(
            "a request to the consumer may bring {} bytes at most (max_bytes), and an event may have {max_payload}: a larger \
            one, and all after it, would never come; raise it",
            consumer.max_bytes
        )
    });
    let filters = filters(consumer);
    if !filters.is_empty() {
        found.subjects(prefix, &filters, "the consumer's filter", "make the consumer anew with another filter, or none");
    }
}

fn judge_stream(prefix: &str, stream: &Stream, consumer: &Consumer, found: &mut Findings) {
    found.refuse(stream.sealed, || "the stream is sealed and takes no events: set nats.stream_name to another one".to_owned());
    // A mirror or a stream with sources has the subjects of others.
    if stream.mirror.is_none() && stream.sources.as_ref().is_none_or(Vec::is_empty) {
        let subjects: Vec<&str> = stream.subjects.iter().map(String::as_str).collect();
        found.subjects(prefix, &subjects, "the stream", "add them to the stream");
    }
    found.warn(stream.retention != RetentionPolicy::Limits, || {
        "the stream keeps no event that is settled (retention is not limits): nothing can be read again from it, and without \
        its consumer it may keep none"
            .to_owned()
    });
    found.warn(stream.discard == DiscardPolicy::New, || {
        "the stream refuses new events when it is full (discard new), in place of dropping the oldest".to_owned()
    });
    found.warn(stream.max_messages_per_subject > 0, || {
        format!(
            "the stream keeps only {} events of a subject (max_msgs_per_subject): in a burst, or an outage, it drops some \
            before they are delivered, and who comes back finds no more of them",
            stream.max_messages_per_subject
        )
    });
    found.warn(!stream.allow_direct, || {
        "the stream lets only its leader be read (allow_direct is off): what clients missed is read again event by event, and \
        slower; switch it on"
            .to_owned()
    });
    found.warn(stream.no_ack, || {
        "the stream does not confirm to publishers what it has stored (no_ack): they can't know what is lost".to_owned()
    });
    let ack_wait = consumer.ack_wait.max(Duration::from_secs(1));
    found.warn(!stream.max_age.is_zero() && stream.max_age < ack_wait * 2, || {
        format!("the stream keeps events for {:?} only (max_age), which is too short to deliver one again", stream.max_age)
    });
}

fn filters(consumer: &Consumer) -> Vec<&str> {
    let several = consumer.filter_subjects.iter().map(String::as_str);
    several.chain([consumer.filter_subject.as_str()]).filter(|filter| !filter.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX_PAYLOAD: usize = 1 << 20;

    fn stream() -> Stream {
        Stream { subjects: vec!["wa.>".to_owned()], allow_direct: true, ..Default::default() }
    }

    fn consumer() -> Consumer {
        Consumer { ack_policy: AckPolicy::Explicit, max_deliver: -1, max_waiting: 512, ..Default::default() }
    }

    #[test]
    fn what_pods_make_themselves_is_fit() {
        assert_eq!(judge("wa", &stream(), &consumer(), MAX_PAYLOAD), Ok(Vec::new()));
    }

    #[test]
    fn what_breaks_a_promise_is_refused_with_what_to_change() {
        let of = |change: fn(&mut Stream, &mut Consumer)| {
            let (mut stream, mut consumer) = (stream(), consumer());
            change(&mut stream, &mut consumer);
            judge("wa", &stream, &consumer, MAX_PAYLOAD).unwrap_err()
        };
        assert!(of(|_, c| c.ack_policy = AckPolicy::None).contains("ack policy none"));
        assert!(of(|_, c| c.ack_policy = AckPolicy::All).contains("nats.consumer_name"));
        assert!(of(|_, c| c.headers_only = true).contains("headers_only"));
        assert!(of(|_, c| c.replay_policy = ReplayPolicy::Original).contains("replay policy original"));
        assert!(of(|_, c| c.filter_subject = "orders.>".to_owned()).contains("nats.subject_prefix"));
        assert!(of(|s, _| s.subjects = vec!["wax.>".to_owned()]).contains("add them to the stream"));
        assert!(of(|s, _| s.sealed = true).contains("sealed"));
    }

    #[test]
    fn what_can_be_lived_with_is_a_warning() {
        let of = |change: fn(&mut Stream, &mut Consumer)| {
            let (mut stream, mut consumer) = (stream(), consumer());
            change(&mut stream, &mut consumer);
            judge("wa", &stream, &consumer, MAX_PAYLOAD).unwrap().join("; ")
        };
        assert!(of(|_, c| c.max_deliver = 2).contains("after 2 deliveries"));
        assert!(of(|_, c| c.inactive_threshold = Duration::from_secs(9)).contains("9s"));
        assert!(of(|_, c| c.memory_storage = true).contains("mem_storage"));
        assert!(of(|_, c| c.max_waiting = 4).contains("max_waiting"));
        assert!(of(|_, c| c.max_bytes = 1000).contains("max_bytes"));
        assert!(of(|_, c| c.filter_subjects = vec!["wa.acme.>".to_owned()]).contains("the consumer's filter"));
        assert!(of(|s, _| s.subjects = vec!["wa.acme.>".to_owned()]).contains("the stream has not all"));
        assert!(of(|s, _| s.retention = RetentionPolicy::WorkQueue).contains("retention"));
        assert!(of(|s, _| s.discard = DiscardPolicy::New).contains("discard new"));
        assert!(of(|s, _| s.max_messages_per_subject = 1).contains("max_msgs_per_subject"));
        assert!(of(|s, _| s.max_age = Duration::from_secs(1)).contains("max_age"));
        assert!(of(|s, _| s.allow_direct = false).contains("allow_direct"));
        assert!(of(|s, _| s.no_ack = true).contains("no_ack"));
    }

    #[test]
    fn a_mirror_has_the_subjects_of_another_stream() {
        let mirror = Stream { mirror: Some(Default::default()), subjects: Vec::new(), ..stream() };
        assert!(judge("wa", &mirror, &consumer(), MAX_PAYLOAD).is_ok());
    }
}
