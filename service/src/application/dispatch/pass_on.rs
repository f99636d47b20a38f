//! Gives events back that another pod brings to the others sooner than this one.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::taken::Taken;
use crate::{
    application::{
        forward::in_flight::{InFlight, Settled, TargetOutcome, may_pass},
        wellness::Wellness,
    },
    metrics::Metrics,
};

/// Gives events back to the stream that another pod can bring to its peers and this one can not.
#[derive(Clone)]
pub struct PassOn {
    /// How this pod is.
    pub wellness: Arc<Wellness>,
    /// Takes what is to be settled.
    pub settled: mpsc::UnboundedSender<Settled>,
    /// Counts.
    pub metrics: Arc<Metrics>,
}

impl PassOn {
    /// Gives back at once what another pod brings to the others sooner than this one, if that is so; this pod's sockets have had
    /// it. Returns the rest, and whether more of it could be; nothing if there is none.
    pub(super) fn split(&self, events: Vec<Taken>) -> Option<(Vec<Taken>, bool)> {
        let (passed, rest): (Vec<_>, Vec<_>) = if self.wellness.stance().gives_back() {
            events.into_iter().partition(|taken| may_pass(&taken.pulled.delivery))
        } else {
            (Vec::new(), events)
        };
        self.metrics.events_passed_on_total.inc_by(passed.len() as u64);
        for Taken { pulled, .. } in passed {
            let in_flight = InFlight::new(pulled, 1, self.settled.clone());
            in_flight.target(None).report(TargetOutcome::Passed);
        }
        let can_pass = rest.iter().any(|taken| may_pass(&taken.pulled.delivery));
        (!rest.is_empty()).then_some((rest, can_pass))
    }
}
