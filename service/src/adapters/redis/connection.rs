//! Connections to Redis: the pool that carries commands, and when one is thrown away.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bb8_redis::bb8;
use redis::{RedisResult, aio::MultiplexedConnection};
use tokio::time::{Instant, timeout_at};

use super::{
    dialer::Dialer,
    errors::{is_demoted, is_spent, store_error},
    lineage::Lineage,
};
use crate::{
    metrics::{Metrics, labels::RedisCommand},
    ports::StoreError,
};

/// A pooled connection and what is known of it.
pub(super) struct Pooled {
    connection: MultiplexedConnection,
    generation: u64,
    /// How often the server had become another when it was made.
    moves: u64,
    /// A command is under way. Only an answer clears it: a connection whose command timed out, broke or was given up by its
    /// caller never goes back to the pool.
    busy: bool,
}

/// What all connections of a pool share.
#[derive(Debug, Default)]
struct Health {
    /// Counts the times that a connection broke. Connections made before that are suspect (the server restarted, or the network
    /// between was cut) and are replaced before use instead of failing one call each.
    generation: AtomicU64,
    /// Why the latest attempt to connect failed; `None` after one that did not.
    refusal: Mutex<Option<StoreError>>,
}

impl Health {
    fn suspect_all(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn note(&self, outcome: Option<StoreError>) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    }

    fn refusal(&self) -> Option<StoreError> {
        self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The connection is older than the last break.
#[derive(Debug)]
pub(super) struct Suspect;

struct Manager {
    dialer: Arc<Dialer>,
    lineage: Arc<Lineage>,
    health: Arc<Health>,
}

impl bb8::ManageConnection for Manager {
    type Connection = Pooled;
    type Error = Suspect;

    async fn connect(&self) -> Result<Pooled, Suspect> {
        let (generation, moves) = (self.health.generation.load(Ordering::Relaxed), self.lineage.moves());
        match self.dialer.connect().await {
            Ok(connection) => {
                self.health.note(None);
                Ok(Pooled { connection, generation, moves, busy: false })
            }
            Err(error) => {
                self.health.note(Some(store_error(error)));
                Err(Suspect)
            }
        }
    }

    /// Asks nobody: a `PING` at every check-out would double the round trips.
    async fn is_valid(&self, pooled: &mut Pooled) -> Result<(), Suspect> {
        let current = pooled.generation == self.health.generation.load(Ordering::Relaxed) && pooled.moves == self.lineage.moves();
        if current { Ok(()) } else { Err(Suspect) }
    }

    fn has_broken(&self, pooled: &mut Pooled) -> bool {
        pooled.busy
    }
}

/// Carries commands. Clones of a request's future may be dropped at any time.
pub(super) struct Commands {
    pool: bb8::Pool<Manager>,
    lineage: Arc<Lineage>,
    health: Arc<Health>,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

/// Counts and times a command.
pub(super) fn note(metrics: &Metrics, command: RedisCommand, started: Instant, ok: bool) {
    metrics.redis_command_seconds.with_label_values(&[command.as_str()]).observe(started.elapsed().as_secs_f64());
    if !ok {
        metrics.redis_command_errors_total.with_label_values(&[command.as_str()]).inc();
    }
}

enum Failure {
    /// The connection was found broken: there is time to try another.
    Broken(StoreError),
    Final(StoreError),
}

impl Commands {
    /// Makes an empty pool; connections are made on use, and stay: one that is given up for its age would only have to be made
    /// anew.
    pub(super) fn new(dialer: Arc<Dialer>, lineage: Arc<Lineage>, size: u32, metrics: Arc<Metrics>) -> Self {
        let (health, timeout) = (Arc::new(Health::default()), dialer.timeout());
        let manager = Manager { dialer, lineage: Arc::clone(&lineage), health: Arc::clone(&health) };
        let pool = bb8::Pool::builder()
            .max_size(size)
            .connection_timeout(timeout)
            .test_on_check_out(true)
            .retry_connection(true)
            .idle_timeout(None)
            .max_lifetime(None)
            .build_unchecked(manager);
        Self { pool, lineage, health, timeout, metrics }
    }

    /// Runs a request on a pooled connection; the wait for the connection and for the answer are bounded together.
    ///
    /// A request that meets a connection which broke (the server restarted) runs once more on a fresh one, so it must be
    /// idempotent: each is, because locks compare, sets are sets, and a kill names its victim.
    pub(super) async fn run<T, F, Fut>(&self, command: RedisCommand, request: F) -> Result<T, StoreError>
    where
        F: Fn(MultiplexedConnection) -> Fut + Send + Sync,
        Fut: Future<Output = RedisResult<T>> + Send,
        T: Send,
    {
        let started = Instant::now();
        let deadline = started + self.timeout;
        let outcome = match self.attempt(deadline, &request).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Final(error)) => Err(error),
            Err(Failure::Broken(_)) => self.attempt(deadline, &request).await.map_err(|failure| match failure {
                Failure::Broken(error) | Failure::Final(error) => error,
            }),
        };
        note(&self.metrics, command, started, outcome.is_ok());
        outcome
    }

    async fn attempt<T, F, Fut>(&self, deadline: Instant, request: &F) -> Result<T, Failure>
    where
        F: Fn(MultiplexedConnection) -> Fut + Send + Sync,
        Fut: Future<Output = RedisResult<T>> + Send,
        T: Send,
    {
        let Ok(Ok(mut pooled)) = timeout_at(deadline, self.pool.get()).await else {
            let busy = || StoreError::NoConnection(self.timeout);
            return Err(Failure::Final(self.health.refusal().unwrap_or_else(busy)));
        };
        pooled.busy = true;
        match timeout_at(deadline, request(pooled.connection.clone())).await {
            Ok(Ok(answer)) => {
                pooled.busy = false;
                Ok(answer)
            }
            Ok(Err(error)) if is_spent(&error) => {
                if is_demoted(&error) {
                    self.lineage.demoted();
                }
                self.health.suspect_all();
                Err(Failure::Broken(store_error(error)))
            }
            Ok(Err(error)) => {
                pooled.busy = false;
                Err(Failure::Final(store_error(error)))
            }
            Err(_) => {
                self.health.suspect_all();
                Err(Failure::Final(StoreError::TimedOut(self.timeout)))
            }
        }
    }
}
