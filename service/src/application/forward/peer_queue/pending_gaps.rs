//! Gaps that the sessions of a peer are still to be told of.

use daisi_ws_domain::{gap::Gap, maps::Map, route::RouteKey};

use crate::ports::RouteGap;

/// Routes for which a gap is kept apart; past that one gap for all sessions of the peer is kept.
const MAX_ROUTES: usize = 1024;

/// Gaps by route. Nothing is taken out before the peer has confirmed it.
#[derive(Debug, Default)]
pub(super) struct PendingGaps {
    by_route: Map<RouteKey, Gap>,
    to_all: Option<Gap>,
    /// What the call under way tells.
    announcing: Vec<RouteGap>,
}

impl PendingGaps {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many gaps.
    pub(super) fn len(&self) -> usize {
        self.by_route.len() + usize::from(self.to_all.is_some()) + self.announcing.len()
    }

    pub(super) fn add(&mut self, route: Option<RouteKey>, gap: Gap) {
        let has_room = self.by_route.len() < MAX_ROUTES;
        match route.map(|route| (self.by_route.get_mut(&route).is_some(), route)) {
            Some((known, route)) if known || has_room => {
                self.by_route.entry(route).and_modify(|before| *before = before.merge(gap)).or_insert(gap);
            }
            _ => self.to_all = Some(self.to_all.map_or(gap, |before| before.merge(gap))),
        }
    }

    /// What to announce in one call: everything. [`PendingGaps::announced`] or [`PendingGaps::not_announced`] follows.
    pub(super) fn begin(&mut self) -> Vec<RouteGap> {
        self.not_announced();
        let by_route = self.by_route.drain().map(|(route, gap)| RouteGap { route: Some(route), gap });
        self.announcing.extend(by_route);
        self.announcing.extend(self.to_all.take().map(|gap| RouteGap { route: None, gap }));
        self.announcing.clone()
    }

    /// The sessions know.
    pub(super) fn announced(&mut self) {
        self.announcing = Vec::new();
    }

    /// They may not know: it stays owed.
    pub(super) fn not_announced(&mut self) {
        for RouteGap { route, gap } in std::mem::take(&mut self.announcing) {
            self.add(route, gap);
        }
    }
}

#[cfg(test)]
mod tests {
    use daisi_ws_domain::{
        gap::GapCause,
        ids::{AgentId, CompanyId},
    };

    use super::*;

    fn route(number: usize) -> Option<RouteKey> {
        Some(RouteKey::Chats { company: CompanyId::parse("a").unwrap(), agent: AgentId::parse(&format!("n{number}")).unwrap() })
    }

    fn gap(seq: u64) -> Gap {
        Gap::of(seq, GapCause::GivenUp)
    }

    #[test]
    fn nothing_is_forgotten_before_the_peer_has_confirmed_it() {
        let mut pending = PendingGaps::default();
        pending.add(route(1), gap(7));
        assert_eq!(pending.begin().len(), 1);
        pending.add(route(1), gap(9));
        pending.not_announced();
        assert_eq!(pending.begin(), [RouteGap { route: route(1), gap: gap(7).merge(gap(9)) }]);
        pending.add(route(1), gap(11));
        pending.announced();
        assert_eq!(pending.begin(), [RouteGap { route: route(1), gap: gap(11) }]);
        // As after a task that ended in the middle of a call.
        assert_eq!(pending.begin().len(), 1);
    }

    #[test]
    fn past_the_bound_all_sessions_are_told() {
        let mut pending = PendingGaps::default();
        (0..MAX_ROUTES + 2).for_each(|number| pending.add(route(number), gap(number as u64 + 1)));
        pending.add(route(0), gap(5000));
        assert_eq!(pending.len(), MAX_ROUTES + 1);
        let all = pending.begin();
        assert_eq!(all.last(), Some(&RouteGap { route: None, gap: gap(1025).merge(gap(1026)) }));
        assert!(all.contains(&RouteGap { route: route(0), gap: gap(1).merge(gap(5000)) }));
    }
}
