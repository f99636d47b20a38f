//! Membership: who is there, under which record, and what became of those who are not.

use std::{collections::HashSet, sync::LazyLock, time::Duration};

use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey};
use tokio::time::Instant;

use super::{
    RedisStore, keys,
    script::Lua,
    values::{epoch_of, milliseconds, pod_id, time_of},
};
use crate::{
    metrics::labels::RedisCommand,
    ports::{
        Announce, AnnounceError, Announcement, Goodbye, IdTaken, Incarnation, KeyKind, MAX_PODS, PASSED_OVER, Standing,
        StoreError,
    },
};

/// How long a pod's retirements are counted: longer than any pod stays frozen.
const RETIREMENTS_TTL: Duration = Duration::from_secs(7 * 86_400);

/// How long it is remembered that a pod has left: longer than any other pod is without the store for a blip.
const LEFT_TTL: Duration = Duration::from_secs(60);

// No script here reads more of a value than a record can have, and one byte: somebody may have put a hundred megabytes there,
// which every pod would be sent again and again. What is longer is no record (`Records`). A key that is not there reads as an
// empty value, and an empty value is worth no more.

/// Pods in one script that asks about them: some two milliseconds.
const MAX_RESOLVED: usize = 256;

/// Keys: members, then for each pod its liveness, its retirements, its goodbye and its routes. Arguments: `1` to take those that
/// are gone out of their routes; then for each pod its name and how many routes it has. Answers for each with a number and its
/// record.
static RESOLVE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::signed(
        "local standings, at = {}, 2\n\
         for i = 2, #ARGV - 1, 2 do\n\
           local pod, routes = ARGV[i], tonumber(ARGV[i + 1])\n\
           local record = redis.pcall('GETRANGE', KEYS[at], 0, 1024)\n\
           if type(record) == 'string' and record ~= '' then\n\
             standings[#standings + 1] = {1, record}\n\
           elseif type(record) == 'table' or redis.pcall('SISMEMBER', KEYS[1], pod) ~= 0 then\n\
             standings[#standings + 1] = {2, ''}\n\
           elseif ARGV[1] == '1' and redis.call('EXISTS', KEYS[at + 1], KEYS[at + 2]) > 0 then\n\
             for route = at + 3, at + 2 + routes do redis.pcall('SREM', KEYS[route], pod) end\n\
             standings[#standings + 1] = {3, ''}\n\
           else\n\
             standings[#standings + 1] = {4, ''}\n\
           end\n\
           at = at + 3 + routes\n\
         end\n\
         return standings",
    )
});

/// Keys: the pod's liveness, members, epoch, the pod's retirements, its goodbye. Arguments: record, TTL in ms, the pod, an epoch
/// in case there is none, the record that may be overwritten, the most pods that a fleet has. Answers with whether the pod was
/// there, whether the epoch was made, its retirements, the epoch, how many members there are, members, and what was mended; or
/// with the record of another process under its name and what is left of that one's life.
///
/// A record without an end was written by no pod, and no pod will renew it: it is overwritten. The other keys belong to nobody's
/// session, and without them there is no fleet: one that holds something else is made anew, and named in the answer. Every other
/// pod is a member again with its next announcement, and a new epoch has everybody doubt the routes meanwhile. A count that is
/// none is 0.
static ANNOUNCE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::signed(
        "local held = redis.pcall('GETRANGE', KEYS[1], 0, 1024)\n\
         if type(held) == 'string' and held ~= '' and held ~= ARGV[1] and held ~= ARGV[5] then\n\
           local left = redis.call('PTTL', KEYS[1])\n\
           if left >= 0 then return {-1, left, 0, held, 0, {}, {}} end\n\
         end\n\
         redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])\n\
         redis.call('DEL', KEYS[5])\n\
         local mended, created = {}, 0\n\
         local joined = redis.pcall('SADD', KEYS[2], ARGV[3])\n\
         if type(joined) == 'table' then\n\
           if not string.find(joined.err, 'WRONGTYPE', 1, true) then return joined end\n\
           redis.call('DEL', KEYS[2])\n\
           joined = redis.call('SADD', KEYS[2], ARGV[3])\n\
           mended[1] = KEYS[2]\n\
         end\n\
         local epoch = redis.pcall('GETRANGE', KEYS[3], 0, 64)\n\
         if type(epoch) ~= 'string' or epoch == '' or #epoch > 64 then\n\
           if epoch ~= '' then mended[#mended + 1] = KEYS[3] end\n\
           redis.call('SET', KEYS[3], ARGV[4])\n\
           epoch, created = ARGV[4], 1\n\
         end\n\
         local retired = redis.pcall('GETRANGE', KEYS[4], 0, 32)\n\
         retired = type(retired) == 'string' and tonumber(retired) or 0\n\
         if not (retired >= 0 and retired < 2 ^ 53) then retired = 0 end\n\
         local members, most = redis.call('SCARD', KEYS[2]), tonumber(ARGV[6])\n\
         local read = members <= most and redis.call('SMEMBERS', KEYS[2]) or redis.call('SRANDMEMBER', KEYS[2], most)\n\
         local present = held == ARGV[1] and joined == 0 and 1 or 0\n\
         return {present, created, retired, epoch, members, read, mended}",
    )
});

