//! How a call of a peer fails.

use std::{error::Error as _, fmt};

use tonic::{Code, Status, TimeoutExpired};

use crate::ports::PeerError;

/// The longest text of a peer that goes into an error, in characters.
const MAX_ERROR_CHARS: usize = 200;

/// What a status means to the caller.
///
/// A status that was made here has the transport's error as its source; one that the peer sent has none. Its text is the peer's
/// own and cut.
pub(super) fn peer_error(status: &Status) -> PeerError {
    if std::iter::successors(status.source(), |error| (*error).source()).any(|error| error.is::<TimeoutExpired>()) {
        return PeerError::TimedOut;
    }
    let said = || Said { code: status.code(), text: status.message().chars().take(MAX_ERROR_CHARS).collect() };
    match status.code() {
        Code::DeadlineExceeded => PeerError::TimedOut,
        _ if status.source().is_some() => PeerError::unreachable(Transport(status.clone())),
        // Another pod answers at its address, or it is about to serve.
        Code::NotFound | Code::Unavailable | Code::Cancelled => PeerError::unreachable(said()),
        Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented => PeerError::refused(said()),
        _ => PeerError::failed(said()),
    }
}

/// What a peer said instead of an answer.
#[derive(Debug, thiserror::Error)]
#[error("{code:?}: {text}")]
struct Said {
    code: Code,
    text: String,
}

/// What became of a call that no peer answered: below it is the transport's error.
#[derive(Debug)]
struct Transport(Status);

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.code())
    }
}

impl std::error::Error for Transport {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}

/// Its address can't be dialled.
#[derive(Debug, thiserror::Error)]
#[error("{address:?} is no address")]
pub(super) struct NoAddress {
    pub(super) address: String,
    pub(super) source: tonic::transport::Error,
}

/// What is odd about a peer's answer.
#[derive(Debug, Clone, Copy, thiserror::Error)]
pub(super) enum Odd {
    #[error("its clock differs from ours; the next call is of its time")]
    Clock,
    #[error("it can't read {events} of {of} events")]
    CannotRead { events: usize, of: usize },
    #[error("it answered {answers} of {questions} questions")]
    Answers { answers: usize, questions: usize },
    #[error("it does not know the question")]
    Unknown,
    #[error("it does not serve")]
    NotServing,
}
