//! Claims of locks, many in a round trip: what comes while one batch is under way goes in the next. In a storm of connects that is most of what Redis and
//! this pod would spend on them.

use std::{sync::Arc, time::Duration};

use redis::Cmd;
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

use super::{
    connection::Commands,
    script::{Argument, Lua},
};
use crate::{application::ports::StoreError, breath::Breath, cores::relayed, lifecycle::Tasks};

/// Claims in one round trip.
const MAX_BATCH: usize = 256;
/// From one round trip to the next while many claims come.
const BETWEEN_BATCHES: Duration = Duration::from_millis(1);
/// Claims that may wait; who comes when there are as many waits for room, within its own time-out.
const MAX_QUEUED: usize = 4096;

/// A script's verdict, and the value it is about.
pub(super) type Verdict = (u8, Option<Vec<u8>>);

/// A claim: the script's keys and arguments.
struct Claim {
    keys: [String; 2],
    owner: String,
    ttl: u64,
    seen: Vec<u8>,
    answer: oneshot::Sender<Result<Verdict, StoreError>>,
}

/// Where claims are handed in.
pub(super) struct Claims {
    queue: mpsc::Sender<Claim>,
}

impl Claims {
    /// Runs claims by `script` as one of `tasks`.
    pub(super) fn start(script: &'static Lua, commands: Arc<Commands>, tasks: &Tasks) -> Self {
        let (queue, receiver) = mpsc::channel(MAX_QUEUED);
        let receiver = Arc::new(AsyncMutex::new(receiver));
        tasks.supervise("claim locks", move || {
            let (receiver, commands) = (Arc::clone(&receiver), Arc::clone(&commands));
            async move { run(script, &mut *receiver.lock().await, &commands).await }
        });
        Self { queue }
    }

    /// Runs the script for one lock. Dropping the future does not take the claim back.
    ///
    /// # Errors
    /// When the store is away or refuses.
    pub(super) async fn claim(&self, keys: [String; 2], owner: String, ttl: u64, seen: Vec<u8>) -> Result<Verdict, StoreError> {
        let stopped = || StoreError::Unavailable("the pod has stopped asking for locks".into());
        let (answer, answered) = oneshot::channel();
        self.queue.send(Claim { keys, owner, ttl, seen, answer }).await.map_err(|_| stopped())?;
        relayed(answered).await.unwrap_or_else(|_| Err(stopped()))
    }
}

async fn run(script: &Lua, queue: &mut mpsc::Receiver<Claim>, commands: &Commands) {
    let mut claims = Vec::new();
    while queue.recv_many(&mut claims, MAX_BATCH).await > 0 {
        let breath = Breath::of(claims.len(), MAX_BATCH, BETWEEN_BATCHES);
        // Whoever has given up gives back what it may have.
        claims.retain(|claim| !claim.answer.is_closed());
        match ask(script, &claims, commands).await {
            Ok(verdicts) => {
                for (claim, verdict) in claims.drain(..).zip(verdicts) {
                    let _ = claim.answer.send(Ok(verdict));
                }
            }
            Err(error) => {
                for claim in claims.drain(..) {
                    let _ = claim.answer.send(Err(error.clone()));
                }
            }
        }
        breath.drawn().await;
    }
}

/// One verdict a claim, in their order.
async fn ask(script: &Lua, claims: &[Claim], commands: &Commands) -> Result<Vec<Verdict>, StoreError> {
    match claims {
        [] => Ok(Vec::new()),
        [claim] => {
            let mut call = script.single().key(&claim.keys[0]);
            call.key(&claim.keys[1]).arg(&claim.owner).arg(claim.ttl).arg(&claim.seen);
            let call = &call;
            let verdict = commands.run("acquire_lock", |mut connection| async move { call.invoke_async(&mut connection).await });
            Ok(vec![verdict.await?])
        }
        many => {
            let pipeline = &script.pipeline(many.iter().map(|claim| call(script, claim)));
            commands.run("acquire_lock", |mut connection| async move { pipeline.query_async(&mut connection).await }).await
        }
    }
}

fn call(script: &Lua, claim: &Claim) -> Cmd {
    let arguments: [&dyn Argument; 3] = [&claim.owner, &claim.ttl, &claim.seen];
    script.call(&claim.keys, &arguments)
}
