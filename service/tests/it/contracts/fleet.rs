//! Pods that share one store, of either kind, and what can happen to that store.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{
    ids::{AdminId, AgentId, ChatId, CompanyId, PodId, UserId},
    peer::PodRecord,
    session::{LockOwner, SessionKey},
};
use daisi_ws_service::{
    adapters::{memory::store::Store, redis::RedisStore},
    ports::{KillBus, KillListener, KillSignal, Routes, SessionLocks, TokenCache},
};

use crate::support::{
    redis::{Options, RedisServer, documented_rules},
    wait,
};

/// Long enough that nothing runs out in a test that is not about it.
pub(super) const LONG: Duration = Duration::from_secs(60);
/// Short enough to wait for, long enough to be seen before.
pub(super) const SHORT: Duration = Duration::from_millis(300);

/// The store that the pods share.
pub(super) enum Fleet {
    Memory(Store),
    Redis(Box<RedisServer>),
}

/// One pod's ports.
pub(super) struct Pod {
    pub(super) locks: Arc<dyn SessionLocks>,
    pub(super) routes: Arc<dyn Routes>,
    pub(super) kills: Arc<dyn KillBus>,
    pub(super) tokens: Arc<dyn TokenCache>,
}

impl Pod {
    fn new<S: SessionLocks + Routes + KillBus + TokenCache + 'static>(store: S) -> Self {
        let store = Arc::new(store);
        Self { locks: store.clone(), routes: store.clone(), kills: store.clone(), tokens: store }
    }
}

impl Fleet {
    pub(super) fn memory() -> Self {
        Self::Memory(Store::new())
    }

    /// Pods may do there what docs/operations.md lists, and no more.
    pub(super) async fn redis() -> Self {
        let options = Options { restricted: true, ..Options::default() };
        Self::Redis(Box::new(RedisServer::start_with(options).await))
    }

    /// A new pod.
    pub(super) fn pod(&self, id: &str) -> Pod {
        match self {
            Self::Memory(store) => Pod::new(store.handle(pod(id))),
            Self::Redis(server) => Pod::new::<RedisStore>(server.store()),
        }
    }

    /// Nobody reaches the store from now on.
    pub(super) fn stop(&mut self) {
        match self {
            Self::Memory(store) => store.set_down(true),
            Self::Redis(server) => server.stop(),
        }
    }

    /// It is there again, without data.
    pub(super) async fn start_again_empty(&mut self) {
        match self {
            Self::Memory(store) => {
                store.flush();
                store.set_down(false);
            }
            Self::Redis(server) => server.start_again_empty().await,
        }
    }

    /// It takes calls and answers none.
    pub(super) fn freeze(&self) {
        match self {
            Self::Memory(store) => store.set_frozen(true),
            Self::Redis(server) => server.freeze(),
        }
    }

    /// It answers again, data and all.
    pub(super) fn thaw(&self) {
        match self {
            Self::Memory(store) => store.set_frozen(false),
            Self::Redis(server) => server.thaw(),
        }
    }

    /// It answers every call, and carries none out; or lets pods do again what they may.
    pub(super) async fn deny(&self, deny: bool) {
        match self {
            Self::Memory(store) => store.set_denying(deny),
            Self::Redis(server) => {
                let rules = documented_rules();
                let denied = rules.iter().cloned().chain(["-@all".to_owned()]).collect::<Vec<_>>();
                server.allow(if deny { &denied } else { &rules }).await;
            }
        }
    }

    /// Puts something else under the name of a session's lock.
    pub(super) async fn put_no_lock(&self, session: &SessionKey) {
        match (self, session) {
            (Self::Memory(store), _) => store.refuse_lock(session, true),
            (Self::Redis(server), SessionKey::User { company, agent, user }) => {
                let mut push = redis::cmd("RPUSH");
                push.arg(format!("session:{company}:{agent}:{user}")).arg("x");
                push.exec_async(&mut server.client().await).await.unwrap();
            }
            (Self::Redis(server), SessionKey::Admin { admin }) => {
                let mut push = redis::cmd("RPUSH");
                push.arg(format!("session:admin:{admin}")).arg("x").exec_async(&mut server.client().await).await.unwrap();
            }
        }
    }

    /// What a pod of the predecessor finds for a token, read past our own ports.
    pub(super) async fn opened_token(&self, digest: &str) -> Option<bytes::Bytes> {
        match self {
            Self::Memory(store) => store.handle(pod("old")).opened_token(digest).await.unwrap(),
            Self::Redis(server) => {
                let entry: Option<Vec<u8>> =
                    redis::cmd("GET").arg(format!("token_cache:{digest}")).query_async(&mut server.client().await).await.unwrap();
                entry.map(bytes::Bytes::from)
            }
        }
    }

    /// Cuts every subscription once.
    pub(super) async fn interrupt_listeners(&self) {
        match self {
            Self::Memory(store) => store.interrupt_listeners(),
            Self::Redis(server) => {
                let mut kill = redis::cmd("CLIENT");
                kill.arg("KILL").arg("TYPE").arg("pubsub").exec_async(&mut server.client().await).await.unwrap();
            }
        }
    }
}

/// The next signal; a failure if none comes.
pub(super) async fn signal(listener: &mut Box<dyn KillListener>) -> KillSignal {
    wait::within("a signal of the kill bus", listener.next()).await
}

pub(super) fn pod(id: &str) -> PodId {
    PodId::parse(id).unwrap()
}

/// Asks for routes without having any.
pub(super) fn nobody() -> PodId {
    pod("nobody")
}

pub(super) fn record(id: &str) -> PodRecord {
    PodRecord { id: pod(id), address: format!("{id}.svc:50051"), started_at: Duration::from_millis(1_700_000_000_123) }
}

/// `pod/connection`, or a bare pod.
pub(super) fn owner(text: &str) -> LockOwner {
    LockOwner::parse(text).unwrap()
}

pub(super) fn user(id: &str) -> SessionKey {
    SessionKey::User { company: company(), agent: agent(), user: UserId::parse(id).unwrap() }
}

pub(super) fn admin(id: &str) -> SessionKey {
    SessionKey::Admin { admin: AdminId::parse(id).unwrap() }
}

pub(super) fn company() -> CompanyId {
    CompanyId::parse("acme").unwrap()
}

pub(super) fn agent() -> AgentId {
    AgentId::parse("desk").unwrap()
}

pub(super) fn chat(id: &str) -> ChatId {
    ChatId::parse(id).unwrap()
}
