//! The one writer of this pod's routes: makes the store hold what the hub wants *now*.
//!
//! Level-triggered: it is told that a route changed, not how, and asks the hub when it writes. So a session that leaves cannot
//! take a route from one that arrives, in whatever order the two are noticed. `ready` and `chat_selected` wait for
//! [`RouteWriter::join`].

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use daisi_ws_domain::{ids::PodId, route::RouteKey, ttl::TtlRange};
use indexmap::IndexSet;
use smallvec::SmallVec;
use tokio::{
    sync::{Notify, oneshot, watch},
    time::{Instant, MissedTickBehavior, sleep_until},
};

use crate::{
    application::hub::{registry::Hub, session::Session},
    config::Config,
    metrics::{Metrics, labels::RouteWrite},
    ports::{KeyKind, RouteChange, Routes, StoreError, log_store_error},
    runtime::{backoff::Backoff, linger::Linger},
};

/// Changes in one write: enough to share the round trip, few enough that a new session does not wait long behind a refresh.
const MAX_CHANGES: usize = 1000;
/// Of these, refreshes however much is urgent: a storm of sessions must not keep the pod from registering again, nor let idle
/// routes run out.
const MIN_REFRESHED: usize = 250;
/// From one write to the next while many sessions wait for theirs.
const BETWEEN_WRITES: Duration = Duration::from_millis(1);
/// The pauses after failed writes.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

/// A route that the store refused is tried again this long after: who deletes the key that stands in its way gets the route soon.
const REFUSED_PAUSE: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));

type Asker = oneshot::Sender<Result<(), StoreError>>;
type Answer = oneshot::Receiver<Result<(), StoreError>>;

/// Who waits for some of the urgent routes.
#[derive(Debug)]
struct Waiter {
    /// Their places among the urgent, and so in the batch.
    places: SmallVec<[usize; 2]>,
    asker: Asker,
}

#[derive(Debug, Default)]
struct Pending {
    /// Written first: somebody waits for these, or they have changed.
    urgent: IndexSet<RouteKey>,
    /// Written beside what is urgent: to extend their life, or because the store may have lost them.
    refresh: IndexSet<RouteKey>,
    waiters: Vec<Waiter>,
    /// Wanted routes that the store refused, and when they are tried again.
    refused: IndexSet<RouteKey>,
    retry_at: Option<Instant>,
    /// Answered when all refreshes have been written.
    settled: Vec<Asker>,
}

