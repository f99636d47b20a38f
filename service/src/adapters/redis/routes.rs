//! Routes and membership. Writing has a connection of its own; everything else goes through the pool.

use std::{
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use redis::{RedisError, RedisResult, ScriptInvocation, aio::MultiplexedConnection};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout};

use super::{
    RedisStore,
    connection::{is_demoted, malformed, no_answer, note, store_error},
    connector::Connector,
    keys,
    lineage::Lineage,
    locks::milliseconds,
    script::Lua,
};
use crate::{
    application::ports::{Announcement, Epoch, Lookup, RouteChange, Routes, StoreError},
    domain::{ids::PodId, peer::PodRecord, route::RouteKey},
    metrics::Metrics,
};

/// How long a pod's retirements are counted: longer than any pod stays frozen.
const RETIREMENTS_TTL: Duration = Duration::from_secs(7 * 86_400);

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

/// Keys: epoch, then routes. Arguments: the pod that asks. Answers with the epoch, and for each pod but the asker that is on any of them, its name and the numbers of
/// its routes: most routes have none, as an event nearly always has its sockets on one pod, and those that do have few. A list for each route would be most of
/// what it costs to write and read the answer. Then the numbers of the routes whose keys hold something else. What is longer than an id is none.
static LOOK_UP: LazyLock<Lua> = LazyLock::new(|| {
    Lua::signed(
        "local routes, others, refused = {}, {}, {}\n\
         for i = 2, #KEYS do\n\
           local pods = redis.pcall('SMEMBERS', KEYS[i])\n\
           if pods.err then\n\
             if not string.find(pods.err, 'WRONGTYPE', 1, true) then return pods end\n\
             refused[#refused + 1], pods = i - 1, {}\n\
           end\n\
           for _, pod in ipairs(pods) do\n\
             if pod ~= ARGV[1] and #pod <= 128 then\n\
               local of_pod = routes[pod]\n\
               if not of_pod then of_pod = {} routes[pod] = of_pod end\n\
               of_pod[#of_pod + 1] = i - 1\n\
             end\n\
           end\n\
         end\n\
         for pod, of_pod in pairs(routes) do\n\
           others[#others + 1] = pod\n\
           others[#others + 1] = table.concat(of_pod, ' ')\n\
         end\n\
         local epoch = redis.pcall('GET', KEYS[1])\n\
         if type(epoch) ~= 'string' or #epoch > 64 then epoch = false end\n\
         return {epoch, others, refused}",
    )
});

/// Keys: the pod's liveness, then routes. Arguments: the pod.
static PRUNE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end\n\
         for i = 2, #KEYS do redis.pcall('SREM', KEYS[i], ARGV[1]) end\n\
         return 1",
    )
});

/// Keys: the pod's liveness, members, epoch, the pod's retirements. Arguments: record, TTL in ms, the pod, an epoch in case there is none.
///
/// These keys belong to nobody's session, and without them there is no fleet: one that holds something else is made anew, and named in the answer. Every other
/// pod is a member again with its next announcement, and a new epoch has everybody doubt the routes meanwhile. A count that is none is 0.
static ANNOUNCE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::signed(
        "local alive = redis.call('EXISTS', KEYS[1])\n\
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n\
         local mended, created = {}, 0\n\
         local joined = redis.pcall('SADD', KEYS[2], ARGV[3])\n\
         if type(joined) == 'table' then\n\
           if not string.find(joined.err, 'WRONGTYPE', 1, true) then return joined end\n\
           redis.call('DEL', KEYS[2])\n\
           joined = redis.call('SADD', KEYS[2], ARGV[3])\n\
           mended[1] = KEYS[2]\n\
         end\n\
         local epoch = redis.pcall('GET', KEYS[3])\n\
         if type(epoch) ~= 'string' or #epoch > 64 then\n\
           if epoch then mended[#mended + 1] = KEYS[3] end\n\
           redis.call('SET', KEYS[3], ARGV[4])\n\
           epoch, created = ARGV[4], 1\n\
         end\n\
         local retired = redis.pcall('GET', KEYS[4])\n\
         retired = type(retired) == 'string' and tonumber(retired) or 0\n\
         if not (retired >= 0 and retired < 2 ^ 53) then retired = 0 end\n\
         return {alive - joined, created, retired, epoch, redis.call('SMEMBERS', KEYS[2]), mended}",
    )
});

