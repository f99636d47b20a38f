//! How ports fail: variants that a caller can act on, and below each the cause as the backend gave it.
//!
//! A message says one level only. Who logs an error prints all of them, with [`Chain`](crate::telemetry::Chain).

use std::{error::Error, sync::Arc, time::Duration};

use crate::metrics::labels::KeyKind;

/// What lies below an error. Shared, as one failed round trip can fail many calls.
pub(crate) type Cause = Arc<dyn Error + Send + Sync>;

fn shared(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Cause {
    Arc::from(cause.into())
}

/// The shared store (Redis) could not do it. What was asked may or may not have happened, but for refusals.
///
/// It is away ([`StoreError::is_away`]) if nothing was heard from it. All else is an answer of it: a refusal.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// No connection, or it broke.
    #[error("the session store can't be reached")]
    Unreachable(#[source] Cause),
    /// All connections were taken for this long.
    #[error("no connection to the session store was free within {0:?}")]
    NoConnection(Duration),
    /// It was asked, and said nothing for this long.
    #[error("the session store did not answer within {0:?}")]
    TimedOut(Duration),
    /// The part of this pod that asks it has ended: the pod stops.
    #[error("this pod asks the session store for nothing any more")]
    Stopped,
    /// It answers, and can't do it for now: it loads its data, is a replica, or has no room.
    #[error("the session store can't do it for now")]
    Unready(#[source] Cause),
    /// It does not let this pod in, or do this.
    #[error("the session store denies it to this pod")]
    Denied(#[source] Cause),
    /// It holds something else under the name of such a key. It concerns that key alone.
    #[error("the session store holds something else under the name of a {}", .0.as_str())]
    WrongType(KeyKind, #[source] Cause),
    /// It refused for another reason. Trying again may not help; its operator has to look.
    #[error("the session store refused")]
    Refused(#[source] Cause),
    /// What it answered is no answer to what was asked.
    #[error("the session store gave an answer that makes no sense")]
    Malformed(#[source] Cause),
}

/// Logs that the store could not do something that goes on without it, with cause and advice. Whether it is away the membership
/// says once for all: that is for `debug`. What it refuses nobody else says.
macro_rules! log_store_error {
    ($error:expr, $($rest:tt)+) => {{
        let error: &$crate::ports::StoreError = $error;
        let (cause, kind) = ($crate::telemetry::Chain(error), error.as_str());
        if error.is_away() {
            tracing::debug!(error = %cause, error.kind = kind, $($rest)+);
        } else {
            tracing::warn!(error = %cause, error.kind = kind, error.advice = error.advice(), $($rest)+);
        }
    }};
}
pub(crate) use log_store_error;

impl StoreError {
    /// [`StoreError::Unreachable`] for this reason.
    pub fn unreachable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreachable(shared(cause))
    }

    /// [`StoreError::Unready`] for this reason.
    pub(crate) fn unready(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unready(shared(cause))
    }

    /// [`StoreError::Denied`] for this reason.
    pub fn denied(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Denied(shared(cause))
    }

    /// [`StoreError::WrongType`] for this reason.
    pub(crate) fn wrong_type(key: KeyKind, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::WrongType(key, shared(cause))
    }

    /// [`StoreError::Refused`] for this reason.
    pub fn refused(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Refused(shared(cause))
    }

    /// [`StoreError::Malformed`] for this reason.
    pub(crate) fn malformed(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Malformed(shared(cause))
    }

    /// Was nothing heard from it? Otherwise it answered, and refused.
    #[must_use]
    pub fn is_away(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::NoConnection(_) | Self::TimedOut(_) | Self::Stopped => true,
            Self::Unready(_) | Self::Denied(_) | Self::WrongType(..) | Self::Refused(_) | Self::Malformed(_) => false,
        }
    }

    /// May the same call work in a moment, with nobody doing anything?
    #[must_use]
    pub fn may_pass(&self) -> bool {
        self.is_away() || matches!(self, Self::Unready(_))
    }

    /// Does it say nothing of the store, but for one key?
    #[must_use]
    pub fn is_of_one_key(&self) -> bool {
        matches!(self, Self::WrongType(..))
    }

    /// In one word, for `error.type` in logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "store_unreachable",
            Self::NoConnection(_) => "store_no_connection",
            Self::TimedOut(_) => "store_timed_out",
            Self::Stopped => "store_stopped",
            Self::Unready(_) => "store_unready",
            Self::Denied(_) => "store_denied",
            Self::WrongType(..) => "store_wrong_type",
            Self::Refused(_) => "store_refused",
            Self::Malformed(_) => "store_malformed",
        }
    }

    /// What an operator does about it.
    #[must_use]
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Unreachable(_) => "see that Redis runs, and check redis.address, TLS, credentials' files and the network",
            Self::NoConnection(_) => "see why Redis is slow; where it is not, raise redis.pool_size",
            Self::TimedOut(_) => "see why Redis or the network is slow",
            Self::Stopped => "nothing: the pod stops",
            Self::Unready(_) => {
                "see that redis.address leads to a primary with memory, a disk that it can save to, and its replicas"
            }
            Self::Denied(_) => {
                "check redis.username and redis.password, and grant the user the rights that docs/operations.md lists"
            }
            Self::WrongType(..) => "delete the key (the line with redis.key names it), and find out who wrote it",
            Self::Refused(_) | Self::Malformed(_) => "see what Redis, or a proxy before it, makes of the command",
        }
    }
}

