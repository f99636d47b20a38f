//! Whether this pod has room for another socket, and whether another pod has.
//!
//! A full pod refuses connects with 503. Load balancers look at `/ready`, so there it steps aside for as long as another pod has
//! room. Where none has, all stay: with nobody ready a balancer answers by itself, without saying when to come back.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;

use crate::{
    application::{fleet::directory::Directory, hub::registry::Hub},
    config::Config,
    metrics::Metrics,
    ports::Peers,
    readiness::Readiness,
};

/// How often the sockets are counted, and while the pod is full, its peers asked.
const PERIOD: Duration = Duration::from_secs(1);
/// Peers asked at a time.
const ASKED_AT_ONCE: usize = 16;
/// A full pod has room again once one in so many of its places is free: it does not come and go with every socket.
const FREE_SHARE: usize = 50;

/// What watching the room of a pod needs.
#[derive(Clone)]
pub(crate) struct Room {
    /// The sockets, and what peers are told.
    pub hub: Arc<Hub>,
    /// Who else is there.
    pub directory: Arc<Directory>,
    /// Asked whether they have room.
    pub peers: Arc<dyn Peers>,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Told to step aside.
    pub readiness: Readiness,
    /// Shows it.
    pub metrics: Arc<Metrics>,
}

impl Room {
    /// Looks again and again, until cancelled.
    pub(crate) async fn watch(&self) {
        let mut full = false;
        loop {
            let (limit, grace) = {
                let config = self.config.borrow();
                (config.app.max_connections, config.server.ready_grace)
            };
            let now = is_full(self.hub.len(), limit, full);
            // Told at once, and not only when the peers have answered: two pods that fill up together must not each point at the
            // other.
            self.hub.note_room(!now && self.readiness.wants_connections(grace));
            let another = now && self.is_another().await;
            if now != full {
                tracing::info!(
                    full = now,
                    sockets = self.hub.len(),
                    room.another = another,
                    "the pod has all the sockets it may have, or room again"
                );
            }
            full = now;
            self.readiness.note_full(full, another);
            self.metrics.full.set(i64::from(full));
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Does another pod say that it has room? Who does not answer, or is too old to know the question, has none.
    async fn is_another(&self) -> bool {
        let ask = |peer| async move { self.peers.has_room(&peer).await.unwrap_or(false) };
        let mut answers = stream::iter(self.directory.peers()).map(ask).buffer_unordered(ASKED_AT_ONCE);
        while let Some(has_room) = answers.next().await {
            if has_room {
                return true;
            }
        }
        false
    }
}

fn is_full(sockets: usize, limit: usize, was_full: bool) -> bool {
    let free = if was_full { (limit / FREE_SHARE).max(1) } else { 1 };
    sockets.saturating_add(free) > limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_pod_has_room_again_only_when_a_part_of_it_is_free() {
        assert!(!is_full(999, 1000, false) && is_full(1000, 1000, false) && is_full(1200, 1000, false));
        assert!(is_full(981, 1000, true) && !is_full(980, 1000, true));
        assert!(is_full(2, 2, true) && !is_full(1, 2, true));
        assert!(is_full(0, 0, false) && is_full(0, 0, true));
    }
}
