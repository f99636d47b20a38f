//! How far the clocks of peers are from this pod's. A proof is of a time, and anyone who checks it goes by its own clock: a pod
//! whose clock is wrong must not be cut off for it.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tonic::{Code, Status};

use daisi_ws_domain::ids::PodId;

/// In the refusal of a proof from another time: the seconds since the Unix epoch, by the clock of the pod that refuses.
pub(super) const CLOCK_HEADER: &str = "x-dws-clock";

/// Clocks that differ by more than this, in seconds, are not followed: no proof is made for a time that far away.
const MAX_DIFFERENCE: i64 = 86_400;

/// What peers' clocks say, where it was found to matter. As many entries as peers.
#[derive(Debug, Default)]
pub(crate) struct Clocks(Mutex<HashMap<PodId, i64>>);

impl Clocks {
    /// The time at a peer, when it is `now` here.
    pub(super) fn time_at(&self, pod: &PodId, now: Duration) -> Duration {
        match self.lock().get(pod) {
            None => now,
            Some(ahead @ 0..) => now + Duration::from_secs(ahead.unsigned_abs()),
            Some(behind) => now.saturating_sub(Duration::from_secs(behind.unsigned_abs())),
        }
    }

    /// Takes over what a refusal says of the peer's clock. True if the next proof will be of another time.
    pub(super) fn learn(&self, pod: &PodId, refusal: &Status, now: Duration) -> bool {
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let said = refusal.metadata().get(CLOCK_HEADER).and_then(|value| value.to_str().ok()?.parse::<i64>().ok());
        let Some(said) = said.filter(|_| refusal.code() == Code::Unauthenticated) else { return false };
        let ahead = said.saturating_sub(seconds(now));
        if ahead.saturating_abs() > MAX_DIFFERENCE {
            return false;
        }
        let before = self.lock().insert(pod.clone(), ahead).unwrap_or(0);
        // A second is what a call may take: the next proof is of another time, and nobody has to look at a clock.
        if ahead.abs_diff(before) > 1 {
            tracing::warn!(
                peer.id = %pod, ahead.seconds = ahead,
                "the clocks of the pods differ; proofs for the peer are of its time"
            );
        }
        ahead != before
    }

    /// Drops what is kept of a peer that is gone.
    pub(super) fn forget(&self, pod: &PodId) {
        self.lock().remove(pod);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodId, i64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use daisi_ws_domain::{
        event::Event,
        gap::{Gap, GapCause},
        ids::ConnectionId,
        peer::PodRecord,
        route::RouteKey,
        session::Kill,
    };
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{
        adapters::grpc::{GrpcPeers, GrpcServer, GrpcServerSettings, PeersSettings},
        application::fleet::key::FleetKey,
        config::Secret,
        metrics::Metrics,
        ports::{Evicted, Handed, PeerError, PeerService, Peers as _, PodLoad, RouteGap},
        runtime::lifecycle::{Shutdown, Tasks},
    };

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn refusal(code: Code, clock: &str) -> Status {
        let mut status = Status::new(code, "");
        status.metadata_mut().insert(CLOCK_HEADER, clock.parse().unwrap());
        status
    }

    #[test]
    fn the_clock_of_a_peer_that_refuses_for_it_is_followed_within_a_day() {
        let (clocks, pod) = (Clocks::default(), PodId::parse("b").unwrap());
        assert_eq!(clocks.time_at(&pod, NOW), NOW);
        for (said, at) in [("1800003600", 1_800_003_600), ("1799996400", 1_799_996_400)] {
            assert!(clocks.learn(&pod, &refusal(Code::Unauthenticated, said), NOW));
            assert!(!clocks.learn(&pod, &refusal(Code::Unauthenticated, said), NOW), "no news");
            assert_eq!(clocks.time_at(&pod, NOW), Duration::from_secs(at));
        }
        clocks.forget(&pod);
        let bad = [("1800100000", Code::Unauthenticated), ("x", Code::Unauthenticated), ("1800003600", Code::Internal)];
        for (said, code) in bad {
            assert!(!clocks.learn(&pod, &refusal(code, said), NOW), "{said}");
        }
        assert!(!clocks.learn(&pod, &Status::unauthenticated(""), NOW));
        assert_eq!(clocks.time_at(&pod, NOW), NOW);
    }

    struct Nobody;

    impl PeerService for Nobody {
        fn deliver(&self, _: &PodId, events: Vec<Event>) -> Vec<Handed> {
            vec![Handed::Nobody; events.len()]
        }
        fn gap(&self, _: &PodId, _: Option<&RouteKey>, _: Gap) -> usize {
            1
        }
        fn holds(&self, sockets: &[ConnectionId]) -> Vec<bool> {
            vec![false; sockets.len()]
        }
        fn evict(&self, _: &Kill) -> Evicted {
            Evicted::Gone
        }
        fn load(&self) -> PodLoad {
            PodLoad::default()
        }
        fn introduce(&self, _: &PodRecord) -> Vec<PodRecord> {
            Vec::new()
        }
    }

    #[tokio::test]
    async fn a_pod_whose_clock_is_wrong_gets_through() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let tasks = Tasks::new(Shutdown::default(), Arc::clone(&metrics), tracing::Span::none());
        let key = FleetKey::derive(&Secret::new("aa"), &Secret::new("bb"));
        let server = GrpcServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let to =
            PodRecord { id: PodId::parse("b").unwrap(), address: server.local_addr().to_string(), started_at: Duration::ZERO };
        let settings = GrpcServerSettings::new(to.clone(), key.clone());
        let serving = server.serve(Arc::new(Nobody), settings, Arc::clone(&metrics), CancellationToken::new());
        tasks.spawn("server", async move { serving.await.unwrap() });
        let (idle_timeout, health_check_interval) = (Duration::from_secs(60), Duration::from_secs(60));
        let settings = PeersSettings {
            me: PodId::parse("a").unwrap(),
            key,
            accept_previous: false,
            tls: None,
            idle_timeout,
            health_check_interval,
        };
        let peers = GrpcPeers::new(settings, metrics, &tasks);
        // As if its own clock were wrong.
        peers.clocks().lock().insert(to.id.clone(), 3600);
        let gaps = [RouteGap { route: None, gap: Gap::unknown(GapCause::GivenUp) }];
        peers.announce_gaps(&to, &gaps).await.expect("the first hello brought the clock");
        // Its clock is set while the connection stays.
        peers.clocks().lock().insert(to.id.clone(), -180);
        assert!(
            matches!(peers.announce_gaps(&to, &gaps).await, Err(PeerError::Unreachable(why)) if why.to_string().contains("clock"))
        );
        peers.announce_gaps(&to, &gaps).await.unwrap();
        tasks.shutdown().hard.cancel();
    }
}
