//! The session store of a fleet that lives in one process: what Redis is for real, with switches that break it.
//!
//! Each pod has a handle, so that one pod alone can be cut off. Times to live run on Tokio's clock, which tests can pause.

mod holdings;
mod kills;
mod locks;
mod routes;
mod tables;
mod tokens;

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use daisi_ws_domain::{ids::PodId, maps::Set, route::RouteKey, session::SessionKey};
use tables::Tables;

pub use self::holdings::Holdings;
use crate::{
    application::admission::kill_inbox::KillInbox,
    ports::{Incarnation, StoreError},
};

/// How long a call waits for a frozen store: the default of `redis.command_timeout_ms`.
const FROZEN_TIMEOUT: Duration = Duration::from_millis(500);

/// What a store held at some time.
#[derive(Debug, Clone, Default)]
pub struct Snapshot(Tables);

/// The store of one fleet. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Store {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    tables: Tables,
    incarnation: Incarnation,
    faults: Faults,
    listeners: Vec<Listening>,
}

#[derive(Debug, Default)]
struct Faults {
    down: bool,
    frozen: bool,
    denying: bool,
    cut: Set<PodId>,
    refused: Set<RouteKey>,
    refused_locks: Set<SessionKey>,
}

/// As a server says it whose user lacks a right.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("NOPERM the store denies every call")]
struct Denies;

impl Faults {
    fn reaches(&self, pod: &PodId) -> bool {
        !self.down && !self.frozen && !self.denying && !self.cut.contains(pod)
    }
}

#[derive(Debug)]
struct Listening {
    pod: PodId,
    inbox: Weak<KillInbox>,
}

impl Store {
    /// An empty store that works.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The store as one pod sees it. Make one handle a pod.
    #[must_use]
    pub fn handle(&self, pod: PodId) -> StoreHandle {
        StoreHandle { store: self.clone(), pod, announced: AtomicBool::new(false) }
    }

    /// Takes the store away from everybody (calls fail at once), or gives it back with its data.
    pub fn set_down(&self, down: bool) {
        self.change_faults(|faults| faults.down = down);
    }

    /// Is it taken away from everybody?
    #[must_use]
    pub(crate) fn is_down(&self) -> bool {
        self.lock().faults.down
    }

    /// Freezes the store (calls fail after a time-out of 500 ms and do nothing), or thaws it.
    pub fn set_frozen(&self, frozen: bool) {
        self.change_faults(|faults| faults.frozen = frozen);
    }

    /// Has the store refuse every call, as where the user has no rights; or lets pods in again.
    pub fn set_denying(&self, denying: bool) {
        self.change_faults(|faults| faults.denying = denying);
    }

    /// Cuts one pod off from the store, or heals the cut.
    pub fn cut(&self, pod: &PodId, cut: bool) {
        self.change_faults(|faults| {
            if cut {
                faults.cut.insert(pod.clone());
            } else {
                faults.cut.remove(pod);
            }
        });
    }

    /// Loses a route and refuses it from now on, as where its name is taken by a key of another kind; or has it again, empty.
    pub fn refuse_route(&self, route: &RouteKey, refused: bool) {
        let mut state = self.lock();
        state.tables.routes.remove(route);
        if refused {
            state.faults.refused.insert(route.clone());
        } else {
            state.faults.refused.remove(route);
        }
    }

    /// Loses a session's lock and refuses it from now on, as where its name is taken by a key of another kind; or has it again,
    /// free.
    pub fn refuse_lock(&self, key: &SessionKey, refused: bool) {
        let mut state = self.lock();
        state.tables.locks.remove(key);
        if refused {
            state.faults.refused_locks.insert(key.clone());
        } else {
            state.faults.refused_locks.remove(key);
        }
    }

