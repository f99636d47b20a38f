//! The state of a dev fleet in one answer: what the console draws.

use prometheus::{core::Collector, proto::MetricType};
use serde::Serialize;

use super::{
    running::{Fleet, is_up},
    slot::{Phase, Slot},
};
use crate::{
    gateway::{StoreChoice, StreamChoice},
    metrics::{Metrics, labels::MoveOutcome},
};

/// The fleet.
#[derive(Debug, Serialize)]
pub(super) struct Status {
    api_key: String,
    pods: Vec<PodStatus>,
    store: Backend,
    stream: Backend,
    last_seq: Option<u64>,
    ack_pending: Option<usize>,
    pending: Option<u64>,
    takes: Vec<TakeStatus>,
}

#[derive(Debug, Serialize)]
struct PodStatus {
    id: String,
    address: String,
    phase: Phase,
    ready: bool,
    sockets: f64,
    sent: f64,
    taken: f64,
    handed_over: f64,
    dropped: f64,
    gaps: f64,
    parked: f64,
    asked: f64,
    moved: f64,
    peers: f64,
    lapsed: f64,
}

/// A backend; `down` is null where only its real server knows.
#[derive(Debug, Serialize)]
struct Backend {
    kind: &'static str,
    down: Option<bool>,
}

#[derive(Debug, Serialize)]
struct TakeStatus {
    seq: u64,
    pod: String,
    stored_at_ms: f64,
}

/// The fleet now, with who took the events after this one.
pub(super) fn of(fleet: &Fleet, after: u64) -> Status {
    let store = match &fleet.store {
        StoreChoice::Redis => Backend { kind: "redis", down: None },
        StoreChoice::Memory(store) => Backend { kind: "memory", down: Some(store.is_down()) },
    };
    let (stream, memory) = match &fleet.stream {
        StreamChoice::Nats => (Backend { kind: "nats", down: None }, None),
        StreamChoice::Memory(stream) => (Backend { kind: "memory", down: Some(stream.is_down()) }, Some(stream)),
    };
    let takes = memory.map(|stream| stream.takes(after)).unwrap_or_default();
    Status {
        api_key: fleet.api_key.clone(),
        pods: fleet.slots.iter().map(|slot| pod(slot)).collect(),
        store,
        stream,
        last_seq: memory.map(crate::adapters::memory::stream::Stream::last_seq),
        ack_pending: memory.map(crate::adapters::memory::stream::Stream::ack_pending),
        pending: memory.map(crate::adapters::memory::stream::Stream::pending),
        takes: takes
            .into_iter()
            .map(|take| TakeStatus {
                seq: take.seq,
                pod: take.pod.to_string(),
                stored_at_ms: take.stored_at.as_secs_f64() * 1000.0,
            })
            .collect(),
    }
}

fn pod(slot: &Slot) -> PodStatus {
    let tenant = slot.tenant();
    let metrics: &Metrics = &tenant.metrics;
    metrics.flush();
    let ready = is_up(tenant.phase) && tenant.readiness.report(std::time::Duration::ZERO).ready;
    PodStatus {
        id: slot.id.to_string(),
        address: slot.http.address().to_string(),
        phase: tenant.phase,
        ready,
        // However it ended, its sockets are gone, though their tasks may not know it yet.
        sockets: if tenant.phase == Phase::Stopped { 0.0 } else { sum(&metrics.active_connections, &[]) },
        sent: sum(&metrics.messages_sent_total, &[("type", "event")]),
        taken: sum(&metrics.messages_received_total, &[]),
        handed_over: sum(&metrics.grpc_messages_sent_total, &[]),
        dropped: sum(&metrics.websocket_messages_dropped_total, &[]),
        gaps: sum(&metrics.gaps_announced_total, &[]),
        parked: sum(&metrics.events_parked, &[]),
        asked: sum(&metrics.session_moves_total, &[("outcome", MoveOutcome::Asked.as_str())]),
        moved: sum(&metrics.session_moves_total, &[("outcome", MoveOutcome::Moved.as_str())]),
        peers: sum(&metrics.peers, &[("state", "alive")]),
        lapsed: sum(&metrics.peers, &[("state", "lapsed")]),
    }
}

/// The sum over all series that have these labels.
fn sum(metric: &impl Collector, labels: &[(&str, &str)]) -> f64 {
    let families = metric.collect();
    let series =
        families.iter().flat_map(|family| family.get_metric().iter().map(move |series| (family.get_field_type(), series)));
    series
        .filter(|(_, series)| {
            labels
                .iter()
                .all(|(name, value)| series.get_label().iter().any(|pair| pair.name() == *name && pair.value() == *value))
        })
        .map(|(kind, series)| match kind {
            MetricType::COUNTER => series.get_counter().get_value(),
            _ => series.get_gauge().get_value(),
        })
        // Of nothing, `sum` makes -0.0.
        .fold(0.0, std::ops::Add::add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_go_over_the_series_that_have_the_labels() {
        let metrics = Metrics::new().unwrap();
        metrics.messages_sent_total.with_label_values(&["event"]).inc_by(3);
        metrics.messages_sent_total.with_label_values(&["gap"]).inc();
        metrics.active_connections.with_label_values(&["user"]).set(2);
        metrics.active_connections.with_label_values(&["admin"]).set(1);
        assert!((sum(&metrics.messages_sent_total, &[("type", "event")]) - 3.0).abs() < f64::EPSILON);
        assert!((sum(&metrics.active_connections, &[]) - 3.0).abs() < f64::EPSILON);
    }
}
