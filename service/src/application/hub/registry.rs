//! The registry of this pod's sessions: which sockets see which route.
//!
//! Every method is short and never awaits. Sessions are entered before they have their lock (*pending*), so that a kill finds
//! them from then on. Removal needs the connection id: a late exit of an old socket cannot remove its successor.

mod counts;
mod places;
mod tables;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use daisi_ws_domain::{
    close::CloseReason,
    event::{Event, Path},
    ids::{ConnectionId, PodId},
    maps::Map,
    route::RouteKey,
    seen::SeenEvents,
    session::{Kill, KillClaim},
};
use indexmap::IndexSet;
use tokio::{sync::Notify, time::Instant};

use self::tables::{Entry, Tables, push_tightly};
use super::{fan_out::FanOut, floor::Floor, left_lately::LeftLately, memory::Memory, parting::Parting, session::Session};
use crate::metrics::Metrics;

/// Why a session was not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The pod has all the sockets it may have.
    Full,
    /// The pod stops.
    Draining,
}

/// What became of an event here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// Put in so many mailboxes, or on its way to them.
    To(usize),
    /// Some socket here took it before: a redelivery.
    Before,
    /// No socket here is on its routes.
    Nobody,
    /// A session on its routes was told to go to another pod and may not be there yet, no matter who took it here: it has to be
    /// delivered again.
    Between,
}

impl Delivered {
    /// Did a socket here take it, now or before?
    #[must_use]
    pub fn is_taken(self) -> bool {
        matches!(self, Self::To(_) | Self::Before)
    }
}

/// Whether this pod was a member of the fleet, as an announcement shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Membership {
    /// It is from now on.
    Begun,
    /// It was all the time until it was asked.
    Unbroken {
        /// When it was asked.
        asked: Instant,
    },
    /// Others took it for dead meanwhile. Until [`Hub::announce`] has told all sessions, they are told no newer place.
    Broken,
}

/// What became of those that a kill is about.
#[derive(Debug, Default)]
pub struct Killed {
    /// Who was closed, and why.
    pub sessions: Vec<(Arc<Session>, CloseReason)>,
    /// Somebody serves on until the lock has passed.
    pub serves: bool,
}

/// The sessions of one pod.
#[derive(Debug)]
pub struct Hub {
    tables: Mutex<Tables>,
    routes_changed: Notify,
    emptied: Notify,
    has_room: AtomicBool,
    memory: Arc<Memory>,
    metrics: Arc<Metrics>,
    /// How often it was locked.
    #[cfg(test)]
    pub(crate) visits: std::sync::atomic::AtomicUsize,
}

