//! Getting to know the others, and known to them.
//!
//! The store shows who has a liveness key. It may have lost a pod that can't reach it, and that pod can't see there who is new.
//! So a pod makes itself known to each peer that it meets, and asks whom that one knows: before it has any session or takes any
//! event, and again with each peer that comes, with all once it was taken for dead, and with all again and again while it can't
//! announce itself: where one was restarted, the new process knows nobody whom the store does not show.

use std::{sync::atomic::Ordering, time::Duration};

use daisi_ws_domain::{ids::PodId, maps::Map, peer::PodRecord};
use futures_util::{StreamExt as _, stream};
use tokio::time::{sleep, timeout};

use super::{beside::Beside, judge::PROBED_AT_ONCE, neighbours::Neighbours, place::Standing};
use crate::{ports::PeerError, runtime::backoff::Backoff, telemetry::Chain};

/// How long a new pod waits for its peers' answers before it goes on without: one that is unreachable now may be so for long.
const FIRST_WITHIN: Duration = Duration::from_secs(2);

/// Pause before those that could not be reached are tried again meanwhile: an answer may only have said that clocks differ.
const TRY_AGAIN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_millis(200));

/// What getting to know others works with.
#[derive(Clone)]
pub(crate) struct Acquaintance {
    /// This pod, as it is introduced.
    pub me: PodRecord,
    /// Who is met.
    pub neighbours: Neighbours,
    /// How far this pod has come.
    pub standing: Standing,
}

impl Acquaintance {
    /// Meets peers as announcements show them; after the first round this pod has its place.
    pub(super) async fn run(&self, beside: &Beside) {
        let mut met = Map::default();
        beside.shown.notified().await;
        let meeting = async {
            let mut pauses = TRY_AGAIN;
            while !self.meet_all(&mut met).await {
                sleep(pauses.pause()).await;
            }
        };
        let _ = timeout(FIRST_WITHIN, meeting).await;
        self.standing.take_place(beside);
        let mut taken_for_dead = 0;
        loop {
            beside.shown.notified().await;
            let times = beside.register.borrow().gaps;
            let is_unseen = beside.is_unseen.swap(false, Ordering::Relaxed);
            if std::mem::replace(&mut taken_for_dead, times) != times || is_unseen {
                // A peer that does not reach the store sends it nothing before it hears that it lives.
                met.clear();
            }
            self.meet_all(&mut met).await;
        }
    }

    /// Meets everybody whom it has not met, and whom those know. False if somebody could not be reached.
    async fn meet_all(&self, met: &mut Map<PodId, Duration>) -> bool {
        let mut all = true;
        let peers = self.neighbours.directory.peers();
        met.retain(|pod, start| peers.iter().any(|peer| peer.id == *pod && peer.started_at == *start));
        let mut next: Vec<PodRecord> = peers.into_iter().filter(|peer| !met.contains_key(&peer.id)).collect();
        while !next.is_empty() {
            let meetings = next.drain(..).map(|peer| async move {
                let answer = self.neighbours.peers.introduce(&self.me, &peer).await;
                (peer, answer)
            });
            let mut meetings = Box::pin(stream::iter(meetings).buffer_unordered(PROBED_AT_ONCE));
            let mut news = Vec::new();
            while let Some((peer, answer)) = meetings.next().await {
                match answer {
                    Ok(known) => news.extend(self.neighbours.met(&peer.id, known)),
                    // A build that does not know the call will not learn it.
                    Err(error @ PeerError::Refused(_)) => {
                        tracing::debug!(peer.id = %peer.id, error = %Chain(&error), "a peer does not introduce itself");
                    }
                    Err(error) => {
                        tracing::debug!(peer.id = %peer.id, error = %Chain(&error), "a peer could not be met; trying again");
                        all = false;
                        continue;
                    }
                }
                met.insert(peer.id, peer.started_at);
            }
            for peer in &news {
                tracing::info!(
                    peer.id = %peer.id, peer.address = %peer.address,
                    "a peer that the session store does not show is known to others"
                );
            }
            drop(meetings);
            next = news;
        }
        all
    }
}
