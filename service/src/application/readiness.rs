//! Whether this pod should get new connections, and why not.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// A dependency whose outage makes the pod unready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependency {
    /// The event stream.
    Nats,
    /// The session store.
    Redis,
    /// The server for other pods.
    Grpc,
}

/// What `/ready` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadinessReport {
    /// All dependencies are there (or were, within the grace), and the pod does not drain.
    pub ready: bool,
    /// Is NATS there now?
    pub nats: bool,
    /// Is Redis there now?
    pub redis: bool,
    /// Is the server for other pods up?
    pub grpc: bool,
    /// Has the drain begun?
    pub draining: bool,
}

#[derive(Debug, Clone, Copy)]
enum Seen {
    Up,
    /// Since when.
    Down(Instant),
    /// Not up since the start: no grace.
    Never,
}

#[derive(Debug)]
struct State {
    seen: [Seen; 3],
    draining: bool,
}

/// The readiness of a pod. Clones share it; no call waits.
#[derive(Debug, Clone)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { state: Arc::new(Mutex::new(State { seen: [Seen::Never; 3], draining: false })) }
    }
}

impl Readiness {
    /// Notes that a dependency was seen to be up or down.
    pub fn observe(&self, dependency: Dependency, up: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = &mut state.seen[dependency as usize];
        *seen = match (*seen, up) {
            (_, true) => Seen::Up,
            (Seen::Up, false) => Seen::Down(Instant::now()),
            (was, false) => was,
        };
    }

    /// Notes that the drain has begun: never ready again.
    pub fn drain(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).draining = true;
    }

    /// The report; a dependency that is away for less than `grace` still counts.
    #[must_use]
    pub fn report(&self, grace: Duration) -> ReadinessReport {
        let (seen, draining) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.seen, state.draining)
        };
        let up = seen.map(|s| matches!(s, Seen::Up));
        let tolerable = |s: &Seen| match s {
            Seen::Up => true,
            Seen::Down(since) => since.elapsed() < grace,
            Seen::Never => false,
        };
        ReadinessReport {
            ready: !draining && seen.iter().all(tolerable),
            nats: up[Dependency::Nats as usize],
            redis: up[Dependency::Redis as usize],
            grpc: up[Dependency::Grpc as usize],
            draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(3);

    #[tokio::test(start_paused = true)]
    async fn a_blip_shorter_than_the_grace_does_not_empty_the_balancer() {
        let readiness = Readiness::default();
        assert!(!readiness.report(GRACE).ready);
        for dependency in [Dependency::Nats, Dependency::Redis, Dependency::Grpc] {
            readiness.observe(dependency, true);
        }
        readiness.observe(Dependency::Redis, false);
        tokio::time::advance(Duration::from_secs(2)).await;
        readiness.observe(Dependency::Redis, false);
        assert!(readiness.report(GRACE).ready && !readiness.report(GRACE).redis);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!readiness.report(GRACE).ready);
        readiness.observe(Dependency::Redis, true);
        assert!(readiness.report(GRACE).ready);
    }

    #[tokio::test(start_paused = true)]
    async fn a_draining_pod_is_not_ready() {
        let readiness = Readiness::default();
        for dependency in [Dependency::Nats, Dependency::Redis, Dependency::Grpc] {
            readiness.observe(dependency, true);
        }
        readiness.drain();
        assert!(!readiness.report(GRACE).ready);
    }
}
