//! Sessions between two pods: told to go by one that drains, and not back yet on another.
//!
//! Their routes stay this pod's for a moment, so that an event for one of them comes here and is sent back to the stream, instead
//! of being nobody's.

use std::time::Duration;

use tokio::time::Instant;

use daisi_ws_domain::{ids::ConnectionId, maps::Map, route::RouteKey};

use super::latecomers::EventKey;

/// How long a client may take to come back after its socket has ended; longer than any that obeys the protocol waits after 1001.
pub(super) const RETURN_TIME: Duration = Duration::from_secs(3);

/// A session on its way from this pod to another.
#[derive(Debug)]
struct Leaving {
    told_at: Instant,
    /// When its socket ended; until then its goodbye is being said.
    ended_at: Option<Instant>,
}

impl Leaving {
    /// May it come back for an event that was here first at `first`?
    fn may_want(&self, first: Instant, now: Instant) -> bool {
        self.told_at <= first && self.ended_at.is_none_or(|ended| now < ended + RETURN_TIME)
    }
}

/// The routes of sessions that were told to go.
#[derive(Debug, Default)]
pub(super) struct Parting {
    /// So many events may be sent back in a second; 0 while the pod does not drain.
    most: usize,
    /// How many were, and in the second that began when.
    sent_back: Option<(Instant, usize)>,
    /// When an event was sent back first: only who was between pods then has to have it elsewhere.
    first: Map<EventKey, Instant>,
    routes: Map<RouteKey, Vec<Leaving>>,
    /// Their places there.
    sessions: Map<ConnectionId, Vec<(RouteKey, usize)>>,
}

impl Parting {
    /// From now on the routes of sessions that are told to go are kept, and so many events for them sent back in a second.
    pub(super) fn begin(&mut self, most: usize) {
        self.most = most;
    }

    /// A session is told to go, and takes nothing more.
    pub(super) fn told(&mut self, connection: &ConnectionId, routes: &[RouteKey]) {
        if self.most == 0 || routes.is_empty() {
            return;
        }
        let told_at = Instant::now();
        let enter = |route: &RouteKey| {
            let leaving = self.routes.entry(route.clone()).or_default();
            leaving.push(Leaving { told_at, ended_at: None });
            (route.clone(), leaving.len() - 1)
        };
        let places = routes.iter().map(enter).collect();
        self.sessions.insert(connection.clone(), places);
    }

    /// Its socket has ended: its client is on its way.
    pub(super) fn gone(&mut self, connection: &ConnectionId) {
        let now = Instant::now();
        for (route, place) in self.sessions.remove(connection).into_iter().flatten() {
            if let Some(leaving) = self.routes.get_mut(&route).and_then(|leaving| leaving.get_mut(place)) {
                leaving.ended_at = Some(now);
            }
        }
    }

    /// Has an event to be sent back that comes over one of these routes, because a session between pods wants it? Events without
    /// a sequence (of old pods) are not told apart.
    pub(super) fn wants<'a>(&mut self, event: EventKey, routes: impl IntoIterator<Item = &'a RouteKey>) -> bool {
        let now = Instant::now();
        let first = self.first.get(&event).copied().unwrap_or(now);
        let mut leaving = routes.into_iter().filter_map(|route| self.routes.get(route)).flatten();
        if !leaving.any(|leaving| leaving.may_want(first, now)) {
            return false;
        }
        let (since, count) = self.sent_back.filter(|(since, _)| now < *since + Duration::from_secs(1)).unwrap_or((now, 0));
        if count == self.most {
            return false;
        }
        self.sent_back = Some((since, count + 1));
        if event.1 > 0 {
            self.first.insert(event, first);
        }
        true
    }

    /// Is there no route that was kept?
    pub(super) fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// Was this route kept?
    pub(super) fn has(&self, route: &RouteKey) -> bool {
        self.routes.contains_key(route)
    }

    /// Every route that was kept.
    pub(super) fn routes(&self) -> impl Iterator<Item = &RouteKey> {
        self.routes.keys()
    }

    /// When nobody is between pods any more, of those whose sockets have ended.
    pub(super) fn until(&self) -> Option<Instant> {
        self.routes.values().flatten().filter_map(|leaving| leaving.ended_at).max().map(|ended| ended + RETURN_TIME)
    }

    /// Keeps no route any more; which they were.
    pub(super) fn end(&mut self) -> impl Iterator<Item = RouteKey> + use<> {
        std::mem::take(self).routes.into_keys()
    }
}

#[cfg(test)]
mod tests {
    use daisi_ws_domain::{
        event::StreamId,
        ids::{AgentId, CompanyId},
    };

    use super::*;

    fn route(agent: &str) -> RouteKey {
        RouteKey::Chats { company: CompanyId::parse("acme").unwrap(), agent: AgentId::parse(agent).unwrap() }
    }

    fn socket(id: &str) -> ConnectionId {
        ConnectionId::parse(id).unwrap()
    }

    fn event(seq: u64) -> EventKey {
        (StreamId(1), seq)
    }

    #[tokio::test(start_paused = true)]
    async fn events_are_sent_back_until_the_clients_of_all_sessions_had_time_to_come_back() {
        let (mut parting, shared, other) = (Parting::default(), route("shared"), route("other"));
        parting.begin(100);
        parting.told(&socket("a"), &[shared.clone(), other.clone()]);
        parting.told(&socket("b"), std::slice::from_ref(&shared));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert!(parting.wants(event(1), [&shared]) && parting.wants(event(2), [&other]));
        parting.gone(&socket("a"));
        tokio::time::advance(RETURN_TIME).await;
        assert!(parting.wants(event(1), [&shared]) && !parting.wants(event(2), [&other]));
        parting.gone(&socket("b"));
        assert_eq!(parting.until(), Some(Instant::now() + RETURN_TIME));
        assert!(parting.wants(event(3), [&other, &shared]));
        tokio::time::advance(RETURN_TIME).await;
        assert!(!parting.wants(event(1), [&other, &shared]) && !parting.wants(event(4), [&other, &shared]));
        assert!(parting.has(&shared));
        assert_eq!(parting.end().count(), 2);
        assert!(parting.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_is_sent_back_only_for_those_who_were_between_pods_when_it_came() {
        let (mut parting, shared) = (Parting::default(), route("shared"));
        parting.begin(100);
        parting.told(&socket("early"), std::slice::from_ref(&shared));
        parting.gone(&socket("early"));
        assert!(parting.wants(event(1), [&shared]));
        tokio::time::advance(RETURN_TIME / 2).await;
        parting.told(&socket("late"), std::slice::from_ref(&shared));
        parting.gone(&socket("late"));
        tokio::time::advance(RETURN_TIME / 2).await;
        // It was put in the mailbox of the late one.
        assert!(!parting.wants(event(1), [&shared]));
        assert!(parting.wants(event(2), [&shared]));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_so_many_events_are_sent_back_in_a_second() {
        let (mut parting, shared) = (Parting::default(), route("shared"));
        parting.begin(10);
        parting.told(&socket("a"), std::slice::from_ref(&shared));
        let mut sent_back = |from: u64| (from..from + 100).filter(|seq| parting.wants(event(*seq), [&shared])).count();
        assert_eq!((sent_back(1), sent_back(200)), (10, 0));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(sent_back(300), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_kept_by_a_pod_that_does_not_drain() {
        let mut parting = Parting::default();
        parting.told(&socket("a"), &[route("shared")]);
        assert!(parting.is_empty() && !parting.wants(event(1), [&route("shared")]));
    }
}
