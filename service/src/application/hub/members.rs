//! The sessions on one route.

use std::sync::Arc;

use indexmap::IndexMap;

use crate::{application::session::Session, domain::ids::ConnectionId};

/// The sessions on a route. Most routes have one, which then costs no map.
#[derive(Debug)]
pub(super) enum Members {
    One(Arc<Session>),
    Many(IndexMap<ConnectionId, Arc<Session>>),
}

impl Members {
    pub(super) fn insert(&mut self, session: &Arc<Session>) {
        match self {
            Self::One(only) if only.connection() == session.connection() => {}
            Self::One(only) => {
                let both = [&*only, session].map(|session| (session.connection().clone(), Arc::clone(session)));
                *self = Self::Many(both.into());
            }
            Self::Many(many) => {
                many.insert(session.connection().clone(), Arc::clone(session));
            }
        }
    }

    /// Takes a session out. True if nobody is left.
    pub(super) fn remove(&mut self, connection: &ConnectionId) -> bool {
        match self {
            Self::One(only) => only.connection() == connection,
            Self::Many(many) => {
                many.swap_remove(connection);
                many.is_empty()
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Session>> {
        let (one, many) = match self {
            Self::One(only) => (Some(only), None),
            Self::Many(many) => (None, Some(many.values())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }
}