/// Keys: what is read. Answers with each value, or with nothing for one that is not there, is empty or no string.
static READ: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local values = {}\n\
         for i = 1, #KEYS do\n\
           local value = redis.pcall('GETRANGE', KEYS[i], 0, 1024)\n\
           values[i] = type(value) == 'string' and value ~= '' and value\n\
         end\n\
         return values",
    )
});

/// Keys: members, then for each pod its liveness and its retirements. Arguments: TTL of the count in ms, a count that a pod has
/// hardly seen, in case what is there is none, then the pods. Answers for each: was it without a key?
static RETIRE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local retired = {}\n\
         for i = 3, #ARGV do\n\
           local at = 2 * i - 4\n\
           retired[i - 2] = 1 - redis.call('EXISTS', KEYS[at])\n\
           if retired[i - 2] == 1 then\n\
             local count = redis.pcall('INCR', KEYS[at + 1])\n\
             if type(count) == 'table' or count < 1 or count >= 2 ^ 53 then redis.call('SET', KEYS[at + 1], ARGV[2]) end\n\
             redis.call('PEXPIRE', KEYS[at + 1], ARGV[1])\n\
             redis.pcall('SREM', KEYS[1], ARGV[i])\n\
           end\n\
         end\n\
         return retired",
    )
});

/// Keys: the pod's retirements. Arguments: TTL of the count in ms, a count that the pod has hardly seen, in case what is there is
/// none, and by how much it goes up.
static PASS_OVER: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local count = redis.pcall('GETRANGE', KEYS[1], 0, 32)\n\
         if type(count) == 'table' then redis.call('DEL', KEYS[1]) end\n\
         count = type(count) == 'string' and (count == '' and 0 or tonumber(count))\n\
         count = count and count >= 0 and count + ARGV[3]\n\
         if not count or count >= 2 ^ 53 then count = ARGV[2] end\n\
         return redis.call('SET', KEYS[1], string.format('%.0f', count), 'PX', ARGV[1])",
    )
});

/// Keys: the pod's liveness, members, its goodbye. Arguments: the pod, its record, how long its goodbye is remembered, in ms, and
/// what it is: when the process began.
static LEAVE: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local held = redis.pcall('GETRANGE', KEYS[1], 0, 1024)\n\
         if held ~= '' and held ~= ARGV[2] then return 0 end\n\
         redis.call('DEL', KEYS[1])\n\
         redis.pcall('SREM', KEYS[2], ARGV[1])\n\
         redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[3])\n\
         return 1",
    )
});

/// What [`ANNOUNCE`] answers.
type Announced = (i8, u64, u64, Vec<u8>, usize, Vec<Vec<u8>>, Vec<String>);

