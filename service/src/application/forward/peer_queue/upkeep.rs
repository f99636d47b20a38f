//! Looking after a peer: signs of life while its breaker is open, and the gaps that its sessions are owed.

use std::time::Duration;

use daisi_ws_domain::gap::Gap;
use tokio::time::{Instant, sleep_until};

use super::{PeerQueue, backlog::Health};
use crate::{ports::PeerError, telemetry::Chain};

/// While the breaker is open, or a gap is owed, the peer is asked for a sign of life this often. Gaps are announced no more often
/// either.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// The longest wait for a peer to take gaps.
const GAP_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that refuses gaps is told by way of the store, which tells all of its sessions: not more often than this.
const PASS_OVER_PERIOD: Duration = Duration::from_secs(10);

impl PeerQueue {
    /// Asks a peer that was unreachable for a sign of life, so that events are not held up by the breaker longer than need be,
    /// and announces gaps.
    pub(super) async fn look_after(&self) {
        let mut look_at = Instant::now() + LOOK_PERIOD;
        let (mut announce_at, mut pass_over_at) = (Instant::now(), Instant::now());
        loop {
            let is_restless = {
                let queue = self.queue();
                queue.parked() > 0 || !queue.breaker.is_closed()
            } || !self.pending_gaps().is_empty();
            tokio::select! {
                biased;
                () = sleep_until(look_at), if is_restless => {}
                () = self.stirred.notified() => {}
            }
            let now = Instant::now();
            let (health, is_closed) = {
                let mut queue = self.queue();
                queue.forget_redelivered(now);
                self.count(&mut queue, now);
                (queue.health(now), queue.breaker.is_closed())
            };
            self.show();
            let (is_due, has_pending) = (now >= look_at, !self.pending_gaps().is_empty());
            if is_due {
                look_at = now + LOOK_PERIOD;
            }
            let is_well = health == Health::Well;
            let is_back = is_due && !is_well && (has_pending || !is_closed) && self.shared.peers.probe(&self.peer).await.is_ok();
            if is_back {
                self.queue().alive(Instant::now());
            }
            if has_pending && now >= announce_at && (is_well || is_back) {
                announce_at = now + LOOK_PERIOD;
                match self.announce().await {
                    Ok(()) => {}
                    // The link is bad after all.
                    Err(error) if error.is_silent() => continue,
                    // It lives, and takes no gaps from this pod.
                    Err(_) => {
                        if Instant::now() >= pass_over_at {
                            pass_over_at = Instant::now() + PASS_OVER_PERIOD;
                            self.pass_over().await;
                        }
                    }
                }
            }
            if is_back {
                // Only now: events that are newer come after the gap.
                self.queue().breaker.hint(Instant::now().into_std());
            }
        }
    }

    /// Remembers that all sessions of the peer go without some events.
    pub(crate) fn add_gap_to_all(&self, gap: Gap) {
        self.pending_gaps().add(None, gap);
        self.show();
        self.stirred.notify_one();
    }

    /// Takes over what the sessions there were owed by the queue before.
    pub(crate) fn inherit(&self, before: &Self) {
        let gaps = before.pending_gaps().begin();
        let mut pending = self.pending_gaps();
        gaps.into_iter().for_each(|gap| pending.add(gap.route, gap.gap));
    }

    /// Announces all that is owed, in one call.
    pub(super) async fn announce(&self) -> Result<(), PeerError> {
        let gaps = self.pending_gaps().begin();
        let telling = self.shared.peers.announce_gaps(&self.peer, &gaps);
        let told = tokio::time::timeout(GAP_TIMEOUT, telling).await.unwrap_or(Err(PeerError::TimedOut));
        match &told {
            Ok(()) => self.pending_gaps().announced(),
            Err(error) => {
                self.pending_gaps().not_announced();
                tracing::debug!(
                    peer.id = %self.peer.id, error = %Chain(error), gaps = gaps.len(),
                    "gaps stay owed to the peer's sessions"
                );
            }
        }
        self.show();
        told
    }

    /// Tells a peer that takes no gaps from this pod by way of the store. All of its sessions get one of unknown size.
    pub(super) async fn pass_over(&self) {
        let gaps = self.pending_gaps().begin();
        match self.shared.routes.pass_over(&self.peer.id).await {
            Ok(()) => {
                self.pending_gaps().announced();
                tracing::warn!(
                    peer.id = %self.peer.id, gaps = gaps.len(),
                    "the peer takes no gaps from this pod, and is told by way of the store; do all pods have the same token keys?"
                );
            }
            Err(error) => {
                self.pending_gaps().not_announced();
                tracing::warn!(
                    peer.id = %self.peer.id, gaps = gaps.len(), error = %Chain(&error), error.kind = error.as_str(),
                    error.advice = error.advice(),
                    "the peer's sessions can't be told of gaps now"
                );
            }
        }
        self.show();
    }
}
