//! Asks owners of a session to let it go, on whatever pod they are.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{
    ids::PodId,
    session::{Kill, KillClaim, LockOwner},
};
use tokio::time::timeout;

use super::evict::Evictor;
use crate::{
    application::{
        fleet::directory::{Directory, Known},
        hub::session::Session,
    },
    metrics::{Metrics, labels::EvictionWay},
    ports::{Evicted, KillBus, Peers, StoreError},
    telemetry::Chain,
};

/// How long a pod may take to answer that it has closed a socket. One that does not is told over the bus.
const EVICTION_PATIENCE: Duration = Duration::from_millis(400);

/// The way to the owners of sessions.
#[derive(Clone)]
pub struct Killer {
    /// This pod.
    pub me: PodId,
    /// Closes owners on this pod.
    pub evictor: Evictor,
    /// Knows the other pods.
    pub directory: Arc<Directory>,
    /// The way to owners on pods that can be called.
    pub peers: Arc<dyn Peers>,
    /// The way to all others.
    pub kills: Arc<dyn KillBus>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

/// What asking an owner came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// Its pod has closed it, or does not have it.
    Gone,
    /// Its pod lets it serve on until the lock has passed.
    Serves,
    /// It is on a pod that gave no answer, which may hear of it.
    Elsewhere,
}

impl std::fmt::Debug for Killer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Killer").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Killer {
    /// Asks `owner` to let the session go to `session`'s socket: its own pod, where that can be called.
    ///
    /// # Errors
    /// When the pod gave no answer, and the bus is away.
    pub async fn kill(&self, session: &Session, owner: &LockOwner, claim: KillClaim) -> Result<Asked, StoreError> {
        let mut kill = Kill {
            key: session.key().clone(),
            new_pod: self.me.clone(),
            connection: Some(session.connection().clone()),
            victim: Some(owner.clone()),
            claim,
        };
        if owner.pod == self.me {
            self.count(EvictionWay::Here);
            return Ok(self.evictor.obey(&kill).into());
        }
        if let Some(evicted) = self.ask(owner, &kill).await {
            self.count(EvictionWay::Peer);
            return Ok(evicted.into());
        }
        self.count(EvictionWay::Bus);
        if kill.claim == KillClaim::Second {
            // Nobody says whether the owner serves on, so it is to go at once.
            kill.claim = KillClaim::Moved;
        }
        self.kills.publish(&kill).await?;
        Ok(Asked::Elsewhere)
    }

    /// What the owner's pod says; nothing if it can't be asked. An old pod is no member.
    async fn ask(&self, owner: &LockOwner, kill: &Kill) -> Option<Evicted> {
        let Known::Peer { record, lapsed: false } = self.directory.known(&owner.pod) else { return None };
        owner.connection.as_ref()?;
        match timeout(EVICTION_PATIENCE, self.peers.evict(&record, kill)).await {
            Ok(Ok(evicted)) => Some(evicted),
            Ok(Err(error)) => {
                tracing::debug!(peer.id = %owner.pod, error = %Chain(&error), "a pod could not be asked to close a socket");
                None
            }
            Err(_) => None,
        }
    }

    fn count(&self, way: EvictionWay) {
        self.metrics.session_evictions_total.with_label_values(&[way.as_str()]).inc();
    }
}

impl From<Evicted> for Asked {
    fn from(evicted: Evicted) -> Self {
        match evicted {
            Evicted::Gone => Self::Gone,
            Evicted::Serves => Self::Serves,
        }
    }
}
