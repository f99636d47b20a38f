//! Claims of locks, many in a round trip: what comes while one batch is under way goes in the next. In a storm of connects that
//! is most of what Redis and this pod would spend on them.
//!
//! A claim may be carried out when nobody waits for it any more: its connect was given up, or its answer came too late or never.
//! The lock would then be a ghost's until it runs out, as anyone who gave up has released it *before* it was taken. So what was
//! taken and is not taken over is given back here, after the claim.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, aio::MultiplexedConnection};
use tokio::{
    sync::{Mutex as AsyncMutex, Semaphore, mpsc, oneshot},
    time::{Instant, sleep, timeout_at},
};

use super::{
    connection::Commands,
    script::{Argument, Lua},
};
use crate::{
    metrics::labels::RedisCommand,
    ports::StoreError,
    runtime::{backoff::Backoff, lifecycle::Tasks, linger::Linger},
    telemetry::Chain,
};

/// Claims in one round trip.
const MAX_BATCH: usize = 256;
/// From one round trip to the next while many claims come.
const BETWEEN_BATCHES: Duration = Duration::from_millis(1);
/// Claims that may wait; who comes when there are as many waits for room, within its own time-out.
const MAX_QUEUED: usize = 4096;

/// Batches whose answers may yet come and that are waited for; each keeps a connection.
const MAX_LATE: usize = 16;
/// The pauses before locks that could not be given back are again.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// Nothing is given back later than this, however long locks live.
const LONGEST: Duration = Duration::from_secs(600);
/// The verdict that the lock was taken.
pub(super) const TAKEN: u8 = 1;

/// A script's verdict, and the value it is about.
pub(super) type Verdict = (u8, Option<Vec<u8>>);

/// What becomes of a lock that was taken after its claim had failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Untaken {
    /// It is given back: its socket is no more.
    GivenBack,
    /// It is kept: its socket lives on, and finds it with its next renewal.
    Kept,
}

/// A claim: the script's keys and arguments.
struct Claim {
    keys: [String; 2],
    owner: String,
    ttl: u64,
    seen: Vec<u8>,
    untaken: Untaken,
    answer: oneshot::Sender<Result<Claimed, StoreError>>,
}

/// A lock that may have been taken for nobody.
struct Ghost {
    lock: String,
    owner: String,
    /// When it runs out by itself.
    until: Instant,
}

/// A verdict on its way to who asked for it. Dropped on the way, it gives back what was taken.
struct Claimed {
    verdict: Verdict,
    taken: Option<(Ghost, mpsc::Sender<Ghost>)>,
}

impl Claimed {
    fn take_over(mut self) -> Verdict {
        self.taken = None;
        std::mem::take(&mut self.verdict)
    }
}

impl Drop for Claimed {
    fn drop(&mut self) {
        if let Some((ghost, ghosts)) = self.taken.take() {
            give_back(&ghosts, ghost);
        }
    }
}

fn give_back(ghosts: &mpsc::Sender<Ghost>, ghost: Ghost) {
    if ghosts.try_send(ghost).is_err() {
        tracing::debug!("a session lock that nobody took over is left to its time to live: too many are being given back");
    }
}

/// Where claims are handed in.
pub(super) struct Claims {
    queue: mpsc::Sender<Claim>,
}

impl Claims {
    /// Runs claims by `script` as one of `tasks`; `release` is the script that gives a lock back.
    pub(super) fn start(script: &'static Lua, release: &'static Lua, commands: &Arc<Commands>, tasks: &Tasks) -> Self {
        let (queue, receiver) = mpsc::channel(MAX_QUEUED);
        let (ghosts, given_back) = mpsc::channel(MAX_QUEUED);
        let claimer = Claimer {
            script,
            release,
            commands: Arc::clone(commands),
            ghosts,
            late: Arc::new(Semaphore::new(MAX_LATE)),
            tasks: tasks.clone(),
        };
        let (receiver, given_back) = (Arc::new(AsyncMutex::new(receiver)), Arc::new(AsyncMutex::new(given_back)));
        let commands = Arc::clone(commands);
        tasks.supervise("give back claims", move || {
            let (given_back, commands) = (Arc::clone(&given_back), Arc::clone(&commands));
            async move { release_ghosts(release, &mut *given_back.lock().await, &commands).await }
        });
        tasks.supervise("claim locks", move || {
            let (receiver, claimer) = (Arc::clone(&receiver), claimer.clone());
            async move { claimer.run(&mut *receiver.lock().await).await }
        });
        Self { queue }
    }

    /// Runs the script for one lock. Anyone who drops the future has nothing: what was taken all the same is given back. For who
    /// gets an error, `untaken` says what becomes of it.
    ///
    /// # Errors
    /// When the store is away or refuses.
    pub(super) async fn claim(
        &self,
        keys: [String; 2],
        owner: String,
        ttl: u64,
        seen: Vec<u8>,
        untaken: Untaken,
    ) -> Result<Verdict, StoreError> {
        let (answer, answered) = oneshot::channel();
        self.queue.send(Claim { keys, owner, ttl, seen, untaken, answer }).await.map_err(|_| StoreError::Stopped)?;
        answered.await.unwrap_or(Err(StoreError::Stopped)).map(Claimed::take_over)
    }
}

/// What asks.
#[derive(Clone)]
struct Claimer {
    script: &'static Lua,
    release: &'static Lua,
    commands: Arc<Commands>,
    ghosts: mpsc::Sender<Ghost>,
    /// One permit a batch whose answer may yet come.
    late: Arc<Semaphore>,
    tasks: Tasks,
}

