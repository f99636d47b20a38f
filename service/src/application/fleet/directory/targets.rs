//! Where an event has to go: what the store says of its routes, as far as it can be trusted.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey};
use indexmap::IndexMap;
use tokio::time::Instant;

use super::{Directory, table::Peer};
use crate::{
    metrics::labels::RouteLookup,
    ports::{Lookup, Routes, Standing, log_store_error},
};

/// After a failed look-up the store is not asked again for this long: a frozen store must not slow every batch by its time-out.
const STORE_REST: Duration = Duration::from_secs(1);

/// Routes whose keys were refused and are remembered; past that no route is trusted.
const MAX_REFUSED: usize = 1024;

/// Unknown pods that one look-up asks about; the routes of the others are in doubt until the next.
const MAX_UNKNOWN: usize = 1024;

/// Where the events of one look-up go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// For each route asked, in order: the other pods.
    pub peers: Vec<Vec<Arc<PodRecord>>>,
    /// For each route asked: a pod that stands there, may live, and whose address is not known. Its events must not be settled as
    /// nobody's.
    pub doubtful: Vec<Option<PodId>>,
    /// The store was asked, and what it said can be trusted.
    pub is_certain: bool,
}

impl Targets {
    fn add_unknown(&mut self, pod: &PodId, places: &[usize]) {
        places.iter().for_each(|place| self.doubtful[*place] = Some(pod.clone()));
        self.is_certain = false;
    }
}

impl Directory {
    /// Finds the peers for each of the routes, in one round trip to the store, and one more where pods stand there that this one
    /// has not met. Never fails: without a trustworthy answer, all peers are meant.
    pub async fn targets(&self, routes: &dyn Routes, keys: &[RouteKey]) -> Targets {
        let backs_off = self.read().store_backs_off_until.is_some_and(|until| Instant::now() < until);
        let answer = if backs_off { None } else { self.look_up(routes, keys).await };
        let Some(lookup) = answer else {
            self.note_store_trouble();
            self.metrics.route_lookups_total.with_label_values(&[RouteLookup::Error.as_str()]).inc();
            let all: Vec<_> = self.read().peers.values().map(|peer| Arc::clone(&peer.record)).collect();
            return Targets { peers: vec![all; keys.len()], doubtful: vec![None; keys.len()], is_certain: false };
        };
        let lost = self.note_incarnation(lookup.incarnation);
        if lost || self.read().epoch != lookup.epoch {
            self.note_store_trouble();
            self.refresh_requests.notify_one();
        }
        if !lookup.refused.is_empty() {
            self.note_refused(lookup.refused.iter().filter_map(|place| keys.get(*place)));
        }
        let settling = self.is_settling();
        let outcome = if settling { RouteLookup::Settling } else { RouteLookup::Trusted };
        self.metrics.route_lookups_total.with_label_values(&[outcome.as_str()]).inc();
        let (mut targets, unknown) = self.choose(&lookup, keys, settling);
        if !unknown.is_empty() {
            self.resolve(routes, keys, unknown, &mut targets).await;
        }
        targets
    }

    /// Asks the store, unless it refuses or is away; then it is left alone for a while.
    async fn look_up(&self, routes: &dyn Routes, keys: &[RouteKey]) -> Option<Lookup> {
        let answer = routes.lookup(&self.me, keys).await;
        self.write().store_backs_off_until = answer.is_err().then(|| Instant::now() + STORE_REST);
        answer.inspect_err(|error| log_store_error!(error, "routes could not be looked up; events go to every peer")).ok()
    }

