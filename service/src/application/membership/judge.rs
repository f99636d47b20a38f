//! Who is dead?
//!
//! A pod is dead only when it has no liveness key *and* does not answer a probe, and not while look-ups are settling. Before
//! anybody routes past it, it is taken out of the members: so if it was merely frozen, its next announcement tells it, and it can
//! tell its sessions.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{ids::PodId, maps::Map, peer::PodRecord};
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, MissedTickBehavior};

use super::neighbours::Neighbours;
use crate::{
    ports::{MAX_PODS, Routes, log_store_error},
    telemetry::Chain,
};

/// Probes in a row that must fail before a lapsed peer counts as dead.
const FAILED_PROBES: u32 = 2;
/// Peers that are probed at a time.
pub(super) const PROBED_AT_ONCE: usize = 64;
/// Periods after which a member without a key that nobody here ever knew is retired: its address is unknown, so it cannot be
/// probed.
const UNKNOWN_PERIODS: u32 = 15;

/// What one round remembers for the next; bounded as the fleet is.
#[derive(Debug, Default)]
struct Suspects {
    failed_probes: Map<PodId, u32>,
    /// Since when.
    unknown: Map<PodId, Instant>,
}

/// What judging works with.
#[derive(Clone)]
pub(crate) struct Judge {
    /// From one round to the next.
    pub period: Duration,
    /// Where members are kept.
    pub routes: Arc<dyn Routes>,
    /// Who is probed.
    pub neighbours: Neighbours,
}

impl Judge {
    /// Probes who has lapsed, and retires who is dead, once a period.
    pub(super) async fn run(&self) {
        let mut rounds = tokio::time::interval(self.period);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut suspects = Suspects::default();
        loop {
            rounds.tick().await;
            self.judge_lapsed(&mut suspects).await;
            self.judge_unknown(&mut suspects).await;
        }
    }

    async fn judge_lapsed(&self, suspects: &mut Suspects) {
        let lapsed = self.neighbours.directory.lapsed();
        suspects.failed_probes.retain(|pod, _| lapsed.iter().any(|peer| peer.id == *pod));
        if lapsed.is_empty() {
            return;
        }
        let probes = lapsed.into_iter().map(|peer| async move {
            let answer = self.neighbours.peers.probe(&peer).await;
            if let Err(error) = &answer {
                tracing::debug!(peer.id = %peer.id, error = %Chain(error), "a peer without a liveness key does not answer");
            }
            (peer, answer.is_ok())
        });
        let answers: Vec<(PodRecord, bool)> = stream::iter(probes).buffer_unordered(PROBED_AT_ONCE).collect().await;
        let mut dead = Vec::new();
        for (peer, answers) in answers {
            if answers {
                suspects.failed_probes.remove(&peer.id);
                continue;
            }
            let failed = suspects.failed_probes.entry(peer.id.clone()).or_default();
            *failed += 1;
            if *failed >= FAILED_PROBES {
                dead.push(peer.id);
            }
        }
        // In this order: while it is a member, it is not routed past.
        for pod in self.retire(&dead).await.unwrap_or_default() {
            tracing::warn!(peer.id = %pod, "a peer is dead: no liveness key, and no answer");
            self.neighbours.remove(&pod);
        }
    }

    /// Of many unknown members each announcement shows others, so what is suspected stays so until it is judged; who has a key by
    /// then is spared.
    async fn judge_unknown(&self, suspects: &mut Suspects) {
        let now = Instant::now();
        suspects.unknown.retain(|pod, _| self.neighbours.directory.peer(pod).is_none());
        for pod in self.neighbours.directory.unknown() {
            if suspects.unknown.len() < MAX_PODS {
                suspects.unknown.entry(pod).or_insert(now);
            }
        }
        let patience = self.period * UNKNOWN_PERIODS;
        let patient = suspects.unknown.iter().filter(|(_, since)| now.duration_since(**since) >= patience);
        let dead: Vec<PodId> = patient.map(|(pod, _)| pod.clone()).collect();
        if self.retire(&dead).await.is_some() {
            suspects.unknown.retain(|pod, _| !dead.contains(pod));
        }
    }

    /// Takes pods out of the members; returns those that really had no key, or nothing if that is not the time.
    async fn retire(&self, dead: &[PodId]) -> Option<Vec<PodId>> {
        if dead.is_empty() || self.neighbours.directory.is_settling() {
            return None;
        }
        let retired = match self.routes.retire(dead).await {
            Ok(retired) => retired,
            Err(error) => {
                log_store_error!(&error, pods = dead.len(), "dead pods could not be taken out of the members; trying again");
                return None;
            }
        };
        Some(dead.iter().zip(retired).filter(|(_, without_key)| *without_key).map(|(pod, _)| pod.clone()).collect())
    }
}
