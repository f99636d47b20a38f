//! Session locks. A claim that fails, or that nobody waits for any more, is given back once it has been carried out.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use daisi_ws_domain::{
    ids::ChatId,
    session::{LockOwner, SessionKey},
};
use daisi_ws_service::ports::{Acquire, LockRenewal, Renewal, SessionLocks, StoreError};
use tokio::{sync::oneshot, time::timeout};

use super::{
    PATIENCE, broke,
    fate::{Fate, Port, pause},
    no_answer,
};
use crate::{record::Record, tasks::spawn};

/// A lock that nobody took over is given back so much later.
const GIVEN_BACK_AFTER: Duration = Duration::from_millis(20);

pub(super) struct Locks {
    inner: Arc<dyn SessionLocks>,
    port: Arc<Port>,
}

/// To take a lock from nobody, or from `seen`.
#[derive(Clone)]
struct Claim {
    key: SessionKey,
    seen: Option<LockOwner>,
    owner: LockOwner,
    ttl: Duration,
    /// Its socket lives on, so that it is not given back without an answer.
    is_kept: bool,
}

impl Locks {
    pub(super) fn new(inner: Arc<dyn SessionLocks>, port: Arc<Port>) -> Self {
        Self { inner, port }
    }

    async fn claim(&self, claim: Claim) -> Result<Acquire, StoreError> {
        let fate = self.port.next();
        self.port.late().over().await;
        let outcome = if fate == Fate::default() {
            carry_out(&*self.inner, self.port.record(), &claim).await
        } else if fate.refused {
            fate.arrive().await;
            Err(broke())
        } else {
            self.claim_from_afar(claim.clone(), fate).await
        };
        let Claim { seen, owner, .. } = &claim;
        match &outcome {
            Ok(Acquire::Acquired { .. }) => self.port.note(format_args!("claims for {owner}, from {seen:?}: it has it")),
            Ok(Acquire::Held(holder)) => self.port.note(format_args!("claims for {owner}, from {seen:?}: {holder} has it")),
            Err(error) => self.port.note(format_args!("claims for {owner}, from {seen:?}: {error}")),
        }
        outcome
    }

    /// The claim is carried out whether or not anybody waits for it, as one that is on its way.
    async fn claim_from_afar(&self, claim: Claim, fate: Fate) -> Result<Acquire, StoreError> {
        let (inner, port) = (Arc::clone(&self.inner), Arc::clone(&self.port));
        let (reply, answer) = oneshot::channel();
        port.late().begin();
        spawn(async move {
            let late = if fate.unanswered { fate.late } else { Duration::ZERO };
            pause(fate.before + late).await;
            let outcome = carry_out(&*inner, port.record(), &claim).await;
            port.late().end();
            let taken = matches!(outcome, Ok(Acquire::Acquired { .. }));
            fate.come_back().await;
            let is_heard = !fate.unanswered && reply.send(outcome).is_ok();
            if taken && !is_heard && !claim.is_kept {
                pause(GIVEN_BACK_AFTER).await;
                release(&*inner, port.record(), &[(claim.key.clone(), claim.owner.clone())]).await.ok();
                port.note(format_args!("gives back what nobody took over: {}", claim.owner));
            }
        });
        match timeout(PATIENCE, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => Err(no_answer()),
        }
    }
}

async fn carry_out(locks: &dyn SessionLocks, record: &Record, claim: &Claim) -> Result<Acquire, StoreError> {
    let Claim { key, seen, owner, ttl, .. } = claim;
    let outcome = match seen {
        Some(seen) => locks.replace(key, seen, owner, *ttl).await,
        None => locks.acquire(key, owner, *ttl).await,
    };
    if matches!(outcome, Ok(Acquire::Acquired { .. })) {
        let at = record.at();
        let wrong = record.open().holders.take(key, seen.as_ref(), owner, at, *ttl);
        if let Some((invariant, what)) = wrong {
            record.breach(invariant, what);
        }
    }
    outcome
}

