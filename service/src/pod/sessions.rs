//! How a pod gets sessions and keeps them.

use std::sync::Arc;

use tokio::sync::Mutex as AsyncMutex;

use super::{fleet::Fleet, ground::Ground};
use crate::{
    application::{
        admission::{
            connect::{Connector, Entries, Locker},
            dispute::{Disputes, Means},
            evict::Evictor,
            goodbyes::Goodbyes,
            killer::Killer,
            leftovers::Leftovers,
            lock_deadlines::LockDeadlines,
            owners::Owners,
            release::{ReleaseQueue, Releaser, releaser},
            renew::{Batches, Renewer},
            room::Room,
            socket_services::{ChatServices, SocketServices},
        },
        hub::{registry::Hub, relief::Relief},
        rebalance::Rebalance,
        replay::Replayer,
    },
    config::MemoryBudget,
};

pub(super) struct Sessions {
    pub(super) connector: Arc<Connector>,
    pub(super) renewer: Renewer,
}

/// What is left to the tasks.
pub(super) struct Upkeep {
    release_queue: ReleaseQueue,
    deadlines: Arc<LockDeadlines>,
    evictor: Evictor,
}

/// The ways to take a session from somebody.
struct TakeOver {
    owners: Arc<Owners>,
    evictor: Evictor,
    killer: Killer,
}

impl Sessions {
    pub(super) fn new(ground: &Ground<'_>, hub: &Arc<Hub>, fleet: &Fleet) -> (Self, Upkeep) {
        let (backends, metrics) = (ground.backends, ground.metrics);
        let (releaser, release_queue) = releaser();
        let evictor = Evictor::new(ground.me.id.clone(), Arc::clone(hub), releaser.clone(), Arc::clone(metrics));
        let take_over = TakeOver {
            owners: Arc::new(Owners::new(Arc::clone(hub), Arc::clone(&fleet.directory), Arc::clone(&backends.peers))),
            killer: Killer {
                me: ground.me.id.clone(),
                evictor: evictor.clone(),
                directory: Arc::clone(&fleet.directory),
                peers: Arc::clone(&backends.peers),
                kills: Arc::clone(&backends.kills),
                metrics: Arc::clone(metrics),
            },
            evictor: evictor.clone(),
        };
        let deadlines = Arc::default();
        let sessions = Self {
            connector: Arc::new(connector(ground, hub, fleet, &take_over, &deadlines, &releaser)),
            renewer: renewer(ground, hub, fleet, take_over, releaser),
        };
        (sessions, Upkeep { release_queue, deadlines, evictor })
    }
}

fn connector(
    ground: &Ground<'_>,
    hub: &Arc<Hub>,
    fleet: &Fleet,
    take_over: &TakeOver,
    deadlines: &Arc<LockDeadlines>,
    releaser: &Releaser,
) -> Connector {
    let (locks, writer, metrics) = (&ground.backends.locks, &fleet.writer, ground.metrics);
    let replay = Arc::clone(&ground.backends.replay);
    let replayer = Arc::new(Replayer::new(replay, Arc::clone(hub.memory()), ground.config.clone(), Arc::clone(metrics)));
    let socket = SocketServices {
        hub: Arc::clone(hub),
        evictor: take_over.evictor.clone(),
        goodbyes: Arc::new(Goodbyes::new(ground.tasks.shutdown().hard.clone())),
        chats: ChatServices { writer: Arc::clone(writer), locks: Arc::clone(locks) },
        replayer: Arc::clone(&replayer),
        config: ground.config.clone(),
        metrics: Arc::clone(metrics),
    };
    Connector {
        me: ground.me.id.clone(),
        place: Arc::clone(&fleet.place.taken),
        entries: Entries { hub: Arc::clone(hub), writer: Arc::clone(writer), releaser: releaser.clone() },
        locker: Locker {
            locks: Arc::clone(locks),
            owners: Arc::clone(&take_over.owners),
            killer: take_over.killer.clone(),
            deadlines: Arc::clone(deadlines),
            metrics: Arc::clone(metrics),
        },
        replayer,
        socket: Arc::new(socket),
        config: ground.config.clone(),
        metrics: Arc::clone(metrics),
    }
}

