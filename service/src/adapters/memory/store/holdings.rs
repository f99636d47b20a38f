//! What the store holds, for anyone who has to see that nothing is left behind.

use daisi_ws_domain::{
    ids::PodId,
    route::RouteKey,
    session::{LockOwner, SessionKey},
};

use super::Store;

/// What a store holds and has not run out, in no order.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// Session locks with their owners.
    pub locks: Vec<(SessionKey, LockOwner)>,
    /// Routes with the pods on them.
    pub routes: Vec<(RouteKey, Vec<PodId>)>,
    /// Members, with a liveness key or without.
    pub members: Vec<PodId>,
    /// Pods with a liveness key.
    pub records: Vec<PodId>,
}

impl Store {
    /// What it holds now, whatever faults are on.
    #[must_use]
    pub fn holdings(&self) -> Holdings {
        let state = self.lock();
        let tables = &state.tables;
        Holdings {
            locks: tables.locks.alive().map(|(key, owner)| (key.clone(), owner.clone())).collect(),
            routes: tables.routes.alive().map(|(route, pods)| (route.clone(), pods.iter().cloned().collect())).collect(),
            members: tables.members.iter().cloned().collect(),
            records: tables.records.alive().map(|(pod, _)| pod.clone()).collect(),
        }
    }
}
