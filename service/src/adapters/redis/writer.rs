//! Writes routes, on a connection of its own.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use redis::{RedisError, RedisResult, ScriptInvocation, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout};

use super::{
    connection::note,
    dialer::Dialer,
    errors::{is_demoted, store_error},
    lineage::Lineage,
    script::Lua,
};
use crate::{
    metrics::{Metrics, labels::RedisCommand},
    ports::StoreError,
    telemetry::Chain,
};

/// Routes in one script, which keeps everybody else waiting while it runs: some two milliseconds.
pub(super) const MAX_WRITE: usize = 1000;

/// Keys: routes. Arguments: the pod, then for each route its TTL in ms, or 0 to take the pod off it.
///
/// One script for a whole batch: each step is atomic, so no route is left without its TTL by a connection that breaks, and a
/// refresh of a thousand routes costs one command and one answer. Answers with the numbers of the routes whose keys hold
/// something else.
pub(super) static WRITE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::signed(
        "local refused = {}\n\
         for i = 1, #KEYS do\n\
           local ttl, done = ARGV[i + 1]\n\
           if ttl == '0' then\n\
             done = redis.pcall('SREM', KEYS[i], ARGV[1])\n\
           else\n\
             done = redis.pcall('SADD', KEYS[i], ARGV[1])\n\
             if type(done) == 'number' then redis.call('PEXPIRE', KEYS[i], ttl) end\n\
           end\n\
           if type(done) == 'table' then\n\
             if not string.find(done.err, 'WRONGTYPE', 1, true) then return done end\n\
             refused[#refused + 1] = i\n\
           end\n\
         end\n\
         return refused",
    )
});

/// Writes routes in the order of the calls, on one connection that is used for nothing else.
///
/// Order on one connection is free. It is lost when a connection is given up: a batch stuck in its socket could still run after
/// the batches that follow on the next one, and take away a route that was confirmed since. So a connection is dropped on any
/// error, and before the next one writes it has the server close its predecessor: after that answer nothing late can come.
pub(super) struct Writer {
    dialer: Arc<Dialer>,
    lineage: Arc<Lineage>,
    slot: Mutex<Slot>,
    metrics: Arc<Metrics>,
}

impl Writer {
    pub(super) fn new(dialer: Arc<Dialer>, lineage: Arc<Lineage>, metrics: Arc<Metrics>) -> Self {
        Self { dialer, lineage, slot: Mutex::default(), metrics }
    }

    pub(super) async fn write(&self, call: &ScriptInvocation<'_>) -> Result<Vec<usize>, StoreError> {
        let (started, within) = (Instant::now(), self.dialer.timeout());
        let written = match timeout(within, self.write_or_retry(call)).await {
            Ok(written) => written.map_err(|error| {
                if is_demoted(&error) {
                    self.lineage.demoted();
                }
                store_error(error)
            }),
            Err(_) => Err(StoreError::TimedOut(within)),
        };
        note(&self.metrics, RedisCommand::WriteRoutes, started, written.is_ok());
        written
    }

    /// A connection that broke while nobody used it is no reason to fail: the batch is written again, on a new one.
    async fn write_or_retry(&self, call: &ScriptInvocation<'_>) -> RedisResult<Vec<usize>> {
        if let Some((connection, made_at)) = self.take() {
            match self.write_on(connection, made_at, call).await {
                Err(error) if error.is_connection_dropped() => {}
                outcome => return outcome,
            }
        }
        let made_at = self.lineage.moves();
        let connection = self.reconnect().await?;
        self.write_on(connection, made_at, call).await
    }

    /// Keeps the connection only if the server answered: out of every other end (error, time-out, dropped future) it goes with
    /// this frame.
    async fn write_on(
        &self,
        mut connection: MultiplexedConnection,
        made_at: u64,
        call: &ScriptInvocation<'_>,
    ) -> RedisResult<Vec<usize>> {
        let (refused, _) = Lua::told(call, &self.lineage, &mut connection).await?;
        self.lock().connection = Some((connection, made_at));
        Ok(refused)
    }

    async fn reconnect(&self) -> RedisResult<MultiplexedConnection> {
        let mut connection = self.dialer.connect().await?;
        let before = self.lock().latest.clone();
        if let Some(Identity { id, address }) = before {
            let mut kill = redis::cmd("CLIENT");
            kill.arg("KILL").arg("ID").arg(id).arg("ADDR").arg(address);
            tolerate(kill.exec_async(&mut connection).await)?;
        }
        let mut info = redis::cmd("CLIENT");
        info.arg("INFO");
        let info = tolerate(info.query_async::<String>(&mut connection).await)?;
        self.lock().latest = info.as_deref().and_then(parse_identity);
        Ok(connection)
    }

    /// The connection that is there, unless it leads to a server that is not the one any more.
    fn take(&self) -> Option<(MultiplexedConnection, u64)> {
        let moves = self.lineage.moves();
        self.lock().connection.take().filter(|(_, made_at)| *made_at == moves)
    }

    fn lock(&self) -> MutexGuard<'_, Slot> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Slot {
    /// The connection, and how often the server had become another when it was made.
    connection: Option<(MultiplexedConnection, u64)>,
    /// The connection made last, whether it still stands or not.
    latest: Option<Identity>,
}

/// A connection as the server knows it. Ids alone start again with the server, and would name another's connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) id: String,
    pub(super) address: String,
}

/// A server that does not know or allow the command leaves us without the guard against late batches, not without routes.
fn tolerate<T>(outcome: RedisResult<T>) -> Result<Option<T>, RedisError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_io_error() || error.is_unrecoverable_error() => Err(error),
        Err(error) => {
            tracing::debug!(
                error = %Chain(&error),
                "the server does not let connections be closed by id; late route changes can't be excluded"
            );
            Ok(None)
        }
    }
}

/// From the one line of `CLIENT INFO`.
pub(super) fn parse_identity(info: &str) -> Option<Identity> {
    let field =
        |name: &str| info.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
    Some(Identity { id: field("id")?, address: field("addr")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_known_by_id_and_address() {
        let info = "id=7 addr=127.0.0.1:53412 laddr=127.0.0.1:6379 fd=8 name= db=0 user=default";
        assert_eq!(parse_identity(info), Some(Identity { id: "7".into(), address: "127.0.0.1:53412".into() }));
        assert_eq!(parse_identity("nothing"), None);
    }
}
