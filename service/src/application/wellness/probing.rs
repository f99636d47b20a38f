//! Looking after a pod that is unwell: is the store quick again, do peers answer, and how are they?

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{ids::PodId, peer::PodRecord};
use futures_util::{StreamExt as _, stream};
use tokio::time::{Instant, sleep_until, timeout};

use super::{
    Wellness,
    pull_gate::{PullGate, Reason},
    stance::Stance,
};
use crate::ports::{PeerError, Peers, Routes};

/// From one round of probes to the next.
const PERIOD: Duration = Duration::from_millis(250);
/// The longest wait for an answer.
const PATIENCE: Duration = Duration::from_millis(500);
/// Peers that are asked in a round how they are, in turn: enough to find one that is well, few enough for a fleet that has lost
/// its store.
const ASKED: usize = 8;
/// Silent peers that are asked in a round beside those.
const SILENT_ASKED: usize = 64;

/// Through which ports a pod finds out whether it reaches store and peers.
#[derive(Clone)]
pub struct Probes {
    /// The store.
    pub routes: Arc<dyn Routes>,
    /// The peers.
    pub peers: Arc<dyn Peers>,
    /// Closed while this pod steps back.
    pub gate: Arc<PullGate>,
}

impl std::fmt::Debug for Probes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Probes").finish_non_exhaustive()
    }
}

impl Wellness {
    /// Probes the store and peers while there is reason to, and keeps the gate as the stance says, until cancelled.
    pub async fn watch(&self, probes: &Probes) {
        tokio::join!(self.keep_gate(&probes.gate), self.probe(probes));
    }

    async fn keep_gate(&self, gate: &PullGate) {
        loop {
            let stance = self.stance.get();
            gate.set(Reason::SteppedBack, stance == Stance::StepsBack);
            self.stance.wait_for(|now| now != stance).await;
        }
    }

    async fn probe(&self, probes: &Probes) {
        let mut turn = 0;
        loop {
            if self.lock().is_well(Instant::now()) {
                self.note(|_, _| {});
                self.stirred.notified().await;
                continue;
            }
            let next = Instant::now() + PERIOD;
            tokio::join!(self.probe_store(probes.routes.as_ref()), self.probe_peers(probes.peers.as_ref(), &mut turn));
            self.note(|_, _| {});
            sleep_until(next).await;
        }
    }

    async fn probe_store(&self, routes: &dyn Routes) {
        let asked = self.asks_store();
        let answer = timeout(PATIENCE, routes.lookup(self.directory.me(), &[])).await;
        drop(asked);
        if !matches!(answer, Ok(Ok(_))) {
            self.note(|evidence, now| evidence.store_failed(now));
        }
    }

    async fn probe_peers(&self, peers: &dyn Peers, turn: &mut usize) {
        let ask = |peer: PodRecord| async move {
            let started = Instant::now();
            let answer = timeout(PATIENCE, peers.is_well(&peer)).await.unwrap_or(Err(PeerError::TimedOut));
            self.hear(&peer.id, &answer, started.elapsed());
        };
        stream::iter(self.next_asked(turn)).for_each_concurrent(None, ask).await;
    }

    fn hear(&self, pod: &PodId, answer: &Result<bool, PeerError>, took: Duration) {
        self.note(|evidence, now| match answer {
            Ok(is_well) => {
                evidence.peer_answered(pod, took, now);
                evidence.heard(pod, *is_well, now);
            }
            Err(error) if error.is_silent() => evidence.peer_is_silent(pod, now),
            // It answers, and says nothing.
            Err(_) => evidence.peer_answered(pod, took, now),
        });
    }

    /// Some of the peers in turn, and those that were silent.
    fn next_asked(&self, turn: &mut usize) -> Vec<PodRecord> {
        let mut peers = self.directory.peers();
        if peers.is_empty() {
            return peers;
        }
        peers.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        let first = *turn % peers.len();
        peers.rotate_left(first);
        *turn = first + ASKED;
        let silent: Vec<PodId> = self.lock().silent().take(SILENT_ASKED).cloned().collect();
        let mut place = 0;
        peers.retain(|peer| {
            place += 1;
            place <= ASKED || silent.contains(&peer.id)
        });
        peers
    }
}
