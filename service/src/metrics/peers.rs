//! The series of each peer: made with it, and removed with it.

use prometheus::{IntCounterVec, IntGaugeVec};

use super::Metrics;

impl Metrics {
    fn of_peers(&self) -> ([&IntCounterVec; 5], [&IntGaugeVec; 3]) {
        let counters = [
            &self.grpc_messages_sent_total,
            &self.grpc_forward_retry_attempts_total,
            &self.grpc_forward_retry_success_total,
            &self.grpc_forward_retry_failure_total,
            &self.grpc_circuitbreaker_tripped_total,
        ];
        (counters, [&self.events_parked, &self.gaps_owed, &self.grpc_circuitbreaker_open])
    }

    /// Makes the series of a peer, at 0.
    pub(crate) fn know_peer(&self, pod: &str) {
        let (counters, gauges) = self.of_peers();
        counters.iter().for_each(|series| drop(series.with_label_values(&[pod])));
        gauges.iter().for_each(|series| drop(series.with_label_values(&[pod])));
    }

    /// Removes the series of a peer that is gone.
    pub(crate) fn forget_peer(&self, pod: &str) {
        let (counters, gauges) = self.of_peers();
        counters.iter().for_each(|series| drop(series.remove_label_values(&[pod])));
        gauges.iter().for_each(|series| drop(series.remove_label_values(&[pod])));
    }
}
