//! The way to other pods: has the peers found for what was taken, and hands it to their queues.

use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tracing::Span;

use super::{
    lookup::{Destination, Lookup},
    pass_on::PassOn,
    taken::Taken,
    unknown_members::UnknownMembers,
};
use crate::{
    application::forward::{
        forwarder::Forwarder,
        in_flight::{InFlight, Settled},
    },
    config::Config,
    ports::Handed,
};

/// A look-up begins with no more events than this; a batch that was taken is not divided.
const LOOKED_UP_AT_ONCE: usize = 1024;

/// Sends events to other pods.
#[derive(Clone)]
pub struct Resolver {
    /// Finds out where they go.
    pub lookup: Lookup,
    /// The way to other pods.
    pub forwarder: Arc<Forwarder>,
    /// Gives back what is better off elsewhere.
    pub pass_on: PassOn,
    /// Takes what is to be settled.
    pub settled: mpsc::UnboundedSender<Settled>,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
}

impl Resolver {
    /// Finds the targets of what was taken, in order, until nothing more can come. What comes while the store is asked shares the
    /// next look-up.
    ///
    /// A look-up later than the event's arrival at this pod's sockets is as good as one before: it sees every route that was
    /// there when the event was stored and still is (G1).
    pub(super) async fn run(&self, mut taken: mpsc::UnboundedReceiver<Vec<Taken>>) {
        let mut unknown_members = UnknownMembers::default();
        while let Some(mut events) = taken.recv().await {
            while events.len() < LOOKED_UP_AT_ONCE
                && let Ok(more) = taken.try_recv()
            {
                events.extend(more);
            }
            while let Some((mut rest, can_pass)) = self.pass_on.split(events) {
                let destinations = tokio::select! {
                    biased;
                    destinations = self.lookup.find_targets(&mut rest) => destinations,
                    // What can go to another pod does not wait for this one's answer.
                    () = self.pass_on.wellness.gives_back(), if can_pass => {
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

    fn send(&self, taken: Taken, to: &Destination, unknown_members: &mut UnknownMembers) {
        let Taken { pulled, here } = taken;
        let _entered = pulled.span.clone().map(Span::entered);
        let Destination { peers, doubtful } = to;
        let targets = peers.len() + 1 + usize::from(doubtful.is_some());
        let (event, deliveries) = (Arc::clone(&pulled.event), pulled.delivery.count);
        let in_flight = InFlight::new(pulled, targets, self.settled.clone());
        if let Some(pod) = doubtful {
            let max_deliveries = self.config.borrow().app.forward_max_deliveries;
            let outcome = unknown_members.outcome(event.seq, deliveries, max_deliveries, self.forwarder.limits().peer);
            in_flight.target(Some(pod.clone())).report(outcome);
        }
        for peer in peers {
            self.forwarder.forward(peer, in_flight.target(Some(peer.id.clone())));
        }
        let taken = here.is_taken();
        in_flight.target(None).report(Handed::from(here).into());
        tracing::debug!(
            event.seq = event.seq, event.id = event.payload.event_id(), event.kind = event.address.kind().as_str(),
            request.id = event.request_id,
            company.id = %event.address.company(), agent.id = %event.address.agent(), peers = peers.len(), taken.here = taken,
            "an event is dispatched"
        );
    }
}
