//! What the server holds against us: permissions that are missing, and why it lets nobody in.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::bind::BindError;
use crate::{config::Nats, ports::SourceError};

/// So long a missing permission speaks against the link, unless it is disproved: it is missed again with every request, and with
/// every settlement.
const COUNTS: Duration = Duration::from_secs(30);
/// How often the same is logged again.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Why the link is down, as this end sees it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(super) enum Away {
    #[error("not connected yet")]
    NotYet,
    #[error("no connection to the server")]
    NoConnection,
    #[error("the connection to the server was lost")]
    Lost,
    #[error("the server has fallen silent")]
    Silent,
    #[error("the client takes no request")]
    NoRequest,
    #[error("no answer in time")]
    NoAnswer,
    #[error("the consumer is not there")]
    NoConsumer,
}

/// The same, where the server has said something.
#[derive(Debug, thiserror::Error)]
#[error("{away}")]
struct TurnedAway {
    away: Away,
    #[source]
    said: ServerSays,
}

/// The client has nothing but its text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct ServerSays(pub(super) String);

/// A permission is missing; says what to allow.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Denied(pub(super) String);

#[derive(Debug, Default)]
struct State {
    /// What is missing, since it was missed last.
    denied: Option<(Instant, String)>,
    complained_at: Option<Instant>,
    /// Why there is no connection.
    refused: Option<String>,
}

/// What is known of it. Its lock is held for a few instructions, and never across an await.
#[derive(Debug)]
pub(super) struct Trouble {
    state: Mutex<State>,
    stream: String,
    consumer: String,
    /// What the server's answers come to, as in `_INBOX.>`.
    inbox: String,
    noted: Notify,
}

impl Trouble {
    /// None yet.
    pub(super) fn new(nats: &Nats) -> Self {
        Self {
            state: Mutex::default(),
            stream: nats.stream_name.clone(),
            consumer: nats.consumer_name.clone(),
            inbox: format!("{}.>", nats.inbox_prefix),
            noted: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The server has sent an error on a connection that stands.
    pub(super) fn error(&self, text: &str) {
        if !text.to_ascii_lowercase().contains("permissions violation") {
            return self.refused(text);
        }
        let missing = self.missing(text);
        let complain = {
            let mut state = self.lock();
            let known = state.denied.as_ref().is_some_and(|(_, known)| *known == missing.text);
            let complain = !known || state.complained_at.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY);
            if missing.vital {
                state.denied = Some((Instant::now(), missing.text.clone()));
                if complain {
                    state.complained_at = Some(Instant::now());
                }
            }
            complain
        };
        if complain {
            tracing::warn!(reason = missing.text, "the NATS user lacks a permission");
        }
        if missing.vital {
            self.noted.notify_one();
        }
    }

    /// A connection could not be made, or was ended.
    pub(super) fn refused(&self, text: &str) {
        self.lock().refused = Some(text.to_owned());
    }

    /// A request for events was answered: whatever else is missing, that is not.
    pub(super) fn answered(&self) {
        let mut state = self.lock();
        if state.denied.as_ref().is_some_and(|(_, text)| !text.contains("$JS.ACK.")) {
            state.denied = None;
        }
    }

    /// There is a connection.
    pub(super) fn connected(&self) {
        self.lock().refused = None;
    }

    /// The permission that was missed lately, and what to allow.
    pub(super) fn denied(&self) -> Option<String> {
        self.lock().denied.as_ref().filter(|(at, _)| at.elapsed() < COUNTS).map(|(_, text)| text.clone())
    }

    /// Waits until a permission is missing. Cancel-safe. For one caller at a time.
    pub(super) async fn denial(&self) -> String {
        loop {
            if let Some(denied) = self.denied() {
                return denied;
            }
            self.noted.notified().await;
        }
    }

    /// The best reason that there is for a link that is down: a permission that is missing, or this, with what the server said
    /// last.
    pub(super) fn reason(&self, away: Away) -> SourceError {
        self.denied().map_or_else(|| SourceError::unreachable(self.said(away)), |denied| SourceError::refused(Denied(denied)))
    }

    /// The same for a stream or a consumer that can't be bound.
    pub(super) fn no_binding(&self, error: BindError) -> SourceError {
        match self.denied() {
            Some(denied) => SourceError::refused(Denied(denied)),
            None if error.is_refusal() => SourceError::refused(error),
            None => SourceError::unreachable(error),
        }
    }

    /// What has to be allowed, if that is what the server complains of.
    pub(super) fn lacks(&self, text: &str) -> Option<Denied> {
        text.to_ascii_lowercase().contains("permissions violation").then(|| Denied(self.missing(text).text))
    }

    /// This, with what the server said last.
    pub(super) fn said(&self, away: Away) -> Box<dyn std::error::Error + Send + Sync> {
        match &self.lock().refused {
            Some(said) => Box::new(TurnedAway { away, said: ServerSays(said.clone()) }),
            None => Box::new(away),
        }
    }

    /// What has to be allowed, by what the server says; subjects of one delivery are those of all.
    fn missing(&self, text: &str) -> Missing {
        let Self { stream, consumer, inbox, .. } = self;
        let allow =
            |verb: &str, subject: &str| format!("the NATS user may not {verb} {subject:?}: allow it to {verb} that subject");
        let next = format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}");
        let subject = text.split('"').nth(1).unwrap_or(text);
        if subject.starts_with("$JS.ACK.") {
            return Missing { text: allow("publish to", &format!("$JS.ACK.{stream}.{consumer}.>")), vital: true };
        }
        if subject.starts_with("$JS.API.CONSUMER.MSG.NEXT.") {
            return Missing { text: allow("publish to", &next), vital: true };
        }
        if subject.starts_with(inbox.trim_end_matches('>')) {
            return Missing { text: allow("subscribe to", inbox), vital: true };
        }
        if subject.starts_with("$JS.API.") {
            return Missing { text: allow("publish to", subject), vital: true };
        }
        Missing { text: text.to_owned(), vital: false }
    }
}

