//! The one writer of this pod's routes: makes the store hold what the hub wants *now*.
//!
//! Level-triggered: it is told that a route changed, not how, and asks the hub when it writes. So a session that leaves cannot take a route from
//! one that arrives, in whatever order the two are noticed. `ready` and `chat_selected` wait for [`RouteWriter::join`].

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use indexmap::IndexSet;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, MissedTickBehavior},
};

use super::{
    hub::Hub,
    ports::{RouteChange, Routes, StoreError},
};
use crate::{
    backoff::Backoff,
    breath::Breath,
    config::Config,
    cores::relayed,
    domain::{
        ids::{ConnectionId, PodId},
        route::RouteKey,
        ttl::TtlRange,
    },
    metrics::Metrics,
};

/// Changes in one write: enough to share the round trip, few enough that a new session does not wait long behind a refresh.
const MAX_CHANGES: usize = 1000;
/// From one write to the next while many sessions wait for theirs.
const BETWEEN_WRITES: Duration = Duration::from_millis(1);
/// The pauses after failed writes.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

type Waiter = oneshot::Sender<Result<(), StoreError>>;
type Answer = oneshot::Receiver<Result<(), StoreError>>;

#[derive(Debug, Default)]
struct Pending {
    /// Written first: somebody waits for these, or they have changed.
    urgent: IndexSet<RouteKey>,
    /// Written when nothing is urgent: to extend their life, or because the store may have lost them.
    refresh: IndexSet<RouteKey>,
    waiters: Vec<Waiter>,
    /// Answered when everything, refreshes included, has been written.
    settled: Vec<Waiter>,
}

impl Pending {
    fn ask(&mut self, routes: &[RouteKey]) -> Answer {
        let (waiter, answer) = oneshot::channel();
        self.urgent.extend(routes.iter().cloned());
        self.waiters.push(waiter);
        answer
    }
}

/// Handle to the route writer of a pod.
#[derive(Debug)]
pub struct RouteWriter {
    hub: Arc<Hub>,
    pending: Mutex<Pending>,
    wake: Notify,
}

impl RouteWriter {
    /// A writer for what the hub wants; [`RouteWriter::run`] does the writing.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub, pending: Mutex::default(), wake: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a session on routes and waits until the store holds them. False if the session is not in the hub any more. Dropping the future
    /// leaves the session on the routes.
    ///
    /// # Errors
    /// As [`RouteWriter::confirm`].
    pub async fn join(&self, connection: &ConnectionId, routes: &[RouteKey]) -> Result<bool, StoreError> {
        let confirmed = {
            // Held meanwhile, or the writer, on another core, would write a route before it knows who waits for it, and then write it again.
            let mut pending = self.lock();
            if !routes.iter().all(|route| self.hub.join(connection, route)) {
                return Ok(false);
            }
            pending.ask(routes)
        };
        self.answer(confirmed).await.map(|()| true)
    }

    /// Waits until the store holds, for each of these routes, what the hub wanted when this was called or later.
    ///
    /// # Errors
    /// When the write that would have confirmed it failed. The writer goes on trying all the same.
    pub async fn confirm(&self, routes: &[RouteKey]) -> Result<(), StoreError> {
        let confirmed = self.lock().ask(routes);
        self.answer(confirmed).await
    }

    /// Writes every wanted route again, and waits until that is done.
    ///
    /// # Errors
    /// When a write failed. The writer goes on trying all the same.
    pub async fn reassert(&self) -> Result<(), StoreError> {
        let (waiter, settled) = oneshot::channel();
        let wanted = self.hub.wanted();
        {
            let mut pending = self.lock();
            pending.refresh.extend(wanted);
            pending.settled.push(waiter);
        }
        self.answer(settled).await
    }

    async fn answer(&self, answer: Answer) -> Result<(), StoreError> {
        self.wake.notify_one();
        relayed(answer).await.unwrap_or_else(|_| Err(StoreError::Unavailable("the route writer has stopped".into())))
    }

