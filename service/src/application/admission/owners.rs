//! Whether the owner in a session's lock still lives.
//!
//! A pod that crashed, or a store that went back in time, leaves locks of sockets that are no more. Whether a socket lives is
//! known to its own pod alone, so that one is asked; of a pod that is dead, nothing lives. What can't be known counts as living,
//! for as long as it may.

use std::sync::Arc;

use daisi_ws_domain::{
    ids::{ConnectionId, PodId},
    maps::Map,
    session::LockOwner,
};
use futures_util::future::join_all;
use tokio::sync::Semaphore;

use crate::{
    application::{
        fleet::directory::{Directory, Known},
        hub::registry::Hub,
    },
    ports::Peers,
    telemetry::Chain,
};

/// Calls to peers under way for single owners; in a storm of take-overs the rest is not asked about, and goes the long way.
const ASKED_AT_ONCE: usize = 16;

/// What is known of an owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnerState {
    /// Its pod has the socket, to stay.
    Lives,
    /// Its pod does not have it, has asked its client to move, or is dead.
    Gone,
    /// Its pod can't be asked now, or is an old one that can't be asked at all.
    Unknown,
}

/// Finds out whether the owner of a lock still has the socket that the lock names.
pub struct Owners {
    hub: Arc<Hub>,
    directory: Arc<Directory>,
    peers: Arc<dyn Peers>,
    asking: Semaphore,
}

impl std::fmt::Debug for Owners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Owners").finish_non_exhaustive()
    }
}

impl Owners {
    /// Asks `hub` about this pod's sockets, and `peers` about those of the others.
    #[must_use]
    pub fn new(hub: Arc<Hub>, directory: Arc<Directory>, peers: Arc<dyn Peers>) -> Self {
        Self { hub, directory, peers, asking: Semaphore::new(ASKED_AT_ONCE) }
    }

    /// What is known of an owner on this pod; `None` if it is on another. A socket that is still connecting lives.
    #[must_use]
    pub fn here(&self, owner: &LockOwner) -> Option<OwnerState> {
        let is_here = |connection: &ConnectionId| self.hub.keeps(connection);
        // Without a socket it is what an older program wrote that had this pod's id before.
        let lives = owner.connection.as_ref().is_some_and(is_here);
        (owner.pod == *self.directory.me()).then_some(if lives { OwnerState::Lives } else { OwnerState::Gone })
    }

    /// What becomes known of one owner. Takes up to two seconds; cancel-safe.
    pub(crate) async fn state_of(&self, owner: &LockOwner) -> OwnerState {
        let Ok(_asking) = self.asking.try_acquire() else { return OwnerState::Unknown };
        self.states_of(std::slice::from_ref(owner)).await.first().copied().unwrap_or(OwnerState::Unknown)
    }

    /// What becomes known of each of these owners, in order; each pod is asked once. Takes up to two seconds, longer where a pod
    /// has to be asked about thousands.
    pub(crate) async fn states_of(&self, owners: &[LockOwner]) -> Vec<OwnerState> {
        let mut states = vec![OwnerState::Unknown; owners.len()];
        let mut by_pod: Map<&PodId, (Vec<usize>, Vec<ConnectionId>)> = Map::default();
        for (place, (owner, state)) in owners.iter().zip(&mut states).enumerate() {
            match (self.here(owner), &owner.connection) {
                (Some(here), _) => *state = here,
                (None, Some(connection)) => {
                    let (places, connections) = by_pod.entry(&owner.pod).or_default();
                    places.push(place);
                    connections.push(connection.clone());
                }
                // An old pod is no member, and can't be asked.
                (None, None) => {}
            }
        }
        let answers = by_pod.into_iter().map(|(pod, (places, connections))| async move {
            let found = self.ask(pod, &connections).await;
            places.into_iter().zip(found)
        });
        for (place, state) in join_all(answers).await.into_iter().flatten() {
            states[place] = state;
        }
        states
    }

    /// What is known of these sockets of another pod.
    async fn ask(&self, pod: &PodId, connections: &[ConnectionId]) -> Vec<OwnerState> {
        let all = |state| vec![state; connections.len()];
        let mut known = self.directory.known(pod);
        if matches!(known, Known::Nobody) && self.directory.refreshed().await {
            known = self.directory.known(pod);
            // Who is no member as of just now is dead, unless the members themselves may be missing.
            if matches!(known, Known::Nobody) && !self.directory.is_settling() {
                return all(OwnerState::Gone);
            }
        }
        let Known::Peer { record, lapsed } = known else { return all(OwnerState::Unknown) };
        match self.peers.holds(&record, connections).await {
            Ok(held) => held.into_iter().map(|held| if held { OwnerState::Lives } else { OwnerState::Gone }).collect(),
            // No liveness key and no answer.
            Err(error) if error.is_silent() && lapsed && !self.directory.is_settling() => all(OwnerState::Gone),
            Err(error) => {
                tracing::debug!(peer.id = %pod, error = %Chain(&error), "a pod does not say which sockets it holds");
                all(OwnerState::Unknown)
            }
        }
    }
}