impl Pending {
    fn ask(&mut self, routes: &[RouteKey]) -> Answer {
        let (asker, answer) = oneshot::channel();
        let places = routes.iter().map(|route| self.urgent.insert_full(route.clone()).0).collect();
        self.waiters.push(Waiter { places, asker });
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

    /// Puts a session on routes and waits until the store holds them. False if the session is not in the hub any more. Dropping
    /// the future leaves the session on the routes.
    ///
    /// # Errors
    /// As [`RouteWriter::confirm`].
    pub async fn join(&self, session: &Session, routes: &[RouteKey]) -> Result<bool, StoreError> {
        let confirmed = {
            // Held meanwhile, or the writer, on another worker, would write a route before it knows who waits for it, and then
            // write it again.
            let mut pending = self.lock();
            if !routes.iter().all(|route| self.hub.join(session.connection(), route)) {
                return Ok(false);
            }
            pending.ask(routes)
        };
        session.worker().wait_for(self.answer(confirmed)).await.map(|()| true)
    }

    /// Waits until the store holds, for each of these routes, what the hub wanted when this was called or later.
    ///
    /// # Errors
    /// When the write that would have confirmed it failed, or the store refuses one of them. The writer goes on trying all the
    /// same.
    pub(crate) async fn confirm(&self, routes: &[RouteKey]) -> Result<(), StoreError> {
        let confirmed = self.lock().ask(routes);
        self.answer(confirmed).await
    }

    /// Writes every wanted route again, and waits until that is done.
    ///
    /// # Errors
    /// When a write failed. The writer goes on trying all the same.
    pub(crate) async fn reassert(&self) -> Result<(), StoreError> {
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
        answer.await.unwrap_or(Err(StoreError::Stopped))
    }

    /// Writes until cancelled. One at a time: a second one would break the order of writes.
    pub async fn run(&self, routes: &dyn Routes, me: &PodId, config: watch::Receiver<Arc<Config>>, metrics: &Metrics) {
        let period = config.borrow().app.ttl_refresh_interval;
        let mut refresh = tokio::time::interval_at(Instant::now() + period, period);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut backoff = BACKOFF;
        loop {
            let (idle, retry_at) = (self.is_idle(), self.lock().retry_at);
            let due = tokio::select! {
                biased;
                // First, and also while there is much to do: idle routes run out otherwise.
                _ = refresh.tick() => true,
                () = self.wake.notified(), if idle => false,
                () = self.hub.routes_changed(), if idle => false,
                () = sleep_until(retry_at.unwrap_or_else(Instant::now)), if idle && retry_at.is_some() => false,
                () = std::future::ready(()), if !idle => false,
            };
            if due {
                let wanted = self.hub.wanted();
                self.lock().refresh.extend(wanted);
            }
            match self.write_some(routes, me, &config, metrics).await {
                Ok(()) => backoff.reset(),
                Err(error) => {
                    let pause = backoff.pause();
                    log_store_error!(&error, retry_in = ?pause, "routes could not be written");
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
        let linger = Linger::of(waiters.len(), MAX_CHANGES, BETWEEN_WRITES);
        let ttls = RouteTtls::of(&config.borrow());
        let changes: Vec<RouteChange> = batch.iter().map(|route| self.change(route, &ttls)).collect();
        let written = if changes.is_empty() { Ok(Vec::new()) } else { routes.apply(me, &changes).await };
        let outcome = if written.is_ok() { RouteWrite::Ok } else { RouteWrite::Error };
        metrics.route_writes_total.with_label_values(&[outcome.as_str()]).inc();
        let refused = self.note(&batch, &written);
        let settled = {
            let mut pending = self.lock();
            let done = written.is_err() || pending.refresh.is_empty();
            if done { std::mem::take(&mut pending.settled) } else { Vec::new() }
        };
        let written = written.map(|_| ());
        for Waiter { places, asker } in waiters {
            let is_refused = places.iter().any(|place| refused.contains(place));
            let _ = asker.send(if is_refused { Err(StoreError::wrong_type(KeyKind::Route, NoRoute)) } else { written.clone() });
        }
        for asker in settled {
            let _ = asker.send(written.clone());
        }
        linger.wait().await;
        written
    }

    /// Notes what has to be written again, and returns the places that the store refused.
    fn note(&self, batch: &[RouteKey], written: &Result<Vec<usize>, StoreError>) -> Vec<usize> {
        let Ok(refused) = written else {
            // The outcome is unknown, and the store may have come back empty: everything has to be written again.
            let wanted = self.hub.wanted();
            self.lock().refresh.extend(batch.iter().cloned().chain(wanted));
            return Vec::new();
        };
        let mut pending = self.lock();
        if refused.is_empty() && pending.refused.is_empty() {
            return Vec::new();
        }
        for route in batch {
            pending.refused.swap_remove(route);
        }
        let still_wanted = refused.iter().filter_map(|place| batch.get(*place)).filter(|route| self.hub.wants(route));
        pending.refused.extend(still_wanted.cloned());
        let retry_at = pending.retry_at.unwrap_or_else(|| Instant::now() + REFUSED_PAUSE.nth(1));
        pending.retry_at = (!pending.refused.is_empty()).then_some(retry_at);
        refused.clone()
    }

    /// Takes all that is urgent, with everybody who waits for it, and a part of what is to be refreshed.
    fn take_batch(&self) -> (Vec<RouteKey>, Vec<Waiter>) {
        let mut pending = self.lock();
        if pending.retry_at.is_some_and(|at| Instant::now() >= at) {
            pending.retry_at = None;
            let again = std::mem::take(&mut pending.refused);
            pending.refresh.extend(again);
        }
        pending.urgent.extend(self.hub.take_changed());
        let mut batch: Vec<RouteKey> = std::mem::take(&mut pending.urgent).into_iter().collect();
        let waiters = std::mem::take(&mut pending.waiters);
        let room = MAX_CHANGES.saturating_sub(batch.len()).max(MIN_REFRESHED).min(pending.refresh.len());
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

/// What the store has under the name of the route.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("it is no set of pods")]
struct NoRoute;

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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use async_trait::async_trait;
    use daisi_ws_domain::{
        ids::{AgentId, ChatId, CompanyId},
        peer::PodRecord,
    };

    use super::*;
    use crate::{
        config::testing,
        ports::{Announce, AnnounceError, Announcement, Incarnation, Lookup, Standing},
    };

    /// A store that takes its time to write, or is away.
    #[derive(Default)]
    struct Slow {
        is_away: bool,
        tried: Mutex<BTreeSet<Instant>>,
    }

    #[async_trait]
    impl Routes for Slow {
        async fn apply(&self, _: &PodId, _: &[RouteChange]) -> Result<Vec<usize>, StoreError> {
            self.tried.lock().unwrap().insert(Instant::now());
            tokio::time::sleep(Duration::from_millis(2)).await;
            if self.is_away { Err(StoreError::unreachable("it is away")) } else { Ok(Vec::new()) }
        }
        async fn lookup(&self, _: &PodId, _: &[RouteKey]) -> Result<Lookup, StoreError> {
            Ok(Lookup { incarnation: Incarnation(0), epoch: None, pods: Vec::new(), refused: Vec::new(), unread: Vec::new() })
        }
        async fn resolve(&self, _: &[(PodId, Vec<RouteKey>)], _: bool) -> Result<(Incarnation, Vec<Standing>), StoreError> {
            Ok((Incarnation(0), Vec::new()))
        }
        async fn announce(&self, _: Announce<'_>) -> Result<Announcement, AnnounceError> {
            Err(StoreError::Stopped.into())
        }
        async fn retire(&self, _: &[PodId]) -> Result<Vec<bool>, StoreError> {
            Ok(Vec::new())
        }
        async fn leave(&self, _: &PodRecord) -> Result<(), StoreError> {
            Ok(())
        }
        async fn pass_over(&self, _: &PodId) -> Result<(), StoreError> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn registering_again_comes_to_its_end_in_a_storm_of_sessions() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let writer = RouteWriter::new(Arc::new(Hub::new(Arc::clone(&metrics))));
        let (company, agent) = (CompanyId::parse("acme").unwrap(), AgentId::parse("a1").unwrap());
        let route = |n: usize| {
            let chat = ChatId::parse(&format!("c{n}")).unwrap();
            RouteKey::Messages { company: company.clone(), agent: agent.clone(), chat }
        };
        // More than go in one write, again and again, so that something is urgent whenever a write ends.
        let storm = async {
            loop {
                writer.lock().urgent.extend((0..2 * MAX_CHANGES).map(route));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        writer.lock().refresh.extend((0..2 * MAX_CHANGES).map(|n| route(10 * MAX_CHANGES + n)));
        let (_held, config) = watch::channel(Arc::new(testing::config()));
        let (store, me) = (Slow::default(), PodId::parse("me").unwrap());
        tokio::select! {
            () = storm => {}
            () = writer.run(&store, &me, config, &metrics) => {}
            done = tokio::time::timeout(Duration::from_secs(1), writer.reassert()) => done.expect("it is answered").unwrap(),
        }
    }
    #[tokio::test(start_paused = true)]
    async fn two_pods_do_not_try_a_store_that_is_away_in_step() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let stores = [(); 2].map(|()| Slow { is_away: true, ..Slow::default() });
        let (_held, config) = watch::channel(Arc::new(testing::config()));
        let (began, me) = (Instant::now(), PodId::parse("me").unwrap());
        let pods = stores.each_ref().map(|store| {
            let writer = RouteWriter::new(Arc::new(Hub::new(Arc::clone(&metrics))));
            let (company, agent) = (CompanyId::parse("acme").unwrap(), AgentId::parse("a1").unwrap());
            writer.lock().refresh.insert(RouteKey::Chats { company, agent });
            let (me, config, metrics) = (&me, config.clone(), &metrics);
            async move { writer.run(store, me, config, metrics).await }
        });
        let _ = tokio::time::timeout(Duration::from_secs(60), futures_util::future::join_all(pods)).await;
        let [one, other] = stores.map(|store| store.tried.into_inner().unwrap());
        // They begin together, and may meet once or twice by chance, of the five hundred milliseconds that each wait has.
        assert!(one.len() > 50 && one.contains(&began) && other.contains(&began), "{} tries", one.len());
        assert!(one.intersection(&other).count() < 10, "{one:?} {other:?}");
    }
}