    /// Notes routes about which the store can't say anything: until it can, and for a while after, they mean every live peer.
    fn note_refused<'a>(&self, routes: impl Iterator<Item = &'a RouteKey>) {
        let mut table = self.write();
        let (now, until) = (Instant::now(), Instant::now() + self.settle_for);
        table.refused.retain(|_, until| now < *until);
        for route in routes {
            if table.refused.len() >= MAX_REFUSED && !table.refused.contains_key(route) {
                table.settling_until = Some(until);
                return;
            }
            table.refused.insert(route.clone(), until);
        }
    }

    /// Where events go as far as this pod knows, and the pods that it does not know, each with the places of its routes.
    fn choose(&self, lookup: &Lookup, keys: &[RouteKey], settling: bool) -> (Targets, IndexMap<PodId, Vec<usize>>) {
        let table = self.read();
        let now = Instant::now();
        let mut doubtful = vec![None; lookup.pods.len()];
        let mut unknown: IndexMap<PodId, Vec<usize>> = IndexMap::new();
        let of_route = |(place, on_route): (usize, &Vec<PodId>)| {
            for pod in on_route.iter().filter(|pod| **pod != self.me && !table.peers.contains_key(*pod)) {
                if table.unheard.is_foreign(pod, now) {
                    continue;
                }
                let room = unknown.len() < MAX_UNKNOWN;
                match unknown.get_mut(pod) {
                    _ if table.unknown.contains(pod) => doubtful[place] = Some(pod.clone()),
                    Some(places) => places.push(place),
                    None if room => {
                        unknown.insert(pod.clone(), vec![place]);
                    }
                    None => doubtful[place] = Some(pod.clone()),
                }
            }
            let refused = table.refused.get(&keys[place]).is_some_and(|until| now < *until);
            if refused && let Some(unlisted) = table.unknown.iter().next() {
                doubtful[place] = Some(unlisted.clone());
            }
            let all = settling || refused || lookup.unread.binary_search(&place).is_ok();
            let wanted = |peer: &&Peer| all || peer.lapsed || on_route.contains(&peer.record.id);
            table.peers.values().filter(wanted).map(|peer| Arc::clone(&peer.record)).collect()
        };
        let peers = lookup.pods.iter().enumerate().map(of_route).collect();
        let is_certain = table.settling_until.is_none_or(|until| until <= now) && doubtful.iter().all(Option::is_none);
        (Targets { peers, doubtful, is_certain }, unknown)
    }

    /// A pod on a route that is in no table is newer than ours, has been dead for long, or is none of the fleet. The store is
    /// asked about just those, now: what was read before says nothing of them.
    async fn resolve(&self, routes: &dyn Routes, keys: &[RouteKey], unknown: IndexMap<PodId, Vec<usize>>, targets: &mut Targets) {
        let asked = Instant::now();
        let named =
            |(pod, places): (&PodId, &Vec<usize>)| (pod.clone(), places.iter().map(|place| keys[*place].clone()).collect());
        let pods: Vec<(PodId, Vec<RouteKey>)> = unknown.iter().map(named).collect();
        let answer = routes.resolve(&pods, !self.is_settling()).await;
        // An answer of another life of the store says as little as none.
        let answer =
            answer.inspect_err(|error| log_store_error!(error, "pods on routes could not be looked up; they count as unknown"));
        let standings =
            answer.ok().and_then(|(incarnation, standings)| (!self.note_incarnation(incarnation)).then_some(standings));
        let Some(standings) = standings else {
            self.note_store_trouble();
            for (pod, places) in &unknown {
                targets.add_unknown(pod, places);
            }
            return;
        };
        let mut table = self.write();
        for ((pod, places), standing) in unknown.into_iter().zip(standings) {
            let in_doubt = match standing {
                Standing::Alive(record) => {
                    table.find(&record);
                    let record = Arc::new(record);
                    places.iter().for_each(|place| targets.peers[*place].push(Arc::clone(&record)));
                    false
                }
                Standing::Member => true,
                Standing::Gone => {
                    tracing::debug!(peer.id = %pod, routes = places.len(), "a dead pod was taken out of routes");
                    false
                }
                Standing::Unheard => !table.unheard.note(&pod, asked),
            };
            if in_doubt {
                targets.add_unknown(&pod, &places);
            }
        }
    }
}
