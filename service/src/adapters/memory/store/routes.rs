//! Routes and membership.

use std::{collections::BTreeSet, time::Duration};

use async_trait::async_trait;
use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey};

use super::{State, StoreHandle, tables::Tables};
use crate::{
    ports::{
        Announce, AnnounceError, Announcement, Epoch, Goodbye, IdTaken, Incarnation, Lookup, MAX_PODS, PASSED_OVER, RouteChange,
        Routes, Standing, StoreError,
    },
    runtime::chance,
};

/// How long it is remembered that a pod has left.
const LEFT_TTL: Duration = Duration::from_secs(60);

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
            let mut lookup = Lookup {
                incarnation: state.incarnation,
                epoch: state.tables.epoch.clone(),
                pods: Vec::with_capacity(routes.len()),
                refused: Vec::new(),
                unread: Vec::new(),
            };
            for (place, route) in routes.iter().enumerate() {
                let on_route = state.tables.routes.get(route).filter(|_| !state.faults.refused.contains(route));
                if state.faults.refused.contains(route) {
                    lookup.refused.push(place);
                }
                if on_route.is_some_and(|pods| pods.len() > MAX_PODS) {
                    lookup.unread.push(place);
                    lookup.pods.push(Vec::new());
                } else {
                    lookup.pods.push(on_route.into_iter().flatten().filter(|pod| *pod != me).cloned().collect());
                }
            }
            lookup
        })
        .await
    }

    async fn resolve(&self, pods: &[(PodId, Vec<RouteKey>)], prune: bool) -> Result<(Incarnation, Vec<Standing>), StoreError> {
        self.run(|state| {
            let standings = pods.iter().map(|(pod, routes)| resolve(&mut state.tables, pod, routes, prune)).collect();
            (state.incarnation, standings)
        })
        .await
    }

    async fn announce(&self, call: Announce<'_>) -> Result<Announcement, AnnounceError> {
        Ok(self.run(|state| announce(state, &call, self)).await??)
    }

    async fn retire(&self, pods: &[PodId]) -> Result<Vec<bool>, StoreError> {
        self.run(|state| pods.iter().map(|pod| retire(&mut state.tables, pod)).collect()).await
    }

    async fn leave(&self, me: &PodRecord) -> Result<(), StoreError> {
        self.run(|state| {
            if state.tables.records.get(&me.id).is_none_or(|record| record == me) {
                state.tables.records.remove(&me.id);
                state.tables.members.remove(&me.id);
                state.tables.left.put(&me.id, me.started_at, LEFT_TTL);
            }
        })
        .await
    }

    async fn pass_over(&self, pod: &PodId) -> Result<(), StoreError> {
        self.run(|state| *state.tables.retirements.entry(pod.clone()).or_default() += PASSED_OVER).await
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

fn resolve(tables: &mut Tables, pod: &PodId, routes: &[RouteKey], prune: bool) -> Standing {
    if let Some(record) = tables.records.get(pod) {
        return Standing::Alive(record.clone());
    }
    if tables.members.contains(pod) {
        return Standing::Member;
    }
    if !prune || (tables.left.get(pod).is_none() && !tables.retirements.contains_key(pod)) {
        return Standing::Unheard;
    }
    routes.iter().for_each(|route| remove(tables, pod, route));
    Standing::Gone
}

fn retire(tables: &mut Tables, pod: &PodId) -> bool {
    if tables.records.get(pod).is_some() {
        return false;
    }
    tables.members.remove(pod);
    *tables.retirements.entry(pod.clone()).or_default() += 1;
    true
}

fn announce(state: &mut State, call: &Announce<'_>, handle: &StoreHandle) -> Result<Announcement, IdTaken> {
    let (tables, incarnation) = (&mut state.tables, state.incarnation);
    let Announce { me, ttl, known, instead_of } = *call;
    let announced_before = handle.announced_before();
    let held = tables.records.get(&me.id).cloned();
    if let Some(held) = &held
        && held != me
        && Some(held) != instead_of
    {
        return Err(IdTaken { record: held.clone(), expires_in: tables.records.expires_in(&me.id) });
    }
    tables.records.put(&me.id, me.clone(), ttl);
    tables.left.remove(&me.id);
    let was_member = !tables.members.insert(me.id.clone());
    let epoch_created = tables.epoch.is_none();
    let epoch = tables.epoch.get_or_insert_with(|| Epoch(format!("{:032x}", chance::draw::<u128>()))).clone();
    let read: BTreeSet<PodId> = tables.members.iter().take(MAX_PODS).chain(known).cloned().collect();
    let (alive, silent): (Vec<_>, Vec<_>) = read.into_iter().partition(|id| tables.records.get(id).is_some());
    let (lapsed, others): (Vec<_>, Vec<_>) = silent.into_iter().partition(|id| tables.members.contains(id));
    Ok(Announcement {
        incarnation,
        was_present: held.as_ref() == Some(me) && was_member && announced_before,
        retirements: tables.retirements.get(&me.id).copied().unwrap_or_default(),
        epoch,
        epoch_created,
        pods: alive.iter().filter_map(|id| tables.records.get(id).cloned()).collect(),
        lapsed,
        left: others.into_iter().filter_map(|pod| Some(Goodbye { started_at: *tables.left.get(&pod)?, pod })).collect(),
        members: tables.members.len(),
    })
}
