//! Kills: closes the sessions that somebody else takes over.

use std::sync::Arc;

use daisi_ws_domain::{
    close::CloseReason,
    ids::{ConnectionId, PodId},
    session::Kill,
};
use tokio::sync::Notify;

use super::release::Releaser;
use crate::{
    application::hub::registry::Hub,
    metrics::{Metrics, labels::KillHeard},
    ports::{KillBus, KillSignal},
};

/// Closes sessions of this pod on order.
#[derive(Debug, Clone)]
pub struct Evictor {
    me: PodId,
    hub: Arc<Hub>,
    releaser: Releaser,
    metrics: Arc<Metrics>,
}

impl Evictor {
    /// Closes sessions of the hub and gives their locks back.
    #[must_use]
    pub fn new(me: PodId, hub: Arc<Hub>, releaser: Releaser, metrics: Arc<Metrics>) -> Self {
        Self { me, hub, releaser, metrics }
    }

    /// Obeys the kill bus until cancelled. Kills may be missed while it was interrupted: then `sweep` is told to check all locks.
    pub async fn run(&self, kills: &dyn KillBus, sweep: &Notify) {
        let mut listener = kills.listen().await;
        loop {
            match listener.next().await {
                KillSignal::Kill(kill) => self.obey(&kill),
                KillSignal::Resubscribed => sweep.notify_one(),
            }
        }
    }

    /// Closes whom the kill is about. The lock is given back at once: the successor does not wait for a closing handshake.
    pub fn obey(&self, kill: &Kill) {
        let victims = self.hub.victims(kill, &self.me);
        let outcome = if victims.is_empty() { KillHeard::NobodyHere } else { KillHeard::Evicted };
        self.metrics.session_kills_total.with_label_values(&[outcome.as_str()]).inc();
        for victim in &victims {
            self.evict(victim, CloseReason::SessionReplaced);
        }
    }

    /// Closes one session and gives its lock back. False if it is not here.
    pub fn evict(&self, connection: &ConnectionId, reason: CloseReason) -> bool {
        let Some(session) = self.hub.evict(connection, reason) else { return false };
        self.releaser.release(&session);
        tracing::debug!(connection.id = %connection, reason = reason.as_str(), "a session is closed from outside");
        true
    }
}
