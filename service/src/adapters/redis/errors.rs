//! What an error of Redis means: for the caller, and for the connection that it came on.

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::ports::StoreError;

/// Which error of the store it is: whether it answered, and what can be done about it.
pub(super) fn store_error(error: RedisError) -> StoreError {
    if error.is_io_error() || error.is_timeout() {
        StoreError::unreachable(error)
    } else if is_passing(&error) || waits_for_room(&error) {
        StoreError::unready(error)
    } else if is_denied(&error) {
        StoreError::denied(error)
    } else if matches!(error.kind(), ErrorKind::Parse | ErrorKind::UnexpectedReturnType) {
        StoreError::malformed(error)
    } else {
        StoreError::refused(error)
    }
}

/// The server does not know the user, or the user may not do this. In a script it says so in the text alone, or by another code.
fn is_denied(error: &RedisError) -> bool {
    let in_script = || {
        let text = error.to_string();
        ["NOPERM", "ACL failure", "executing the script can't"].iter().any(|sign| text.contains(sign))
    };
    matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::Server(ServerErrorKind::NoPerm))
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
        || in_script()
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

/// Did the server answer on this connection, so that nothing is left over on it? A replica that was the primary before
/// (`READONLY`) answers too, but another connection may lead to the new primary.
pub(super) fn is_spent(error: &RedisError) -> bool {
    is_passing(error) || error.is_unrecoverable_error()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Chain;

    #[test]
    fn an_answer_of_redis_is_told_from_its_silence_and_keeps_its_text() {
        let said = |code: &str, text: &str| redis::make_extension_error(code.to_owned(), Some(text.to_owned()));
        let of_kind = |kind| RedisError::from((kind, "why", "so it said".to_owned()));
        for (error, kind) in [
            (std::io::Error::from(std::io::ErrorKind::ConnectionRefused).into(), "store_unreachable"),
            (std::io::Error::from(std::io::ErrorKind::TimedOut).into(), "store_unreachable"),
            (of_kind(ErrorKind::Io), "store_unreachable"),
            (of_kind(ErrorKind::Server(ServerErrorKind::ReadOnly)), "store_unready"),
            (of_kind(ErrorKind::Server(ServerErrorKind::BusyLoading)), "store_unready"),
            (said("OOM", "command not allowed when used memory > 'maxmemory'"), "store_unready"),
            (said("MISCONF", "can't save"), "store_unready"),
            (of_kind(ErrorKind::AuthenticationFailed), "store_denied"),
            (of_kind(ErrorKind::Server(ServerErrorKind::NoPerm)), "store_denied"),
            (said("WRONGPASS", "invalid username-password pair"), "store_denied"),
            (said("ERR", "ACL failure in script: no permissions"), "store_denied"),
            (said("WRONGTYPE", "Operation against a key holding the wrong kind of value"), "store_refused"),
            (of_kind(ErrorKind::UnexpectedReturnType), "store_malformed"),
        ] {
            let text = error.to_string();
            let error = store_error(error);
            assert_eq!(error.as_str(), kind, "{text}");
            assert_eq!(error.is_away(), kind == "store_unreachable", "{text}");
            assert!(Chain(&error).to_string().ends_with(&text), "{}", Chain(&error));
        }
    }
}
