//! One pod: all use cases put together over a set of backends, with their tasks. It knows no adapter and no listener.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::peer::PodRecord;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, Semaphore, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    application::{
        admission::{
            connect::Connector,
            dispute::{Disputes, Means},
            evict::Evictor,
            goodbyes::Goodbyes,
            killer::Killer,
            lock_deadlines::LockDeadlines,
            owners::Owners,
            release::{Releaser, releaser},
            renew::Renewer,
            room::Room,
        },
        dispatch::{Dispatcher, MAX_IN_FLIGHT},
        fleet::directory::Directory,
        forward::{forwarder::Forwarder, limits::ForwardLimits, reception::Reception},
        hub::{deliver::LocalDelivery, registry::Hub, relief::Relief},
        membership::{Membership, Place},
        routes::writer::RouteWriter,
        wellness::{Probes, Wellness, pull_gate::PullGate},
    },
    config::{Config, MemoryBudget},
    drain::Drain,
    metrics::Metrics,
    ports::{EventSource, KillBus, PeerService, Peers, Routes, SessionLocks, SourceLimits},
    readiness::Readiness,
    runtime::{fine_timer::FineTimer, lifecycle::Tasks},
};

/// Look-ups are not trusted for so many refresh intervals after the store lost data: by then every pod has registered again.
const SETTLING_INTERVALS: u32 = 2;

/// The share of max-ack-pending that events may have, in a second, which a pod that drains sends back because somebody is between it and another.
const SENT_BACK_SHARE: usize = 2;

/// What a pod works on; each for real or on memory.
#[derive(Clone)]
pub struct Backends {
    /// Session locks.
    pub locks: Arc<dyn SessionLocks>,
    /// Routes and membership.
    pub routes: Arc<dyn Routes>,
    /// Kills.
    pub kills: Arc<dyn KillBus>,
    /// Events.
    pub source: Arc<dyn EventSource>,
    /// Other pods.
    pub peers: Arc<dyn Peers>,
    /// Ends the pauses between pulls of events.
    pub timer: Arc<FineTimer>,
}

impl std::fmt::Debug for Backends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backends").finish_non_exhaustive()
    }
}

/// A running pod.
pub struct Pod {
    connector: Arc<Connector>,
    delivery: LocalDelivery,
    hub: Arc<Hub>,
    directory: Arc<Directory>,
    readiness: Readiness,
    drain: Drain,
    dispatcher: Dispatcher,
    renewer: Renewer,
    stop_pulling: CancellationToken,
    pulling_stopped: CancellationToken,
    place: Place,
}

impl std::fmt::Debug for Pod {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pod").field("hub", &self.hub).finish_non_exhaustive()
    }
}

