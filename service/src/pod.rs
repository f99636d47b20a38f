//! One pod: all use cases put together over a set of backends, with their tasks. It knows no adapter and no listener.

mod dispatch;
mod fleet;
mod ground;
mod sessions;

use std::{pin::Pin, sync::Arc, time::Duration};

use daisi_ws_domain::peer::PodRecord;
use futures_util::future::Fuse;
use tokio::sync::watch;

pub use self::ground::Backends;
use self::{dispatch::Dispatch, fleet::Fleet, ground::Ground, sessions::Sessions};
use crate::{
    application::{
        admission::{connect::Connector, renew::Renewer},
        fleet::directory::Directory,
        hub::{deliver::LocalDelivery, registry::Hub},
        reception::Reception,
    },
    config::Config,
    drain::{Drain, Entrance, Events, Leaving, Sockets},
    metrics::Metrics,
    ports::PeerService,
    readiness::Readiness,
    runtime::lifecycle::Tasks,
    shutdown::Sequence,
};

/// A running pod: it takes events and lets sessions in until it is drained.
pub struct Pod {
    hub: Arc<Hub>,
    sessions: Sessions,
    fleet: Fleet,
    reception: Reception,
    readiness: Readiness,
    drain: Drain,
    sequence: Sequence,
}

impl std::fmt::Debug for Pod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pod").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl Pod {
    /// Puts the use cases together and starts their tasks on `tasks`. Nothing listens yet: the pod takes events at once, and
    /// sockets through [`Pod::connector`].
    #[must_use]
    pub fn start(
        me: &PodRecord,
        config: &watch::Receiver<Arc<Config>>,
        backends: &Backends,
        readiness: Readiness,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let ground = Ground { me, config, backends, readiness: &readiness, tasks, metrics };
        let (hub, sequence) = (Arc::new(Hub::new(Arc::clone(metrics))), Sequence::new(tasks.shutdown().clone()));
        let fleet = Fleet::new(&ground, &hub);
        let (sessions, upkeep) = Sessions::new(&ground, &hub, &fleet);
        let dispatch = Dispatch::new(&ground, &hub, &fleet);
        sessions::spawn(&ground, &hub, &fleet, &sessions, upkeep);
        fleet.spawn(&ground, &hub, sequence.announcing());
        let drain = drain(&ground, &hub, &fleet, &sessions, &dispatch);
        let reception = reception(backends, &hub, &fleet, &sessions);
        dispatch.spawn(&ground, &fleet.place, sequence.pulling());
        Self { hub, sessions, fleet, reception, readiness, drain, sequence }
    }

    /// By which sessions are let in.
    #[must_use]
    pub fn connector(&self) -> &Arc<Connector> {
        &self.sessions.connector
    }

    /// What peers may ask of this pod.
    #[must_use]
    pub fn peer_service(&self) -> Arc<dyn PeerService> {
        Arc::new(self.reception.clone())
    }

    /// Keeps the locks of the sessions.
    #[must_use]
    pub fn renewer(&self) -> &Renewer {
        &self.sessions.renewer
    }

    /// The sessions of this pod, pending ones included.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// What this pod knows of the fleet.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.fleet.directory
    }

    /// Whether it should get connections.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// In what order it ends, and what its servers listen to for that.
    #[must_use]
    pub fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// Waits until the pod has its place in the fleet and takes events.
    pub async fn joined(&self) {
        self.fleet.place.until_joined().await;
    }

    /// Waits until another process is found to live under this pod's id: then this one has to end.
    pub async fn id_lost(&self) {
        self.fleet.place.lost.cancelled().await;
    }

    /// Empties the pod within the time: refuses sessions, stops taking events, closes the sockets while what is in flight
    /// finishes, leaves the fleet. Peers may go on handing events over meanwhile, and should.
    pub async fn drain(&self, within: Duration) {
        self.sequence.drain(&self.drain, within).await;
    }

    /// Drains the pod while `peers`, the server for them, goes on, then ends that and all `tasks`: see [`Sequence::end`].
    ///
    /// # Errors
    /// What the server for peers failed with, if it did.
    pub async fn end<P, E>(&self, peers: Pin<&mut Fuse<P>>, tasks: &Tasks, within: Duration) -> Result<(), E>
    where
        P: Future<Output = Result<(), E>>,
    {
        self.sequence.end(&self.drain, peers, tasks, within).await
    }
}

fn drain(ground: &Ground<'_>, hub: &Arc<Hub>, fleet: &Fleet, sessions: &Sessions, dispatch: &Dispatch) -> Drain {
    Drain {
        entrance: Entrance { readiness: ground.readiness.clone(), hub: Arc::clone(hub) },
        events: Events {
            source: Arc::clone(&ground.backends.source),
            in_flight: dispatch.in_flight().clone(),
            forwarder: Arc::clone(&fleet.forwarder),
        },
        sockets: Sockets {
            hub: Arc::clone(hub),
            evictor: sessions.connector.socket.evictor.clone(),
            goodbyes: Arc::clone(&sessions.connector.socket.goodbyes),
        },
        leaving: Leaving {
            hub: Arc::clone(hub),
            releaser: sessions.connector.entries.releaser.clone(),
            writer: Arc::clone(&fleet.writer),
            routes: Arc::clone(&ground.backends.routes),
            me: ground.me.clone(),
            place: fleet.place.clone(),
        },
    }
}

fn reception(backends: &Backends, hub: &Arc<Hub>, fleet: &Fleet, sessions: &Sessions) -> Reception {
    Reception {
        local: LocalDelivery::new(Arc::clone(hub)),
        hub: Arc::clone(hub),
        evictor: sessions.connector.socket.evictor.clone(),
        directory: Arc::clone(&fleet.directory),
        wellness: Arc::clone(&fleet.wellness),
        source: Arc::clone(&backends.source),
    }
}
