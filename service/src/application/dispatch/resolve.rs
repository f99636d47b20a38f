//! The way to other pods: finds the peers for what was taken, and hands it to their queues.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey};
use indexmap::IndexSet;
use smallvec::SmallVec;
use tokio::{sync::mpsc, time::Instant};
use tracing::Span;

use super::{Dispatcher, Taken, unknown_members::UnknownMembers};
use crate::{
    application::{
        fleet::directory::Targets,
        forward::in_flight::{InFlight, TargetOutcome, may_pass},
        wellness::stance::SLOW,
    },
    ports::{Handed, Settlement},
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
    /// A pod on its routes whose address is not known: the event must be delivered again.
    doubtful: Option<PodId>,
}

impl Dispatcher {
    /// Finds the targets of what was taken, in order, until nothing more can come. What comes while the store is asked shares the next look-up.
    ///
    /// A look-up later than the event's arrival at this pod's sockets is as good as one before: it sees every route that was there when the event was stored and
    /// still is (G1).
    pub(super) async fn resolve(&self, mut taken: mpsc::UnboundedReceiver<Vec<Taken>>) {
        let mut unknown_members = UnknownMembers::default();
        while let Some(mut events) = taken.recv().await {
            while events.len() < LOOKED_UP_AT_ONCE
                && let Ok(more) = taken.try_recv()
            {
                events.extend(more);
            }
            while let Some((mut rest, can_pass)) = self.pass_on(events) {
                let destinations = tokio::select! {
                    biased;
                    destinations = self.find_targets(&mut rest) => destinations,
                    // What can go to another pod does not wait for this one's answer.
                    () = self.wellness.gives_back(), if can_pass => {
                        events = rest;
                        continue;
                    }
                };
                for (taken, to) in rest.into_iter().zip(destinations) {
                    self.send(taken, &to, &mut unknown_members);
                }
                break;
            }
        }
    }

    /// Gives back at once what another pod brings to the others sooner than this one, if that is so; this pod's sockets have had it. Returns the rest, and whether more of
    /// it could be; nothing if there is none.
    pub(super) fn pass_on(&self, events: Vec<Taken>) -> Option<(Vec<Taken>, bool)> {
        let (passed, rest): (Vec<_>, Vec<_>) = if self.wellness.stance().gives_back() {
            events.into_iter().partition(|taken| may_pass(&taken.delivery))
        } else {
            (Vec::new(), events)
        };
        self.metrics.events_passed_on_total.inc_by(passed.len() as u64);
        for Taken { event, delivery, ack_token, permit, span, .. } in passed {
            let in_flight = InFlight::new((event, span), delivery, 1, (ack_token, permit), self.settled.clone());
            in_flight.target(None).report(TargetOutcome::Passed);
        }
        let can_pass = rest.iter().any(|taken| may_pass(&taken.delivery));
        (!rest.is_empty()).then_some((rest, can_pass))
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
            Destination { peers, doubtful: places.iter().find_map(|place| found.doubtful[*place].clone()) }
        };
        of_event.into_iter().map(destination).collect()
    }

    /// Looks the routes up. Events that have waited for a good part of their ack wait, before it or meanwhile, are kept here for longer, some times over: they would be
    /// delivered to another pod, whose look-up is no faster.
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
            |taken: &Taken| (patience..patience * 2).contains(&now.saturating_duration_since(taken.delivery.received_at));
        let due: Vec<_> =
            events.iter().filter(|taken| is_due(taken)).map(|taken| (taken.ack_token.clone(), Settlement::Extend)).collect();
        if due.is_empty() || self.source.settle(due).await.is_err() {
            return;
        }
        events.iter_mut().filter(|taken| is_due(taken)).for_each(|taken| taken.delivery.extended(now));
    }

    fn send(&self, taken: Taken, to: &Destination, unknown_members: &mut UnknownMembers) {
        let Taken { event, delivery, ack_token, permit, span, here } = taken;
        let _entered = span.clone().map(Span::entered);
        let Destination { peers, doubtful } = to;
        let targets = peers.len() + 1 + usize::from(doubtful.is_some());
        let deliveries = delivery.count;
        let in_flight = InFlight::new((Arc::clone(&event), span), delivery, targets, (ack_token, permit), self.settled.clone());
        if let Some(pod) = doubtful {
            let max_deliveries = self.config.borrow().app.forward_max_deliveries;
            let outcome = unknown_members.outcome((event.seq, deliveries), max_deliveries, self.forwarder.limits().peer);
            in_flight.target(Some(pod.clone())).report(outcome);
        }
        for peer in peers {
            self.forwarder.forward(peer, in_flight.target(Some(peer.id.clone())));
        }
        let taken = here.is_taken();
        in_flight.target(None).report(Handed::from(here).into());
        tracing::debug!(
            event.seq = event.seq, event.id = event.payload.event_id(), event.kind = event.address.kind().as_str(), request.id = event.request_id,
            company.id = %event.address.company(), agent.id = %event.address.agent(), peers = peers.len(), taken.here = taken,
            "an event is dispatched"
        );
    }
}
