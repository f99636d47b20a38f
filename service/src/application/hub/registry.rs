//! The registry of this pod's sessions: which sockets see which route.
//!
//! Every method is short and never awaits. Sessions are entered before they have their lock (*pending*), so that a kill finds
//! them from then on. Removal needs the connection id: a late exit of an old socket cannot remove its successor.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use daisi_ws_domain::{
    close::CloseReason,
    event::{Event, Path},
    gap::Gap,
    ids::{ConnectionId, PodId},
    route::RouteKey,
    seen::SeenEvents,
    session::{Kill, SessionKey},
};
use indexmap::IndexSet;
use tokio::{sync::Notify, time::Instant};

use super::{
    fan_out::{FanOut, put_item},
    latecomers::{EventKey, Latecomers},
    mailbox::item::Item,
    members::Members,
    memory::Memory,
    parting::Parting,
    prepared_message::PreparedMessage,
    session::Session,
};
use crate::{metrics::Metrics, ports::SettledUpTo};

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

#[derive(Debug)]
struct Entry {
    session: Arc<Session>,
    routes: Vec<RouteKey>,
}

#[derive(Debug)]
struct RouteEntry {
    members: Members,
    /// When an event came over it, or somebody joined it.
    active_at: Instant,
    /// Nothing has come over it, and nobody else has joined it.
    is_fresh: bool,
    /// In a box, as most routes have none.
    late: Option<Box<Latecomers>>,
}

impl RouteEntry {
    /// Something comes over it, or somebody joins it: if its first session has joined it lately, that is noted only now. Many
    /// never have an event.
    fn touch(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_fresh)
            && Latecomers::is_lately(self.active_at, now)
            && let Some(first) = self.members.iter().next()
        {
            self.late.get_or_insert_default().join(first.connection(), self.active_at);
        }
        self.active_at = now;
    }
}

/// As `push`, for lists that nearly always have one item: a list that grows by itself begins with room for four.
fn push_tightly<T>(list: &mut Vec<T>, item: T) {
    list.reserve_exact(1);
    list.push(item);
}

#[derive(Debug)]
struct Inner {
    entries: HashMap<ConnectionId, Entry>,
    by_key: HashMap<SessionKey, Vec<ConnectionId>>,
    routes: HashMap<RouteKey, RouteEntry>,
    /// Routes that began or ceased to be wanted, for the route writer.
    changed: IndexSet<RouteKey>,
    /// Routes of sessions that are between this pod and another.
    parting: Parting,
    fan_out: FanOut,
    memory: Arc<Memory>,
    seen: SeenEvents,
    admitting: bool,
}