    /// The data as it is now, to be [restored](Store::restore) later.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot(self.lock().tables.clone())
    }

    /// Loses all data, as a store without persistence that restarted.
    pub fn flush(&self) {
        self.restore(&Snapshot::default());
    }

    /// Goes back to what it was, as a store that restarted from its last snapshot. What has run out since is not there.
    pub fn restore(&self, snapshot: &Snapshot) {
        let mut state = self.lock();
        state.tables = snapshot.0.clone();
        state.incarnation.0 += 1;
        let State { faults, listeners, .. } = &*state;
        for listening in listeners.iter().filter(|listening| faults.reaches(&listening.pod)) {
            listening.resubscribed();
        }
    }

    /// Throws a route away, as a store that has no memory left and is set to evict.
    pub fn evict(&self, route: &RouteKey) {
        let mut state = self.lock();
        state.tables.routes.remove(route);
        state.incarnation.0 += 1;
    }

    /// Ends every subscription for a moment: kills may have been missed.
    pub fn interrupt_listeners(&self) {
        let state = self.lock();
        for listening in state.listeners.iter().filter(|listening| state.faults.reaches(&listening.pod)) {
            listening.resubscribed();
        }
    }

    /// Changes the faults; listeners that can hear again are told.
    fn change_faults(&self, change: impl FnOnce(&mut Faults)) {
        let mut state = self.lock();
        let State { faults, listeners, .. } = &mut *state;
        let deaf: Vec<bool> = listeners.iter().map(|listening| !faults.reaches(&listening.pod)).collect();
        change(faults);
        for (listening, was_deaf) in listeners.iter().zip(deaf) {
            if was_deaf && faults.reaches(&listening.pod) {
                listening.resubscribed();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listening {
    fn resubscribed(&self) {
        if let Some(inbox) = self.inbox.upgrade() {
            inbox.resubscribed();
        }
    }
}

/// The session store of one pod; implements `SessionLocks`, `Routes`, `KillBus` and `TokenCache`.
#[derive(Debug)]
pub struct StoreHandle {
    store: Store,
    pod: PodId,
    /// Has this handle announced its pod? A pod that starts again under its old id was not there.
    announced: AtomicBool,
}

impl StoreHandle {
    /// Asks whether the store answers.
    ///
    /// # Errors
    /// When a fault is on that touches this pod.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run(|_| ()).await
    }

    /// Runs a command on the data, or fails as the faults say.
    async fn run<T>(&self, command: impl FnOnce(&mut State) -> T) -> Result<T, StoreError> {
        self.attempt(|state| Ok(command(state))).await
    }

    /// The same for a command that the data may refuse.
    async fn attempt<T>(&self, command: impl FnOnce(&mut State) -> Result<T, StoreError>) -> Result<T, StoreError> {
        // In a block: the guard must be gone before the await.
        {
            let mut state = self.store.lock();
            let Faults { down, frozen, denying, cut, .. } = &state.faults;
            if *down || cut.contains(&self.pod) {
                return Err(StoreError::unreachable(io::Error::from(io::ErrorKind::ConnectionRefused)));
            }
            if *denying && !*frozen {
                return Err(StoreError::denied(Denies));
            }
            if !*frozen {
                return command(&mut state);
            }
        }
        tokio::time::sleep(FROZEN_TIMEOUT).await;
        Err(StoreError::TimedOut(FROZEN_TIMEOUT))
    }

    fn announced_before(&self) -> bool {
        self.announced.swap(true, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use daisi_ws_domain::{
        ids::AdminId,
        session::{Kill, KillClaim, LockOwner, SessionKey},
    };

    use super::*;
    use crate::ports::{Acquire, KillBus as _, KillSignal, SessionLocks as _};

    fn pod(id: &str) -> PodId {
        PodId::parse(id).unwrap()
    }

    fn key() -> SessionKey {
        SessionKey::Admin { admin: AdminId::parse("root").unwrap() }
    }

    #[tokio::test(start_paused = true)]
    async fn times_to_live_run_on_the_paused_clock() {
        let store = Store::new().handle(pod("a"));
        let (first, second) = (LockOwner::parse("a/1").unwrap(), LockOwner::parse("a/2").unwrap());
        store.acquire(&key(), &first, Duration::from_secs(30)).await.unwrap();
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(store.acquire(&key(), &second, Duration::from_secs(30)).await.unwrap(), Acquire::Held(first));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            store.acquire(&key(), &second, Duration::from_secs(30)).await.unwrap(),
            Acquire::Acquired { saved_chat: None }
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_restored_store_holds_what_it_did_and_what_has_run_out_since_is_gone() {
        let (shared, second) = (Store::new(), Duration::from_secs(1));
        let store = shared.handle(pod("a"));
        let [first, later, prober] = ["a/1", "a/2", "a/3"].map(|owner| LockOwner::parse(owner).unwrap());
        store.acquire(&key(), &first, 10 * second).await.unwrap();
        let snapshot = shared.snapshot();
        store.replace(&key(), &first, &later, 60 * second).await.unwrap();
        shared.restore(&snapshot);
        assert_eq!(store.acquire(&key(), &prober, second).await.unwrap(), Acquire::Held(first));
        tokio::time::advance(10 * second).await;
        shared.restore(&snapshot);
        assert_eq!(store.acquire(&key(), &prober, second).await.unwrap(), Acquire::Acquired { saved_chat: None });
    }

    #[tokio::test(start_paused = true)]
    async fn a_cut_pod_is_alone_in_hearing_nothing() {
        let store = Store::new();
        let (a, b) = (store.handle(pod("a")), store.handle(pod("b")));
        let (mut hears_a, mut hears_b) = (a.listen().await, b.listen().await);
        assert_eq!((hears_a.next().await, hears_b.next().await), (KillSignal::Resubscribed, KillSignal::Resubscribed));

        store.cut(&pod("a"), true);
        assert!(a.ping().await.is_err() && b.ping().await.is_ok());
        let kill = Kill { key: key(), new_pod: pod("b"), connection: None, victim: None, claim: KillClaim::Newer };
        b.publish(&kill).await.unwrap();
        assert_eq!(hears_b.next().await, KillSignal::Kill(kill));
        assert!(tokio::time::timeout(Duration::from_secs(60), hears_a.next()).await.is_err(), "it is deaf");

        store.cut(&pod("a"), false);
        assert_eq!(hears_a.next().await, KillSignal::Resubscribed);
    }

    #[tokio::test(start_paused = true)]
    async fn a_frozen_store_answers_with_a_time_out() {
        let (store, start) = (Store::new(), tokio::time::Instant::now());
        let a = store.handle(pod("a"));
        store.set_frozen(true);
        assert!(a.ping().await.is_err());
        assert_eq!(start.elapsed(), FROZEN_TIMEOUT);
        store.set_frozen(false);
        assert!(a.ping().await.is_ok());
    }
}
