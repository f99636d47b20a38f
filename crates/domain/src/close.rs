//! Error codes, and why and with which code a socket is closed.

use serde::{Deserialize, Serialize};

crate::words! {
    /// The codes of `docs/protocol.md`, over HTTP and WebSocket alike.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
    pub enum ErrorCode {
        /// No API key, or a wrong one.
        InvalidAPIKey = "InvalidAPIKey",
        /// A token that is missing, malformed, sealed with another key, expired, or not for this path.
        InvalidToken = "InvalidToken",
        /// The session went to a newer socket.
        SessionConflict = "SessionConflict",
        /// Past a rate: of connects (429) or of a client's messages (4429).
        RateLimitExceeded = "RateLimitExceeded",
        /// Something the client sent makes no sense.
        BadRequest = "BadRequest",
        /// The routes of a session could not be registered.
        SubscriptionFailure = "SubscriptionFailure",
        /// A fault of ours: trying again later may help.
        InternalServerError = "InternalServerError",
        /// Pod full, draining, or without Redis: try again, here or elsewhere.
        ServiceUnavailable = "ServiceUnavailable",
    }
}

impl ErrorCode {
    /// The HTTP status, as `docs/protocol.md` lists it.
    #[must_use]
    pub fn http_status(self) -> u16 {
        match self {
            Self::InvalidAPIKey => 401,
            Self::InvalidToken => 403,
            Self::SessionConflict => 409,
            Self::RateLimitExceeded => 429,
            Self::BadRequest => 400,
            Self::SubscriptionFailure | Self::InternalServerError => 500,
            Self::ServiceUnavailable => 503,
        }
    }
}

crate::words! {
    /// Why a socket ended; the closed set behind the `reason` label.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
    pub enum CloseReason {
        /// The client sent a close frame first.
        ClientClosed = "client-closed",
        /// The connection broke, or the client spoke no valid WebSocket.
        ConnectionLost = "connection-lost",
        /// A newer socket has the session.
        SessionReplaced = "session-replaced",
        /// The token ran out while the socket was open.
        TokenExpired = "token-expired",
        /// The client sent more messages a second than allowed.
        RateLimited = "rate-limited",
        /// The client sent a message over the size limit.
        MessageTooBig = "message-too-big",
        /// The client broke the WebSocket protocol (RFC 6455 section 7.4.1, 1002).
        ProtocolError = "protocol-error",
        /// The client sent text that is no UTF-8, or compressed data that is none (1007).
        InvalidData = "invalid-data",
        /// Nothing was heard for the pong time-out.
        PongTimeout = "pong-timeout",
        /// The client did not take bytes for the write time-out, or its overflow is full.
        SlowClient = "slow-client",
        /// The pod held more memory than it may, and this client was among the slowest.
        MemoryPressure = "memory-pressure",
        /// The lock could not be renewed and the policy is `strict`.
        LockUnconfirmed = "lock-unconfirmed",
        /// The pod drains: the client should come back at once, to another one.
        GoingAway = "going-away",
        /// The client was asked to move, and its second socket has the session.
        Moved = "moved",
        /// A fault of ours, counted and logged where it happened.
        Internal = "internal-error",
    }
}

impl CloseReason {
    /// The close code (RFC 6455 section 7.4, and `docs/protocol.md`), or `None` where no close frame is due.
    #[must_use]
    pub fn code(self) -> Option<u16> {
        match self {
            Self::ConnectionLost => None,
            Self::ClientClosed => Some(1000),
            Self::GoingAway | Self::Moved => Some(1001),
            Self::ProtocolError => Some(1002),
            Self::InvalidData => Some(1007),
            Self::MessageTooBig => Some(1009),
            Self::Internal => Some(1011),
            Self::PongTimeout | Self::SlowClient | Self::MemoryPressure | Self::LockUnconfirmed => Some(1013),
            Self::SessionReplaced => Some(4402),
            Self::TokenExpired => Some(4403),
            Self::RateLimited => Some(4429),
        }
    }

    /// The `error` frame that goes before the close frame, where the client can do something about it.
    #[must_use]
    pub fn error(self) -> Option<(ErrorCode, &'static str)> {
        match self {
            Self::SessionReplaced => Some((ErrorCode::SessionConflict, "the session is now open elsewhere")),
            Self::TokenExpired => Some((ErrorCode::InvalidToken, "the token has expired; connect with a new one")),
            Self::RateLimited => Some((ErrorCode::RateLimitExceeded, "too many messages; slow down and reconnect")),
            Self::MessageTooBig => Some((ErrorCode::BadRequest, "the message is over the size limit")),
            Self::LockUnconfirmed => Some((ErrorCode::ServiceUnavailable, "the session can't be kept exclusive now; reconnect")),
            _ => None,
        }
    }
}