impl RedisStore {
    pub(super) async fn resolve_pods(
        &self,
        pods: &[(PodId, Vec<RouteKey>)],
        prune: bool,
    ) -> Result<(Incarnation, Vec<Standing>), StoreError> {
        let mut standings = Vec::with_capacity(pods.len());
        let mut latest = Incarnation::default();
        for batch in pods.chunks(MAX_RESOLVED) {
            let mut call = RESOLVE.single().key(keys::PODS);
            call.arg(u8::from(prune));
            for (pod, routes) in batch {
                call.key(keys::pod(pod)).key(keys::retirements(pod)).key(keys::goodbye(pod)).arg(pod.as_str()).arg(routes.len());
                routes.iter().for_each(|route| {
                    call.key(keys::route(route));
                });
            }
            call.arg(u8::from(self.lineage.may_evict()));
            let (call, lineage) = (&call, &self.lineage);
            let (answers, incarnation): (Vec<(u8, Vec<u8>)>, _) = self
                .commands
                .run(RedisCommand::ResolvePods, |mut connection| async move { Lua::told(call, lineage, &mut connection).await })
                .await?;
            latest = latest.max(incarnation);
            if answers.len() != batch.len() {
                return Err(StoreError::malformed("the standing of pods that were not asked about"));
            }
            standings.extend(batch.iter().zip(answers).map(|((pod, _), (number, record))| self.standing(pod, number, &record)));
        }
        Ok((latest, standings))
    }

