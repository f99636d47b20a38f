//! Who did what: lines of one shape, written at every level of logs, and dropped only when nothing else is left to drop.
//!
//! `audit=true`, `action`, `outcome`; who: `client.address`, `request.id`, `key.fingerprint`; whom it is about: `company.id`,
//! `agent.id`, `user.id`, `admin.id`; and what the action has beside, each absent where there is none. The names are those of
//! other lines, so that one search finds both. Ids of users are written as they are, e-mail addresses or not: a line that does
//! not say who is no audit.

use std::fmt;

use super::line::SESSION_LINE;

/// The target of audit lines.
pub(crate) const TARGET: &str = "daisi_ws_service::audit";
/// The outcome of what was done.
pub(super) const DONE: &str = "done";
/// The outcome of what was not.
pub(super) const REFUSED: &str = "refused";

/// What somebody did or wanted to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// To make a token.
    MakeToken,
    /// To open a socket as a user.
    ConnectUser,
    /// To open a socket as an administrator.
    ConnectAdmin,
    /// To take a session from the socket that has it.
    TakeOver,
    /// To put another configuration in force.
    ReloadConfig,
    /// To drain the pod.
    Drain,
    /// To publish an event with the command or the console.
    Publish,
}

impl Action {
    /// The name in the line.
    #[must_use]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::MakeToken => "token.make",
            Self::ConnectUser => "connect.user",
            Self::ConnectAdmin => "connect.admin",
            Self::TakeOver => "session.take_over",
            Self::ReloadConfig => "config.reload",
            Self::Drain => "pod.drain",
            Self::Publish => "event.publish",
        }
    }
}

/// Who did it.
#[derive(Clone, Copy, Default)]
pub(crate) struct Actor<'a> {
    /// Where the request came from, behind a trusted proxy what that says.
    pub address: Option<&'a (dyn fmt::Display + Sync)>,
    /// The id of the request.
    pub request: Option<&'a str>,
    /// The fingerprint of the key that was shown and is right; never the key, and nothing of a wrong one.
    pub key: Option<&'a str>,
}

impl fmt::Debug for Actor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actor").field("request", &self.request).field("key", &self.key).finish_non_exhaustive()
    }
}

/// Whom it is about.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Subject<'a> {
    /// The company it is about.
    pub company: Option<&'a str>,
    /// The agent it is about.
    pub agent: Option<&'a str>,
    /// The user it is about.
    pub user: Option<&'a str>,
    /// The admin it is about.
    pub admin: Option<&'a str>,
}

/// What a token is like, as far as it is no secret.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokenFacts<'a> {
    /// Its id, by which it can be revoked.
    pub id: Option<&'a str>,
    /// Its life in seconds.
    pub life_seconds: Option<i64>,
}

/// Why it was refused.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused<'a> {
    /// The code of the answer (`docs/protocol.md`).
    pub code: &'a str,
    /// What the client is told.
    pub message: &'a str,
}

/// One thing that somebody did, or was not let do.
#[derive(Clone, Copy)]
pub(crate) struct Audit<'a> {
    /// What was done, or asked for.
    pub action: Action,
    /// Who did it, as far as is known.
    pub actor: Actor<'a>,
    /// Whom it is about; empty where it is the pod.
    pub subject: Subject<'a>,
    /// With which token, or which one was made.
    pub token: TokenFacts<'a>,
    /// The socket that it gave.
    pub connection: Option<&'a (dyn fmt::Display + Sync)>,
    /// Names of what was changed, or whatever else the action is about.
    pub what: Option<&'a str>,
    /// Why it was refused; `None` if it was done.
    pub refused: Option<Refused<'a>>,
}

macro_rules! line {
    ($audit:expr, $message:expr, $($name:tt)*) => {{
        let Audit { action, actor, subject, token, connection, what, refused } = $audit;
        tracing::info!(
            $($name)* target: TARGET,
            audit = true,
            action = action.as_str(),
            outcome = if refused.is_some() { REFUSED } else { DONE },
            client.address = actor.address.map(tracing::field::display),
            key.fingerprint = actor.key,
            request.id = actor.request,
            company.id = subject.company,
            agent.id = subject.agent,
            user.id = subject.user,
            admin.id = subject.admin,
            connection.id = connection.map(tracing::field::display),
            token.id = token.id,
            token.life_seconds = token.life_seconds,
            what,
            error.code = refused.map(|refused| refused.code),
            error.message = refused.map(|refused| refused.message),
            "{}", $message
        );
    }};
}

