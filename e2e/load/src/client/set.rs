//! The counts of a set of sockets, as one worker keeps them.

use std::collections::BTreeMap;

use super::protocol::Report;
use crate::samples::Samples;

/// What happened to a set of sockets in one worker.
#[derive(Debug)]
pub(super) struct Set {
    ready: u64,
    refused: BTreeMap<String, u64>,
    closed: BTreeMap<String, u64>,
    deliveries: u64,
    gaps: u64,
    latency: Samples,
    ready_in: Samples,
}

impl Set {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            ready: 0,
            refused: BTreeMap::new(),
            closed: BTreeMap::new(),
            deliveries: 0,
            gaps: 0,
            latency: Samples::new()?,
            ready_in: Samples::new()?,
        })
    }

    pub(super) fn delivered(&mut self, latency: Option<u64>) {
        self.deliveries += 1;
        if let Some(latency) = latency {
            self.latency.record(latency);
        }
    }

    pub(super) fn became_ready(&mut self, after: u64) {
        self.ready += 1;
        self.ready_in.record(after);
    }

    pub(super) fn gap(&mut self) {
        self.gaps += 1;
    }

    pub(super) fn refused(&mut self, why: String) {
        *self.refused.entry(why).or_default() += 1;
    }

    pub(super) fn closed(&mut self, why: String) {
        *self.closed.entry(why).or_default() += 1;
    }

    /// Sockets that the server closed.
    pub(super) fn closed_count(&self) -> u64 {
        self.closed.values().sum()
    }

    pub(super) fn reset(&mut self) {
        self.latency.clear();
    }

    /// All of it, but what only the sockets know.
    pub(super) fn report(&self) -> Report {
        Report {
            ready: self.ready,
            refused: self.refused.clone(),
            closed: self.closed.clone(),
            deliveries: self.deliveries,
            gaps: self.gaps,
            latency: self.latency.buckets(),
            ready_in: self.ready_in.buckets(),
            ..Report::default()
        }
    }
}
