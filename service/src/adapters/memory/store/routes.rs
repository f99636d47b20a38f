//! Routes and membership.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;

use super::{State, StoreHandle, tables::Tables};
use crate::{
    application::ports::{Announcement, Epoch, Lookup, RouteChange, Routes, StoreError},
    domain::{ids::PodId, peer::PodRecord, route::RouteKey},
};

#[async_trait]
impl Routes for StoreHandle {
    async fn apply(&self, pod: &PodId, changes: &[RouteChange]) -> Result<Vec<usize>, StoreError> {
        self.run(|state| {
            let mut refused = Vec::new();
            for (place, change) in changes.iter().enumerate() {
                let (RouteChange::Add { route, .. } | RouteChange::Remove { route }) = change;
                if state.faults.refused.contains(route) {
                    refused.push(place);
                    continue;
                }
                match change {
                    RouteChange::Add { route, ttl } => add(&mut state.tables, pod, route, *ttl),
                    RouteChange::Remove { route } => remove(&mut state.tables, pod, route),
                }
            }
            refused
        })
        .await
    }

    async fn lookup(&self, me: &PodId, routes: &[RouteKey]) -> Result<Lookup, StoreError> {
        self.run(|state| {
            let is_refused = |route| state.faults.refused.contains(route);
            let pods = |route| {
                let on_route = state.tables.routes.get(route).filter(|_| !is_refused(route)).into_iter().flatten();
                on_route.filter(|pod| *pod != me).cloned().collect()
            };
            let refused = routes.iter().enumerate().filter(|(_, route)| is_refused(route)).map(|(place, _)| place).collect();
            Lookup {
                incarnation: state.incarnation,
                epoch: state.tables.epoch.clone(),
                pods: routes.iter().map(pods).collect(),
                refused,
            }
        })
        .await
    }

    async fn prune(&self, dead: &PodId, routes: &[RouteKey]) -> Result<(), StoreError> {
        self.run(|state| {
            if state.tables.records.get(dead).is_none() {
                routes.iter().for_each(|route| remove(&mut state.tables, dead, route));
            }
        })
        .await
    }

    async fn announce(&self, me: &PodRecord, ttl: Duration) -> Result<Announcement, StoreError> {
        self.run(|state| announce(state, me, ttl, self.announced_before())).await
    }

    async fn retire(&self, pod: &PodId, only_if_lapsed: bool) -> Result<(), StoreError> {
        self.run(|state| {
            if !only_if_lapsed || state.tables.records.get(pod).is_none() {
                state.tables.records.remove(pod);
                state.tables.members.remove(pod);
                if only_if_lapsed {
                    *state.tables.retirements.entry(pod.clone()).or_default() += 1;
                }
            }
        })
        .await
    }

    async fn pass_over(&self, pod: &PodId) -> Result<(), StoreError> {
        self.run(|state| *state.tables.retirements.entry(pod.clone()).or_default() += 1).await
    }
}

/// As in Redis, the time to live is the whole set's.
fn add(tables: &mut Tables, pod: &PodId, route: &RouteKey, ttl: Duration) {
    let mut pods = tables.routes.get_mut(route).map(std::mem::take).unwrap_or_default();
    pods.insert(pod.clone());
    tables.routes.put(route, pods, ttl);
}

fn remove(tables: &mut Tables, pod: &PodId, route: &RouteKey) {
    if let Some(pods) = tables.routes.get_mut(route) {
        pods.remove(pod);
        if pods.is_empty() {
            tables.routes.remove(route);
        }
    }
}

fn announce(state: &mut State, me: &PodRecord, ttl: Duration, announced_before: bool) -> Announcement {
    let (tables, incarnation) = (&mut state.tables, state.incarnation);
    let was_alive = tables.records.get(&me.id).is_some();
    tables.records.put(&me.id, me.clone(), ttl);
    let was_member = !tables.members.insert(me.id.clone());
    let epoch_created = tables.epoch.is_none();
    let epoch = tables.epoch.get_or_insert_with(|| Epoch(format!("{:032x}", rand::random::<u128>()))).clone();
    let (alive, lapsed): (BTreeSet<_>, BTreeSet<_>) =
        tables.members.iter().cloned().partition(|id| tables.records.get(id).is_some());
    Announcement {
        incarnation,
        was_present: was_alive && was_member && announced_before,
        retirements: tables.retirements.get(&me.id).copied().unwrap_or_default(),
        epoch,
        epoch_created,
        pods: alive.iter().filter_map(|id| tables.records.get(id).cloned()).collect(),
        lapsed: lapsed.into_iter().collect(),
    }
}
