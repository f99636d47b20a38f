//! What ends a socket by the client's doing.

use crate::deflate::InflateError;

/// What a client did that ends its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Against the rules of the protocol: close code 1002.
    #[error("the client breaks the protocol: {0}")]
    Violation(&'static str),
    /// Text that is no UTF-8, or compressed data that is none: close code 1007.
    #[error("the client sent data that is not what it says it is")]
    Invalid,
    /// More than the limit, compressed or not: close code 1009.
    #[error("the client's message is longer than allowed")]
    TooBig,
    /// More messages, frames or bytes than it may send in the time: close code 4429.
    #[error("the client sends more than it may")]
    TooMuch,
}

impl ProtocolError {
    /// The close code for it.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Violation(_) => 1002,
            Self::Invalid => 1007,
            Self::TooBig => 1009,
            Self::TooMuch => 4429,
        }
    }
}

impl From<InflateError> for ProtocolError {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::Invalid => Self::Invalid,
            InflateError::TooBig => Self::TooBig,
        }
    }
}