impl Pod {
    /// Puts the use cases together and starts their tasks on `tasks`. Nothing listens yet: the pod takes events at once, and sockets through
    /// [`Pod::connector`].
    #[must_use]
    pub fn start(
        me: &PodRecord,
        config: watch::Receiver<Arc<Config>>,
        backends: &Backends,
        readiness: Readiness,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let parts = Parts::new(me, &config, backends, tasks, metrics);
        let place = Place::default();
        let (settled, settled_queue) = mpsc::unbounded_channel();
        let membership = Membership {
            me: me.clone(),
            ttl: config.borrow().app.pod_ttl,
            routes: Arc::clone(&backends.routes),
            peers: Arc::clone(&backends.peers),
            directory: Arc::clone(&parts.directory),
            forwarder: Arc::clone(&parts.forwarder),
            hub: Arc::clone(&parts.hub),
            writer: Arc::clone(&parts.writer),
            sweep: Arc::clone(&parts.sweep),
            readiness: readiness.clone(),
            place: place.clone(),
        };
        let dispatcher = Dispatcher {
            source: Arc::clone(&backends.source),
            timer: Arc::clone(&backends.timer),
            routes: Arc::clone(&backends.routes),
            directory: Arc::clone(&parts.directory),
            local: parts.delivery.clone(),
            forwarder: Arc::clone(&parts.forwarder),
            wellness: Arc::clone(&parts.wellness),
            config: config.clone(),
            readiness: readiness.clone(),
            metrics: Arc::clone(metrics),
            joined: place.joined.subscribe(),
            memory: Arc::clone(parts.hub.memory()),
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            settled,
        };
        let drain = Drain {
            hub: Arc::clone(&parts.hub),
            readiness: readiness.clone(),
            releaser: parts.releaser.clone(),
            goodbyes: Arc::clone(&parts.goodbyes),
            writer: Arc::clone(&parts.writer),
            routes: Arc::clone(&backends.routes),
            me: me.clone(),
            place: place.clone(),
            leaving: CancellationToken::new(),
            unannounced: CancellationToken::new(),
        };
        let (leaving, unannounced) = (drain.leaving.clone(), drain.unannounced.clone());
        let pod = Self {
            connector: Arc::new(parts.connector(me, backends, &config, &place, tasks)),
            delivery: parts.delivery.clone(),
            hub: Arc::clone(&parts.hub),
            directory: Arc::clone(&parts.directory),
            readiness,
            drain,
            dispatcher,
            renewer: parts.renewer(&config, backends),
            stop_pulling: CancellationToken::new(),
            pulling_stopped: CancellationToken::new(),
            place: place.clone(),
        };
        let room = Room {
            hub: Arc::clone(&parts.hub),
            directory: Arc::clone(&parts.directory),
            peers: Arc::clone(&backends.peers),
            config: config.clone(),
            readiness: pod.readiness.clone(),
            metrics: Arc::clone(metrics),
        };
        let relief = Relief {
            hub: Arc::clone(&parts.hub),
            budget: MemoryBudget::of_the_container(),
            config: config.clone(),
            metrics: Arc::clone(metrics),
        };
        tasks.supervise("memory", move || {
            let relief = relief.clone();
            async move { relief.run().await }
        });
        tasks.supervise("room", move || {
            let room = room.clone();
            async move { room.watch().await }
        });
        parts.spawn(me, config, backends, &place, tasks);
        let renewer = pod.renewer.clone();
        tasks.supervise("renew", move || {
            let renewer = renewer.clone();
            async move { renewer.run().await }
        });
        tasks.supervise("membership", move || {
            let (membership, leaving, unannounced) = (membership.clone(), leaving.clone(), unannounced.clone());
            async move {
                membership.run(&leaving).await;
                unannounced.cancel();
            }
        });
        let gate = Arc::new(PullGate::new(Arc::clone(&backends.source)));
        let probes = Probes { routes: Arc::clone(&backends.routes), peers: Arc::clone(&backends.peers), gate };
        let wellness = Arc::clone(&pod.dispatcher.wellness);
        tasks.supervise("wellness", move || {
            let (wellness, probes) = (Arc::clone(&wellness), probes.clone());
            async move { wellness.watch(&probes).await }
        });
        pod.spawn_dispatch(settled_queue, tasks);
        pod
    }

    fn spawn_dispatch(
        &self,
        settled_queue: mpsc::UnboundedReceiver<crate::application::forward::in_flight::Settled>,
        tasks: &Tasks,
    ) {
        let (dispatcher, stop, stopped) = (self.dispatcher.clone(), self.stop_pulling.clone(), self.pulling_stopped.clone());
        tasks.supervise("dispatch", move || {
            let (dispatcher, stop, stopped) = (dispatcher.clone(), stop.clone(), stopped.clone());
            async move {
                dispatcher.run(&stop).await;
                stopped.cancel();
            }
        });
        let dispatcher = self.dispatcher.clone();
        tasks.supervise("dependencies", move || {
            let dispatcher = dispatcher.clone();
            async move { dispatcher.watch_dependencies().await }
        });
        let dispatcher = self.dispatcher.clone();
        tasks.supervise("lag", move || {
            let dispatcher = dispatcher.clone();
            async move { dispatcher.watch_lag().await }
        });
        let dispatcher = self.dispatcher.clone();
        let queue = Arc::new(AsyncMutex::new(settled_queue));
        tasks.supervise("settle", move || {
            let (dispatcher, queue) = (dispatcher.clone(), Arc::clone(&queue));
            async move { dispatcher.settle(&mut *queue.lock().await).await }
        });
    }

    /// Gets sessions.
    #[must_use]
    pub fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    /// What peers may ask of this pod.
    #[must_use]
    pub fn peer_service(&self) -> Arc<dyn PeerService> {
        Arc::new(Reception {
            local: self.delivery.clone(),
            hub: Arc::clone(&self.hub),
            directory: Arc::clone(&self.directory),
            wellness: Arc::clone(&self.dispatcher.wellness),
            source: Arc::clone(&self.dispatcher.source),
        })
    }