/// The source of events could not do it now. It goes on trying by itself.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SourceError {
    /// No connection or no answer.
    #[error("the event stream can't be reached")]
    Unreachable(#[source] Cause),
    /// It answers, and refuses what events need: a permission is missing, or stream or consumer are not fit.
    #[error("the event stream refuses")]
    Refused(#[source] Cause),
    /// This end of it is closed: the pod stops.
    #[error("this pod takes no events any more")]
    Closed,
}

impl SourceError {
    /// [`SourceError::Unreachable`] for this reason.
    pub fn unreachable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreachable(shared(cause))
    }

    /// [`SourceError::Refused`] for this reason.
    pub fn refused(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Refused(shared(cause))
    }
}

/// The stream could not be read again. What was asked for may be there all the same.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReplayError {
    /// No connection or no answer in time.
    #[error("the event stream did not answer")]
    Unreachable(#[source] Cause),
    /// It answers, and can't be read by subject: a permission is missing, or there is no such stream.
    #[error("the event stream can't be read by subject")]
    Refused(#[source] Cause),
}

impl ReplayError {
    /// [`ReplayError::Unreachable`] for this reason.
    pub fn unreachable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreachable(shared(cause))
    }

    /// [`ReplayError::Refused`] for this reason.
    pub fn refused(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Refused(shared(cause))
    }
}

/// A call to a peer failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PeerError {
    /// No connection, or it broke. Nothing or everything may have arrived; sending again is safe.
    #[error("the peer is unreachable")]
    Unreachable(#[source] Cause),
    /// Another pod has its address now. As if it were unreachable.
    #[error("the peer is unreachable: another pod has its address")]
    AnotherPod,
    /// No answer in time. Sending again is safe.
    #[error("the peer did not answer in time")]
    TimedOut,
    /// It does not accept us, or does not know the call: another fleet's key, another version. It lives, and asking again will
    /// not help.
    #[error("the peer refused")]
    Refused(#[source] Cause),
    /// It answered that it could not do just this; something else in the same call may be the reason.
    #[error("the peer failed")]
    Failed(#[source] Cause),
}

impl PeerError {
    /// [`PeerError::Unreachable`] for this reason.
    pub fn unreachable(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Unreachable(shared(cause))
    }

    /// [`PeerError::Refused`] for this reason.
    pub fn refused(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Refused(shared(cause))
    }

    /// [`PeerError::Failed`] for this reason.
    pub fn failed(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(shared(cause))
    }

    /// Did it say nothing? Otherwise it lives, and answered.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::AnotherPod | Self::TimedOut => true,
            Self::Refused(_) | Self::Failed(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_the_store_is_told_from_its_silence() {
        let second = Duration::from_secs(1);
        for (error, away, passes) in [
            (StoreError::unreachable("x"), true, true),
            (StoreError::NoConnection(second), true, true),
            (StoreError::TimedOut(second), true, true),
            (StoreError::Stopped, true, true),
            (StoreError::unready("READONLY"), false, true),
            (StoreError::denied("NOPERM"), false, false),
            (StoreError::wrong_type(KeyKind::Lock, "WRONGTYPE"), false, false),
            (StoreError::refused("x"), false, false),
            (StoreError::malformed("x"), false, false),
        ] {
            assert_eq!((error.is_away(), error.may_pass()), (away, passes), "{error}");
        }
    }
}
