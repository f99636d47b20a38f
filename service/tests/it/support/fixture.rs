//! A whole configuration for tests that start from less than the shipped defaults, and the keys in it.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{ids::PodId, peer::PodRecord};
use daisi_ws_service::{
    adapters::memory::{
        network::Network,
        store::Store,
        stream::{Stream, StreamOptions},
    },
    application::{
        admission::connect::Connector,
        auth::{
            authenticator::{Authenticator, TokenKeys},
            mint::{AdminTokenRequest, Minter, UserTokenRequest},
        },
    },
    config::{Config, Secret, TokenCacheKind},
    metrics::Metrics,
    pod::{Backends, Pod},
    readiness::Readiness,
    runtime::{
        fine_timer::FineTimer,
        lifecycle::{Shutdown, Tasks},
    },
};
use tokio::sync::watch;

use super::config::test_config;

/// The browsers' API key.
pub(crate) const API_KEY: &str = "browsers-hold-this-key";
/// The key of the token API.
pub(crate) const MINT_KEY: &str = "only-the-back-end-holds-this-key";
/// Life of the ready-made tokens: longer than any test.
const TEN_MINUTES: i64 = 600;
/// The longest life of a token.
pub(crate) const MAX_TOKEN_TTL: u64 = 86_400;

/// The key of user tokens.
pub(crate) fn user_key() -> String {
    "1a".repeat(32)
}

/// The key of admin tokens.
pub(crate) fn admin_key() -> String {
    "2b".repeat(32)
}

/// The shipped defaults with the fixture's keys, on free ports and without a token cache.
pub(crate) fn config() -> Config {
    let mut config = test_config();
    config.server.bind_address = std::net::Ipv4Addr::LOCALHOST.into();
    (config.server.http_port, config.server.grpc_port) = (0, 0);
    config.auth.secret_token = Secret::new(API_KEY);
    config.auth.token_generation_admin_key = Secret::new(MINT_KEY);
    config.auth.token_aes_key = Secret::new(user_key());
    config.auth.admin_token_aes_key = Secret::new(admin_key());
    config.auth.max_token_ttl = Duration::from_secs(MAX_TOKEN_TTL);
    config.auth.token_cache = TokenCacheKind::Off;
    config
}

/// The connector of a pod on memory backends that has no room for anybody.
pub(crate) fn full_connector(metrics: &Arc<Metrics>) -> Arc<Connector> {
    let mut config = config();
    config.app.max_connections = 0;
    connector(config, &Store::new(), metrics)
}

/// A connector of a pod that is alone, on this store.
pub(crate) fn connector(config: Config, store: &Store, metrics: &Arc<Metrics>) -> Arc<Connector> {
    let tasks = Tasks::new(Shutdown::default(), Arc::clone(metrics), tracing::Span::none());
    let id = PodId::parse("pod-full").unwrap();
    let me = PodRecord { id: id.clone(), address: "pod-full:1".to_owned(), started_at: Duration::ZERO };
    let store = Arc::new(store.handle(id.clone()));
    let stream = Arc::new(Stream::new(StreamOptions::default()).handle(id.clone()));
    let backends = Backends {
        locks: Arc::clone(&store) as _,
        routes: Arc::clone(&store) as _,
        kills: store,
        source: Arc::clone(&stream) as _,
        replay: stream,
        peers: Arc::new(Network::new().handle(id)),
        timer: Arc::new(FineTimer::of_the_runtime()),
    };
    let (_, config) = watch::channel(Arc::new(config));
    Arc::clone(Pod::start(&me, &config, &backends, Readiness::default(), &tasks, metrics).connector())
}

/// A request for a token of `user` at `company` and `agent` that lives for a minute.
pub(crate) fn user_request(company: &str, agent: &str, user: &str) -> UserTokenRequest {
    UserTokenRequest { company_id: company.into(), agent_id: agent.into(), user_id: user.into(), expires_in_seconds: 60 }
}

/// A request for a token of an admin that sees all, for a minute.
pub(crate) fn admin_request(admin: &str) -> AdminTokenRequest {
    AdminTokenRequest {
        admin_id: admin.into(),
        expires_in_seconds: 60,
        subscribed_company_id: None,
        subscribed_agent_id: None,
        company_id_restriction: None,
    }
}

/// A token of `user`, as the fixture's keys and the real clock make it.
pub(crate) fn user_token(company: &str, agent: &str, user: &str) -> String {
    let request = UserTokenRequest { expires_in_seconds: TEN_MINUTES, ..user_request(company, agent, user) };
    minter(daisi_ws_service::runtime::clock::now).user(&request, Duration::from_secs(MAX_TOKEN_TTL)).unwrap()
}

/// A token of an admin that sees all.
pub(crate) fn admin_token(admin: &str) -> String {
    let request = AdminTokenRequest { expires_in_seconds: TEN_MINUTES, ..admin_request(admin) };
    minter(daisi_ws_service::runtime::clock::now).admin(&request, Duration::from_secs(MAX_TOKEN_TTL)).unwrap()
}

/// Makes tokens with the fixture's keys, by the given clock.
pub(crate) fn minter(clock: fn() -> Duration) -> Minter {
    Minter::new(TokenKeys::parse(&config().auth).unwrap(), clock)
}

/// An authenticator of the fixture's keys without a cache, and its metrics.
pub(crate) fn authenticator(config: Config, metrics: &Arc<Metrics>) -> Arc<Authenticator> {
    let (_, config) = watch::channel(Arc::new(config));
    Arc::new(Authenticator::new(config, None, Arc::clone(metrics), daisi_ws_service::runtime::clock::now).unwrap())
}