    pub(super) async fn announce_pod(&self, call: Announce<'_>) -> Result<Announcement, AnnounceError> {
        let Announce { me, ttl, known, instead_of } = call;
        let asked = Instant::now();
        let mine = self.records.write(me)?;
        let (mut answer, mut incarnation) = self.write_record(me, ttl, &mine, &[]).await?;
        if answer.0 < 0 {
            let held = self.records.read(&me.id, &answer.3);
            // No pod of the fleet wrote that, or it may be overwritten; and what it was a moment ago is what may be.
            if held.is_none() || held.as_ref() == instead_of {
                let overwrite = answer.3;
                (answer, incarnation) = self.write_record(me, ttl, &mine, &overwrite).await?;
            }
        }
        let (present, created, retirements, epoch, members, read, mended) = answer;
        if present < 0 {
            let record = self.records.read(&me.id, &epoch).ok_or_else(|| StoreError::malformed("a record that is none"))?;
            return Err(IdTaken { record, expires_in: Duration::from_millis(created) }.into());
        }
        for key in mended {
            self.refusals.note(KeyKind::Fleet, &key);
        }

        let mut ids = pod_ids(&read);
        let listed: HashSet<PodId> = ids.iter().cloned().collect();
        ids.extend(known.iter().filter(|id| !listed.contains(*id)).cloned());
        let mut call = READ.single().prepare_invoke();
        // Whether those who are asked about and not listed have said goodbye; where only a part is listed, they may be members
        // all the same.
        ids.iter().map(keys::pod).chain(ids.iter().map(keys::goodbye)).for_each(|key| {
            call.key(key);
        });
        let call = &call;
        let mut records: Vec<Option<Vec<u8>>> = self
            .commands
            .run(RedisCommand::ReadPods, |mut connection| async move { call.invoke_async(&mut connection).await })
            .await?;
        let goodbyes = records.split_off(records.len().min(ids.len()));

        let was_present = self.presence.confirm(&me.id, asked, ttl) && present == 1;
        let (mut pods, mut lapsed, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for ((id, record), goodbye) in ids.into_iter().zip(records).zip(goodbyes) {
            let known = record.as_deref().and_then(|record| self.records.read(&id, record));
            match known {
                Some(record) => pods.push(record),
                // It names nobody. A pod whose record was overwritten is a lapsed one to whom it is known to, and writes its own
                // again at once; to anybody else such an id is worth no more than one that was never heard of.
                None if record.is_some() => {}
                None if let Some(started_at) = goodbye.as_deref().and_then(time_of) => left.push(Goodbye { pod: id, started_at }),
                None if listed.contains(&id) => lapsed.push(id),
                None => {}
            }
        }
        let epoch_created = created == 1;
        Ok(Announcement {
            incarnation,
            was_present,
            retirements,
            epoch: epoch_of(&epoch),
            epoch_created,
            pods,
            lapsed,
            left,
            members,
        })
    }

    pub(super) async fn retire_pods(&self, pods: &[PodId]) -> Result<Vec<bool>, StoreError> {
        let mut retired = Vec::with_capacity(pods.len());
        for batch in pods.chunks(MAX_RESOLVED) {
            let mut call = RETIRE.single().key(keys::PODS);
            call.arg(milliseconds(RETIREMENTS_TTL)).arg(rand::random::<u32>());
            for pod in batch {
                call.key(keys::pod(pod)).key(keys::retirements(pod)).arg(pod.as_str());
            }
            let call = &call;
            let answers: Vec<u8> = self
                .commands
                .run(RedisCommand::RetirePod, |mut connection| async move { call.invoke_async(&mut connection).await })
                .await?;
            retired.extend(answers.into_iter().map(|without_key| without_key == 1));
        }
        Ok(retired)
    }

    pub(super) async fn say_goodbye(&self, me: &PodRecord) -> Result<(), StoreError> {
        let mut call = LEAVE.single().key(keys::pod(&me.id));
        call.key(keys::PODS).key(keys::goodbye(&me.id));
        call.arg(me.id.as_str()).arg(self.records.write(me)?).arg(milliseconds(LEFT_TTL)).arg(milliseconds(me.started_at));
        let call = &call;
        self.commands
            .run(RedisCommand::Leave, |mut connection| async move { call.invoke_async::<()>(&mut connection).await })
            .await
    }

    pub(super) async fn count_passed_over(&self, pod: &PodId) -> Result<(), StoreError> {
        let mut call = PASS_OVER.single().key(keys::retirements(pod));
        call.arg(milliseconds(RETIREMENTS_TTL)).arg(rand::random::<u32>()).arg(PASSED_OVER);
        let call = &call;
        self.commands
            .run(RedisCommand::RetirePod, |mut connection| async move { call.invoke_async::<()>(&mut connection).await })
            .await
    }

    fn standing(&self, pod: &PodId, number: u8, record: &[u8]) -> Standing {
        match number {
            // One that is not proved was written by no pod. A pod whose record was overwritten is in doubt for as long as it
            // takes to write it again.
            1 => self.records.read(pod, record).map_or(Standing::Unheard, Standing::Alive),
            2 => Standing::Member,
            3 => Standing::Gone,
            _ => Standing::Unheard,
        }
    }

    async fn write_record(
        &self,
        me: &PodRecord,
        ttl: Duration,
        record: &str,
        overwrite: &[u8],
    ) -> Result<(Announced, Incarnation), StoreError> {
        let mut call = ANNOUNCE.single().key(keys::pod(&me.id));
        call.key(keys::PODS).key(keys::EPOCH).key(keys::retirements(&me.id)).key(keys::goodbye(&me.id));
        call.arg(record).arg(milliseconds(ttl)).arg(me.id.as_str()).arg(format!("{:032x}", rand::random::<u128>()));
        call.arg(overwrite).arg(MAX_PODS).arg(u8::from(self.lineage.may_evict()));
        let (call, lineage) = (&call, &self.lineage);
        self.commands
            .run(RedisCommand::AnnouncePod, |mut connection| async move { Lua::told(call, lineage, &mut connection).await })
            .await
    }
}

/// Members that are no pod id are skipped: none of the fleet wrote them.
pub(super) fn pod_ids(members: &[Vec<u8>]) -> Vec<PodId> {
    members.iter().filter_map(|member| pod_id(member)).collect()
}

// === presence ===
