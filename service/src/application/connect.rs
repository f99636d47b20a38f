//! From claims to an admitted session.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;

use crate::domain::{claims::Claims, close::ErrorCode, frame::ErrorBody};

/// Why a session could not be had. Nothing is left behind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The pod has all the sockets it may have.
    #[error("this pod is full")]
    Full,
    /// The pod stops.
    #[error("this pod is draining")]
    Draining,
    /// The session store is away, so no exclusive session can be had.
    #[error("the session store is unavailable")]
    StoreUnavailable,
    /// Another socket took the session while this one connected.
    #[error("the session went to another connection")]
    Replaced,
}

impl ConnectError {
    /// What the client is told.
    #[must_use]
    pub fn body(&self) -> ErrorBody {
        let code = match self {
            Self::Full | Self::Draining | Self::StoreUnavailable => ErrorCode::ServiceUnavailable,
            Self::Replaced => ErrorCode::SessionConflict,
        };
        ErrorBody::new(code, self.to_string())
    }

    /// When to try again, for `Retry-After`.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Full => Some(Duration::from_secs(5)),
            Self::Draining | Self::StoreUnavailable => Some(Duration::from_secs(1)),
            Self::Replaced => None,
        }
    }
}

/// Gets sessions.
#[derive(Debug)]
pub struct Connector {}

/// A session that is locked and routed. Dropping it gives all of that back.
#[derive(Debug)]
pub struct Admission {}

impl Connector {
    /// Locks the session, evicts its old owner, registers its routes.
    ///
    /// # Errors
    /// When the session cannot be had; the error says what the client can do.
    pub async fn connect(&self, _claims: Claims, _request_id: &str) -> Result<Admission, ConnectError> {
        Err(ConnectError::Full)
    }
}

impl Admission {
    /// Sends `ready` and serves the socket until it ends.
    pub async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send>(self, _socket: WebSocketStream<S>) {}
}
