//! Routes and membership.

use std::sync::Arc;

use async_trait::async_trait;
use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey};
use daisi_ws_service::ports::{
    Announce, AnnounceError, Announcement, Incarnation, Lookup, RouteChange, Routes, Standing, StoreError,
};

use super::{
    PATIENCE, broke,
    fate::{Port, pause},
    no_answer,
};
use crate::tasks::spawn;

pub(super) struct RoutesPort {
    inner: Arc<dyn Routes>,
    port: Arc<Port>,
}

impl RoutesPort {
    pub(super) fn new(inner: Arc<dyn Routes>, port: Arc<Port>) -> Self {
        Self { inner, port }
    }

    /// A call that is carried out while its caller waits, if it is at all.
    async fn call<T, E: From<StoreError>>(&self, call: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let fate = self.port.next();
        self.port.late().over().await;
        fate.arrive().await;
        if fate.refused {
            return Err(broke().into());
        }
        let outcome = call.await;
        fate.come_back().await;
        if fate.unanswered { Err(no_answer().into()) } else { outcome }
    }
}

/// What a call came to, for the trace.
fn said<T>(outcome: &Result<T, StoreError>) -> String {
    match outcome {
        Ok(_) => "done".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[async_trait]
impl Routes for RoutesPort {
    /// Changes that were given up may be made later, but before those that come after them.
    async fn apply(&self, pod: &PodId, changes: &[RouteChange]) -> Result<Vec<usize>, StoreError> {
        let fate = self.port.next();
        self.port.late().over().await;
        fate.arrive().await;
        let outcome = if fate.refused {
            Err(broke())
        } else if fate.unanswered && !fate.late.is_zero() {
            let (inner, port, pod, changes) = (Arc::clone(&self.inner), Arc::clone(&self.port), pod.clone(), changes.to_vec());
            port.late().begin();
            spawn(async move {
                pause(PATIENCE + fate.late).await;
                let applied = inner.apply(&pod, &changes).await;
                port.late().end();
                port.note(format_args!("changes routes late: {}", applied.is_ok()));
            });
            pause(PATIENCE).await;
            Err(no_answer())
        } else {
            let mut applied = self.inner.apply(pod, changes).await;
            if fate.doubled && applied.is_ok() {
                applied = self.inner.apply(pod, changes).await;
            }
            fate.come_back().await;
            if fate.unanswered { Err(no_answer()) } else { applied }
        };
        self.port.note(format_args!("changes {changes:?}: {}", said(&outcome)));
        outcome
    }

    async fn lookup(&self, me: &PodId, routes: &[RouteKey]) -> Result<Lookup, StoreError> {
        let outcome = self.call(self.inner.lookup(me, routes)).await;
        match &outcome {
            Ok(found) => self.port.note(format_args!("looks up {}: {:?}", routes.len(), found.pods)),
            Err(error) => self.port.note(format_args!("looks up {}: {error}", routes.len())),
        }
        outcome
    }

    async fn resolve(&self, pods: &[(PodId, Vec<RouteKey>)], prune: bool) -> Result<(Incarnation, Vec<Standing>), StoreError> {
        let outcome = self.call(self.inner.resolve(pods, prune)).await;
        self.port
            .note(format_args!("asks about {pods:?}, pruning: {prune}: {:?}", outcome.as_ref().map_err(ToString::to_string)));
        outcome
    }

    async fn announce(&self, call: Announce<'_>) -> Result<Announcement, AnnounceError> {
        let outcome = self.call(self.inner.announce(call)).await;
        match &outcome {
            Ok(said) => {
                let alive: Vec<&str> = said.pods.iter().map(|pod| pod.id.as_str()).collect();
                self.port.note(format_args!(
                    "announces itself: {alive:?}, lapsed {:?}, left {:?}, present {}, retired {}, {:?}",
                    said.lapsed, said.left, said.was_present, said.retirements, said.incarnation
                ));
            }
            Err(error) => self.port.note(format_args!("announces itself: {error}")),
        }
        outcome
    }

    async fn retire(&self, pods: &[PodId]) -> Result<Vec<bool>, StoreError> {
        let outcome = self.call(self.inner.retire(pods)).await;
        if outcome.is_ok() {
            self.port.record().count("retirements");
        }
        self.port.note(format_args!("retires {pods:?}: {:?}", outcome.as_ref().map_err(ToString::to_string)));
        outcome
    }

    async fn leave(&self, me: &PodRecord) -> Result<(), StoreError> {
        let outcome = self.call(self.inner.leave(me)).await;
        self.port.note(format_args!("leaves: {}", said(&outcome)));
        outcome
    }

    async fn pass_over(&self, pod: &PodId) -> Result<(), StoreError> {
        let outcome = self.call(self.inner.pass_over(pod)).await;
        self.port.note(format_args!("passes {pod} over: {}", said(&outcome)));
        outcome
    }
}
