//! Lua scripts, sent by their digest.

use redis::{Cmd, Pipeline, RedisResult, Script, ScriptInvocation, ToRedisArgs, aio::MultiplexedConnection};

use super::lineage::{Lineage, Server};
use crate::ports::Incarnation;

/// Who runs a script, by the section of `INFO` that costs least, and, if asked for, how many keys were evicted.
const SIGN: &str = "local done = work()\n\
    if type(done) == 'table' and done.err then return done end\n\
    local about, id, evicted = redis.pcall('INFO', 'replication'), '', ''\n\
    if type(about) == 'string' then\n\
      local role = string.match(about, 'role:(%w+)')\n\
      if role and role ~= 'master' then return {err = 'READONLY the server is a ' .. role} end\n\
      id = string.match(about, 'master_replid:(%w+)') or ''\n\
    end\n\
    if ARGV[#ARGV] == '1' then\n\
      about = redis.pcall('INFO', 'stats')\n\
      evicted = type(about) == 'string' and string.match(about, 'evicted_keys:(%d+)') or ''\n\
    end\n\
    return {id, evicted, done}";

/// A script: one atomic step on the server.
pub(super) struct Lua {
    code: &'static str,
    script: Script,
}

impl Lua {
    pub(super) fn new(code: &'static str) -> Self {
        Self { code, script: Script::new(code) }
    }

    /// A script whose answer says who gave it; called by [`Lua::told`]. Some 3 µs of the server's time; where keys may be
    /// evicted, some 10 more.
    ///
    /// A replica answers nothing: its data may be old, and it takes no writes. The last argument is not the script's.
    pub(super) fn signed(code: &str) -> Self {
        // It lives as long as the process: there is one of each.
        Self::new(Box::leak(format!("local function work()\n{code}\nend\n{SIGN}").into_boxed_str()))
    }

    /// Runs a [signed](Lua::signed) script, notes who answered, and says of which incarnation the answer is.
    pub(super) async fn told<T: redis::FromRedisValue>(
        call: &ScriptInvocation<'_>,
        lineage: &Lineage,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<(T, Incarnation)> {
        let (id, evicted, answer): (String, String, T) = call.invoke_async(connection).await?;
        Ok((answer, lineage.answered_by(&Server { id: &id, evicted: evicted.parse().ok() })))
    }

    /// For a single call; it loads the script where the server does not know it (after a restart).
    pub(super) fn single(&self) -> &Script {
        &self.script
    }

    /// A pipeline of calls of this script. It loads the script first, in the same round trip: a pipeline can't be resumed after
    /// `NOSCRIPT`, and the text once is less than the text in each call.
    pub(super) fn pipeline(&self, calls: impl Iterator<Item = Cmd>) -> Pipeline {
        let mut pipeline = redis::pipe();
        pipeline.cmd("SCRIPT").arg("LOAD").arg(self.code).ignore();
        for call in calls {
            pipeline.add_command(call);
        }
        pipeline
    }

    /// One call for [`Self::pipeline`].
    pub(super) fn call(&self, keys: &[String], arguments: &[&dyn Argument]) -> Cmd {
        let mut call = redis::cmd("EVALSHA");
        call.arg(self.script.get_hash()).arg(keys.len()).arg(keys);
        for argument in arguments {
            argument.add_to(&mut call);
        }
        call
    }
}

/// What can be passed to a script; [`ToRedisArgs`] itself can't be a trait object.
pub(super) trait Argument: Sync {
    fn add_to(&self, call: &mut Cmd);
}

impl<T: ToRedisArgs + Sync> Argument for T {
    fn add_to(&self, call: &mut Cmd) {
        call.arg(self);
    }
}