impl Claimer {
    async fn run(&self, queue: &mut mpsc::Receiver<Claim>) {
        let mut claims = Vec::new();
        while queue.recv_many(&mut claims, MAX_BATCH).await > 0 {
            let linger = Linger::of(claims.len(), MAX_BATCH, BETWEEN_BATCHES);
            // Anyone who has given up before it was asked has nothing.
            claims.retain(|claim| !claim.answer.is_closed());
            let used = Mutex::default();
            match self.ask(&claims, &used).await {
                Ok(verdicts) => {
                    for (claim, verdict) in claims.drain(..).zip(verdicts) {
                        self.answer(claim, verdict);
                    }
                }
                Err(error) => {
                    if error.may_pass() {
                        self.give_back_late(&claims, used);
                    }
                    for claim in claims.drain(..) {
                        let _ = claim.answer.send(Err(error.clone()));
                    }
                }
            }
            linger.wait().await;
        }
    }

    fn answer(&self, claim: Claim, verdict: Verdict) {
        let Claim { keys: [lock, _], owner, ttl, answer, .. } = claim;
        let taken = (verdict.0 == TAKEN).then(|| (Ghost { lock, owner, until: ends_at(ttl) }, self.ghosts.clone()));
        let _ = answer.send(Ok(Claimed { verdict, taken }));
    }

    /// Gives back what a batch without an answer may yet take: on the same connections, where it can't come before the claims,
    /// and once more on another, should those be broken.
    fn give_back_late(&self, claims: &[Claim], used: Mutex<Vec<MultiplexedConnection>>) {
        let ghosts: Vec<Ghost> = claims
            .iter()
            .filter(|claim| claim.untaken == Untaken::GivenBack || claim.answer.is_closed())
            .map(|claim| Ghost { lock: claim.keys[0].clone(), owner: claim.owner.clone(), until: ends_at(claim.ttl) })
            .collect();
        if ghosts.is_empty() {
            return;
        }
        let Ok(permit) = Arc::clone(&self.late).try_acquire_owned() else {
            return ghosts.into_iter().for_each(|ghost| give_back(&self.ghosts, ghost));
        };
        let (release, queue) = (self.release, self.ghosts.clone());
        self.tasks.spawn("late claims", async move {
            let _permit = permit;
            let pipeline = &releases(release, &ghosts);
            let until = ghosts.iter().map(|ghost| ghost.until).max().unwrap_or_else(Instant::now);
            let used = used.into_inner().unwrap_or_else(PoisonError::into_inner);
            let after = used.into_iter().map(|mut connection| async move { pipeline.exec_async(&mut connection).await });
            let _ = timeout_at(until, join_all(after)).await;
            ghosts.into_iter().for_each(|ghost| give_back(&queue, ghost));
        });
    }

    /// One verdict a claim, in their order. Notes the connections on which they were asked for.
    async fn ask(&self, claims: &[Claim], used: &Mutex<Vec<MultiplexedConnection>>) -> Result<Vec<Verdict>, StoreError> {
        let note = |connection: &MultiplexedConnection| {
            used.lock().unwrap_or_else(PoisonError::into_inner).push(connection.clone());
        };
        match claims {
            [] => Ok(Vec::new()),
            [claim] => {
                let mut call = self.script.single().key(&claim.keys[0]);
                call.key(&claim.keys[1]).arg(&claim.owner).arg(claim.ttl).arg(&claim.seen);
                let call = &call;
                let verdict = self.commands.run(RedisCommand::AcquireLock, |mut connection| {
                    note(&connection);
                    async move { call.invoke_async(&mut connection).await }
                });
                Ok(vec![verdict.await?])
            }
            many => {
                let pipeline = &self.script.pipeline(many.iter().map(|claim| call(self.script, claim)));
                let verdicts = self.commands.run(RedisCommand::AcquireLock, |mut connection| {
                    note(&connection);
                    async move { pipeline.query_async(&mut connection).await }
                });
                verdicts.await
            }
        }
    }
}

/// Gives locks back until cancelled; those that can't be until they have run out by themselves are left alone.
async fn release_ghosts(release: &Lua, queue: &mut mpsc::Receiver<Ghost>, commands: &Commands) {
    let mut ghosts = Vec::new();
    while queue.recv_many(&mut ghosts, MAX_BATCH).await > 0 {
        let mut backoff = BACKOFF;
        loop {
            ghosts.retain(|ghost| ghost.until > Instant::now());
            if ghosts.is_empty() {
                break;
            }
            let pipeline = &releases(release, &ghosts);
            let released = commands
                .run(RedisCommand::ReleaseLocks, |mut connection| async move { pipeline.exec_async(&mut connection).await });
            match released.await {
                Err(error) if error.may_pass() => {}
                Err(error) => {
                    tracing::warn!(
                        error = %Chain(&error), error.kind = error.as_str(), error.advice = error.advice(), count = ghosts.len(),
                        "session locks that nobody took over can't be given back and are left to their time to live"
                    );
                    break;
                }
                Ok(()) => break,
            }
            sleep(backoff.pause()).await;
        }
        ghosts.clear();
    }
}

fn releases(release: &Lua, ghosts: &[Ghost]) -> Pipeline {
    release.pipeline(ghosts.iter().map(|ghost| release.call(std::slice::from_ref(&ghost.lock), &[&ghost.owner])))
}

/// When a lock runs out that is taken no later than now.
fn ends_at(ttl: u64) -> Instant {
    Instant::now() + Duration::from_millis(ttl).min(LONGEST)
}

fn call(script: &Lua, claim: &Claim) -> Cmd {
    let arguments: [&dyn Argument; 3] = [&claim.owner, &claim.ttl, &claim.seen];
    script.call(&claim.keys, &arguments)
}