    /// Keeps the locks of the sessions.
    #[must_use]
    pub fn renewer(&self) -> &Renewer {
        &self.renewer
    }

    /// The sessions.
    #[must_use]
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// What this pod knows of the fleet.
    #[must_use]
    pub fn directory(&self) -> &Arc<Directory> {
        &self.directory
    }

    /// Whether it should get connections.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// Waits until the pod has its place in the fleet and takes events.
    pub async fn joined(&self) {
        let _ = self.place.joined.subscribe().wait_for(|joined| *joined).await;
    }

    /// Waits until another process is found to live under this pod's id: then this one has to end.
    pub async fn id_lost(&self) {
        self.place.lost.cancelled().await;
    }

    /// Empties the pod within the time: refuses sessions, stops taking events, closes the sockets while what is in flight finishes, leaves the fleet. Peers
    /// may go on handing events over meanwhile, and should.
    pub async fn drain(&self, within: Duration) {
        let deadline = Instant::now() + within;
        self.drain.begin();
        self.stop_pulling.cancel();
        let half = Instant::now() + within / 2;
        let settled = async {
            let stopped = tokio::time::timeout_at(half, self.pulling_stopped.cancelled()).await.is_ok();
            if !(stopped && self.dispatcher.finished(half).await) {
                tracing::warn!("some events were still in flight; the stream will deliver them to another pod");
            }
            self.dispatcher.forwarder.settle_debts(half).await;
        };
        let sent_back = (self.dispatcher.source.limits().max_ack_pending / SENT_BACK_SHARE).max(1);
        // At once, as a client that has much to read yet needs the time.
        tokio::join!(settled, self.drain.close_all(deadline, sent_back));
        self.drain.leave(deadline).await;
    }
}

/// The shared pieces, while they are put together.
struct Parts {
    hub: Arc<Hub>,
    directory: Arc<Directory>,
    delivery: LocalDelivery,
    writer: Arc<RouteWriter>,
    releaser: Releaser,
    goodbyes: Arc<Goodbyes>,
    release_queue: crate::application::admission::release::ReleaseQueue,
    evictor: Evictor,
    killer: Killer,
    owners: Arc<Owners>,
    deadlines: Arc<LockDeadlines>,
    forwarder: Arc<Forwarder>,
    wellness: Arc<Wellness>,
    sweep: Arc<Notify>,
    metrics: Arc<Metrics>,
}

impl Parts {
    fn new(
        me: &PodRecord,
        config: &watch::Receiver<Arc<Config>>,
        backends: &Backends,
        tasks: &Tasks,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let (max_ack_pending, ack_wait, settle_for) = {
            let app = &config.borrow().app;
            (app.nats_max_ack_pending, app.nats_ack_wait, app.ttl_refresh_interval * SETTLING_INTERVALS)
        };
        let hub = Arc::new(Hub::new(Arc::clone(metrics)));
        let (releaser, release_queue) = releaser();
        let limits = ForwardLimits::of(SourceLimits { ack_wait, max_ack_pending }, 1, 1);
        let directory = Arc::new(Directory::new(me.id.clone(), settle_for, Arc::clone(metrics)));
        let wellness = Arc::new(Wellness::new(Arc::clone(&directory), Arc::clone(metrics)));
        let evictor = Evictor::new(me.id.clone(), Arc::clone(&hub), releaser.clone(), Arc::clone(metrics));
        Self {
            owners: Arc::new(Owners::new(Arc::clone(&hub), Arc::clone(&directory), Arc::clone(&backends.peers))),
            killer: Killer::new(me.id.clone(), Arc::clone(&backends.kills), evictor.clone()),
            deadlines: Arc::default(),
            directory,
            delivery: LocalDelivery::new(Arc::clone(&hub)),
            writer: Arc::new(RouteWriter::new(Arc::clone(&hub))),
            evictor,
            forwarder: Arc::new(Forwarder::new(
                Arc::clone(&backends.peers),
                Arc::clone(&backends.routes),
                config.clone(),
                limits,
                tasks.clone(),
                Arc::clone(&wellness),
            )),
            wellness,
            sweep: Arc::new(Notify::new()),
            metrics: Arc::clone(metrics),
            hub,
            releaser,
            goodbyes: Arc::default(),
            release_queue,
        }
    }

