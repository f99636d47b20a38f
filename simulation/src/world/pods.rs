//! Pods: how they start and end.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use daisi_ws_domain::{ids::PodId, peer::PodRecord};
use daisi_ws_service::{
    config::Config,
    metrics::Metrics,
    pod::Pod,
    readiness::Readiness,
    runtime::{
        clock,
        gate::Gate,
        lifecycle::{Shutdown, Tasks},
    },
};
use futures_util::FutureExt as _;
use tokio::{sync::watch, time::sleep};

use super::{World, faults::Hold};
use crate::{
    history::{Drain, PodLife, TroubleKind},
    ports::{Caller, Ground, backends},
    tasks::spawn,
};

/// What a process left that was killed has run out by then, but for places on routes.
const RUN_OUT: Duration = Duration::from_secs(25);

/// A pod.
pub(crate) struct Running {
    pub(crate) id: PodId,
    pub(crate) slot: usize,
    /// Its place in the history.
    pub(crate) life: usize,
    pub(crate) pod: Pod,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Arc<Metrics>,
    /// Shut while it is frozen.
    pub(crate) gate: Arc<Gate>,
    drains: AtomicBool,
    /// Held, so that the pod sees a configuration that may still change.
    _config: watch::Sender<Arc<Config>>,
}

impl World {
    /// The pod in a slot, if one is there.
    pub(crate) fn running(&self, slot: usize) -> Option<Arc<Running>> {
        self.lock().slots.get(slot).and_then(|slot| slot.pod.clone())
    }

    /// All pods.
    pub(crate) fn pods(&self) -> Vec<Arc<Running>> {
        self.lock().slots.iter().filter_map(|slot| slot.pod.clone()).collect()
    }

    /// Starts a pod in a slot where none is, under the name of the last one there or another.
    pub(crate) fn start(&self, slot: usize, renamed: bool) -> anyhow::Result<()> {
        let (id, number) = {
            let mut state = self.lock();
            state.launched += 1;
            let number = state.launched;
            let place = &mut state.slots[slot];
            if place.pod.is_some() {
                return Ok(());
            }
            if renamed {
                place.id = format!("pod-{slot}-{number}");
            }
            (PodId::parse(&place.id)?, number)
        };
        // What the last one of this name was cut off from by its death.
        self.release(&Hold::Dead(id.clone()));
        let record = PodRecord { id: id.clone(), address: format!("{id}:1"), started_at: clock::now() };
        let metrics = Arc::new(Metrics::new()?);
        let gate = Arc::<Gate>::default();
        let tasks = Tasks::new(Shutdown::default(), Arc::clone(&metrics), tracing::Span::none()).behind(&gate);
        let caller = Caller {
            pod: id.to_string(),
            life: self.record.open().history.pods.len(),
            number,
            seed: self.plan.seed,
            faults_end: Duration::from_millis(self.plan.faults_end),
            record: Arc::clone(&self.record),
        };
        let ground = Ground {
            store: self.store.handle(id.clone()),
            stream: self.stream.handle(id.clone()),
            network: self.network.handle(id.clone()),
            ack_wait: self.config.app.nats_ack_wait,
        };
        let (config, live) = watch::channel(Arc::new(self.config.clone()));
        let backends = backends(ground, &self.plan.rates, &caller);
        let pod = Pod::start(&record, &live, &backends, Readiness::default(), &tasks, &metrics);
        self.network.register(&record, pod.peer_service());
        self.record.note(format_args!("{id} starts in slot {slot}"));
        self.record.count("starts");
        let at = self.at();
        let life = {
            let mut inner = self.record.open();
            inner.history.pods.push(PodLife { id: id.to_string(), slot, from: at, until: None, killed: false });
            inner.history.pods.len() - 1
        };
        let drains = AtomicBool::new(false);
        let running = Running { id, slot, life, pod, tasks, metrics, gate, drains, _config: config };
        let running = Arc::new(running);
        self.lock().slots[slot].pod = Some(Arc::clone(&running));
        self.watch_id(running);
        Ok(())
    }

