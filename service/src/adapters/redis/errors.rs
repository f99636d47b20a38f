//! What an error of Redis means: for the caller, and for the connection that it came on.

use std::{fmt, time::Duration};

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::ports::StoreError;

/// What the caller can do about it: try again, or call the operator.
pub(super) fn store_error(error: &RedisError) -> StoreError {
    if is_passing(error) || waits_for_room(error) {
        StoreError::Unavailable(error.to_string())
    } else {
        StoreError::Refused(error.to_string())
    }
}

pub(super) fn no_answer(timeout: Duration) -> StoreError {
    StoreError::Unavailable(format!("no answer within {timeout:?}"))
}

/// A reply of a shape that the command does not have.
pub(super) fn malformed(error: impl fmt::Display) -> StoreError {
    StoreError::Refused(format!("unexpected reply: {error}"))
}

/// Writes are refused until the server can save, copy or hold them again; the connection is as good as any.
fn waits_for_room(error: &RedisError) -> bool {
    matches!(error.code(), Some("MISCONF" | "NOREPLICAS" | "OOM"))
}

fn is_passing(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly, TryAgain};
    error.is_io_error()
        || error.is_timeout()
        || matches!(error.kind(), ErrorKind::Io | ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | ReadOnly | TryAgain))
}

/// Is the server a replica, which takes no writes?
pub(super) fn is_demoted(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// Did the server answer on this connection, so that nothing is left over on it? A replica that was the primary before (`READONLY`) answers
/// too, but another connection may lead to the new primary.
pub(super) fn is_spent(error: &RedisError) -> bool {
    is_passing(error) || error.is_unrecoverable_error()
}
