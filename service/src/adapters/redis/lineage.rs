//! Whose answers these are: which server gave them, in which life, and what it may have lost since the one before.
//!
//! Connections can't tell. A server that is back within milliseconds, a replica that took over, a proxy that leads elsewhere: a
//! new connection, or even the old one, works as before, on data of some seconds ago. So whatever answers about routes says in
//! the same step who it is (`script.rs`).

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use crate::{metrics::Metrics, ports::Incarnation};

/// A server that says `READONLY` again and again is no reason to make all connections anew more often.
const DEMOTED_PAUSE: Duration = Duration::from_secs(1);

/// What a script says of the server that ran it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Server<'a> {
    /// Its replication id: drawn anew at each start, and at each change of its place among primaries and replicas. Empty if the
    /// user may not ask.
    pub(super) id: &'a str,
    /// Keys that it has evicted; only where it may.
    pub(super) evicted: Option<u64>,
}

/// Who answered last.
#[derive(Debug, PartialEq, Eq)]
enum Identity {
    Named(String),
    /// Unknown; as of so many connections. Any new one may lead to another server.
    Connections(u64),
}

#[derive(Debug, Default)]
struct State {
    incarnation: u64,
    identity: Option<Identity>,
    evicted: Option<u64>,
    demoted_at: Option<Instant>,
}

/// What this pod knows of the server behind the address. All its connections share it.
#[derive(Debug)]
pub(super) struct Lineage {
    state: Mutex<State>,
    connections: AtomicU64,
    /// May the server evict keys? Unknown is yes.
    may_evict: AtomicBool,
    /// Counts the times that the server became another: connections made before are to be made anew.
    moves: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

impl Lineage {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            state: Mutex::default(),
            connections: AtomicU64::new(0),
            may_evict: AtomicBool::new(true),
            moves: watch::Sender::new(0),
            metrics,
        }
    }

    /// Notes a new connection.
    pub(super) fn connected(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes who gave an answer; the answer is of the incarnation returned.
    pub(super) fn answered_by(&self, server: &Server<'_>) -> Incarnation {
        let connections = self.connections.load(Ordering::Relaxed);
        let mut state = self.lock();
        let (same, moved) = match &state.identity {
            None => (true, false),
            Some(Identity::Named(id)) => (id == server.id, !server.id.is_empty() && id != server.id),
            Some(Identity::Connections(before)) => (server.id.is_empty() && *before == connections, false),
        };
        if !same || state.identity.is_none() {
            state.identity = Some(match server.id {
                "" => Identity::Connections(connections),
                id => Identity::Named(id.to_owned()),
            });
        }
        let evicted = match (state.evicted, server.evicted) {
            // Another server counts from elsewhere.
            (Some(before), Some(now)) if same => now.max(before) - before.min(now),
            _ => 0,
        };
        state.evicted = server.evicted.or(state.evicted.filter(|_| same));
        if !same || evicted > 0 {
            state.incarnation += 1;
        }
        let incarnation = Incarnation(state.incarnation);
        drop(state);
        if evicted > 0 {
            self.metrics.redis_evicted_keys_total.inc_by(evicted);
        }
        if moved {
            tracing::warn!("another Redis answers, or the same one was started again: what it knows may be old");
            self.may_evict.store(true, Ordering::Relaxed);
            self.moves.send_modify(|moves| *moves += 1);
        }
        incarnation
    }

    /// Notes that the server is no primary any more: every connection to it is to be made anew, and may lead to another.
    pub(super) fn demoted(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        if state.demoted_at.is_some_and(|at| now.duration_since(at) < DEMOTED_PAUSE) {
            return;
        }
        state.demoted_at = Some(now);
        state.incarnation += 1;
        drop(state);
        tracing::warn!("Redis takes no writes: it is a replica now; all connections are made anew");
        self.moves.send_modify(|moves| *moves += 1);
    }

    /// So often the server became another. A connection made at another count is to be given up.
    pub(super) fn moves(&self) -> u64 {
        *self.moves.borrow()
    }

    /// Follows [`Lineage::moves`].
    pub(super) fn follow_moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// Shall scripts tell how many keys were evicted?
    pub(super) fn may_evict(&self) -> bool {
        self.may_evict.load(Ordering::Relaxed)
    }

    /// Notes whether the server may evict keys.
    pub(super) fn set_may_evict(&self, may: bool) {
        self.may_evict.store(may, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lineage() -> Lineage {
        Lineage::new(Arc::new(Metrics::new().unwrap()))
    }

    fn server(id: &str) -> Server<'_> {
        Server { id, evicted: None }
    }

    #[test]
    fn a_pool_that_grows_on_one_server_is_no_trouble() {
        let lineage = lineage();
        lineage.connected();
        let first = lineage.answered_by(&server("one"));
        lineage.connected();
        assert_eq!((lineage.answered_by(&server("one")), lineage.moves()), (first, 0));
    }

    #[test]
    fn an_answer_of_another_server_is_of_another_incarnation_and_moves_all_connections() {
        let lineage = lineage();
        let first = lineage.answered_by(&server("one"));
        let second = lineage.answered_by(&server("two"));
        assert!(second > first);
        assert_eq!((lineage.answered_by(&server("two")), lineage.moves()), (second, 1));
        // A late answer of the one before makes doubts, and never takes one back.
        assert!(lineage.answered_by(&server("one")) > second);
    }

    #[test]
    fn where_the_server_is_not_known_each_new_connection_may_lead_to_another() {
        let lineage = lineage();
        lineage.connected();
        let first = lineage.answered_by(&server(""));
        assert_eq!(lineage.answered_by(&server("")), first);
        lineage.connected();
        let second = lineage.answered_by(&server(""));
        assert!(second > first);
        assert_eq!((lineage.answered_by(&server("")), lineage.moves()), (second, 0), "and that makes no more connections");
    }

    #[test]
    fn each_evicted_key_is_another_incarnation_and_counted() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let lineage = Lineage::new(Arc::clone(&metrics));
        let told = |evicted| lineage.answered_by(&Server { id: "one", evicted });
        let first = told(Some(7));
        assert_eq!((told(None), told(Some(7))), (first, first));
        let second = told(Some(9));
        assert!(second > first);
        // Its counters were reset.
        assert!(told(Some(0)) > second);
        assert_eq!((metrics.redis_evicted_keys_total.get(), lineage.moves()), (11, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_that_refuses_again_and_again_moves_connections_once_a_second() {
        let lineage = lineage();
        for _ in 0..10 {
            lineage.demoted();
        }
        assert_eq!(lineage.moves(), 1);
        tokio::time::advance(DEMOTED_PAUSE).await;
        lineage.demoted();
        assert_eq!(lineage.moves(), 2);
    }
}
