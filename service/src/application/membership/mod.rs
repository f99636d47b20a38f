//! This pod's place in the fleet: announces it, learns who else is there, and decides who is dead.
//!
//! Announcing waits for nothing but the store: what follows from it (registering again, judging, getting to know peers) is done
//! beside, or a pod would lose its own place over looking after others.

mod acquaint;
mod announce;
mod beside;
mod contest;
mod judge;
mod neighbours;
mod place;
mod register;

use tokio_util::sync::CancellationToken;

use self::beside::Beside;
pub(crate) use self::{
    acquaint::Acquaintance, announce::Announcer, judge::Judge, neighbours::Neighbours, place::Place, register::Registrar,
};
pub use self::{announce::period, place::Standing};

/// The four sides of membership.
#[derive(Clone)]
pub(crate) struct Membership {
    /// Announces this pod.
    pub announcer: Announcer,
    /// Registers everything again when that is needed.
    pub registrar: Registrar,
    /// Finds out who is dead.
    pub judge: Judge,
    /// Gets to know the others.
    pub acquaintance: Acquaintance,
}

impl Membership {
    /// Announces this pod, several times within the life of its key, until it leaves or its id is another's. No announcement is
    /// under way when this has returned: one that is overtaken by the pod's goodbye would make it a member again.
    pub(crate) async fn run(&self, leaving: &CancellationToken) {
        let beside = Beside::default();
        tokio::select! {
            biased;
            () = self.announcer.run(leaving, &beside) => {}
            () = self.registrar.run(&beside) => {}
            () = self.judge.run() => {}
            () = self.acquaintance.run(&beside) => {}
        }
    }
}