async fn release(locks: &dyn SessionLocks, record: &Record, gone: &[(SessionKey, LockOwner)]) -> Result<usize, StoreError> {
    let released = locks.release(gone).await?;
    let holders = &mut record.open().holders;
    gone.iter().for_each(|(key, owner)| holders.let_go(key, owner));
    Ok(released)
}

async fn renew(locks: &dyn SessionLocks, record: &Record, batch: &[LockRenewal]) -> Result<Vec<Renewal>, StoreError> {
    let outcomes = locks.renew(batch).await?;
    let (at, holders) = (record.at(), &mut record.open().holders);
    for (renewal, outcome) in batch.iter().zip(&outcomes) {
        if matches!(outcome, Renewal::Renewed | Renewal::Restored) {
            holders.hold(&renewal.key, &renewal.owner, at, renewal.ttl);
        }
    }
    Ok(outcomes)
}

#[async_trait]
impl SessionLocks for Locks {
    async fn acquire(&self, key: &SessionKey, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError> {
        self.claim(Claim { key: key.clone(), seen: None, owner: owner.clone(), ttl, is_kept: false }).await
    }

    async fn replace(&self, key: &SessionKey, seen: &LockOwner, owner: &LockOwner, ttl: Duration) -> Result<Acquire, StoreError> {
        let (key, seen, owner) = (key.clone(), Some(seen.clone()), owner.clone());
        self.claim(Claim { key, seen, owner, ttl, is_kept: false }).await
    }

    async fn take_back(
        &self,
        key: &SessionKey,
        seen: &LockOwner,
        owner: &LockOwner,
        ttl: Duration,
    ) -> Result<Acquire, StoreError> {
        let (key, seen, owner) = (key.clone(), Some(seen.clone()), owner.clone());
        self.claim(Claim { key, seen, owner, ttl, is_kept: true }).await
    }

    async fn release(&self, locks: &[(SessionKey, LockOwner)]) -> Result<usize, StoreError> {
        let fate = self.port.next();
        self.port.late().over().await;
        fate.arrive().await;
        let outcome = if fate.refused {
            Err(broke())
        } else {
            let mut released = release(&*self.inner, self.port.record(), locks).await;
            if fate.doubled && released.is_ok() {
                // The second finds nothing.
                released = release(&*self.inner, self.port.record(), locks).await.and(released);
            }
            fate.come_back().await;
            if fate.unanswered { Err(no_answer()) } else { released }
        };
        let owners: Vec<String> = locks.iter().map(|(_, owner)| owner.to_string()).collect();
        self.port.note(format_args!("releases {owners:?}: {:?}", outcome.as_ref().map_err(ToString::to_string)));
        outcome
    }

    async fn renew(&self, batch: &[LockRenewal]) -> Result<Vec<Renewal>, StoreError> {
        let fate = self.port.next();
        self.port.late().over().await;
        fate.arrive().await;
        let outcome = if fate.refused {
            Err(broke())
        } else if fate.unanswered && !fate.late.is_zero() {
            let (inner, port, batch) = (Arc::clone(&self.inner), Arc::clone(&self.port), batch.to_vec());
            port.late().begin();
            spawn(async move {
                pause(PATIENCE + fate.late).await;
                let renewed = renew(&*inner, port.record(), &batch).await;
                port.late().end();
                port.note(format_args!("renews late: {:?}", renewed.map_err(|error| error.to_string())));
            });
            pause(PATIENCE).await;
            Err(no_answer())
        } else {
            let renewed = renew(&*self.inner, self.port.record(), batch).await;
            fate.come_back().await;
            if fate.unanswered { Err(no_answer()) } else { renewed }
        };
        self.port.note(format_args!("renews {}: {:?}", batch.len(), outcome.as_ref().map_err(ToString::to_string)));
        outcome
    }

    async fn save_chat(&self, key: &SessionKey, chat: &ChatId, ttl: Duration) -> Result<(), StoreError> {
        let fate = self.port.next();
        fate.arrive().await;
        let saved = if fate.refused { Err(broke()) } else { self.inner.save_chat(key, chat, ttl).await };
        fate.come_back().await;
        self.port.note(format_args!("saves {chat}: {}", saved.is_ok()));
        if fate.unanswered { Err(no_answer()) } else { saved }
    }
}
