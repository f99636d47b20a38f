//! Watches what the server gives this pod: whether a session could have all that it needs, and whether keys may be thrown away.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{connection::Commands, deaf::Deaf, lineage::Lineage, script::Lua};
use crate::{
    metrics::{Metrics, labels::RedisCommand},
    ports::StoreError,
    readiness::{Dependency, Readiness},
    runtime::backoff::Backoff,
    telemetry::Chain,
};

/// How often the server is asked whether it may evict keys.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often the rights are tried. They are also tried when another server answers, and every second while one is missing.
const TRY_EVERY: Duration = Duration::from_secs(60);
const TRY_AGAIN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));

/// Argument: `1` to try every right that a session needs. Answers with the server's memory limit and policy, and what was
/// refused.
///
/// Each command runs on a name that no session, route or pod can have, as ids have no spaces, and leaves nothing there.
static LOOK: LazyLock<Lua> = LazyLock::new(|| {
    Lua::new(
        "local lacks = {}\n\
         local function try(what, ...)\n\
           local done = redis.pcall(...)\n\
           local err = type(done) == 'table' and done.err or ''\n\
           for _, sign in ipairs({'NOPERM', 'ACL failure', \"executing the script can't\"}) do\n\
             if string.find(err, sign, 1, true) then\n\
               lacks[#lacks + 1] = what\n\
               return\n\
             end\n\
           end\n\
         end\n\
         local function on(prefix, commands)\n\
           for _, command in ipairs(commands) do\n\
             local name = table.remove(command, 1)\n\
             try(string.lower(name) .. ' ' .. prefix .. '*', name, prefix .. 'a probe', unpack(command))\n\
           end\n\
         end\n\
         if ARGV[1] == '1' then\n\
           on('session:', {{'GETRANGE', 0, 1}, {'SET', '', 'XX', 'PX', 1}, {'PEXPIRE', 1}, {'DEL'}})\n\
           on('route:', {{'SADD', 'x'}, {'PEXPIRE', 1}, {'SMEMBERS'}, {'SRANDMEMBER', 1}, {'SREM', 'x'}})\n\
           on('pod:', {{'EXISTS'}, {'SET', '', 'XX', 'PX', 1}, {'GETRANGE', 0, 1}, {'PTTL'}, {'DEL'}})\n\
           on('pod_left:', {{'EXISTS'}, {'GETRANGE', 0, 1}, {'SET', '', 'XX', 'PX', 1}, {'DEL'}})\n\
           on('pod_retirements:', {{'INCR'}, {'GETRANGE', 0, 1}, {'PEXPIRE', 1}})\n\
           on('session_kill:', {{'PUBLISH', ''}})\n\
           try('srem pods', 'SREM', 'pods', 'a probe')\n\
           try('sismember pods', 'SISMEMBER', 'pods', 'a probe')\n\
           try('scard pods', 'SCARD', 'pods')\n\
           try('srandmember pods', 'SRANDMEMBER', 'pods', 1)\n\
           try('sinter pods route:*', 'SINTER', 'pods', 'route:a probe')\n\
           try('getrange routes:epoch', 'GETRANGE', 'routes:epoch', 0, 1)\n\
         end\n\
         local memory = redis.pcall('INFO', 'memory')\n\
         if type(memory) ~= 'string' then return {'', '', lacks} end\n\
         return {string.match(memory, 'maxmemory:(%d+)') or '', string.match(memory, 'maxmemory_policy:([%w-]+)') or '', lacks}",
    )
});

/// What the watching works with.
pub(super) struct ServerWatch {
    pub(super) commands: Arc<Commands>,
    pub(super) lineage: Arc<Lineage>,
    /// Why kills are not heard; `None` while they are.
    pub(super) deaf: watch::Receiver<Option<Deaf>>,
    pub(super) readiness: Readiness,
    pub(super) metrics: Arc<Metrics>,
}

