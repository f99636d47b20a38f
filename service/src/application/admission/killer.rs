//! Asks owners of a session to let it go, on whatever pod they are.

use std::sync::Arc;

use daisi_ws_domain::{
    ids::PodId,
    session::{Kill, LockOwner},
};

use super::evict::Evictor;
use crate::{
    application::hub::session::Session,
    ports::{KillBus, StoreError},
};

/// The way to the owners of sessions.
#[derive(Clone)]
pub struct Killer {
    me: PodId,
    kills: Arc<dyn KillBus>,
    evictor: Evictor,
}

/// What asking an owner came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// It was on this pod, and is gone.
    Gone,
    /// It is on another pod, which will hear of it.
    Elsewhere,
}

impl std::fmt::Debug for Killer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Killer").field("me", &self.me).finish_non_exhaustive()
    }
}

impl Killer {
    /// Reaches owners on this pod by `evictor`, and all others over the bus.
    #[must_use]
    pub fn new(me: PodId, kills: Arc<dyn KillBus>, evictor: Evictor) -> Self {
        Self { me, kills, evictor }
    }

    /// Asks `owner` to let the session go to `session`'s socket.
    ///
    /// # Errors
    /// When the bus is away.
    pub async fn kill(&self, session: &Session, owner: &LockOwner) -> Result<Asked, StoreError> {
        let kill = Kill {
            key: session.key().clone(),
            new_pod: self.me.clone(),
            connection: Some(session.connection().clone()),
            victim: Some(owner.clone()),
        };
        if owner.pod == self.me {
            self.evictor.obey(&kill);
            return Ok(Asked::Gone);
        }
        self.kills.publish(&kill).await?;
        Ok(Asked::Elsewhere)
    }
}