fn renewer(ground: &Ground<'_>, hub: &Arc<Hub>, fleet: &Fleet, take_over: TakeOver, releaser: Releaser) -> Renewer {
    let (locks, config, metrics) = (&ground.backends.locks, ground.config, ground.metrics);
    let leftovers = Arc::new(Leftovers::new(Arc::clone(hub), releaser));
    let TakeOver { owners, evictor, killer } = take_over;
    let disputes = Disputes::new(Means {
        hub: Arc::clone(hub),
        locks: Arc::clone(locks),
        owners,
        evictor,
        killer,
        leftovers: Arc::clone(&leftovers),
        metrics: Arc::clone(metrics),
    });
    let batches = Batches { locks: Arc::clone(locks), disputes, leftovers, config: config.clone(), metrics: Arc::clone(metrics) };
    Renewer {
        hub: Arc::clone(hub),
        batches: Arc::new(batches),
        sweep: Arc::clone(&fleet.sweep),
        config: config.clone(),
        metrics: Arc::clone(metrics),
    }
}

/// Starts the tasks that keep sessions and locks in step with the store, and the memory within its bounds.
pub(super) fn spawn(ground: &Ground<'_>, hub: &Arc<Hub>, fleet: &Fleet, sessions: &Sessions, upkeep: Upkeep) {
    spawn_bounds(ground, hub, fleet);
    let (tasks, backends, config) = (ground.tasks, ground.backends, ground.config);
    let Upkeep { release_queue, deadlines, evictor } = upkeep;
    let (listener, kills, sweep) = (evictor.clone(), Arc::clone(&backends.kills), Arc::clone(&fleet.sweep));
    tasks.supervise("evict", move || {
        let (evictor, kills, sweep) = (listener.clone(), Arc::clone(&kills), Arc::clone(&sweep));
        async move { evictor.run(kills.as_ref(), &sweep).await }
    });
    let (queue, locks, live) = (Arc::new(AsyncMutex::new(release_queue)), Arc::clone(&backends.locks), config.clone());
    spawn_rebalance(ground, hub, fleet, &evictor);
    tasks.supervise("release", move || {
        let (queue, locks, live) = (Arc::clone(&queue), Arc::clone(&locks), live.clone());
        async move { queue.lock().await.run(&locks, &live).await }
    });
    let all = Arc::clone(hub);
    tasks.at_the_end(move || all.sessions().iter().for_each(|session| session.abort()));
    let (hub, live) = (Arc::clone(hub), config.clone());
    tasks.supervise("lock deadlines", move || {
        let (deadlines, hub, evictor, live) = (Arc::clone(&deadlines), Arc::clone(&hub), evictor.clone(), live.clone());
        async move { deadlines.run(&hub, &evictor, live).await }
    });
    let replayer = Arc::clone(&sessions.connector.replayer);
    tasks.supervise("stream window", move || {
        let replayer = Arc::clone(&replayer);
        async move { replayer.watch_window().await }
    });
    let replayer = Arc::clone(&sessions.connector.replayer);
    tasks.supervise("stream spans", move || {
        let replayer = Arc::clone(&replayer);
        async move { replayer.read_spans().await }
    });
    let renewer = sessions.renewer.clone();
    tasks.supervise("renew", move || {
        let renewer = renewer.clone();
        async move { renewer.run().await }
    });
}

/// Starts the tasks that look after how much this pod may have.
fn spawn_bounds(ground: &Ground<'_>, hub: &Arc<Hub>, fleet: &Fleet) {
    let relief = Relief {
        hub: Arc::clone(hub),
        budget: MemoryBudget::of_the_container(),
        config: ground.config.clone(),
        metrics: Arc::clone(ground.metrics),
    };
    ground.tasks.supervise("memory", move || {
        let relief = relief.clone();
        async move { relief.run().await }
    });
    let room = Room {
        hub: Arc::clone(hub),
        directory: Arc::clone(&fleet.directory),
        peers: Arc::clone(&ground.backends.peers),
        config: ground.config.clone(),
        readiness: ground.readiness.clone(),
        metrics: Arc::clone(ground.metrics),
    };
    ground.tasks.supervise("room", move || {
        let room = room.clone();
        async move { room.watch().await }
    });
}

fn spawn_rebalance(ground: &Ground<'_>, hub: &Arc<Hub>, fleet: &Fleet, evictor: &Evictor) {
    let rebalance = Rebalance {
        hub: Arc::clone(hub),
        directory: Arc::clone(&fleet.directory),
        wellness: Arc::clone(&fleet.wellness),
        peers: Arc::clone(&ground.backends.peers),
        source: Arc::clone(&ground.backends.source),
        evictor: evictor.clone(),
        config: ground.config.clone(),
        metrics: Arc::clone(ground.metrics),
    };
    ground.tasks.supervise("rebalance", move || {
        let rebalance = rebalance.clone();
        async move { rebalance.run().await }
    });
}