    /// Writes until cancelled. One at a time: a second one would break the order of writes.
    pub async fn run(&self, routes: &dyn Routes, me: &PodId, config: watch::Receiver<Arc<Config>>, metrics: &Metrics) {
        let period = config.borrow().app.ttl_refresh_interval;
        let mut refresh = tokio::time::interval_at(Instant::now() + period, period);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = BACKOFF;
        loop {
            if self.is_idle() {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = self.hub.routes_changed() => {}
                    _ = refresh.tick() => {
                        let wanted = self.hub.wanted();
                        self.lock().refresh.extend(wanted);
                    }
                }
            }
            match self.write_some(routes, me, &config, metrics).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    let pause = backoff.pause();
                    tracing::debug!(%error, retry_in = ?pause, "routes could not be written");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        let pending = self.lock();
        pending.urgent.is_empty() && pending.refresh.is_empty() && pending.waiters.is_empty() && pending.settled.is_empty()
    }

    async fn write_some(
        &self,
        routes: &dyn Routes,
        me: &PodId,
        config: &watch::Receiver<Arc<Config>>,
        metrics: &Metrics,
    ) -> Result<(), StoreError> {
        let (batch, waiters) = self.take_batch();
        let breath = Breath::of(waiters.len(), MAX_CHANGES, BETWEEN_WRITES);
        let ttls = RouteTtls::of(&config.borrow());
        let changes: Vec<RouteChange> = batch.iter().map(|route| self.change(route, &ttls)).collect();
        let written = if changes.is_empty() { Ok(()) } else { routes.apply(me, &changes).await };
        metrics.route_writes_total.with_label_values(&[if written.is_ok() { "ok" } else { "error" }]).inc();
        let settled = {
            let mut pending = self.lock();
            if written.is_err() {
                // The outcome is unknown, and the store may have come back empty: everything has to be written again.
                pending.refresh.extend(batch);
            }
            let done = written.is_err() || (pending.urgent.is_empty() && pending.refresh.is_empty());
            if done { std::mem::take(&mut pending.settled) } else { Vec::new() }
        };
        if written.is_err() {
            let wanted = self.hub.wanted();
            self.lock().refresh.extend(wanted);
        }
        for waiter in waiters.into_iter().chain(settled) {
            let _ = waiter.send(written.clone());
        }
        breath.drawn().await;
        written
    }

    /// Takes all that is urgent, with everybody who waits for it, or else a part of what is to be refreshed.
    fn take_batch(&self) -> (Vec<RouteKey>, Vec<Waiter>) {
        let mut pending = self.lock();
        pending.urgent.extend(self.hub.take_changed());
        let mut batch: Vec<RouteKey> = std::mem::take(&mut pending.urgent).into_iter().collect();
        let waiters = std::mem::take(&mut pending.waiters);
        let room = MAX_CHANGES.saturating_sub(batch.len()).min(pending.refresh.len());
        batch.extend(pending.refresh.drain(..room));
        (batch, waiters)
    }

    fn change(&self, route: &RouteKey, ttls: &RouteTtls) -> RouteChange {
        match self.hub.route_idle(route) {
            Some(idle) => RouteChange::Add { route: route.clone(), ttl: ttls.of_route(route, idle) },
            None => RouteChange::Remove { route: route.clone() },
        }
    }
}

/// How long routes live without renewal.
struct RouteTtls {
    fixed: Duration,
    message: Option<TtlRange>,
}

impl RouteTtls {
    fn of(config: &Config) -> Self {
        let rule = &config.adaptive_ttl.message_route;
        let range = TtlRange { min: rule.min_ttl, max: rule.max_ttl, activity_threshold: rule.activity_threshold };
        Self { fixed: config.app.route_ttl, message: rule.enabled.then_some(range) }
    }

    fn of_route(&self, route: &RouteKey, idle: Duration) -> Duration {
        match (route, self.message) {
            (RouteKey::Messages { .. }, Some(range)) => range.for_idle(idle),
            _ => self.fixed,
        }
    }
}
