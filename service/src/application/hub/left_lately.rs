//! Sockets that left a route, as those that select one chat after another do.
//!
//! One that comes back to a route is no latecomer: what came over the route while it was there before, it has; and nothing that
//! came while it was elsewhere is owed to it.

use std::{collections::VecDeque, time::Duration};

use daisi_ws_domain::{ids::ConnectionId, maps::Map, route::RouteKey};
use tokio::time::Instant;

/// So long after it left a socket is known: as long as an event is delivered again, by the default of `forward_max_age_seconds`,
/// and some time more.
const KNOWN_FOR: Duration = Duration::from_secs(150);
/// Leavings that are remembered; past that the oldest is forgotten, and an event that is delivered again just then may come twice
/// to one that comes back.
const MAX_LEFT: usize = 4096;

/// Who left which route, for as long as what it had there may come again.
#[derive(Debug, Default)]
pub(super) struct LeftLately {
    left_at: Map<(ConnectionId, RouteKey), Instant>,
    in_order: VecDeque<(Instant, ConnectionId, RouteKey)>,
}

impl LeftLately {
    /// A socket that stays leaves a route.
    pub(super) fn note(&mut self, connection: &ConnectionId, route: &RouteKey, now: Instant) {
        while let Some((at, ..)) = self.in_order.front()
            && (self.in_order.len() >= MAX_LEFT || now > *at + KNOWN_FOR)
            && let Some((at, connection, route)) = self.in_order.pop_front()
        {
            let place = (connection, route);
            if self.left_at.get(&place) == Some(&at) {
                self.left_at.remove(&place);
            }
        }
        self.in_order.push_back((now, connection.clone(), route.clone()));
        self.left_at.insert((connection.clone(), route.clone()), now);
    }

    /// Was it there lately?
    pub(super) fn is_back(&self, connection: &ConnectionId, route: &RouteKey, now: Instant) -> bool {
        let place = (connection.clone(), route.clone());
        !self.left_at.is_empty() && self.left_at.get(&place).is_some_and(|at| now <= *at + KNOWN_FOR)
    }
}

#[cfg(test)]
mod tests {
    use daisi_ws_domain::ids::{AgentId, CompanyId};

    use super::*;

    fn socket(number: usize) -> ConnectionId {
        ConnectionId::parse(&format!("c{number}")).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn who_left_is_known_for_a_while_and_no_more_than_so_many_are() {
        let route = RouteKey::Chats { company: CompanyId::parse("acme").unwrap(), agent: AgentId::parse("a1").unwrap() };
        let (mut left, begun) = (LeftLately::default(), Instant::now());
        left.note(&socket(0), &route, begun);
        assert!(left.is_back(&socket(0), &route, begun) && !left.is_back(&socket(1), &route, begun));
        let later = begun + KNOWN_FOR + Duration::from_secs(1);
        assert!(!left.is_back(&socket(0), &route, later));
        left.note(&socket(1), &route, later);
        assert_eq!((left.left_at.len(), left.in_order.len()), (1, 1));
        (0..2 * MAX_LEFT).for_each(|number| left.note(&socket(number), &route, later));
        assert_eq!((left.left_at.len(), left.in_order.len()), (MAX_LEFT, MAX_LEFT));
        assert!(left.is_back(&socket(2 * MAX_LEFT - 1), &route, later) && !left.is_back(&socket(0), &route, later));
        left.note(&socket(7), &route, later);
        left.note(&socket(7), &route, later + Duration::from_secs(5));
        assert!(left.is_back(&socket(7), &route, later + Duration::from_secs(14)));
    }
}
