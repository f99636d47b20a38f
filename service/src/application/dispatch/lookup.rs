//! Where events go beside this pod: one look-up of routes for all that was taken meanwhile.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey};
use indexmap::IndexSet;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::taken::Taken;
use crate::{
    application::{
        fleet::directory::{Directory, Targets},
        wellness::{Wellness, stance::SLOW},
    },
    ports::{EventSource, Routes, Settlement},
    telemetry::Chain,
};

/// So often, at a third of the ack wait each, the stream is asked to leave events here that are being looked up.
const EXTENSIONS: usize = 3;

/// Where an event goes, beside this pod.
#[derive(Debug)]
pub(super) struct Destination {
    /// The other pods.
    pub(super) peers: Vec<Arc<PodRecord>>,
    /// A pod on its routes whose address is not known: the event must be delivered again.
    pub(super) doubtful: Option<PodId>,
}

/// Finds the pods to which events go beside this one.
#[derive(Clone)]
pub struct Lookup {
    /// Asked to leave events here for longer.
    pub source: Arc<dyn EventSource>,
    /// Where routes are.
    pub routes: Arc<dyn Routes>,
    /// Who is there.
    pub directory: Arc<Directory>,
    /// Told how long the store takes.
    pub wellness: Arc<Wellness>,
}

impl Lookup {
    /// For each event, in order, where it goes: one look-up for all of them.
    pub(super) async fn find_targets(&self, events: &mut [Taken]) -> Vec<Destination> {
        let mut keys: IndexSet<RouteKey> = IndexSet::new();
        let of_event: Vec<SmallVec<[usize; 1]>> = events
            .iter()
            .map(|taken| taken.pulled.event.address.routes().into_iter().map(|route| keys.insert_full(route).0).collect())
            .collect();
        let keys: Vec<RouteKey> = keys.into_iter().collect();
        let found = self.look_up_in_time(&keys, events).await;
        self.directory.note_settled(events.iter().map(|taken| taken.pulled.event.seq));
        if !found.is_certain {
            self.directory.note_uncertain(events.iter().map(|taken| taken.pulled.event.seq));
        }
        let destination = |places: SmallVec<[usize; 1]>| {
            let mut peers: Vec<Arc<PodRecord>> = Vec::new();
            for peer in places.iter().flat_map(|place| &found.peers[*place]) {
                if !peers.iter().any(|known| known.id == peer.id) {
                    peers.push(Arc::clone(peer));
                }
            }
            Destination { peers, doubtful: places.iter().find_map(|place| found.doubtful[*place].clone()) }
        };
        of_event.into_iter().map(destination).collect()
    }

    /// Looks the routes up. Events that have waited for a good part of their ack wait, before it or meanwhile, are kept here for
    /// longer, some times over: they would be delivered to another pod, whose look-up is no faster.
    async fn look_up_in_time(&self, keys: &[RouteKey], events: &mut [Taken]) -> Targets {
        let patience = self.source.limits().ack_wait / 3;
        let _asked = self.wellness.asks_store();
        let mut lookup = std::pin::pin!(self.directory.targets(self.routes.as_ref(), keys));
        for round in 0..EXTENSIONS {
            self.extend(events, patience).await;
            let mut left = patience;
            if round == 0 {
                if let Ok(found) = tokio::time::timeout(SLOW, &mut lookup).await {
                    return found;
                }
                self.wellness.store_is_slow();
                left = left.saturating_sub(SLOW);
            }
            if let Ok(found) = tokio::time::timeout(left, &mut lookup).await {
                return found;
            }
        }
        lookup.await
    }

    /// Asks the stream to leave events here that came longer ago than `patience`, unless it has delivered them again by now.
    async fn extend(&self, events: &mut [Taken], patience: Duration) {
        let now = Instant::now();
        let is_due =
            |taken: &Taken| (patience..patience * 2).contains(&now.saturating_duration_since(taken.pulled.delivery.received_at));
        let due: Vec<_> = events
            .iter()
            .filter(|taken| is_due(taken))
            .map(|taken| (taken.pulled.ack_token.clone(), Settlement::Extend))
            .collect();
        if due.is_empty() {
            return;
        }
        if let Err(error) = self.source.settle(due).await {
            tracing::debug!(error = %Chain(&error), "the stream could not be asked to leave events here; it delivers them again");
            return;
        }
        events.iter_mut().filter(|taken| is_due(taken)).for_each(|taken| taken.pulled.delivery.extended(now));
    }
}