impl Hub {
    /// A hub without sessions, that lets sessions in.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let memory = Arc::<Memory>::default();
        Self {
            tables: Mutex::new(Tables {
                entries: Map::default(),
                movers: 0,
                by_key: Map::default(),
                routes: Map::default(),
                changed: IndexSet::new(),
                parting: Parting::default(),
                left: LeftLately::default(),
                fan_out: FanOut::new(Arc::clone(&metrics)),
                memory: Arc::clone(&memory),
                seen: SeenEvents::default(),
                floor: Floor::default(),
                admitting: true,
            }),
            routes_changed: Notify::new(),
            emptied: Notify::new(),
            has_room: AtomicBool::new(false),
            memory,
            metrics,
            #[cfg(test)]
            visits: std::sync::atomic::AtomicUsize::new(0),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tables> {
        #[cfg(test)]
        self.visits.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the pod holds in memory, its sockets and the events on their way to them.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    // ---- sessions ----

    /// Enters a pending session: kills find it from now on.
    ///
    /// # Errors
    /// When the pod has `limit` sessions, or drains.
    pub fn enter(&self, session: &Arc<Session>, limit: usize) -> Result<(), Refusal> {
        let mut tables = self.lock();
        if !tables.admitting {
            return Err(Refusal::Draining);
        }
        if tables.entries.len() >= limit {
            return Err(Refusal::Full);
        }
        push_tightly(tables.by_key.entry(session.key().clone()).or_default(), session.connection().clone());
        tables.movers += usize::from(session.can_move());
        tables.entries.insert(session.connection().clone(), Entry { session: Arc::clone(session), routes: Vec::new() });
        Ok(())
    }

    /// Takes a session out, with its routes; nothing of its socket is left. False if it was out already.
    pub fn remove(&self, connection: &ConnectionId) -> bool {
        let mut tables = self.lock();
        tables.parting.gone(connection);
        let removed = tables.remove(connection);
        self.tell(tables);
        removed.is_some()
    }

    /// Wakes who waits for what has changed.
    fn tell(&self, tables: MutexGuard<'_, Tables>) {
        let (changed, empty) = (!tables.changed.is_empty(), tables.entries.is_empty());
        drop(tables);
        if changed {
            self.routes_changed.notify_one();
        }
        if empty {
            self.emptied.notify_waiters();
        }
    }

    /// Closes a session and takes it out at once, so that nothing more is put in its mailbox. `None` if it is not here.
    pub fn evict(&self, connection: &ConnectionId, reason: CloseReason) -> Option<Arc<Session>> {
        let mut tables = self.lock();
        let evicted = tables.evict(connection, reason);
        self.tell(tables);
        evicted
    }

    /// Closes, and takes out at once, whom a kill is about: the victim if it names one, else (from an old pod) all of that
    /// session, unless they are on the new pod. A victim whose client was asked to move serves on until its second socket has
    /// the lock.
    pub fn kill(&self, kill: &Kill, me: &PodId) -> Killed {
        let mut tables = self.lock();
        let mut killed = Killed::default();
        for victim in tables.victims(kill, me) {
            let is_moving = tables.entries.get(&victim).is_some_and(|entry| entry.session.moving().is_some());
            let reason = match kill.claim {
                KillClaim::Second if is_moving => {
                    killed.serves = true;
                    continue;
                }
                KillClaim::Moved if is_moving => CloseReason::Moved,
                KillClaim::Newer | KillClaim::Second | KillClaim::Moved => CloseReason::SessionReplaced,
            };
            killed.sessions.extend(tables.evict(&victim, reason).map(|session| (session, reason)));
        }
        self.tell(tables);
        killed
    }

    /// Keeps the routes of sessions that are closed with 1001 from now on, until [`Hub::end_parting`]: what comes over them is
    /// [`Delivered::Between`] until their clients have had the time to come back elsewhere, for `most` events a second.
    pub(crate) fn begin_parting(&self, most: usize) {
        self.lock().parting.begin(most);
    }

    /// When nobody is between this pod and another any more, if anybody was.
    #[must_use]
    pub(crate) fn parted_at(&self) -> Option<Instant> {
        self.lock().parting.until()
    }

    /// Lets go of the routes of those that are gone.
    pub(crate) fn end_parting(&self) {
        let mut tables = self.lock();
        let routes = tables.parting.end();
        tables.changed.extend(routes);
        self.tell(tables);
    }

    /// Is this socket's session here?
    #[must_use]
    pub fn contains(&self, connection: &ConnectionId) -> bool {
        self.lock().entries.contains_key(connection)
    }

    /// Is this socket's session here, to stay? One whose client was asked to move gives way to whoever else has the session: that
    /// is its second socket, or newer.
    #[must_use]
    pub(crate) fn keeps(&self, connection: &ConnectionId) -> bool {
        self.lock().entries.get(connection).is_some_and(|entry| entry.session.moving().is_none())
    }

    /// The session of this socket, if it is here.
    #[must_use]
    pub fn get(&self, connection: &ConnectionId) -> Option<Arc<Session>> {
        self.lock().entries.get(connection).map(|entry| Arc::clone(&entry.session))
    }

    /// Every session now. For periodic work only: it costs as much as there are sessions.
    #[must_use]
    pub fn sessions(&self) -> Vec<Arc<Session>> {
        self.lock().entries.values().map(|e| Arc::clone(&e.session)).collect()
    }

    /// Lets nobody in any more.
    pub(crate) fn stop_admitting(&self) {
        self.lock().admitting = false;
    }

    /// Waits until nobody is here.
    pub(crate) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            tokio::pin!(emptied);
            emptied.as_mut().enable();
            if self.is_empty() {
                return;
            }
            emptied.await;
        }
    }

    // ---- routes ----

