//! Lua scripts, sent by their digest.

use redis::{Cmd, Pipeline, Script, ToRedisArgs};

/// A script: one atomic step on the server.
pub(super) struct Lua {
    code: &'static str,
    script: Script,
}

impl Lua {
    pub(super) fn new(code: &'static str) -> Self {
        Self { code, script: Script::new(code) }
    }

    /// For a single call; it loads the script where the server does not know it (after a restart).
    pub(super) fn single(&self) -> &Script {
        &self.script
    }

    /// A pipeline of calls of this script. It loads the script first, in the same round trip: a pipeline can't be resumed after `NOSCRIPT`, and
    /// the text once is less than the text in each call.
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