/// The sessions of one pod.
#[derive(Debug)]
pub struct Hub {
    inner: Mutex<Inner>,
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
    /// An empty hub.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let memory = Arc::<Memory>::default();
        Self {
            inner: Mutex::new(Inner {
                entries: HashMap::new(),
                by_key: HashMap::new(),
                routes: HashMap::new(),
                changed: IndexSet::new(),
                parting: Parting::default(),
                fan_out: FanOut::new(Arc::clone(&metrics)),
                memory: Arc::clone(&memory),
                seen: SeenEvents::default(),
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

    fn lock(&self) -> MutexGuard<'_, Inner> {
        #[cfg(test)]
        self.visits.fetch_add(1, Ordering::Relaxed);
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the pod holds in memory, its sockets and the events on their way to them.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// Notes whether connects that another pod has no room for may come here.
    pub(crate) fn note_room(&self, has_room: bool) {
        self.has_room.store(has_room, Ordering::Relaxed);
    }

    /// May they?
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }

    // ---- sessions ----

    /// Enters a pending session: kills find it from now on.
    ///
    /// # Errors
    /// When the pod has `limit` sessions, or drains.
    pub fn enter(&self, session: &Arc<Session>, limit: usize) -> Result<(), Refusal> {
        let mut inner = self.lock();
        if !inner.admitting {
            return Err(Refusal::Draining);
        }
        if inner.entries.len() >= limit {
            return Err(Refusal::Full);
        }
        push_tightly(inner.by_key.entry(session.key().clone()).or_default(), session.connection().clone());
        inner.entries.insert(session.connection().clone(), Entry { session: Arc::clone(session), routes: Vec::new() });
        Ok(())
    }

    /// Takes a session out, with its routes; nothing of its socket is left. False if it was out already.
    pub fn remove(&self, connection: &ConnectionId) -> bool {
        let mut inner = self.lock();
        inner.parting.gone(connection);
        let removed = inner.remove(connection);
        self.tell(inner);
        removed.is_some()
    }

    /// Wakes who waits for what has changed.
    fn tell(&self, inner: MutexGuard<'_, Inner>) {
        let (changed, empty) = (!inner.changed.is_empty(), inner.entries.is_empty());
        drop(inner);
        if changed {
            self.routes_changed.notify_one();
        }
        if empty {
            self.emptied.notify_waiters();
        }
    }

    /// Closes a session and takes it out at once, so that nothing more is put in its mailbox. `None` if it is not here.
    pub fn evict(&self, connection: &ConnectionId, reason: CloseReason) -> Option<Arc<Session>> {
        let mut inner = self.lock();
        let evicted = inner.evict(connection, reason);
        self.tell(inner);
        evicted
    }

    /// Closes, and takes out at once, whom a kill is about: the victim if it names one, else (from an old pod) all of that
    /// session, unless they are on the new pod.
    pub fn kill(&self, kill: &Kill, me: &PodId) -> Vec<Arc<Session>> {
        let mut inner = self.lock();
        let victims = inner.victims(kill, me);
        let killed = victims.iter().filter_map(|victim| inner.evict(victim, CloseReason::SessionReplaced)).collect();
        self.tell(inner);
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
        let mut inner = self.lock();
        let routes = inner.parting.end();
        inner.changed.extend(routes);
        self.tell(inner);
    }

    /// Is this socket's session here?
    #[must_use]
    pub fn contains(&self, connection: &ConnectionId) -> bool {
        self.lock().entries.contains_key(connection)
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

    /// How many sessions are here, pending ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Is nobody here?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
        let inner = self.lock();
        let idle = inner.routes.get(route).map(|entry| entry.active_at.elapsed());
        idle.or_else(|| inner.parting.has(route).then_some(Duration::ZERO))
    }

    /// Every route that a session is on, or between this pod and another.
    #[must_use]
    pub fn wanted(&self) -> Vec<RouteKey> {
        let inner = self.lock();
        let kept = inner.parting.routes().filter(|route| !inner.routes.contains_key(*route));
        inner.routes.keys().chain(kept).cloned().collect()
    }

    /// Waits until some route began or ceased to be wanted. Cancel-safe.
    pub(crate) async fn routes_changed(&self) {
        self.routes_changed.notified().await;
    }

    /// Takes the routes that began or ceased to be wanted since the last call.
    #[must_use]
    pub(crate) fn take_changed(&self) -> IndexSet<RouteKey> {
        let mut inner = self.lock();
        self.metrics.routes_wanted.set(i64::try_from(inner.routes.len()).unwrap_or(i64::MAX));
        std::mem::take(&mut inner.changed)
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
        let mut inner = self.lock();
        let delivered = self.deliver_here(&mut inner, event, path);
        let is_wanted_elsewhere =
            !inner.parting.is_empty() && inner.parting.wants((event.stream, event.seq), &event.address.routes());
        if is_wanted_elsewhere { Delivered::Between } else { delivered }
    }

    fn deliver_here(&self, inner: &mut Inner, event: &Event, path: Path) -> Delivered {
        let key = event.is_sequenced().then_some((event.stream, event.seq));
        if key.is_some() && inner.seen.contains(event.stream, event.seq, event.stored_at) {
            self.metrics.events_duplicate_total.inc();
            let count = key.map_or(0, |key| inner.bring_late(event, key, path));
            return if count > 0 { Delivered::To(count) } else { Delivered::Before };
        }
        match inner.bring(event, key, path) {
            0 => Delivered::Nobody,
            count => {
                if event.is_sequenced() {
                    let forgotten = inner.seen.insert(event.stream, event.seq, event.stored_at);
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

    /// Notes how far the stream's events are settled: what comes of those once more is a redelivery, and nothing about them has
    /// to be remembered.
    pub fn settled_up_to(&self, settled: SettledUpTo) {
        self.lock().seen.settled_up_to(settled.stream, settled.seq, settled.at);
    }

    /// Puts what is still on its way to a session in its mailbox, before its last word is said.
    pub fn catch_up(&self, session: &Session) {
        let queue = Arc::clone(self.lock().fan_out.queue_of(session));
        queue.work_off();
    }

    /// Tells the sessions on a route, or all, that they missed events. Returns how many were told.
    pub fn announce(&self, route: Option<&RouteKey>, gap: Gap) -> usize {
        let inner = self.lock();
        let tell = |session: &Arc<Session>| put_item(session, Item::Gap(Box::new(gap)), &self.metrics);
        let told = match route {
            Some(route) => inner.routes.get(route).map_or(0, |entry| entry.members.iter().filter(|s| tell(s)).count()),
            None => inner.entries.values().filter(|e| tell(&e.session)).count(),
        };
        self.metrics.gaps_announced_total.with_label_values(&[gap.cause.as_str()]).inc_by(told as u64);
        told
    }
}

impl Inner {
    /// The sockets that a kill is about.
    fn victims(&self, kill: &Kill, me: &PodId) -> Vec<ConnectionId> {
        let here = self.by_key.get(&kill.key).map(Vec::as_slice).unwrap_or_default();
        match &kill.victim {
            Some(victim) if victim.pod != *me => Vec::new(),
            Some(victim) => here.iter().filter(|c| victim.connection.as_ref() == Some(c)).cloned().collect(),
            None if kill.new_pod == *me => Vec::new(),
            None => here.to_vec(),
        }
    }

    /// Anyone who does not find a session finds the reason: both change under one lock.
    fn evict(&mut self, connection: &ConnectionId, reason: CloseReason) -> Option<Arc<Session>> {
        let Entry { session, routes } = self.remove(connection)?;
        session.close(reason);
        if reason == CloseReason::GoingAway {
            self.parting.told(connection, &routes);
        }
        Some(session)
    }

    fn remove(&mut self, connection: &ConnectionId) -> Option<Entry> {
        let entry = self.entries.remove(connection)?;
        if let Some(connections) = self.by_key.get_mut(entry.session.key()) {
            connections.retain(|c| c != connection);
            if connections.is_empty() {
                self.by_key.remove(entry.session.key());
            }
        }
        for route in &entry.routes {
            self.leave_route(connection, route);
        }
        Some(entry)
    }

    fn join(&mut self, connection: &ConnectionId, route: &RouteKey) -> bool {
        let Some(entry) = self.entries.get_mut(connection) else { return false };
        let is_there = entry.routes.contains(route);
        if !is_there {
            push_tightly(&mut entry.routes, route.clone());
        }
        let active_at = Instant::now();
        match self.routes.get_mut(route) {
            Some(on_route) if is_there => on_route.touch(active_at),
            Some(on_route) => {
                on_route.touch(active_at);
                on_route.members.insert(&entry.session, &mut self.fan_out);
                on_route.late.get_or_insert_default().join(connection, active_at);
            }
            None => {
                self.changed.insert(route.clone());
                let members = Members::One(Arc::clone(&entry.session));
                self.routes.insert(route.clone(), RouteEntry { members, active_at, is_fresh: true, late: None });
            }
        }
        true
    }

    fn leave(&mut self, connection: &ConnectionId, route: &RouteKey) {
        if let Some(entry) = self.entries.get_mut(connection) {
            entry.routes.retain(|r| r != route);
        }
        self.leave_route(connection, route);
    }

    fn leave_route(&mut self, connection: &ConnectionId, route: &RouteKey) {
        let Some(entry) = self.routes.get_mut(route) else { return };
        if entry.members.remove(connection) {
            self.routes.remove(route);
            self.changed.insert(route.clone());
        }
    }

    fn bring(&mut self, event: &Event, key: Option<EventKey>, path: Path) -> usize {
        let mut prepared: Option<Arc<PreparedMessage>> = None;
        let mut count = 0;
        for route in event.address.routes() {
            let Some(entry) = self.routes.get_mut(&route) else { continue };
            entry.touch(Instant::now());
            if let (Some(late), Some(key)) = (&mut entry.late, key)
                && !late.bring(key, entry.active_at)
            {
                entry.late = None;
            }
            let prepared = prepared.get_or_insert_with(|| Arc::new(PreparedMessage::new(event, path, &self.memory)));
            count += entry.members.bring(prepared, &mut self.fan_out);
        }
        count
    }

    /// Brings an event that was here before to those who were not.
    fn bring_late(&mut self, event: &Event, key: EventKey, path: Path) -> usize {
        let mut prepared: Option<Arc<PreparedMessage>> = None;
        let mut count = 0;
        for route in event.address.routes() {
            let Some(on_route) = self.routes.get_mut(&route) else { continue };
            on_route.touch(Instant::now());
            let missed = on_route.late.as_mut().map(|late| late.who_missed(key));
            for connection in missed.into_iter().flatten() {
                let Some(entry) = self.entries.get(&connection).filter(|entry| entry.routes.contains(&route)) else { continue };
                let prepared = prepared.get_or_insert_with(|| Arc::new(PreparedMessage::new(event, path, &self.memory)));
                count += self.fan_out.bring(&entry.session, prepared);
            }
        }
        count
    }
}

#[cfg(test)]
mod tests;