/// Keys: the pod's liveness, members, the pod's retirements. Arguments: the pod, `1` to spare a live one, TTL of the count in ms, a count that the pod has
/// hardly seen, in case what is there is none.
static RETIRE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "if ARGV[2] == '1' and redis.call('EXISTS', KEYS[1]) == 1 then return 0 end\n\
         redis.call('DEL', KEYS[1])\n\
         if ARGV[2] == '1' then\n\
           local count = redis.pcall('INCR', KEYS[3])\n\
           if type(count) == 'table' or count < 1 or count >= 2 ^ 53 then redis.call('SET', KEYS[3], ARGV[4]) end\n\
           redis.call('PEXPIRE', KEYS[3], ARGV[3])\n\
         end\n\
         redis.pcall('SREM', KEYS[2], ARGV[1])\n\
         return 1",
    )
});

/// Keys: the pod's retirements. Arguments: TTL of the count in ms.
static PASS_OVER: LazyLock<Lua> =
    LazyLock::new(|| Lua::new("redis.call('INCR', KEYS[1])\nreturn redis.call('PEXPIRE', KEYS[1], ARGV[1])"));

/// Value of a liveness key.
#[derive(Serialize, Deserialize)]
struct Record {
    address: String,
    started_at_ms: u64,
}

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
                let place = place.ok_or_else(|| malformed("a route that was not written"))?;
                let (RouteChange::Add { route, .. } | RouteChange::Remove { route }) = &batch[place];
                self.refusals.note("route", &keys::route(route));
                refused.push(number * MAX_WRITE + place);
            }
        }
        Ok(refused)
    }

    async fn lookup(&self, me: &PodId, routes: &[RouteKey]) -> Result<Lookup, StoreError> {
        let mut call = LOOK_UP.single().key(keys::EPOCH);
        for route in routes {
            call.key(keys::route(route));
        }
        call.arg(me.as_str()).arg(u8::from(self.lineage.may_evict()));
        let (call, lineage) = (&call, &self.lineage);
        type Answer = (Option<Vec<u8>>, Vec<(Vec<u8>, String)>, Vec<usize>);
        let ((epoch, others, refused), incarnation): (Answer, _) = self
            .commands
            .run("look_up_routes", |mut connection| async move { Lua::told(call, lineage, &mut connection).await })
            .await?;
        let mut pods = vec![Vec::new(); routes.len()];
        for (member, numbers) in others {
            let Some(pod) = pod_id(&member) else { continue };
            for number in numbers.split(' ') {
                let place = number.parse::<usize>().ok().and_then(|number| pods.get_mut(number.checked_sub(1)?));
                place.ok_or_else(|| malformed("a route that was not asked about"))?.push(pod.clone());
            }
        }
        let refused: Option<Vec<usize>> =
            refused.into_iter().map(|number| number.checked_sub(1).filter(|place| *place < routes.len())).collect();
        let refused = refused.ok_or_else(|| malformed("a route that was not asked about"))?;
        refused.iter().for_each(|place| self.refusals.note("route", &keys::route(&routes[*place])));
        Ok(Lookup { incarnation, epoch: epoch.map(|epoch| epoch_of(&epoch)), pods, refused })
    }

    async fn prune(&self, dead: &PodId, routes: &[RouteKey]) -> Result<(), StoreError> {
        let mut call = PRUNE.single().key(keys::pod(dead));
        for route in routes {
            call.key(keys::route(route));
        }
        call.arg(dead.as_str());
        let call = &call;
        self.commands.run("prune_routes", |mut connection| async move { call.invoke_async::<()>(&mut connection).await }).await
    }

    async fn announce(&self, me: &PodRecord, ttl: Duration) -> Result<Announcement, StoreError> {
        let asked = Instant::now();
        let record = Record { address: me.address.clone(), started_at_ms: milliseconds_since_epoch(me.started_at) };
        let record = serde_json::to_string(&record).map_err(|error| StoreError::Refused(error.to_string()))?;
        let mut call = ANNOUNCE.single().key(keys::pod(&me.id));
        call.key(keys::PODS).key(keys::EPOCH).key(keys::retirements(&me.id));
        call.arg(record).arg(milliseconds(ttl)).arg(me.id.as_str()).arg(format!("{:032x}", rand::random::<u128>()));
        call.arg(u8::from(self.lineage.may_evict()));
        let (call, lineage) = (&call, &self.lineage);
        type Answer = (i8, u8, u64, Vec<u8>, Vec<Vec<u8>>, Vec<String>);
        let ((present, created, retirements, epoch, members, mended), incarnation): (Answer, _) = self
            .commands
            .run("announce_pod", |mut connection| async move { Lua::told(call, lineage, &mut connection).await })
            .await?;

        for key in mended {
            self.refusals.note("fleet", &key);
        }
        let members = pod_ids(&members);
        let mut records = redis::cmd("MGET");
        records.arg(members.iter().map(keys::pod).collect::<Vec<_>>());
        let records = &records;
        let records: Vec<Option<Vec<u8>>> =
            self.commands.run("read_pods", |mut connection| async move { records.query_async(&mut connection).await }).await?;

        let was_present = self.presence.confirm(&me.id, asked, ttl) && present == 1;
        let (mut pods, mut lapsed) = (Vec::new(), Vec::new());
        for (id, record) in members.into_iter().zip(records) {
            // A record that can't be read has no address, and yet the pod may live: as one whose key has lapsed.
            match record.and_then(|record| parse_record(&id, &record)) {
                Some(record) => pods.push(record),
                None => lapsed.push(id),
            }
        }
        Ok(Announcement {
            incarnation,
            was_present,
            retirements,
            epoch: epoch_of(&epoch),
            epoch_created: created == 1,
            pods,
            lapsed,
        })
    }

    async fn retire(&self, pod: &PodId, only_if_lapsed: bool) -> Result<(), StoreError> {
        let mut call = RETIRE.single().key(keys::pod(pod));
        call.key(keys::PODS).key(keys::retirements(pod));
        call.arg(pod.as_str()).arg(u8::from(only_if_lapsed)).arg(milliseconds(RETIREMENTS_TTL)).arg(rand::random::<u32>());
        let call = &call;
        self.commands.run("retire_pod", |mut connection| async move { call.invoke_async::<()>(&mut connection).await }).await
    }

    async fn pass_over(&self, pod: &PodId) -> Result<(), StoreError> {
        let mut call = PASS_OVER.single().key(keys::retirements(pod));
        call.arg(milliseconds(RETIREMENTS_TTL));
        let call = &call;
        self.commands.run("retire_pod", |mut connection| async move { call.invoke_async::<()>(&mut connection).await }).await
    }
}

