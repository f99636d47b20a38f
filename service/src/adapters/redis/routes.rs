//! Routes and membership. Writing has a connection of its own; everything else goes through the pool.

use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey};
use redis::{RedisError, RedisResult, ScriptInvocation, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout};

use super::{
    RedisStore,
    connection::note,
    connector::Connector,
    errors::{is_demoted, store_error},
    keys,
    lineage::Lineage,
    script::Lua,
    values::{epoch_of, milliseconds, pod_id},
};
use crate::{
    metrics::{Metrics, labels::RedisCommand},
    ports::{
        Announce, AnnounceError, Announcement, Incarnation, KeyKind, Lookup, MAX_PODS, RouteChange, Routes, Standing, StoreError,
    },
    telemetry::Chain,
};

/// Names of pods that are read in one look-up, over all its routes: some milliseconds.
const MAX_READ: usize = 8192;

/// Routes in one script, which keeps everybody else waiting while it runs: some two milliseconds.
const MAX_WRITE: usize = 1000;

/// Keys: routes. Arguments: the pod, then for each route its TTL in ms, or 0 to take the pod off it.
///
/// One script for a whole batch: each step is atomic, so no route is left without its TTL by a connection that breaks, and a refresh of a thousand routes
/// costs one command and one answer. Answers with the numbers of the routes whose keys hold something else.
static WRITE: LazyLock<Lua> = LazyLock::new(|| {
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

/// Keys: epoch, members, then routes. Arguments: the pod that asks, the most pods that a fleet has, the most that are read in all. Answers with the epoch; for each
/// pod but the asker that is on any of the routes, its name and the numbers of its routes: most routes have none, as an event nearly always has its sockets on one
/// pod, and those that do have few, so that a list for each route would be most of what it costs to write and read the answer; then the numbers of the routes whose
/// keys hold something else, and of those that were not read. What is longer than an id is none.
///
/// Of a route with more pods than any fleet has, only members count: whoever is on a route is a member first. Where those are too many as well, it is not read.
/// Asked for more random members than there are, Redis answers with all.
static LOOK_UP: LazyLock<Lua> = LazyLock::new(|| {
    Lua::signed(
        "local routes, others, refused, unread = {}, {}, {}, {}\n\
         local most, left = tonumber(ARGV[2]), tonumber(ARGV[3])\n\
         for i = 3, #KEYS do\n\
           local pods = left > 0 and redis.pcall('SRANDMEMBER', KEYS[i], most + 1)\n\
           if pods and pods.err then\n\
             if not string.find(pods.err, 'WRONGTYPE', 1, true) then return pods end\n\
             refused[#refused + 1], pods = i - 2, {}\n\
           elseif pods and #pods > most then\n\
             local members = redis.pcall('SCARD', KEYS[2])\n\
             pods = type(members) == 'number' and members <= most and redis.call('SINTER', KEYS[2], KEYS[i])\n\
           end\n\
           if not pods then unread[#unread + 1], pods = i - 2, {} end\n\
           left = left - #pods\n\
           for _, pod in ipairs(pods) do\n\
             if pod ~= ARGV[1] and #pod <= 128 then\n\
               local of_pod = routes[pod]\n\
               if not of_pod then of_pod = {} routes[pod] = of_pod end\n\
               of_pod[#of_pod + 1] = i - 2\n\
             end\n\
           end\n\
         end\n\
         for pod, of_pod in pairs(routes) do\n\
           others[#others + 1] = pod\n\
           others[#others + 1] = table.concat(of_pod, ' ')\n\
         end\n\
         local epoch = redis.pcall('GETRANGE', KEYS[1], 0, 64)\n\
         if type(epoch) ~= 'string' or epoch == '' or #epoch > 64 then epoch = false end\n\
         return {epoch, others, refused, unread}",
    )
});

#[async_trait]
impl Routes for RedisStore {
    async fn apply(&self, pod: &PodId, changes: &[RouteChange]) -> Result<Vec<usize>, StoreError> {
        let mut refused = Vec::new();
        for (number, batch) in changes.chunks(MAX_WRITE).enumerate() {
            let mut call = WRITE.single().prepare_invoke();
            call.arg(pod.as_str());
            for change in batch {
                match change {
                    RouteChange::Add { route, ttl } => call.key(keys::route(route)).arg(milliseconds(*ttl)),
                    RouteChange::Remove { route } => call.key(keys::route(route)).arg(0),
                };
            }
            call.arg(u8::from(self.lineage.may_evict()));
            for place in self.writer.write(&call).await? {
                let place = place.checked_sub(1).filter(|place| *place < batch.len());
                let place = place.ok_or_else(|| StoreError::malformed("a route that was not written"))?;
                let (RouteChange::Add { route, .. } | RouteChange::Remove { route }) = &batch[place];
                self.refusals.note(KeyKind::Route, &keys::route(route));
                refused.push(number * MAX_WRITE + place);
            }
        }
        Ok(refused)
    }

    async fn lookup(&self, me: &PodId, routes: &[RouteKey]) -> Result<Lookup, StoreError> {
        let mut call = LOOK_UP.single().key(keys::EPOCH);
        call.key(keys::PODS);
        for route in routes {
            call.key(keys::route(route));
        }
        call.arg(me.as_str()).arg(MAX_PODS).arg(MAX_READ).arg(u8::from(self.lineage.may_evict()));
        let (call, lineage) = (&call, &self.lineage);
        type Answer = (Option<Vec<u8>>, Vec<(Vec<u8>, String)>, Vec<usize>, Vec<usize>);
        let ((epoch, others, refused, unread), incarnation): (Answer, _) = self
            .commands
            .run(RedisCommand::LookUpRoutes, |mut connection| async move { Lua::told(call, lineage, &mut connection).await })
            .await?;
        let mut pods = vec![Vec::new(); routes.len()];
        for (member, numbers) in others {
            let Some(pod) = pod_id(&member) else { continue };
            for number in numbers.split(' ') {
                let place = number.parse::<usize>().ok().and_then(|number| pods.get_mut(number.checked_sub(1)?));
                place.ok_or_else(|| StoreError::malformed("a route that was not asked about"))?.push(pod.clone());
            }
        }
        let places = |numbers: Vec<usize>| {
            let places: Option<Vec<usize>> =
                numbers.into_iter().map(|number| number.checked_sub(1).filter(|place| *place < routes.len())).collect();
            places.ok_or_else(|| StoreError::malformed("a route that was not asked about"))
        };
        let (refused, unread) = (places(refused)?, places(unread)?);
        refused.iter().for_each(|place| self.refusals.note(KeyKind::Route, &keys::route(&routes[*place])));
        Ok(Lookup { incarnation, epoch: epoch.map(|epoch| epoch_of(&epoch)), pods, refused, unread })
    }

    async fn resolve(&self, pods: &[(PodId, Vec<RouteKey>)], prune: bool) -> Result<(Incarnation, Vec<Standing>), StoreError> {
        self.resolve_pods(pods, prune).await
    }

    async fn announce(&self, call: Announce<'_>) -> Result<Announcement, AnnounceError> {
        self.announce_pod(call).await
    }

    async fn retire(&self, pods: &[PodId]) -> Result<Vec<bool>, StoreError> {
        self.retire_pods(pods).await
    }

    async fn leave(&self, me: &PodRecord) -> Result<(), StoreError> {
        self.say_goodbye(me).await
    }

    async fn pass_over(&self, pod: &PodId) -> Result<(), StoreError> {
        self.count_passed_over(pod).await
    }
}

// === the writer ===

/// Writes routes in the order of the calls, on one connection that is used for nothing else.
///
/// Order on one connection is free. It is lost when a connection is given up: a batch stuck in its socket could still run after the batches
/// that follow on the next one, and take away a route that was confirmed since. So a connection is dropped on any error, and before the next
/// one writes it has the server close its predecessor: after that answer nothing late can come.
pub(super) struct Writer {
    connector: Arc<Connector>,
    lineage: Arc<Lineage>,
    slot: Mutex<Slot>,
    metrics: Arc<Metrics>,
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
struct Identity {
    id: String,
    address: String,
}

impl Writer {
    pub(super) fn new(connector: Arc<Connector>, lineage: Arc<Lineage>, metrics: Arc<Metrics>) -> Self {
        Self { connector, lineage, slot: Mutex::default(), metrics }
    }

    async fn write(&self, call: &ScriptInvocation<'_>) -> Result<Vec<usize>, StoreError> {
        let (started, within) = (Instant::now(), self.connector.timeout());
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

    /// Keeps the connection only if the server answered: out of every other end (error, time-out, dropped future) it goes with this frame.
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
        let mut connection = self.connector.connect().await?;
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

/// A server that does not know or allow the command leaves us without the guard against late batches, not without routes.
fn tolerate<T>(outcome: RedisResult<T>) -> Result<Option<T>, RedisError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_io_error() || error.is_unrecoverable_error() => Err(error),
        Err(error) => {
            tracing::debug!(error = %Chain(&error), "the server does not let connections be closed by id; late route changes can't be excluded");
            Ok(None)
        }
    }
}

/// From the one line of `CLIENT INFO`.
fn parse_identity(info: &str) -> Option<Identity> {
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
