//! Why a session could not be had.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{
    close::{CloseReason, ErrorCode},
    frame::ErrorBody,
};

use crate::{application::hub::registry::Refusal, ports::StoreError};

/// A new session is refused when the store does not answer within this time.
pub(super) const STORE_PATIENCE: Duration = Duration::from_millis(900);

/// What of the store was missing. Clients are told the same of all of them.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Unavailable {
    /// It could not do it, or refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// This pod is not announced yet, so others would not know its routes.
    #[error("this pod has no place in the fleet yet")]
    NotInPlace,
    /// The lock ran out before it was renewed.
    #[error("the session's lock was not confirmed in time")]
    LockUnconfirmed,
    /// Many wait, and the last that asked did not get it: nobody else waits for that.
    #[error("the store was not asked again so soon")]
    NotAsked(#[source] Arc<Unavailable>),
}

impl Unavailable {
    /// Does it concern every session? What is wrong with one key does not.
    #[must_use]
    pub(crate) fn is_of_all(&self) -> bool {
        !matches!(self, Self::Store(error) if error.is_of_one_key())
    }

    /// In one word, for `error.kind` in logs.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Store(error) => error.as_str(),
            Self::NotInPlace => "not_in_place",
            Self::LockUnconfirmed => "lock_unconfirmed",
            Self::NotAsked(_) => "store_not_asked",
        }
    }

    /// What an operator does about it.
    #[must_use]
    pub(crate) fn advice(&self) -> &'static str {
        match self {
            Self::Store(error) => error.advice(),
            Self::NotAsked(before) => before.advice(),
            Self::NotInPlace | Self::LockUnconfirmed => "see what the log says of the session store, and whether it is slow",
        }
    }
}

/// Why a session could not be had. Nothing is left behind.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The pod has all the sockets it may have.
    #[error("this pod is full; try again, another pod may have room")]
    Full,
    /// The pod stops.
    #[error("this pod is draining; try again, another pod will answer")]
    Draining,
    /// More connects wait for their turn than may, or this one waited too long.
    #[error("this pod opens as many sessions as it can; try again shortly")]
    Busy,
    /// The session store is away, so no exclusive session can be had.
    #[error("the session store is unavailable; try again shortly")]
    StoreUnavailable(#[source] Unavailable),
    /// Another socket took the session while this one connected.
    #[error("the session went to another connection")]
    Replaced,
    /// The token ran out, or is not good any more, while this socket connected.
    #[error("the token has expired; connect with a new one")]
    TokenExpired,
    /// Too much was asked for.
    #[error("too many requests; slow down and try again")]
    RateLimited,
    /// A fault of ours.
    #[error("the session could not be opened; try again")]
    Internal,
}

impl ConnectError {
    /// What the client is told.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        let code = match self {
            Self::Full | Self::Draining | Self::Busy | Self::StoreUnavailable(_) => ErrorCode::ServiceUnavailable,
            Self::Replaced => ErrorCode::SessionConflict,
            Self::TokenExpired => ErrorCode::InvalidToken,
            Self::RateLimited => ErrorCode::RateLimitExceeded,
            Self::Internal => ErrorCode::InternalServerError,
        };
        ErrorBody::new(code, self.to_string())
    }

    /// What of the store was missing, if that is why.
    #[must_use]
    pub fn unavailable(&self) -> Option<&Unavailable> {
        match self {
            Self::StoreUnavailable(why) => Some(why),
            _ => None,
        }
    }

    /// Is it the pod or its store that could not, rather than the client that may not?
    #[must_use]
    pub(crate) fn is_ours(&self) -> bool {
        matches!(self, Self::Full | Self::Draining | Self::Busy | Self::StoreUnavailable(_) | Self::Internal)
    }

    /// When to try again, for `Retry-After`.
    #[must_use]
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full => Some(Duration::from_secs(5)),
            Self::Draining | Self::StoreUnavailable(_) | Self::RateLimited => Some(Duration::from_secs(1)),
            Self::Busy => Some(Duration::from_secs(2)),
            Self::Replaced | Self::TokenExpired | Self::Internal => None,
        }
    }
}

impl From<StoreError> for ConnectError {
    fn from(error: StoreError) -> Self {
        Self::StoreUnavailable(error.into())
    }
}

// What a request is answered whose session was ended before it was open.
impl From<CloseReason> for ConnectError {
    fn from(reason: CloseReason) -> Self {
        match reason {
            CloseReason::SessionReplaced | CloseReason::Moved => Self::Replaced,
            CloseReason::GoingAway => Self::Draining,
            CloseReason::LockUnconfirmed => Self::StoreUnavailable(Unavailable::LockUnconfirmed),
            CloseReason::TokenExpired => Self::TokenExpired,
            CloseReason::RateLimited => Self::RateLimited,
            // A socket is ended for these by its own task, and there is none yet.
            CloseReason::ClientClosed
            | CloseReason::ConnectionLost
            | CloseReason::MessageTooBig
            | CloseReason::ProtocolError
            | CloseReason::InvalidData
            | CloseReason::PongTimeout
            | CloseReason::SlowClient
            | CloseReason::MemoryPressure
            | CloseReason::Internal => Self::Internal,
        }
    }
}

impl From<Refusal> for ConnectError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Full,
            Refusal::Draining => Self::Draining,
        }
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_ends_a_pending_session_has_its_own_answer() {
        for (reason, status, retry) in [
            (CloseReason::SessionReplaced, 409, false),
            (CloseReason::GoingAway, 503, true),
            (CloseReason::LockUnconfirmed, 503, true),
            (CloseReason::TokenExpired, 403, false),
            (CloseReason::RateLimited, 429, true),
            (CloseReason::Internal, 500, false),
        ] {
            let error = ConnectError::from(reason);
            assert_eq!((error.body().code.http_status(), error.retry_after().is_some()), (status, retry), "{reason:?}");
        }
    }
}
