//! How many lines of one kind are written: the first of a window as they are, then one with the number of those that were left
//! out.
//!
//! A stranger's refused connects, a store that fails at every event, a peer that sends nonsense: each can make thousands of lines
//! a second, which say no more than the first ones and hide everything else. A kind is a place in the code and the reason that
//! the line names. Every line from `info` up is sampled, wherever it comes from, so that no new one is forgotten; anyone who asks
//! for `debug` or `trace` gets all of it, and the writer's bounds.

use std::{
    collections::HashMap,
    fmt,
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::{
    Event, Level, Metadata,
    callsite::Identifier,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::layer::{Context, Filter};

use super::{
    audit,
    line::{Format, SESSION_LINE},
};

/// The time in which lines of one kind are counted together.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// Lines of a kind in a window that are written as they are.
pub(super) const FIRST: u32 = 10;
/// The same for lines that tell a session's story, one when it opens and one when it closes: operators look for each. More than
/// that is a storm.
pub(super) const FIRST_OF_SESSIONS: u32 = 2000;
/// Kinds that are counted apart. Beyond, all share one.
pub(super) const MAX_KINDS: usize = 512;
/// The fields that make kinds of lines from one place.
const REASONS: [&str; 13] = [
    "action",
    "outcome",
    "error.code",
    "error.message",
    "error.kind",
    "reason",
    "why",
    "kind",
    "session.kind",
    "peer.id",
    "task",
    "redis.key",
    "panic.location",
];
/// The bytes of a message, or of all reasons of a kind, that are kept.
const MAX_TEXT: usize = 256;

/// What lines have in common: where they come from, and why. `None` for all that are too many to be told apart.
type Kind = Option<(Identifier, Box<str>)>;

#[derive(Debug)]
struct Count {
    since: Instant,
    written: u32,
    left_out: u64,
    level: Level,
    target: &'static str,
    message: Box<str>,
    /// Members of a JSON object.
    reasons: Box<[(&'static str, String)]>,
}

/// Lines of one kind that were left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    level: Level,
    target: &'static str,
    message: Box<str>,
    reasons: Box<[(&'static str, String)]>,
    pub(super) left_out: u64,
}

impl Summary {
    pub(super) fn is_audit(&self) -> bool {
        self.target == audit::TARGET
    }

    /// The line that stands for those.
    pub(super) fn line(&self, format: Format) -> String {
        let mut fields =
            vec![("log.suppressed", self.left_out.to_string()), ("log.window_seconds", WINDOW.as_secs().to_string())];
        if self.is_audit() {
            fields.push(("audit", "true".to_owned()));
        }
        fields.extend(self.reasons.iter().cloned());
        format.line(self.level, self.target, &self.message, &fields)
    }
}

/// Counts lines by kind. As a filter of a layer it lets through what is to be written.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    kinds: Mutex<HashMap<Kind, Count>>,
    left_out: AtomicU64,
}

impl Sampler {
    /// Lines that were left out so far.
    pub(super) fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }

    /// Kinds of which lines were left out in a window that is over; without a time, in any.
    pub(super) fn due(&self, now: Option<Instant>) -> Vec<Summary> {
        let mut kinds = self.lock();
        let over = |count: &Count| now.is_none_or(|now| now.duration_since(count.since) >= WINDOW);
        let due = kinds.values_mut().filter(|count| count.left_out > 0 && over(count)).map(|count| Summary {
            level: count.level,
            target: count.target,
            message: count.message.clone(),
            reasons: count.reasons.clone(),
            left_out: std::mem::take(&mut count.left_out),
        });
        due.collect()
    }

    /// Is this line to be written?
    fn admit(&self, event: &Event<'_>, now: Instant) -> bool {
        let metadata = event.metadata();
        let first = if metadata.name() == SESSION_LINE { FIRST_OF_SESSIONS } else { FIRST };
        let mut said = Said::default();
        event.record(&mut said);
        // Anyone who may do something may do it often, and each time is recorded. Sessions are taken over by thousands when a pod
        // is lost.
        if said.audit && said.done && metadata.name() != SESSION_LINE {
            return true;
        }
        let mut kinds = self.lock();
        let mut kind = Some((metadata.callsite(), said.key.as_str().into()));
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&kind) {
            kinds.retain(|_, count| count.left_out > 0 || now.duration_since(count.since) < WINDOW);
            if kinds.len() >= MAX_KINDS {
                kind = None;
            }
        }
        let count = kinds.entry(kind).or_insert_with_key(|kind| said.count(metadata, kind.is_some(), now));
        if now.duration_since(count.since) >= WINDOW {
            (count.since, count.written) = (now, 0);
        }
        if count.written < first {
            count.written += 1;
            return true;
        }
        count.left_out += 1;
        drop(kinds);
        self.left_out.fetch_add(1, Ordering::Relaxed);
        false
    }

    /// Held for moments only.
    fn lock(&self) -> MutexGuard<'_, HashMap<Kind, Count>> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets through what a sampler wants written.
#[derive(Debug, Clone)]
pub(super) struct Sampled(pub(super) Arc<Sampler>);

impl<S> Filter<S> for Sampled {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        // An event can be turned away only where it was asked for each time.
        if metadata.is_event() && *metadata.level() <= Level::INFO { Interest::sometimes() } else { Interest::always() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        *event.metadata().level() > Level::INFO || self.0.admit(event, Instant::now())
    }
}

/// What an event says of its kind.
#[derive(Default)]
struct Said {
    message: String,
    reasons: Vec<(&'static str, String)>,
    key: String,
    audit: bool,
    done: bool,
}

impl Said {
    fn count(&self, metadata: &'static Metadata<'static>, alone: bool, now: Instant) -> Count {
        let (message, reasons) = if alone {
            (self.message.as_str(), self.reasons.clone())
        } else {
            ("lines of more kinds than are counted apart", Vec::new())
        };
        Count {
            since: now,
            written: 0,
            left_out: 0,
            level: *metadata.level(),
            target: metadata.target(),
            message: message.into(),
            reasons: reasons.into(),
        }
    }

    fn note(&mut self, field: &Field, value: &dyn fmt::Display) {
        let name = field.name();
        let text = |max: usize| {
            let mut text = Bounded(String::new(), max);
            let _ = write!(text, "{value}");
            text.0
        };
        if name == "message" {
            self.message = text(MAX_TEXT);
        } else if let Some(name) = REASONS.iter().find(|reason| **reason == name) {
            let value = text(MAX_TEXT.saturating_sub(self.key.len()));
            self.done |= *name == "outcome" && value == audit::DONE;
            self.key.push_str(&value);
            self.key.push('\0');
            self.reasons.push((*name, serde_json::to_string(&value).unwrap_or_default()));
        }
    }
}

/// A text that takes no more than so many bytes.
struct Bounded(String, usize);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.1.saturating_sub(self.0.len());
        self.0.push_str(&text[..text.floor_char_boundary(room)]);
        Ok(())
    }
}

impl Visit for Said {
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.audit |= value && field.name() == "audit";
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.note(field, &value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.note(field, &format_args!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use tracing::subscriber::{DefaultGuard, set_default};
    use tracing_subscriber::{Layer as _, layer::SubscriberExt as _};

    use super::{super::tests::Lines, *};

    /// A sampler in front of lines that are kept, until the guard is dropped.
    fn sampled() -> (Arc<Sampler>, Lines, DefaultGuard) {
        let (lines, sampler) = (Lines::default(), Arc::<Sampler>::default());
        let writer = lines.clone();
        let layer = tracing_subscriber::fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let layer = layer.with_filter(Sampled(Arc::clone(&sampler)));
        (sampler, lines, set_default(tracing_subscriber::registry().with(layer)))
    }

    fn refuse(code: &str, n: usize) {
        tracing::info!(error.code = code, attempt = n, "refused");
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_of_a_kind_are_written_and_the_rest_counted() {
        let (sampler, lines, _on) = sampled();
        let started = Instant::now();
        for n in 0..20_000 {
            refuse("InvalidToken", n);
        }
        refuse("InvalidAPIKey", 0);
        assert_eq!(lines.text().lines().count(), FIRST as usize + 1, "another reason is another kind");
        assert_eq!(sampler.due(Some(started + WINDOW / 2)), []);
        tokio::time::advance(WINDOW).await;
        let due = sampler.due(Some(Instant::now()));
        let [summary] = &due[..] else { panic!("{due:?}") };
        assert_eq!((summary.left_out, sampler.left_out()), (20_000 - u64::from(FIRST), 20_000 - u64::from(FIRST)));
        let line: serde_json::Value = serde_json::from_str(&summary.line(Format::Json)).unwrap();
        assert_eq!((&line["message"], &line["error.code"]), (&"refused".into(), &"InvalidToken".into()));
        assert_eq!((&line["log.suppressed"], &line["log.window_seconds"]), (&19_990.into(), &10.into()));
        assert_eq!(sampler.due(Some(Instant::now())), [], "it is told once");
        // The next window has its first lines again.
        refuse("InvalidToken", 1);
        assert_eq!(lines.text().lines().count(), FIRST as usize + 2);
    }

    #[test]
    fn what_was_done_is_never_left_out_and_what_was_refused_is() {
        let (sampler, lines, _on) = sampled();
        for outcome in [audit::DONE, audit::REFUSED] {
            for _ in 0..100 {
                tracing::info!(target: audit::TARGET, audit = true, action = "token.make", outcome, "a token");
            }
        }
        assert_eq!((lines.text().lines().count(), sampler.left_out()), (100 + FIRST as usize, 100 - u64::from(FIRST)));
        let due = sampler.due(None);
        assert!(due[0].is_audit() && due[0].line(Format::Json).contains("\"audit\":true"));
    }

    #[test]
    fn sessions_have_room_for_each_and_whoever_asks_for_more_gets_it() {
        let (sampler, lines, _on) = sampled();
        for n in 0..FIRST_OF_SESSIONS + 1 {
            tracing::info!(name: SESSION_LINE, n, "a session is open");
        }
        assert_eq!((lines.text().lines().count() as u32, sampler.left_out()), (FIRST_OF_SESSIONS, 1));
        for _ in 0..100 {
            tracing::debug!("of interest to who asked for it");
        }
        assert_eq!((lines.text().lines().count() as u32, sampler.left_out()), (FIRST_OF_SESSIONS + 100, 1));
    }

    #[test]
    fn a_stranger_who_makes_reasons_up_makes_one_kind_of_them() {
        let (sampler, lines, _on) = sampled();
        for n in 0..10 * MAX_KINDS {
            tracing::warn!(reason = format!("{n}{}", "x".repeat(10_000)), "refused");
        }
        let kinds = sampler.lock();
        assert!(kinds.len() <= MAX_KINDS + 1, "{}", kinds.len());
        let bytes: usize = kinds.keys().flatten().map(|(_, key)| key.len()).sum();
        assert!(bytes <= (MAX_KINDS + 1) * (MAX_TEXT + REASONS.len()), "{bytes}");
        drop(kinds);
        assert_eq!(lines.text().lines().count(), MAX_KINDS + FIRST as usize);
        assert_eq!(sampler.left_out(), (9 * MAX_KINDS) as u64 - u64::from(FIRST));
        let due = sampler.due(None);
        assert!(due.iter().any(|summary| summary.message.contains("more kinds")), "{due:?}");
    }
}