impl ServerWatch {
    /// Watches until cancelled.
    pub(super) async fn run(&self) {
        let (mut moves, mut deaf) = (self.lineage.follow_moves(), self.deaf.clone());
        let (mut lacks, mut tried_at, mut told, mut looked) = (Vec::new(), None::<Instant>, None, false);
        loop {
            let all = !lacks.is_empty() || tried_at.is_none_or(|at| at.elapsed() >= TRY_EVERY);
            match self.look(all).await {
                Ok((limit, policy, refused)) => {
                    if all {
                        tried_at = Some(Instant::now());
                        note_lacks(&mut lacks, refused);
                    }
                    self.note_policy(&limit, &policy, &mut told);
                    looked = true;
                }
                // That it is away, or loads its data, is told by those who need it.
                Err(error) if error.may_pass() => {}
                Err(error) => note_lacks(&mut lacks, vec![format!("scripts: {}: {}", Chain(&error), error.advice())]),
            }
            let pause = if lacks.is_empty() { LOOK_EVERY } else { TRY_AGAIN.nth(1) };
            let mut waited = std::pin::pin!(sleep(pause));
            loop {
                let deaf_for = deaf.borrow_and_update().as_ref().map(Deaf::to_string);
                if looked || !lacks.is_empty() {
                    self.readiness.lacks(Dependency::Redis, lacks.iter().cloned().chain(deaf_for).collect());
                }
                tokio::select! {
                    () = &mut waited => break,
                    Ok(()) = moves.changed() => {
                        tried_at = None;
                        break;
                    }
                    Ok(()) = deaf.changed() => {}
                }
            }
        }
    }

    async fn look(&self, all: bool) -> Result<(String, String, Vec<String>), StoreError> {
        let mut call = LOOK.single().prepare_invoke();
        call.arg(u8::from(all));
        let call = &call;
        self.commands
            .run(RedisCommand::LookAtServer, |mut connection| async move { call.invoke_async(&mut connection).await })
            .await
    }

    fn note_policy(&self, limit: &str, policy: &str, told: &mut Option<Option<bool>>) {
        let may_evict = may_evict(limit, policy);
        self.metrics.redis_may_evict.set(i64::from(may_evict == Some(true)));
        // Unknown is yes.
        self.lineage.set_may_evict(may_evict != Some(false));
        match may_evict {
            _ if *told == Some(may_evict) => {}
            None => tracing::warn!(
                "the Redis user may not run INFO: each new connection counts as another server, and evicted keys are not \
                noticed; grant +info"
            ),
            Some(true) => tracing::warn!(
                redis.maxmemory = limit,
                redis.maxmemory_policy = policy,
                "Redis throws keys away when its memory is full, and with them who serves what; set maxmemory-policy to \
                noeviction"
            ),
            Some(false) => {}
        }
        *told = Some(may_evict);
    }
}

/// Everything that is kept has a time to live, so a policy for volatile keys takes it too.
fn may_evict(limit: &str, policy: &str) -> Option<bool> {
    (!policy.is_empty()).then(|| limit != "0" && policy != "noeviction")
}

fn note_lacks(lacks: &mut Vec<String>, refused: Vec<String>) {
    if *lacks != refused {
        if refused.is_empty() {
            tracing::info!("the Redis user has all rights that a session needs");
        } else {
            tracing::error!(
                redis.refused = refused.join(", "),
                "the Redis user lacks rights that a session needs: grant them (docs/operations.md has the rule); the pod is not \
                ready"
            );
        }
        *lacks = refused;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_safe_without_a_limit_or_where_none_is_evicted() {
        for (limit, policy, evicts) in [
            ("0", "allkeys-lru", Some(false)),
            ("1048576", "noeviction", Some(false)),
            ("1048576", "volatile-ttl", Some(true)),
            ("1", "allkeys-lru", Some(true)),
            ("", "", None),
        ] {
            assert_eq!(may_evict(limit, policy), evicts, "{limit} {policy}");
        }
    }
}
