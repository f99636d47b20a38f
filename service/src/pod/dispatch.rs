//! How a pod brings events from the stream to sockets, here and elsewhere.

use std::sync::Arc;

use tokio::sync::{Mutex as AsyncMutex, mpsc};

use super::{fleet::Fleet, ground::Ground};
use crate::{
    application::{
        dispatch::{
            self, deliver::Deliverer, health::Health, in_flight::InFlightEvents, limits::Limits, lookup::Lookup, pass_on::PassOn,
            pull::Puller, resolve::Resolver, settle::Settler,
        },
        forward::in_flight::Settled,
        hub::{deliver::LocalDelivery, registry::Hub},
        membership::Place,
    },
    runtime::stop::Stop,
};

pub(super) struct Dispatch {
    puller: Puller,
    resolver: Resolver,
    settler: Settler,
    health: Health,
    settled: mpsc::UnboundedReceiver<Settled>,
}

impl Dispatch {
    pub(super) fn new(ground: &Ground<'_>, hub: &Arc<Hub>, fleet: &Fleet) -> Self {
        let (sender, settled) = mpsc::unbounded_channel();
        let in_flight = InFlightEvents::new(Arc::clone(hub.memory()));
        let local = LocalDelivery::new(Arc::clone(hub));
        let (source, config, metrics) = (&ground.backends.source, ground.config, ground.metrics);
        let settler = Settler {
            source: Arc::clone(source),
            forwarder: Arc::clone(&fleet.forwarder),
            in_flight: in_flight.clone(),
            metrics: Arc::clone(metrics),
        };
        let health = Health {
            source: Arc::clone(source),
            local: local.clone(),
            readiness: ground.readiness.clone(),
            config: config.clone(),
            metrics: Arc::clone(metrics),
        };
        let pass_on = PassOn { wellness: Arc::clone(&fleet.wellness), settled: sender, metrics: Arc::clone(metrics) };
        let resolver = resolver(ground, fleet, pass_on.clone());
        let deliverer = Deliverer {
            source: Arc::clone(source),
            local,
            limits: limits(ground, fleet),
            in_flight: in_flight.clone(),
            config: config.clone(),
            metrics: Arc::clone(metrics),
        };
        let puller = Puller {
            source: Arc::clone(source),
            timer: Arc::clone(&ground.backends.timer),
            pass_on,
            in_flight,
            deliverer,
            config: config.clone(),
        };
        Self { puller, resolver, settler, health, settled }
    }

    pub(super) fn in_flight(&self) -> &InFlightEvents {
        &self.settler.in_flight
    }

    pub(super) fn spawn(self, ground: &Ground<'_>, place: &Place, pulling: &Stop) {
        let (tasks, place, pulling) = (ground.tasks, place.clone(), pulling.clone());
        let Self { puller, resolver, settler, health, settled } = self;
        tasks.supervise("dispatch", move || {
            let (puller, resolver, place, pulling) = (puller.clone(), resolver.clone(), place.clone(), pulling.clone());
            async move {
                dispatch::run(&puller, &resolver, place.until_joined(), pulling.told()).await;
                pulling.confirm();
            }
        });
        let watch = health.clone();
        tasks.supervise("dependencies", move || {
            let health = watch.clone();
            async move { health.watch_dependencies().await }
        });
        tasks.supervise("lag", move || {
            let health = health.clone();
            async move { health.watch_lag().await }
        });
        let settled = Arc::new(AsyncMutex::new(settled));
        tasks.supervise("settle", move || {
            let (settler, settled) = (settler.clone(), Arc::clone(&settled));
            async move { settler.run(&mut *settled.lock().await).await }
        });
    }
}

fn limits(ground: &Ground<'_>, fleet: &Fleet) -> Limits {
    Limits {
        source: Arc::clone(&ground.backends.source),
        directory: Arc::clone(&fleet.directory),
        forwarder: Arc::clone(&fleet.forwarder),
        config: ground.config.clone(),
    }
}

fn resolver(ground: &Ground<'_>, fleet: &Fleet, pass_on: PassOn) -> Resolver {
    Resolver {
        lookup: Lookup {
            source: Arc::clone(&ground.backends.source),
            routes: Arc::clone(&ground.backends.routes),
            directory: Arc::clone(&fleet.directory),
            wellness: Arc::clone(&fleet.wellness),
        },
        forwarder: Arc::clone(&fleet.forwarder),
        settled: pass_on.settled.clone(),
        pass_on,
        config: ground.config.clone(),
    }
}