    /// Notes when a pod finds that its id is another's.
    fn watch_id(&self, pod: Arc<Running>) {
        let record = Arc::clone(&self.record);
        spawn(async move {
            let ended = pod.tasks.shutdown().hard.clone();
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = pod.pod.id_lost() => {
                    let at = record.at();
                    record.note(format_args!("{} takes its id for another's", pod.id));
                    record.open().history.gave_up_ids.push((at, pod.life));
                }
            }
        });
    }

    fn take(&self, slot: usize) -> Option<Arc<Running>> {
        let pod = self.lock().slots.get_mut(slot)?.pod.take()?;
        let at = self.at();
        self.record.open().history.pods[pod.life].until = Some(at);
        Some(pod)
    }

    /// As SIGKILL: nothing is said, nothing is given back. It is started again after a while.
    pub(super) fn kill(self: &Arc<Self>, slot: usize, down: Duration, renamed: bool) {
        let Some(pod) = self.take(slot) else { return };
        {
            let history = &mut self.record.open().history;
            history.pods[pod.life].killed = true;
            let drains = history.drains.iter_mut().filter(|drain| drain.ended.is_none() && drain.pod == pod.id.as_str());
            drains.for_each(|drain| drain.killed = true);
        }
        let trouble = self.begin(TroubleKind::Down, Some(slot));
        self.hold(&Hold::Dead(pod.id.clone()));
        self.network.kill(&pod.id);
        pod.gate.open();
        pod.tasks.shutdown().hard.cancel();
        self.start_later(slot, down, renamed, trouble);
    }

    fn start_later(self: &Arc<Self>, slot: usize, down: Duration, renamed: bool, trouble: usize) {
        let world = Arc::clone(self);
        spawn(async move {
            sleep(down).await;
            if let Err(error) = world.start(slot, renamed) {
                world.record.breach(crate::invariants::NOTHING_PANICS, format!("a pod does not start: {error:#}"));
            }
            world.end(trouble);
        });
    }

    /// As SIGTERM. It is started again a while after its end.
    pub(super) fn drain_and_restart(self: &Arc<Self>, slot: usize, down: Duration, renamed: bool) {
        let (world, faults_end) = (Arc::clone(self), Duration::from_millis(self.plan.faults_end));
        spawn(async move {
            if world.drain(slot).await {
                let trouble = world.begin(TroubleKind::Down, Some(slot));
                let down = down.min(faults_end.saturating_sub(world.at()));
                world.start_later(slot, down, renamed, trouble);
            }
        });
    }

    /// Drains the pod in a slot and looks what it leaves. False if there is none, it drains already or was killed meanwhile.
    pub(crate) async fn drain(&self, slot: usize) -> bool {
        let Some(pod) = self.running(slot) else { return false };
        if pod.drains.swap(true, Ordering::Relaxed) {
            return false;
        }
        // A signal that comes to a frozen process is obeyed when it thaws.
        pod.gate.opened().await;
        let began = self.at();
        let place = {
            let mut inner = self.record.open();
            inner.add("drains", 1);
            inner.history.drains.push(Drain { pod: pod.id.to_string(), began, ..Drain::default() });
            inner.history.drains.len() - 1
        };
        self.record.note(format_args!("{} drains", pod.id));
        let told = pod.pod.sequence().peers().clone();
        let peers = pin!(
            async move {
                told.cancelled().await;
                Ok::<(), ()>(())
            }
            .fuse()
        );
        let _ = pod.gate.guard(pod.pod.end(peers, &pod.tasks, self.config.app.shutdown_timeout)).await;
        if self.running(slot).is_none_or(|now| now.life != pod.life) {
            return false;
        }
        self.network.kill(&pod.id);
        self.take(slot);
        self.look_what_is_left(&pod, place);
        true
    }

    fn look_what_is_left(&self, pod: &Running, place: usize) {
        let (at, rates) = (self.at(), &self.plan.rates);
        let (is_heir, is_young, went_back) = {
            let history = &self.record.open().history;
            let before = &history.pods[..pod.life];
            let is_heir = before.iter().any(|life| life.id == pod.id.as_str());
            let went_back = history.troubles.iter().any(|trouble| trouble.kind == TroubleKind::LostData);
            (is_heir, at < history.pods[pod.life].from + RUN_OUT, went_back)
        };
        let held = self.store.holdings();
        let mut left: Vec<String> = Vec::new();
        let locks = held.locks.iter().filter(|(_, owner)| owner.pod == pod.id && !self.came_back(&owner.to_string(), place));
        left.extend(locks.map(|(key, _)| format!("the lock of {key:?}")));
        // A process of this name that was killed, or a store that went back, may have left places on routes that this process
        // knows nothing of. Others drop them with the next event.
        let routes = held.routes.iter().filter(|_| !is_heir && !went_back).filter(|(_, pods)| pods.contains(&pod.id));
        left.extend(routes.map(|(route, _)| format!("a place on {route:?}")));
        left.extend(held.members.contains(&pod.id).then(|| "its membership".to_owned()));
        left.extend(held.records.contains(&pod.id).then(|| "its liveness key".to_owned()));
        left.sort_unstable();
        self.record.note(format_args!("{} has drained and leaves {left:?}, tasks: {}", pod.id, pod.tasks.running()));
        let mut inner = self.record.open();
        let history = &mut inner.history;
        let kinds = [TroubleKind::Store, TroubleKind::LostData, TroubleKind::Frozen, TroubleKind::Down, TroubleKind::Stream];
        let began = history.drains[place].began;
        let was_sound =
            (rates.locks.is_zero() && rates.routes.is_zero()) || began.as_millis() >= u128::from(self.plan.faults_end);
        let is_its_own = !(is_heir && is_young);
        let drain = Drain {
            ended: Some(at),
            frozen: history.stood_still(pod.slot, began, at),
            undisturbed: was_sound && is_its_own && !history.was_broken(&kinds, pod.slot, began, at),
            left,
            tasks: pod.tasks.running(),
            sockets: pod.pod.hub().len(),
            bytes: pod.pod.hub().memory().used(),
            ..history.drains[place].clone()
        };
        history.drains[place] = drain;
    }

    /// Was the lock of a socket that ended before the drain brought back by a store that went back in time, and has not run out
    /// yet? Its pod gave it back before, and knows nothing of it.
    fn came_back(&self, owner: &str, drain: usize) -> bool {
        let life = Duration::from_secs(self.plan.settings.session_ttl);
        let history = &self.record.open().history;
        let socket = history.sockets.iter().rev().find(|socket| socket.owner == owner);
        let ended = socket.and_then(|socket| socket.ended).map(|(moment, _)| moment.at);
        ended.filter(|ended| *ended <= history.drains[drain].began).is_some_and(|ended| {
            let mut losses = history.troubles.iter().filter(|trouble| trouble.kind == TroubleKind::LostData);
            losses.any(|loss| loss.from >= ended && loss.from + life >= self.at())
        })
    }
}
