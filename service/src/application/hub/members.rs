//! The sessions on one route.

use std::sync::Arc;

use daisi_ws_domain::{ids::ConnectionId, maps::Map};

use super::{
    fan_out::{FanOut, List, WorkerQueue},
    prepared_message::PreparedMessage,
    session::Session,
};

/// The sessions on a route. Most routes have one, which then costs no map.
#[derive(Debug)]
pub(super) enum Members {
    One(Arc<Session>),
    Many(Many),
}

/// Sessions by the worker on which they live.
#[derive(Debug, Default)]
pub(super) struct Many {
    shares: Vec<Share>,
    places: Map<ConnectionId, Place>,
}

#[derive(Debug)]
struct Share {
    queue: Arc<WorkerQueue>,
    /// Copied only when somebody joins or leaves while an event is on its way to it.
    sessions: List,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    share: u32,
    index: u32,
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

impl Many {
    fn insert(&mut self, session: &Arc<Session>, fan_out: &mut FanOut) {
        if self.places.contains_key(session.connection()) {
            return;
        }
        let queue = fan_out.queue_of(session);
        let known = self.shares.iter().position(|share| Arc::ptr_eq(&share.queue, queue));
        let share = known.unwrap_or_else(|| {
            self.shares.push(Share { queue: Arc::clone(queue), sessions: List::default() });
            self.shares.len() - 1
        });
        let sessions = Arc::make_mut(&mut self.shares[share].sessions);
        let place = Place { share: narrow(share), index: narrow(sessions.len()) };
        sessions.push(Arc::clone(session));
        self.places.insert(session.connection().clone(), place);
    }

    fn remove(&mut self, connection: &ConnectionId) {
        let Some(place) = self.places.remove(connection) else { return };
        let index = place.index as usize;
        let sessions = Arc::make_mut(&mut self.shares[place.share as usize].sessions);
        sessions.swap_remove(index);
        // The last has taken its place.
        if let Some(moved) = sessions.get(index)
            && let Some(known) = self.places.get_mut(moved.connection())
        {
            known.index = place.index;
        }
    }

    fn bring(&self, event: &Arc<PreparedMessage>) -> usize {
        let mut count = 0;
        for (number, share) in self.shares.iter().enumerate().filter(|(_, share)| !share.sessions.is_empty()) {
            // What a worker counts its references in is its own.
            let event = if number == 0 { event } else { &Arc::new(PreparedMessage::clone(event)) };
            count += share.queue.bring(&share.sessions, || Arc::clone(&share.sessions), event);
        }
        count
    }
}

impl Members {
    pub(super) fn insert(&mut self, session: &Arc<Session>, fan_out: &mut FanOut) {
        match self {
            Self::One(only) if only.connection() == session.connection() => {}
            Self::One(only) => {
                let mut both = Many::default();
                both.insert(only, fan_out);
                both.insert(session, fan_out);
                *self = Self::Many(both);
            }
            Self::Many(many) => many.insert(session, fan_out),
        }
    }

    /// Takes a session out. True if nobody is left.
    pub(super) fn remove(&mut self, connection: &ConnectionId) -> bool {
        match self {
            Self::One(only) => only.connection() == connection,
            Self::Many(many) => {
                many.remove(connection);
                many.places.is_empty()
            }
        }
    }

    /// Brings an event to all of them; how many will have it.
    pub(super) fn bring(&self, event: &Arc<PreparedMessage>, fan_out: &mut FanOut) -> usize {
        match self {
            Self::One(only) => fan_out.bring(only, event),
            Self::Many(many) => many.bring(event),
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        let (one, many) = match self {
            Self::One(only) => (Some(only), None),
            Self::Many(many) => (None, Some(many.shares.iter().flat_map(|share| share.sessions.iter()))),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}