/// Members that are no pod id are skipped: none of the fleet wrote them.
fn pod_ids(members: &[Vec<u8>]) -> Vec<PodId> {
    members.iter().filter_map(|member| pod_id(member)).collect()
}

fn pod_id(member: &[u8]) -> Option<PodId> {
    PodId::parse(std::str::from_utf8(member).ok()?).ok()
}

/// Whatever bytes it is, it stays the same for as long as the data does.
fn epoch_of(bytes: &[u8]) -> Epoch {
    Epoch(String::from_utf8_lossy(bytes).into_owned())
}

fn parse_record(id: &PodId, record: &[u8]) -> Option<PodRecord> {
    let record: Record = serde_json::from_slice(record).ok()?;
    Some(PodRecord { id: id.clone(), address: record.address, started_at: Duration::from_millis(record.started_at_ms) })
}

fn milliseconds_since_epoch(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

// === presence ===

/// When this pod was last known to be announced.
///
/// Redis alone can't say whether the pod was there all the time: an announcement that timed out here may have been carried out there, after
/// the key had lapsed, and then the next one finds the key. So a pod whose last *confirmed* announcement is older than its TTL was not there.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<Option<(PodId, Instant)>>);

impl Presence {
    /// Notes an announcement asked at `asked`; could the one before have lasted until then?
    fn confirm(&self, pod: &PodId, asked: Instant, ttl: Duration) -> bool {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace((pod.clone(), asked));
        before.is_some_and(|(before, at)| before == *pod && asked.duration_since(at) < ttl)
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
                store_error(&error)
            }),
            Err(_) => Err(no_answer(within)),
        };
        note(&self.metrics, "write_routes", started, written.is_ok());
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
            tracing::debug!(%error, "the server does not let connections be closed by id; late route changes can't be excluded");
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

    #[tokio::test(start_paused = true)]
    async fn a_pod_not_confirmed_within_its_ttl_was_not_there() {
        let (presence, pod, ttl) = (Presence::default(), PodId::parse("pod-a").unwrap(), Duration::from_secs(5));
        let start = Instant::now();
        assert!(!presence.confirm(&pod, start, ttl), "the first time");
        assert!(presence.confirm(&pod, start + ttl / 2, ttl));
        assert!(!presence.confirm(&pod, start + ttl * 2, ttl));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_skipped() {
        let id = PodId::parse("pod-a").unwrap();
        assert_eq!(parse_record(&id, b"{}"), None);
        let record = parse_record(&id, br#"{"address":"10.0.0.1:50051","started_at_ms":1500,"later":true}"#);
        assert_eq!(record, Some(PodRecord { id, address: "10.0.0.1:50051".into(), started_at: Duration::from_millis(1500) }));
    }
}
