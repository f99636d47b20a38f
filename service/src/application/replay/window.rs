//! A part of the stream, held for a moment and looked up by route.

use std::sync::Arc;

use daisi_ws_domain::{
    event::{Address, StreamId},
    maps::Map,
    route::RouteKey,
};

use crate::{
    application::hub::memory::{Charge, Kind, Memory},
    ports::{ReadRequest, StoredEvent, Stretch},
};

/// What an event takes beside its subject and payload, and a route beside its events, in bytes.
pub(super) const OVERHEAD: usize = 160;
/// A window grows at its old end so often: each time is one more place to look in.
const MOST_PIECES: usize = 16;

/// Events that come one after the other, of all routes.
pub(super) struct Piece {
    events: Vec<StoredEvent>,
    /// Where the events of each route are.
    by_route: Map<RouteKey, Vec<usize>>,
    charge: Charge,
}

impl Piece {
    /// Nothing yet.
    pub(super) fn new(memory: &Arc<Memory>) -> Self {
        Self { events: Vec::new(), by_route: Map::default(), charge: memory.charge(Kind::Events, 0) }
    }

    /// Adds what comes next. What no pod can read is left out.
    pub(super) fn take(&mut self, prefix: &str, events: impl Iterator<Item = StoredEvent>) {
        let mut bytes = self.charge.bytes();
        for mut event in events {
            let Ok(address) = Address::parse(prefix, &event.subject) else { continue };
            // What came over the connection lies in one block with what is not kept.
            event.payload = bytes::Bytes::copy_from_slice(&event.payload);
            bytes += event.subject.len() + event.payload.len() + OVERHEAD;
            let place = self.events.len();
            for route in address.routes() {
                let places = self.by_route.entry(route).or_insert_with(|| {
                    bytes += OVERHEAD;
                    Vec::new()
                });
                places.push(place);
            }
            self.events.push(event);
        }
        self.charge.set(bytes);
    }

    /// What it counts for among what the pod holds.
    pub(super) fn bytes(&self) -> usize {
        self.charge.bytes()
    }

    fn append(&mut self, later: Self) {
        let moved = self.events.len();
        let bytes = self.bytes() + later.bytes();
        self.events.extend(later.events);
        for (route, places) in later.by_route {
            self.by_route.entry(route).or_default().extend(places.into_iter().map(|place| moved + place));
        }
        drop(later.charge);
        self.charge.set(bytes);
    }

    /// Events of a route after a sequence.
    fn since(&self, route: &RouteKey, after: u64) -> impl Iterator<Item = &StoredEvent> {
        let events = self.by_route.get(route).into_iter().flatten().filter_map(|place| self.events.get(*place));
        events.skip_while(move |event| event.seq <= after)
    }
}

/// All events of the stream after one sequence and up to another.
pub(super) struct Window {
    stream: StreamId,
    after: u64,
    through: u64,
    /// In ascending order.
    pieces: Vec<Piece>,
}

impl Window {
    /// A window of what was read after `after` and up to `through`.
    pub(super) fn new(stream: StreamId, after: u64, through: u64, piece: Piece) -> Self {
        Self { stream, after, through, pieces: vec![piece] }
    }

    /// The stream that it is a part of.
    pub(super) fn stream(&self) -> StreamId {
        self.stream
    }

    /// It has what comes after this, and none before.
    pub(super) fn after(&self) -> u64 {
        self.after
    }

    /// And none after this.
    pub(super) fn through(&self) -> u64 {
        self.through
    }

    /// What it counts for among what the pod holds.
    pub(super) fn bytes(&self) -> usize {
        self.pieces.iter().map(Piece::bytes).sum()
    }

    /// Is everything in it after one sequence and up to another?
    pub(super) fn has(&self, stream: StreamId, after: u64, upto: u64) -> bool {
        self.stream == stream && self.after <= after && upto <= self.through
    }

    /// May it grow at its old end?
    pub(super) fn may_reach_back(&self) -> bool {
        self.pieces.len() < MOST_PIECES
    }

    /// Adds what was read after its end, up to `through`.
    pub(super) fn append(&mut self, through: u64, piece: Piece) {
        self.through = through;
        match self.pieces.last_mut() {
            Some(last) => last.append(piece),
            None => self.pieces.push(piece),
        }
    }

    /// Adds what was read before its beginning, after `after`.
    pub(super) fn prepend(&mut self, after: u64, piece: Piece) {
        self.after = after;
        self.pieces.insert(0, piece);
    }

    /// What a read of the stream brings, if all of that is here.
    pub(super) fn read(&self, stream: StreamId, request: &ReadRequest) -> Option<Stretch> {
        let ReadRequest { route, after, upto, max_events, max_bytes } = request;
        if !self.has(stream, *after, *upto) {
            return None;
        }
        let (mut events, mut bytes): (Vec<StoredEvent>, usize) = (Vec::new(), 0);
        let due = self.pieces.iter().flat_map(|piece| piece.since(route, *after)).take_while(|event| event.seq <= *upto);
        for event in due {
            let size = event.payload.len();
            if events.len() >= *max_events || (!events.is_empty() && bytes.saturating_add(size) > *max_bytes) {
                let through = events.last().map_or(*after, |last| last.seq);
                return Some(Stretch { events, through });
            }
            bytes = bytes.saturating_add(size);
            events.push(event.clone());
        }
        Some(Stretch { events, through: *upto })
    }
}
