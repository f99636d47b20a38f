//! What a pod has to do with the others: their table, the way to them, its routes and its place among them.

use std::sync::Arc;

use tokio::sync::Notify;

use super::ground::Ground;
use crate::{
    application::{
        fleet::directory::Directory,
        forward::{forwarder::Forwarder, limits::ForwardLimits},
        hub::registry::Hub,
        membership::{Acquaintance, Announcer, Judge, Membership, Neighbours, Place, Registrar, Standing, period},
        routes::writer::RouteWriter,
        wellness::{Probes, Wellness, pull_gate::PullGate},
    },
    ports::SourceLimits,
    runtime::stop::Stop,
};

/// Look-ups are not trusted for so many refresh intervals after the store lost data: by then every pod has registered again.
const SETTLING_INTERVALS: u32 = 2;

pub(super) struct Fleet {
    pub(super) directory: Arc<Directory>,
    pub(super) wellness: Arc<Wellness>,
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) writer: Arc<RouteWriter>,
    pub(super) place: Place,
    /// Has all locks renewed at once.
    pub(super) sweep: Arc<Notify>,
}

impl Fleet {
    pub(super) fn new(ground: &Ground<'_>, hub: &Arc<Hub>) -> Self {
        let (backends, config) = (ground.backends, ground.config);
        let (max_ack_pending, ack_wait, settle_for) = {
            let app = &config.borrow().app;
            (app.nats_max_ack_pending, app.nats_ack_wait, app.ttl_refresh_interval * SETTLING_INTERVALS)
        };
        let directory = Arc::new(Directory::new(ground.me.id.clone(), settle_for, Arc::clone(ground.metrics)));
        let wellness = Arc::new(Wellness::new(Arc::clone(&directory), Arc::clone(ground.metrics)));
        let forwarder = Forwarder::new(
            Arc::clone(&backends.peers),
            Arc::clone(&backends.routes),
            config.clone(),
            ForwardLimits::of(SourceLimits { ack_wait, max_ack_pending }, 1, 1),
            ground.tasks.clone(),
            Arc::clone(&wellness),
        );
        Self {
            directory,
            wellness,
            forwarder: Arc::new(forwarder),
            writer: Arc::new(RouteWriter::new(Arc::clone(hub))),
            place: Place::default(),
            sweep: Arc::default(),
        }
    }

    fn membership(&self, ground: &Ground<'_>, hub: &Arc<Hub>) -> Membership {
        let ttl = ground.config.borrow().app.pod_ttl;
        let (me, routes) = (ground.me, &ground.backends.routes);
        let neighbours = Neighbours {
            directory: Arc::clone(&self.directory),
            forwarder: Arc::clone(&self.forwarder),
            peers: Arc::clone(&ground.backends.peers),
        };
        let standing = Standing { place: self.place.clone(), readiness: ground.readiness.clone() };
        Membership {
            announcer: Announcer {
                me: me.clone(),
                ttl,
                routes: Arc::clone(routes),
                neighbours: neighbours.clone(),
                hub: Arc::clone(hub),
                standing: standing.clone(),
                sweep: Arc::clone(&self.sweep),
            },
            registrar: Registrar { writer: Arc::clone(&self.writer), hub: Arc::clone(hub) },
            judge: Judge { period: period(ttl), routes: Arc::clone(routes), neighbours: neighbours.clone() },
            acquaintance: Acquaintance { me: me.clone(), neighbours, standing },
        }
    }

    pub(super) fn spawn(&self, ground: &Ground<'_>, hub: &Arc<Hub>, announcing: &Stop) {
        self.spawn_writer(ground);
        let (membership, announcing) = (self.membership(ground, hub), announcing.clone());
        ground.tasks.supervise("membership", move || {
            let (membership, announcing) = (membership.clone(), announcing.clone());
            async move {
                membership.run(announcing.told()).await;
                announcing.confirm();
            }
        });
        let (wellness, backends) = (Arc::clone(&self.wellness), ground.backends);
        let gate = Arc::new(PullGate::new(Arc::clone(&backends.source)));
        let probes = Probes { routes: Arc::clone(&backends.routes), peers: Arc::clone(&backends.peers), gate };
        ground.tasks.supervise("wellness", move || {
            let (wellness, probes) = (Arc::clone(&wellness), probes.clone());
            async move { wellness.watch(&probes).await }
        });
    }

    fn spawn_writer(&self, ground: &Ground<'_>) {
        let (writer, place) = (Arc::clone(&self.writer), self.place.clone());
        let (routes, me) = (Arc::clone(&ground.backends.routes), ground.me.id.clone());
        let (config, metrics) = (ground.config.clone(), Arc::clone(ground.metrics));
        ground.tasks.supervise("route writer", move || {
            let (writer, place) = (Arc::clone(&writer), place.clone());
            let (routes, me) = (Arc::clone(&routes), me.clone());
            let (config, metrics) = (config.clone(), Arc::clone(&metrics));
            async move {
                // Who is on a route is a member first, or others would take it for nobody; and what another process holds under
                // this id is not touched.
                tokio::select! {
                    biased;
                    () = place.lost.cancelled() => {}
                    () = async {
                        place.until_taken().await;
                        writer.run(routes.as_ref(), &me, config, &metrics).await;
                    } => {}
                }
            }
        });
    }
}
