//! The network between the pods of one process, with the faults that a real one has.
//!
//! Pods register under the address that their record names, as if they listened there; a [`NetworkHandle`] calls the others in
//! the name of one pod. Every wait is on tokio's clock, so paused time works; without faults a call is delivered at once and on
//! the caller's task.

use std::{
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use daisi_ws_domain::{
    event::Event,
    ids::{ConnectionId, PodId},
    maps::{Map, Set},
    peer::PodRecord,
    session::Kill,
};
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    ports::{Evicted, Handed, PeerError, PeerService, Peers, PodLoad, RouteGap},
    runtime::watched::Watched,
};

/// How long it takes until a cut link is noticed: the connect time-out of a real one.
const CUT_NOTICED: Duration = Duration::from_secs(1);

/// How long it takes until a frozen peer is noticed: the keep-alive of a real connection.
const FREEZE_NOTICED: Duration = Duration::from_secs(3);

/// The longest wait for a probe's answer.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

/// Calls that wait for one frozen pod; past it they are lost, as from a socket buffer that is full.
const MAX_HELD_CALLS: usize = 1024;

/// What a call does at the pod that it reaches.
type Call = Box<dyn FnOnce(&dyn PeerService) + Send>;

/// The network of one fleet in one process. Clones are the same network.
#[derive(Clone, Default)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Bumped whenever a pod is thawed or killed: what waits to leave a frozen pod looks again.
    changed: Watched<u64>,
}

#[derive(Default)]
struct State {
    /// By address.
    pods: Map<String, Registered>,
    killed: Set<PodId>,
    frozen: Set<PodId>,
    isolated: Set<PodId>,
    /// Pairs in both orders.
    cut: Set<(PodId, PodId)>,
    /// Pairs in both orders.
    half_open: Set<(PodId, PodId)>,
    /// Pods of another fleet.
    estranged: Set<PodId>,
    delay: Duration,
}

struct Registered {
    id: PodId,
    service: Arc<dyn PeerService>,
    /// What arrived while the pod was frozen.
    held: VecDeque<Call>,
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Network {
    /// A network without pods and without faults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets the pod be called at its address. A pod of that id or at that address that was there before is gone; faults of the id
    /// stay, but it is killed no more.
    pub fn register(&self, pod: &PodRecord, service: Arc<dyn PeerService>) {
        let mut state = self.shared.lock();
        state.killed.remove(&pod.id);
        state.pods.retain(|_, registered| registered.id != pod.id);
        state.pods.insert(pod.address.clone(), Registered { id: pod.id.clone(), service, held: VecDeque::new() });
    }

    /// Calls peers in the name of the pod, which need not be registered (yet).
    #[must_use]
    pub fn handle(&self, me: PodId) -> NetworkHandle {
        NetworkHandle { me, shared: Arc::clone(&self.shared) }
    }

    /// Cuts or mends the link between two pods, both ways. Calls over a cut link fail after a second, as a connect would.
    pub fn cut(&self, a: &PodId, b: &PodId, cut: bool) {
        let mut state = self.shared.lock();
        for pair in [(a.clone(), b.clone()), (b.clone(), a.clone())] {
            set(&mut state.cut, pair, cut);
        }
    }

    /// Makes or mends a link that swallows calls, both ways: no call arrives, and none fails before the keep-alive of a real
    /// connection would notice.
    pub fn half_open(&self, a: &PodId, b: &PodId, half_open: bool) {
        let mut state = self.shared.lock();
        for pair in [(a.clone(), b.clone()), (b.clone(), a.clone())] {
            set(&mut state.half_open, pair, half_open);
        }
    }

    /// Gives a pod the keys of another fleet, or ours again: others refuse its calls, and it refuses theirs. Probes are answered,
    /// as they need no key.
    pub fn estrange(&self, pod: &PodId, is_estranged: bool) {
        set(&mut self.shared.lock().estranged, pod.clone(), is_estranged);
    }

    /// Cuts or mends all links of a pod, both ways. Links that were cut one by one stay cut.
    pub fn isolate(&self, pod: &PodId, isolated: bool) {
        set(&mut self.shared.lock().isolated, pod.clone(), isolated);
    }

    /// Freezes or thaws a pod. What is sent to it meanwhile is delivered when it thaws, in order, even where the caller has given
    /// up; its own calls leave when it thaws. A caller waits for 3 s at most.
    pub fn freeze(&self, pod: &PodId, frozen: bool) {
        if frozen {
            self.shared.lock().frozen.insert(pod.clone());
        } else {
            self.shared.deliver_held(pod);
            self.shared.changed.bump();
        }
    }

    /// Ends a pod: calls to it fail at once, and so do its own. What it had not taken is lost. It is back when it registers
    /// again.
    pub fn kill(&self, pod: &PodId) {
        let gone: Vec<Registered> = {
            let mut state = self.shared.lock();
            state.killed.insert(pod.clone());
            state.frozen.remove(pod);
            state.pods.extract_if(|_, registered| registered.id == *pod).map(|(_, registered)| registered).collect()
        };
        drop(gone);
        self.shared.changed.bump();
    }

    /// Delays every call by this long, from now on.
    pub fn delay(&self, delay: Duration) {
        self.shared.lock().delay = delay;
    }
}

/// One pod's way to its peers.
#[derive(Clone)]
pub struct NetworkHandle {
    me: PodId,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for NetworkHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetworkHandle").field("me", &self.me).finish_non_exhaustive()
    }
}