    fn connector(
        &self,
        me: &PodRecord,
        backends: &Backends,
        config: &watch::Receiver<Arc<Config>>,
        place: &Place,
        tasks: &Tasks,
    ) -> Connector {
        Connector {
            me: me.id.clone(),
            place: place.taken.subscribe(),
            hub: Arc::clone(&self.hub),
            locks: Arc::clone(&backends.locks),
            owners: Arc::clone(&self.owners),
            killer: self.killer.clone(),
            evictor: self.evictor.clone(),
            deadlines: Arc::clone(&self.deadlines),
            writer: Arc::clone(&self.writer),
            releaser: self.releaser.clone(),
            goodbyes: Arc::clone(&self.goodbyes),
            config: config.clone(),
            hard: tasks.shutdown().hard.clone(),
            metrics: Arc::clone(tasks.metrics()),
        }
    }

    fn renewer(&self, config: &watch::Receiver<Arc<Config>>, backends: &Backends) -> Renewer {
        let disputes = Disputes::new(Means {
            hub: Arc::clone(&self.hub),
            locks: Arc::clone(&backends.locks),
            owners: Arc::clone(&self.owners),
            evictor: self.evictor.clone(),
            killer: self.killer.clone(),
            releaser: self.releaser.clone(),
            metrics: Arc::clone(&self.metrics),
        });
        Renewer {
            hub: Arc::clone(&self.hub),
            locks: Arc::clone(&backends.locks),
            disputes: Arc::new(disputes),
            releaser: self.releaser.clone(),
            sweep: Arc::clone(&self.sweep),
            config: config.clone(),
            metrics: Arc::clone(&self.metrics),
            unanswered: Arc::default(),
        }
    }

    /// Starts the tasks that keep the store in step with the hub, but for the renewer.
    fn spawn(self, me: &PodRecord, config: watch::Receiver<Arc<Config>>, backends: &Backends, place: &Place, tasks: &Tasks) {
        let (place, metrics) = (place.clone(), tasks.metrics());
        let (writer, routes, id, live, counts) =
            (self.writer, Arc::clone(&backends.routes), me.id.clone(), config.clone(), Arc::clone(metrics));
        tasks.supervise("route writer", move || {
            let (writer, routes, id, live, counts) =
                (Arc::clone(&writer), Arc::clone(&routes), id.clone(), live.clone(), Arc::clone(&counts));
            let (mut taken, lost) = (place.taken.subscribe(), place.lost.clone());
            async move {
                // Who is on a route is a member first, or others would take it for nobody; and what another process holds under this id is not touched.
                tokio::select! {
                    biased;
                    () = lost.cancelled() => {}
                    () = async {
                        let _ = taken.wait_for(|taken| *taken).await;
                        writer.run(routes.as_ref(), &id, live, &counts).await;
                    } => {}
                }
            }
        });
        let (evictor, kills, sweep) = (self.evictor.clone(), Arc::clone(&backends.kills), Arc::clone(&self.sweep));
        tasks.supervise("evict", move || {
            let (evictor, kills, sweep) = (evictor.clone(), Arc::clone(&kills), Arc::clone(&sweep));
            async move { evictor.run(kills.as_ref(), &sweep).await }
        });
        let (queue, locks, live) = (Arc::new(AsyncMutex::new(self.release_queue)), Arc::clone(&backends.locks), config.clone());
        tasks.supervise("release", move || {
            let (queue, locks, live) = (Arc::clone(&queue), Arc::clone(&locks), live.clone());
            async move { queue.lock().await.run(&locks, &live).await }
        });
        let hub = Arc::clone(&self.hub);
        tasks.at_the_end(move || hub.sessions().iter().for_each(|session| session.abort()));
        let (deadlines, hub, evictor) = (self.deadlines, self.hub, self.evictor);
        tasks.supervise("lock deadlines", move || {
            let (deadlines, hub, evictor, config) = (Arc::clone(&deadlines), Arc::clone(&hub), evictor.clone(), config.clone());
            async move { deadlines.run(&hub, &evictor, config).await }
        });
    }
}
