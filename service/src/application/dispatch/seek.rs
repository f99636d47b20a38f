//! The way to other pods: finds the peers for what was taken, and hands it to their lanes.

use std::{collections::HashMap, sync::Arc, time::Duration};

use indexmap::IndexSet;
use smallvec::SmallVec;
use tokio::{sync::mpsc, time::Instant};
use tracing::Span;

use super::{Dispatcher, Taken};
use crate::{
    application::{
        directory::Targets,
        outcome::{InFlight, TargetOutcome},
        ports::Settlement,
    },
    domain::{ids::PodId, peer::PodRecord, route::RouteKey},
};

/// A look-up begins with no more events than this; a batch that was taken is not divided.
const LOOKED_UP_AT_ONCE: usize = 1024;

/// So often, at a third of the ack wait each, the stream is asked to leave events here that are being looked up.
const EXTENSIONS: usize = 3;

/// Where an event goes, beside this pod.
#[derive(Debug)]
struct Destination {
    /// The other pods.
    peers: Vec<Arc<PodRecord>>,
    /// Some pod on its routes can't be named: the event must be delivered again.
    doubtful: bool,
}

impl Dispatcher {
    /// Finds the targets of what was taken, in order, until nothing more can come. What comes while the store is asked shares the next look-up.
    ///
    /// A look-up later than the event's arrival at this pod's sockets is as good as one before: it sees every route that was there when the event was stored and
    /// still is (G1).
    pub(super) async fn seek(&self, mut taken: mpsc::UnboundedReceiver<Vec<Taken>>) {
        while let Some(mut events) = taken.recv().await {
            while events.len() < LOOKED_UP_AT_ONCE
                && let Ok(more) = taken.try_recv()
            {
                events.extend(more);
            }
            let destinations = self.find_targets(&mut events).await;
            for (taken, to) in events.into_iter().zip(destinations) {
                self.send(taken, &to);
            }
        }
    }

    /// For each event, in order, where it goes: one look-up for all of them.
    async fn find_targets(&self, events: &mut [Taken]) -> Vec<Destination> {
        let mut keys: IndexSet<RouteKey> = IndexSet::new();
        let of_event: Vec<SmallVec<[usize; 1]>> = events
            .iter()
            .map(|taken| taken.event.address.routes().into_iter().map(|route| keys.insert_full(route).0).collect())
            .collect();
        let keys: Vec<RouteKey> = keys.into_iter().collect();
        let found = self.look_up_in_time(&keys, events).await;
        let destination = |places: SmallVec<[usize; 1]>| {
            let mut peers: Vec<Arc<PodRecord>> = Vec::new();
            for peer in places.iter().flat_map(|place| &found.peers[*place]) {
                if !peers.iter().any(|known| known.id == peer.id) {
                    peers.push(Arc::clone(peer));
                }
            }
            Destination { peers, doubtful: places.iter().any(|place| found.unreachable.contains(&keys[*place])) }
        };
        of_event.into_iter().map(destination).collect()
    }

    /// Looks the routes up. Events that have waited for a good part of their ack wait, before it or meanwhile, are kept here for longer, some times over: they would be
    /// delivered to another pod, whose look-up is no faster.
    async fn look_up_in_time(&self, keys: &[RouteKey], events: &mut [Taken]) -> Targets {
        let patience = self.source.limits().ack_wait / 3;
        let mut lookup = std::pin::pin!(self.look_up(keys));
        for _ in 0..EXTENSIONS {
            self.extend(events, patience).await;
            if let Ok(found) = tokio::time::timeout(patience, &mut lookup).await {
                return found;
            }
        }
        lookup.await
    }

    async fn look_up(&self, keys: &[RouteKey]) -> Targets {
        let found = self.directory.targets(self.routes.as_ref(), keys).await;
        if found.unknown.is_empty() { found } else { self.resolve_unknown(keys).await }
    }

    /// Asks the stream to leave events here that came longer ago than `patience`, unless it has delivered them again by now.
    async fn extend(&self, events: &mut [Taken], patience: Duration) {
        let now = Instant::now();
        let is_due =
            |taken: &Taken| (patience..patience * 2).contains(&now.saturating_duration_since(taken.delivery.received_at));
        let due: Vec<_> =
            events.iter().filter(|taken| is_due(taken)).map(|taken| (taken.ticket.clone(), Settlement::Extend)).collect();
        if due.is_empty() || self.source.settle(due).await.is_err() {
            return;
        }
        events.iter_mut().filter(|taken| is_due(taken)).for_each(|taken| taken.delivery.extended(now));
    }

    /// A pod on a route that is in no table is newer than ours, or dead. Membership reads the members anew; who is no member then is dead, and is
    /// taken out of the routes. Without a new reading nothing is known, and the events must come again.
    async fn resolve_unknown(&self, keys: &[RouteKey]) -> Targets {
        let refreshed = self.directory.refreshed().await;
        let mut found = self.directory.targets(self.routes.as_ref(), keys).await;
        if !refreshed {
            found.unreachable.extend(found.unknown.drain(..).map(|(_, route)| route));
            return found;
        }
        let mut dead: HashMap<PodId, Vec<RouteKey>> = HashMap::new();
        if !self.directory.is_settling() {
            for (pod, route) in &found.unknown {
                dead.entry(pod.clone()).or_default().push(route.clone());
            }
        }
        for (pod, routes) in dead {
            tracing::debug!(peer.id = %pod, routes = routes.len(), "a dead pod is taken out of routes");
            let _ = self.routes.prune(&pod, &routes).await;
        }
        found
    }

    fn send(&self, taken: Taken, to: &Destination) {
        let Taken { event, delivery, ticket, permit, span, here } = taken;
        let _entered = span.clone().map(Span::entered);
        let Destination { peers, doubtful } = to;
        let targets = peers.len() + 1 + usize::from(*doubtful);
        let in_flight = InFlight::new((Arc::clone(&event), span), delivery, targets, (ticket, permit), self.settled.clone());
        if *doubtful {
            in_flight.target(None).report(TargetOutcome::Parked);
        }
        for peer in peers {
            self.forwarder.forward(peer, in_flight.target(Some(peer.id.clone())));
        }
        let taken = here.is_taken();
        in_flight.target(None).report(if taken { TargetOutcome::Taken } else { TargetOutcome::Nobody });
        tracing::debug!(
            event.seq = event.seq, event.id = event.payload.event_id(), event.kind = event.address.kind().as_str(), request.id = event.request_id,
            company.id = %event.address.company(), agent.id = %event.address.agent(), peers = peers.len(), taken.here = taken,
            "an event is dispatched"
        );
    }
}