impl fmt::Debug for Audit<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, actor, subject, token, what, refused, connection: _ } = self;
        f.debug_struct("Audit")
            .field("action", action)
            .field("actor", actor)
            .field("subject", subject)
            .field("token", token)
            .field("what", what)
            .field("refused", refused)
            .finish_non_exhaustive()
    }
}

impl<'a> Audit<'a> {
    /// What this actor did.
    #[must_use]
    pub(crate) fn of(action: Action, actor: Actor<'a>) -> Self {
        Self {
            action,
            actor,
            subject: Subject::default(),
            token: TokenFacts::default(),
            connection: None,
            what: None,
            refused: None,
        }
    }

    /// Writes the line. `message` is for people and says no more than the fields.
    pub(crate) fn log(self, message: &str) {
        if self.action == Action::TakeOver {
            line!(self, message, name: SESSION_LINE,);
        } else {
            line!(self, message,);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::logged, *};
    use crate::config::LogFormat;

    /// What is logged at this level, a line each.
    fn lines(level: &str, work: impl FnOnce()) -> Vec<serde_json::Value> {
        logged(level, LogFormat::Json, |_| work()).json()
    }

    /// The shape that operators' searches and alarms go by.
    #[test]
    fn an_audit_line_has_one_shape_at_every_level() {
        let address = "203.0.113.7";
        let actor = Actor { address: Some(&address), request: Some("r-1"), key: Some("9f86d081") };
        let subject = Subject { company: Some("acme"), agent: Some("a1"), user: Some("sari@example.com"), admin: None };
        let audit = Audit {
            subject,
            token: TokenFacts { id: Some("t-1"), life_seconds: Some(60) },
            ..Audit::of(Action::MakeToken, actor)
        };
        for level in ["off", "error", "trace", "daisi_ws_service=off", "daisi_ws_service::audit=off"] {
            let lines = lines(level, || {
                audit.log("made a token");
                let refused = Some(Refused { code: "BadRequest", message: "no life" });
                Audit { refused, ..audit }.log("made no token");
            });
            let [done, refused] = &lines[..] else { panic!("{level}: {lines:?}") };
            let mut names: Vec<_> = done.as_object().unwrap().keys().map(String::as_str).collect();
            names.sort_unstable();
            let wanted = [
                "action",
                "agent.id",
                "audit",
                "client.address",
                "company.id",
                "key.fingerprint",
                "level",
                "message",
                "outcome",
                "request.id",
                "target",
                "timestamp",
                "token.id",
                "token.life_seconds",
                "user.id",
            ];
            assert_eq!(names, wanted);
            for (name, value) in [
                ("action", "token.make"),
                ("outcome", "done"),
                ("client.address", address),
                ("request.id", "r-1"),
                ("key.fingerprint", "9f86d081"),
                ("company.id", "acme"),
                ("agent.id", "a1"),
                ("user.id", "sari@example.com"),
                ("token.id", "t-1"),
                ("level", "INFO"),
                ("target", "daisi_ws_service::audit"),
                ("message", "made a token"),
            ] {
                assert_eq!(done[name], value, "{name}");
            }
            assert_eq!((&done["audit"], &done["token.life_seconds"]), (&true.into(), &60.into()));
            assert_eq!((&refused["outcome"], &refused["error.code"]), (&"refused".into(), &"BadRequest".into()));
        }
    }

    #[test]
    fn only_sessions_taken_over_are_sampled_among_what_was_done() {
        let lines = lines("info", || {
            for _ in 0..super::super::sampling::FIRST_OF_SESSIONS + 100 {
                Audit::of(Action::MakeToken, Actor::default()).log("made a token");
                Audit::of(Action::TakeOver, Actor::default()).log("a session was taken over");
            }
        });
        let of = |action: Action| lines.iter().filter(|line| line["action"] == action.as_str()).count() as u32;
        let first = super::super::sampling::FIRST_OF_SESSIONS;
        assert_eq!((of(Action::MakeToken), of(Action::TakeOver)), (first + 100, first));
    }
}
