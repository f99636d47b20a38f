//! When all targets of an event have spoken: settles it with the stream, and counts.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{in_flight::InFlightEvents, losses::Losses};
use crate::{
    application::forward::{forwarder::Forwarder, in_flight::Settled, peer_queue::gap_of},
    metrics::{Metrics, SettledAs},
    ports::{EventSource, Settlement},
    telemetry::Chain,
};

/// Settlements in one call.
const MAX_SETTLEMENTS: usize = 512;

/// Settles events.
#[derive(Clone)]
pub(crate) struct Settler {
    /// Where they came from.
    pub source: Arc<dyn EventSource>,
    /// Told of peers whose sessions missed one.
    pub forwarder: Arc<Forwarder>,
    /// How many are not settled.
    pub in_flight: InFlightEvents,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Settler {
    /// Settles events as their outcomes come in, until every sender is gone.
    pub(crate) async fn run(&self, settled: &mut mpsc::UnboundedReceiver<Settled>) {
        let (mut batch, mut losses) = (Vec::with_capacity(MAX_SETTLEMENTS), Losses::default());
        loop {
            let taken = tokio::select! {
                biased;
                () = losses.due() => {
                    losses.tell();
                    continue;
                }
                taken = settled.recv_many(&mut batch, MAX_SETTLEMENTS) => taken,
            };
            if taken == 0 {
                return;
            }
            let mut settlements = Vec::with_capacity(batch.len());
            let ack_wait = self.source.limits().ack_wait;
            for settled in &mut batch {
                let late = settled.is_late(ack_wait);
                self.account(settled, late, &mut losses);
                if late {
                    continue;
                }
                settlements.push((std::mem::take(&mut settled.ack_token), settled.settlement));
            }
            self.metrics.events_in_flight.set(i64::try_from(self.in_flight.count()).unwrap_or(i64::MAX));
            if let Err(error) = self.source.settle(settlements).await {
                tracing::debug!(
                    error = %Chain(&error), events = batch.len(),
                    "events could not be settled and will be delivered again"
                );
            }
            batch.clear();
        }
    }

    fn account(&self, settled: &Settled, late: bool, losses: &mut Losses) {
        let kind = settled.event.address.kind().as_str();
        let outcome = match settled.settlement {
            Settlement::Ack => SettledAs::Acked,
            Settlement::Terminate if !late => SettledAs::GivenUp,
            Settlement::Terminate | Settlement::Retry(_) | Settlement::Extend => SettledAs::Retried,
        };
        if self.metrics.recording() {
            self.metrics.sharded().settled(outcome);
        }
        if settled.settlement == Settlement::Ack && !settled.taken {
            self.metrics.events_unclaimed_total.with_label_values(&[kind]).inc();
        }
        if settled.settlement != Settlement::Terminate || late {
            return;
        }
        losses.note(settled.event.seq);
        for peer in &settled.given_up {
            self.forwarder.owe_gap(peer, settled.event.address.routes(), gap_of(&settled.event));
        }
    }
}
