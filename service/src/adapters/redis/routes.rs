//! Routes and membership. Writing has a connection of its own; everything else goes through the pool.

use std::sync::LazyLock;

use async_trait::async_trait;
use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey};

use super::{
    RedisStore, keys,
    script::Lua,
    values::{epoch_of, milliseconds, pod_id},
    writer::{MAX_WRITE, WRITE},
};
use crate::{
    metrics::labels::RedisCommand,
    ports::{
        Announce, AnnounceError, Announcement, Incarnation, KeyKind, Lookup, MAX_PODS, RouteChange, Routes, Standing, StoreError,
    },
};

/// Names of pods that are read in one look-up, over all its routes: some milliseconds.
const MAX_READ: usize = 8192;

/// Keys: epoch, members, then routes. Arguments: the pod that asks, the most pods that a fleet has, the most that are read in
/// all. Answers with the epoch; for each pod but the asker that is on any of the routes, its name and the numbers of its routes:
/// most routes have none, as an event nearly always has its sockets on one pod, and those that do have few, so that a list for
/// each route would be most of what it costs to write and read the answer; then the numbers of the routes whose keys hold
/// something else, and of those that were not read. What is longer than an id is none.
///
/// Of a route with more pods than any fleet has, only members count: anyone who is on a route is a member first. Where those are
/// too many as well, it is not read. Asked for more random members than there are, Redis answers with all.
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
