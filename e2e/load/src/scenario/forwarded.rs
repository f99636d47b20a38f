//! The load of `spread`, with all sockets on one pod while the other takes the events: what the way from pod to pod adds.

use anyhow::Result;

use super::{
    measured::{curve as curve_of, ratio},
    spread::Spread,
};
use crate::{
    report::{Curve, Figure, Size},
    stage::pod::Pod,
};

/// The pod that holds the sockets takes its events from another stream, in which there are none: so it pulls nothing of what the other shall
/// forward to it.
pub(super) const HOLDS_ONLY: [(&str, &str); 3] = [
    ("DAISI_WS_NATS_STREAM_NAME", "wa_nothing"),
    ("DAISI_WS_NATS_SUBJECT_PREFIX", "nothing"),
    ("DAISI_WS_NATS_STREAM_MAX_BYTES", "16777216"),
];

/// What was measured.
#[derive(Debug)]
pub(super) struct Forwarded {
    spread: Spread,
    /// Of all events, those that came by way of the other pod: from 0 to 1.
    share: f64,
}

/// Deliveries by way of another pod that this one has counted.
///
/// # Errors
/// When the pod does not answer.
pub(super) fn count(pod: &Pod) -> Result<f64> {
    pod.metric("dws_grpc_messages_received_total", "")
}

impl Forwarded {
    /// What `spread` gave, and how many events were forwarded meanwhile, its warm-up included.
    pub(super) fn new(spread: Spread, forwarded: f64, published: u64) -> Self {
        Self { share: forwarded / ratio(published, 1).max(1.0), spread }
    }
}

/// The figures, beside those of the floor and of the same load on one pod.
pub(super) fn figures(size: Size, gateway: &Forwarded, local: &Spread, floor: Option<&Spread>) -> Vec<Figure> {
    let figure = |name, unit, value, floor| size.figure("forwarded", name, unit, value, floor);
    let p95 = gateway.spread.latency.millis_at(0.95);
    vec![
        figure("CPU per event, all pods", "us", gateway.spread.micros, floor.map(|floor| floor.micros)),
        figure("latency p95 added by forwarding", "ms", p95 - local.latency.millis_at(0.95), None),
        figure("latency p95", "ms", p95, floor.map(|floor| floor.latency.millis_at(0.95))),
        figure("latency p99", "ms", gateway.spread.latency.millis_at(0.99), floor.map(|floor| floor.latency.millis_at(0.99))),
        figure("events forwarded", "%", gateway.share * 100.0, None),
    ]
}

/// Its latencies.
pub(super) fn curve(measured: &Forwarded) -> Curve {
    curve_of("forwarded", "gateway", &measured.spread.latency)
}