#[async_trait]
impl Peers for NetworkHandle {
    async fn push(&self, to: &PodRecord, events: &[Arc<Event>]) -> Result<Vec<Handed>, PeerError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let (me, events) = (self.me.clone(), events.iter().map(|event| Event::clone(event)).collect());
        self.be_admitted(to)?;
        self.call(to, move |service| service.deliver(&me, events)).await
    }

    async fn announce_gaps(&self, to: &PodRecord, gaps: &[RouteGap]) -> Result<(), PeerError> {
        let (me, gaps) = (self.me.clone(), gaps.to_vec());
        let tell = move |service: &dyn PeerService| {
            for pending in gaps {
                service.gap(&me, pending.route.as_ref(), pending.gap);
            }
        };
        self.be_admitted(to)?;
        self.call(to, tell).await
    }

    async fn holds(&self, to: &PodRecord, sockets: &[ConnectionId]) -> Result<Vec<bool>, PeerError> {
        let sockets = sockets.to_vec();
        let held = self.call(to, move |service| service.holds(&sockets));
        timeout(PROBE_TIMEOUT, held).await.map_err(|_| PeerError::TimedOut)?
    }

    async fn evict(&self, to: &PodRecord, kill: &Kill) -> Result<Evicted, PeerError> {
        self.be_admitted(to)?;
        let kill = kill.clone();
        timeout(PROBE_TIMEOUT, self.call(to, move |service| service.evict(&kill))).await.map_err(|_| PeerError::TimedOut)?
    }

    async fn probe(&self, to: &PodRecord) -> Result<(), PeerError> {
        timeout(PROBE_TIMEOUT, self.call(to, |_| ())).await.map_err(|_| PeerError::TimedOut)?
    }

    async fn introduce(&self, me: &PodRecord, to: &PodRecord) -> Result<Vec<PodRecord>, PeerError> {
        let me = me.clone();
        timeout(PROBE_TIMEOUT, self.call(to, move |service| service.introduce(&me))).await.map_err(|_| PeerError::TimedOut)?
    }

    async fn has_room(&self, to: &PodRecord) -> Result<bool, PeerError> {
        timeout(PROBE_TIMEOUT, self.call(to, |service| service.has_room())).await.map_err(|_| PeerError::TimedOut)?
    }

    async fn load(&self, to: &PodRecord) -> Result<PodLoad, PeerError> {
        self.be_admitted(to)?;
        timeout(PROBE_TIMEOUT, self.call(to, |service| service.load())).await.map_err(|_| PeerError::TimedOut)?
    }

    async fn is_well(&self, to: &PodRecord) -> Result<bool, PeerError> {
        timeout(PROBE_TIMEOUT, self.call(to, |service| service.is_well())).await.map_err(|_| PeerError::TimedOut)?
    }

    fn forget(&self, _: &PodId) {
        // Nothing is kept for a peer.
    }
}

impl NetworkHandle {
    /// Is the peer of the same fleet?
    fn be_admitted(&self, to: &PodRecord) -> Result<(), PeerError> {
        let state = self.shared.lock();
        if state.estranged.contains(&self.me) == state.estranged.contains(&to.id) {
            return Ok(());
        }
        Err(PeerError::refused(Nowhere::OfAnotherFleet))
    }