/// A permission that is missing.
struct Missing {
    text: String,
    /// Without it no event comes, or none is settled.
    vital: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Chain;

    fn told(error: &SourceError) -> String {
        Chain(error).to_string()
    }

    fn trouble() -> Trouble {
        Trouble::new(&crate::config::testing::config().nats)
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_permission_is_named_by_what_to_allow_and_counts_for_a_while() {
        for (said, allow) in [
            (
                r#"nats: Permissions Violation for Publish to "$JS.ACK.wa_stream.ws_fanout.1.5.1.7.0""#,
                "$JS.ACK.wa_stream.ws_fanout.>",
            ),
            (
                r#"nats: Permissions Violation for Publish to "$JS.API.CONSUMER.MSG.NEXT.wa_stream.ws_fanout""#,
                "$JS.API.CONSUMER.MSG.NEXT.wa_stream.ws_fanout",
            ),
            (r#"nats: Permissions Violation for Subscription to "_INBOX.abc.*""#, "_INBOX.>"),
            (r#"nats: Permissions Violation for Subscription to "_INBOX_own.abc.*""#, "_INBOX_own.>"),
        ] {
            let mut nats = crate::config::testing::config().nats;
            if allow.starts_with("_INBOX_own") {
                nats.inbox_prefix = "_INBOX_own".into();
            }
            let trouble = Trouble::new(&nats);
            trouble.error(said);
            let reason = trouble.reason(Away::Silent);
            assert!(matches!(reason, SourceError::Refused(_)) && told(&reason).contains(allow), "{}", told(&reason));
            tokio::time::advance(COUNTS).await;
            assert!(told(&trouble.reason(Away::Silent)).ends_with("the server has fallen silent"));
        }
    }

    #[test]
    fn an_answer_disproves_what_was_said_about_requests_and_not_about_settlements() {
        let trouble = trouble();
        trouble.error(r#"nats: Permissions Violation for Publish to "$JS.API.CONSUMER.MSG.NEXT.wa_stream.ws_fanout""#);
        trouble.answered();
        assert_eq!(trouble.denied(), None);
        trouble.error(r#"nats: Permissions Violation for Publish to "$JS.ACK.wa_stream.ws_fanout.1.5.1.7.0""#);
        trouble.answered();
        assert!(trouble.denied().is_some());
    }

    #[test]
    fn what_events_do_not_need_speaks_against_nothing() {
        let trouble = trouble();
        trouble.error(r#"nats: Permissions Violation for Subscription to "$JS.EVENT.ADVISORY.CONSUMER.>""#);
        assert_eq!(trouble.denied(), None);
    }

    #[test]
    fn why_nobody_is_let_in_is_told_until_somebody_is() {
        let trouble = trouble();
        trouble.refused("authorization violation");
        let reason = trouble.reason(Away::NoConnection);
        assert!(matches!(reason, SourceError::Unreachable(_)));
        assert!(told(&reason).ends_with("no connection to the server: authorization violation"), "{}", told(&reason));
        trouble.connected();
        assert!(told(&trouble.reason(Away::NoConnection)).ends_with("no connection to the server"));
    }
}