    /// Puts a session on a route. False if the session is not here any more.
    pub fn join(&self, connection: &ConnectionId, route: &RouteKey) -> bool {
        let joined = self.lock().join(connection, route);
        self.routes_changed.notify_one();
        joined
    }

    /// Takes a session off a route.
    pub fn leave(&self, connection: &ConnectionId, route: &RouteKey) {
        self.lock().leave(connection, route);
        self.routes_changed.notify_one();
    }

    /// Is any session on this route?
    #[must_use]
    pub fn wants(&self, route: &RouteKey) -> bool {
        self.lock().routes.contains_key(route)
    }

    /// How long no event came over a route; `None` if nobody is on it, nor was when the pod began to drain.
    #[must_use]
    pub(crate) fn route_idle(&self, route: &RouteKey) -> Option<Duration> {
        let tables = self.lock();
        let idle = tables.routes.get(route).map(|entry| entry.active_at.elapsed());
        idle.or_else(|| tables.parting.has(route).then_some(Duration::ZERO))
    }

    /// Every route that a session is on, or between this pod and another.
    #[must_use]
    pub fn wanted(&self) -> Vec<RouteKey> {
        let tables = self.lock();
        let kept = tables.parting.routes().filter(|route| !tables.routes.contains_key(*route));
        tables.routes.keys().chain(kept).cloned().collect()
    }

    /// Waits until some route began or ceased to be wanted. Cancel-safe.
    pub(crate) async fn routes_changed(&self) {
        self.routes_changed.notified().await;
    }

    /// Takes the routes that began or ceased to be wanted since the last call.
    #[must_use]
    pub(crate) fn take_changed(&self) -> IndexSet<RouteKey> {
        let mut tables = self.lock();
        self.metrics.routes_wanted.set(i64::try_from(tables.routes.len()).unwrap_or(i64::MAX));
        std::mem::take(&mut tables.changed)
    }

    // ---- events ----

    /// Puts events in the mailbox of every session on their routes, once: a redelivery is recognised. What became of each, in
    /// order.
    pub fn deliver<'a>(&self, events: impl IntoIterator<Item = &'a Event>, path: Path) -> Vec<Delivered> {
        let delivered = events.into_iter().map(|event| self.deliver_one(event, path)).collect();
        // Only now, so that what comes together for a socket leaves in one write.
        self.lock().fan_out.start();
        delivered
    }

    fn deliver_one(&self, event: &Event, path: Path) -> Delivered {
        let mut tables = self.lock();
        let delivered = self.deliver_here(&mut tables, event, path);
        let is_wanted_elsewhere =
            !tables.parting.is_empty() && tables.parting.wants((event.stream, event.seq), &event.address.routes());
        if is_wanted_elsewhere { Delivered::Between } else { delivered }
    }

    fn deliver_here(&self, tables: &mut Tables, event: &Event, path: Path) -> Delivered {
        let key = event.is_sequenced().then_some((event.stream, event.seq));
        if key.is_some() && tables.seen.contains(event.stream, event.seq, event.stored_at) {
            self.metrics.events_duplicate_total.inc();
            let count = key.map_or(0, |key| tables.bring_late(event, key, path));
            return if count > 0 { Delivered::To(count) } else { Delivered::Before };
        }
        match tables.bring(event, key, path) {
            0 => Delivered::Nobody,
            count => {
                if event.is_sequenced() {
                    let forgotten = tables.seen.insert(event.stream, event.seq, event.stored_at);
                    if forgotten > 0 {
                        self.forgot(forgotten);
                    }
                }
                Delivered::To(count)
            }
        }
    }

    #[cold]
    fn forgot(&self, events: u64) {
        if self.metrics.events_forgotten_total.get() == 0 {
            tracing::warn!(
                "too many events lie above the consumer's ack floor to remember all; one that is delivered again comes twice"
            );
        }
        self.metrics.events_forgotten_total.inc_by(events);
    }

    /// Puts what is still on its way to a session in its mailbox, before its last word is said.
    pub fn catch_up(&self, session: &Session) {
        let queue = Arc::clone(self.lock().fan_out.queue_of(session));
        queue.work_off();
    }
}

#[cfg(test)]
mod tests;
