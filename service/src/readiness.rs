//! Whether this pod should get new connections, and why not.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use daisi_ws_domain::words;
use tokio::time::Instant;

words! {
    /// A dependency whose outage makes the pod unready.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Dependency {
        /// The event stream.
        Nats = "nats",
        /// The session store.
        Redis = "redis",
        /// The server for other pods.
        Grpc = "grpc",
    }
}

/// What `/ready` answers: the pod as it is at one moment.
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
    /// Has the pod all the sockets it may have? It is unready for that only while another pod has room.
    pub full: bool,
}

#[derive(Debug, Clone, Copy)]
enum Seen {
    Up,
    /// Since when.
    Down(Instant),
    /// Not up since the start: no grace.
    Never,
}

impl Seen {
    fn note(&mut self, up: bool) {
        *self = match (*self, up) {
            (_, true) => Self::Up,
            (Self::Up, false) => Self::Down(Instant::now()),
            (was, false) => was,
        };
    }
}

#[derive(Debug)]
struct State {
    seen: [Seen; 3],
    /// Whether each gives all that is needed of it, and what not.
    gives: [Seen; 3],
    lacks: [Vec<String>; 3],
    /// Why each that is down is so, where that is known.
    troubles: [Option<String>; 3],
    draining: bool,
    full: bool,
    another_has_room: bool,
}

/// The readiness of a pod. Clones share it; no call waits.
#[derive(Debug, Clone)]
pub struct Readiness {
    state: Arc<Mutex<State>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                seen: [Seen::Never; 3],
                gives: [Seen::Up; 3],
                lacks: Default::default(),
                troubles: Default::default(),
                draining: false,
                full: false,
                another_has_room: false,
            })),
        }
    }
}

impl Readiness {
    /// Notes that a dependency was seen to be up or down.
    pub fn observe(&self, dependency: Dependency, up: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.seen[dependency as usize].note(up);
        if up {
            state.troubles[dependency as usize] = None;
        }
    }

    /// Notes that a dependency was seen to be down, and why, in words for an operator: is it away, or does it refuse?
    pub(crate) fn observe_trouble(&self, dependency: Dependency, why: String) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.seen[dependency as usize].note(false);
        state.troubles[dependency as usize] = Some(why);
    }

    /// Until [`Readiness::lacks`] says that nothing is missing, the dependency counts as away.
    pub(crate) fn doubt(&self, dependency: Dependency) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).gives[dependency as usize] = Seen::Never;
    }

    /// Notes what a dependency refuses although it is needed, in words for an operator. While there is something, it counts as
    /// away, whatever it answers.
    pub(crate) fn lacks(&self, dependency: Dependency, lacks: Vec<String>) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.gives[dependency as usize].note(lacks.is_empty());
        state.lacks[dependency as usize] = lacks;
    }

    /// All that is lacking, and why what is down is so.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.troubles.iter().flatten().chain(state.lacks.iter().flatten()).cloned().collect()
    }

    /// Notes that the drain has begun: never ready again.
    pub fn drain(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).draining = true;
    }

    /// Notes whether the pod has all the sockets it may have, and whether another pod has room.
    pub fn note_full(&self, full: bool, another_has_room: bool) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (state.full, state.another_has_room) = (full, another_has_room);
    }

    /// Does the pod want connections, but for how many it has?
    #[must_use]
    pub(crate) fn wants_connections(&self, grace: Duration) -> bool {
        self.look(grace).0
    }

    /// The report; a dependency that is away for less than `grace` still counts.
    #[must_use]
    pub fn report(&self, grace: Duration) -> ReadinessReport {
        let (wants, up) = self.look(grace);
        let (draining, full, another_has_room) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.draining, state.full, state.another_has_room)
        };
        ReadinessReport {
            ready: wants && !(full && another_has_room),
            nats: up[Dependency::Nats as usize],
            redis: up[Dependency::Redis as usize],
            grpc: up[Dependency::Grpc as usize],
            draining,
            full,
        }
    }

    fn look(&self, grace: Duration) -> (bool, [bool; 3]) {
        let (seen, gives, draining) = {
            let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            (state.seen, state.gives, state.draining)
        };
        let up: [bool; 3] = std::array::from_fn(|n| matches!((seen[n], gives[n]), (Seen::Up, Seen::Up)));
        let tolerable = |s: &Seen| match s {
            Seen::Up => true,
            Seen::Down(since) => since.elapsed() < grace,
            Seen::Never => false,
        };
        (!draining && seen.iter().chain(&gives).all(tolerable), up)
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
    async fn a_dependency_that_answers_and_refuses_what_is_needed_counts_as_away() {
        let readiness = Readiness::default();
        readiness.doubt(Dependency::Redis);
        for dependency in [Dependency::Nats, Dependency::Redis, Dependency::Grpc] {
            readiness.observe(dependency, true);
        }
        assert!(!readiness.report(GRACE).ready, "it was never seen to give it");
        readiness.lacks(Dependency::Redis, Vec::new());
        assert!(readiness.report(GRACE).ready);
        readiness.lacks(Dependency::Redis, vec!["psubscribe".to_owned()]);
        readiness.observe(Dependency::Redis, true);
        assert!(readiness.report(GRACE).ready && !readiness.report(GRACE).redis);
        tokio::time::advance(GRACE).await;
        assert!(!readiness.report(GRACE).ready);
        assert_eq!(readiness.problems(), ["psubscribe"]);
    }

    #[test]
    fn why_a_dependency_is_down_is_told_until_it_is_up() {
        let readiness = Readiness::default();
        readiness.observe(Dependency::Redis, true);
        readiness.observe_trouble(Dependency::Redis, "redis: denied".to_owned());
        readiness.observe(Dependency::Redis, false);
        assert_eq!((readiness.report(Duration::ZERO).redis, readiness.problems()), (false, vec!["redis: denied".to_owned()]));
        readiness.observe(Dependency::Redis, true);
        assert_eq!((readiness.report(Duration::ZERO).redis, readiness.problems()), (true, Vec::new()));
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

    #[test]
    fn a_full_pod_steps_aside_only_while_another_has_room() {
        let readiness = Readiness::default();
        for dependency in [Dependency::Nats, Dependency::Redis, Dependency::Grpc] {
            readiness.observe(dependency, true);
        }
        for (full, another_has_room, ready) in [(true, true, false), (true, false, true), (false, false, true)] {
            readiness.note_full(full, another_has_room);
            let report = readiness.report(GRACE);
            assert_eq!((report.ready, report.full, readiness.wants_connections(GRACE)), (ready, full, true));
        }
    }
}
