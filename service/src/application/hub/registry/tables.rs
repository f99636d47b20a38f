//! What the registry holds: sessions by socket and by key, and the routes they are on. Every method keeps the tables in step.

use std::sync::Arc;

use daisi_ws_domain::{
    close::CloseReason,
    event::{Event, Path, StreamId},
    frame::Stamp,
    gap::Gap,
    ids::{ConnectionId, PodId},
    maps::Map,
    missing::{Had, Missing},
    route::RouteKey,
    seen::SeenEvents,
    session::{Kill, SessionKey},
};
use indexmap::IndexSet;
use tokio::time::Instant;

use crate::application::hub::{
    fan_out::FanOut,
    floor::Floor,
    latecomers::{EventKey, Latecomers},
    left_lately::LeftLately,
    members::Members,
    memory::Memory,
    parting::Parting,
    prepared_message::PreparedMessage,
    session::Session,
};

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) session: Arc<Session>,
    pub(super) routes: Vec<RouteKey>,
}

#[derive(Debug)]
pub(super) struct RouteEntry {
    pub(super) members: Members,
    /// When an event came over it, or somebody joined it.
    pub(super) active_at: Instant,
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
pub(super) fn push_tightly<T>(list: &mut Vec<T>, item: T) {
    list.reserve_exact(1);
    list.push(item);
}

/// What a hub knows, all of it under one lock.
#[derive(Debug)]
pub(super) struct Tables {
    pub(super) entries: Map<ConnectionId, Entry>,
    /// Entries whose clients can move.
    pub(super) movers: usize,
    pub(super) by_key: Map<SessionKey, Vec<ConnectionId>>,
    pub(super) routes: Map<RouteKey, RouteEntry>,
    /// Routes that began or ceased to be wanted, for the route writer.
    pub(super) changed: IndexSet<RouteKey>,
    /// Routes of sessions that are between this pod and another.
    pub(super) parting: Parting,
    /// Who left which route lately.
    pub(super) left: LeftLately,
    pub(super) fan_out: FanOut,
    pub(super) memory: Arc<Memory>,
    pub(super) seen: SeenEvents,
    pub(super) floor: Floor,
    pub(super) admitting: bool,
}

impl Tables {
    /// The sockets that a kill is about.
    pub(super) fn victims(&self, kill: &Kill, me: &PodId) -> Vec<ConnectionId> {
        let here = self.by_key.get(&kill.key).map(Vec::as_slice).unwrap_or_default();
        match &kill.victim {
            Some(victim) if victim.pod != *me => Vec::new(),
            Some(victim) => here.iter().filter(|c| victim.connection.as_ref() == Some(c)).cloned().collect(),
            None if kill.new_pod == *me => Vec::new(),
            None => here.to_vec(),
        }
    }

    /// Anyone who does not find a session finds the reason: both change under one lock.
    pub(super) fn evict(&mut self, connection: &ConnectionId, reason: CloseReason) -> Option<Arc<Session>> {
        let Entry { session, routes } = self.remove(connection)?;
        session.close(reason);
        if reason == CloseReason::GoingAway {
            self.parting.told(connection, &routes);
        }
        Some(session)
    }

    pub(super) fn remove(&mut self, connection: &ConnectionId) -> Option<Entry> {
        let entry = self.entries.remove(connection)?;
        self.movers -= usize::from(entry.session.can_move());
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

    pub(super) fn join(&mut self, connection: &ConnectionId, route: &RouteKey) -> bool {
        let Some(entry) = self.entries.get_mut(connection) else { return false };
        let is_there = entry.routes.contains(route);
        if !is_there {
            push_tightly(&mut entry.routes, route.clone());
        }
        let active_at = Instant::now();
        let is_back = self.left.is_back(connection, route, active_at);
        match self.routes.get_mut(route) {
            Some(on_route) if is_there => on_route.touch(active_at),
            Some(on_route) => {
                on_route.touch(active_at);
                on_route.members.insert(&entry.session, &mut self.fan_out);
                if !is_back {
                    on_route.late.get_or_insert_default().join(connection, active_at);
                }
            }
            None => {
                self.changed.insert(route.clone());
                let members = Members::One(Arc::clone(&entry.session));
                self.routes.insert(route.clone(), RouteEntry { members, active_at, is_fresh: !is_back, late: None });
            }
        }
        true
    }

    pub(super) fn leave(&mut self, connection: &ConnectionId, route: &RouteKey) {
        if let Some(entry) = self.entries.get_mut(connection) {
            let before = entry.routes.len();
            entry.routes.retain(|r| r != route);
            if entry.routes.len() < before {
                self.left.note(connection, route, Instant::now());
            }
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

    /// What a gap says is missing, where it says which: this pod knows what it took of that.
    pub(super) fn missing(&self, gap: Gap) -> Option<Missing> {
        let (after, upto) = (gap.first_seq?.saturating_sub(1), gap.last_seq?);
        self.missing_between(after, Some(upto))
    }

    /// What this pod did not take since the place that its sessions were told.
    pub(super) fn missing_since_the_floor(&self) -> Option<Missing> {
        self.missing_between(self.floor.confirmed()?.seq, None)
    }

    fn missing_between(&self, after: u64, upto: Option<u64>) -> Option<Missing> {
        let stream = self.floor.confirmed()?.stream;
        let taken = self.seen.taken_between(stream, after, upto.unwrap_or(u64::MAX))?;
        Some(Missing { after, upto, had: Had::AsTaken(Arc::new(taken)) })
    }

    /// What a frame of an event of this stream says that is made now.
    fn stamp(&self, stream: StreamId) -> Stamp {
        let settled = self.floor.confirmed().filter(|settled| settled.stream == stream);
        Stamp { safe: settled.map(|settled| settled.seq), replayed: false }
    }

    pub(super) fn bring(&mut self, event: &Event, key: Option<EventKey>, path: Path) -> usize {
        let stamp = self.stamp(event.stream);
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
            let prepared = prepared.get_or_insert_with(|| Arc::new(PreparedMessage::new(event, path, stamp, &self.memory)));
            count += entry.members.bring(prepared, &mut self.fan_out);
        }
        count
    }

    /// Brings an event that was here before to those who were not.
    pub(super) fn bring_late(&mut self, event: &Event, key: EventKey, path: Path) -> usize {
        let stamp = self.stamp(event.stream);
        let mut prepared: Option<Arc<PreparedMessage>> = None;
        let mut count = 0;
        for route in event.address.routes() {
            let Some(on_route) = self.routes.get_mut(&route) else { continue };
            on_route.touch(Instant::now());
            let missed = on_route.late.as_mut().map(|late| late.who_missed(key));
            for connection in missed.into_iter().flatten() {
                let Some(entry) = self.entries.get(&connection).filter(|entry| entry.routes.contains(&route)) else { continue };
                let prepared = prepared.get_or_insert_with(|| Arc::new(PreparedMessage::new(event, path, stamp, &self.memory)));
                count += self.fan_out.bring(&entry.session, prepared);
            }
        }
        count
    }
}