    /// Runs `ask` at the peer, now or when it thaws, and waits for its answer.
    async fn call<T, F>(&self, to: &PodRecord, ask: F) -> Result<T, PeerError>
    where
        T: Send + 'static,
        F: FnOnce(&dyn PeerService) -> T + Send + 'static,
    {
        self.leave().await?;
        let delay = self.shared.lock().delay;
        if !delay.is_zero() {
            sleep(delay).await;
        }
        let (reply, answer) = oneshot::channel();
        let call: Call = Box::new(move |service| {
            // As over gRPC: a panic is an error of this one call.
            let _ = reply.send(catch_unwind(AssertUnwindSafe(|| ask(service))));
        });
        match self.shared.route(&self.me, to, call) {
            Routed::Here(service, call) => call(service.as_ref()),
            Routed::Held => {}
            Routed::Swallowed => {
                sleep(FREEZE_NOTICED).await;
                return Err(PeerError::unreachable(Nowhere::NoSignOfLife));
            }
            Routed::Cut => {
                sleep(CUT_NOTICED).await;
                return Err(PeerError::unreachable(Nowhere::Cut));
            }
            Routed::Gone => return Err(PeerError::unreachable(Nowhere::Nobody)),
        }
        match timeout(FREEZE_NOTICED, answer).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(_))) => Err(PeerError::failed(Nowhere::Panicked)),
            Ok(Err(_)) => Err(PeerError::unreachable(Nowhere::Killed)),
            Err(_) => Err(PeerError::unreachable(Nowhere::NoSignOfLife)),
        }
    }

    /// Waits until this pod is not frozen itself.
    async fn leave(&self) -> Result<(), PeerError> {
        loop {
            let seen = self.shared.changed.get();
            {
                let state = self.shared.lock();
                if state.killed.contains(&self.me) {
                    return Err(PeerError::unreachable(Nowhere::KilledHere));
                }
                if !state.frozen.contains(&self.me) {
                    return Ok(());
                }
            }
            self.shared.changed.wait_for(|now| now != seen).await;
        }
    }
}

/// Where a call goes.
enum Routed {
    Here(Arc<dyn PeerService>, Call),
    Held,
    Swallowed,
    Cut,
    Gone,
}

impl Shared {
    fn route(&self, from: &PodId, to: &PodRecord, call: Call) -> Routed {
        let mut state = self.lock();
        let is_cut = state.cut.contains(&(from.clone(), to.id.clone()))
            || [from, &to.id].into_iter().any(|pod| state.isolated.contains(pod));
        if is_cut {
            return Routed::Cut;
        }
        if state.half_open.contains(&(from.clone(), to.id.clone())) {
            return Routed::Swallowed;
        }
        let is_frozen = state.frozen.contains(&to.id);
        match state.pods.get_mut(&to.address) {
            Some(pod) if pod.id != to.id => Routed::Gone,
            None => Routed::Gone,
            Some(pod) if is_frozen => {
                if pod.held.len() < MAX_HELD_CALLS {
                    pod.held.push_back(call);
                }
                Routed::Held
            }
            Some(pod) => Routed::Here(Arc::clone(&pod.service), call),
        }
    }

    /// Delivers what a frozen pod was sent, one by one and without the lock; only then is it thawed, so that nothing overtakes.
    fn deliver_held(&self, pod: &PodId) {
        while let Some((service, call)) = self.next_held(pod) {
            call(service.as_ref());
        }
    }

    fn next_held(&self, pod: &PodId) -> Option<(Arc<dyn PeerService>, Call)> {
        let mut state = self.lock();
        let held = state.pods.values_mut().find(|registered| registered.id == *pod);
        let next = held.and_then(|pod| Some((Arc::clone(&pod.service), pod.held.pop_front()?)));
        if next.is_none() {
            state.frozen.remove(pod);
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn set<T: std::hash::Hash + Eq>(set: &mut Set<T>, value: T, present: bool) {
    if present {
        set.insert(value);
    } else {
        set.remove(&value);
    }
}

/// Why a call got nowhere.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Nowhere {
    #[error("no sign of life")]
    NoSignOfLife,
    #[error("the link is cut")]
    Cut,
    #[error("nobody listens there")]
    Nobody,
    #[error("the peer was killed, or takes no more calls")]
    Killed,
    #[error("this pod was killed")]
    KilledHere,
    #[error("the peer panicked in the call")]
    Panicked,
    #[error("the proof is not of this fleet")]
    OfAnotherFleet,
}

#[cfg(test)]
mod tests;
