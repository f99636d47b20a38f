//! Reads what was pulled, and brings it to this pod's sockets.

use std::sync::Arc;

use daisi_ws_domain::event::{Address, Event, Path, Payload, PayloadError, SubjectError};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::Span;

use super::{in_flight::InFlightEvents, limits::Limits, taken::Taken};
use crate::{
    application::{forward::in_flight::Pulled, hub::deliver::LocalDelivery},
    config::Config,
    metrics::{Metrics, SettledAs},
    ports::{AckToken, EventSource, RawEvent, Settlement},
    telemetry::{Chain, spans},
};

/// Why an event can never be delivered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Poison {
    #[error(transparent)]
    Subject(#[from] SubjectError),
    #[error(transparent)]
    Payload(#[from] PayloadError),
}

/// Brings events to this pod's sockets.
#[derive(Clone)]
pub struct Deliverer {
    /// Told what can't be read.
    pub source: Arc<dyn EventSource>,
    /// The way to this pod's sockets.
    pub local: LocalDelivery,
    /// What may wait for the others.
    pub limits: Limits,
    /// Counts what is in flight.
    pub in_flight: InFlightEvents,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl Deliverer {
    /// Brings events to this pod's sockets. Returns them for the rest of their way, and what can't be read.
    pub(super) fn deliver(
        &self,
        raw: Vec<RawEvent>,
        mut places: OwnedSemaphorePermit,
    ) -> (Vec<Taken>, Vec<(AckToken, Settlement)>) {
        self.limits.apply();
        let prefix = self.config.borrow().nats.subject_prefix.clone();
        let mut events = Vec::with_capacity(raw.len());
        let mut poison = Vec::new();
        for raw in raw {
            match parse(&prefix, &raw) {
                Ok(mut event) => {
                    let span = trace(&mut event);
                    events.push((Arc::new(event), raw.delivery, raw.ack_token, span));
                }
                Err(why) => {
                    tracing::warn!(
                        event.seq = raw.seq, event.bytes = raw.payload.len(), request.id = raw.request_id, %why,
                        "an event can't be read and is dropped from the stream's deliveries"
                    );
                    poison.push((raw.ack_token, Settlement::Terminate));
                }
            }
        }
        let delivered = self.local.deliver_local(events.iter().map(|(event, ..)| event.as_ref()), Path::Local);
        let mut batch = Vec::with_capacity(events.len());
        for ((event, delivery, ack_token, span), here) in events.into_iter().zip(delivered) {
            if self.metrics.recording() {
                self.metrics.sharded().received(event.address.kind());
            }
            if delivery.count > 1 {
                self.metrics.events_redelivered_total.inc();
            }
            if let Some(permit) = self.in_flight.enter(&mut places, event.payload.bytes().len()) {
                batch.push(Taken { pulled: Pulled { event, delivery, ack_token, permit, span }, here });
            }
        }
        (batch, poison)
    }

    /// Has the stream deliver no more what can't be read.
    pub(super) async fn terminate(&self, poison: Vec<(AckToken, Settlement)>) {
        if !poison.is_empty() {
            self.metrics.events_settled_total.with_label_values(&[SettledAs::Poison.as_str()]).inc_by(poison.len() as u64);
            if let Err(error) = self.source.settle(poison).await {
                tracing::debug!(error = %Chain(&error), "events that can't be read could not be ended, and come again");
            }
        }
    }
}

/// Opens the event's span, if it is traced, and makes it what comes after hangs on.
fn trace(event: &mut Event) -> Option<Span> {
    let kind = event.address.kind().as_str();
    let span = spans::dispatch(event.traceparent.as_deref(), kind, event.seq, event.payload.event_id())?;
    event.traceparent = spans::traceparent_of(&span);
    Some(span)
}

fn parse(prefix: &str, raw: &RawEvent) -> Result<Event, Poison> {
    Ok(Event {
        address: Address::parse(prefix, &raw.subject)?,
        payload: Payload::parse(&raw.payload)?,
        stream: raw.stream,
        seq: raw.seq,
        stored_at: raw.stored_at,
        request_id: raw.request_id.clone(),
        traceparent: raw.traceparent.clone(),
    })
}
