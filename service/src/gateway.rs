//! The composition root: the only place that knows both ports and adapters. It constructs and spawns, and decides nothing.
//!
//! [`Gateway::bind`] has all that can fail; [`Gateway::run`] serves until the soft token, drains, and ends.

mod choice;

use std::{net::SocketAddr, sync::Arc};

use axum::Router;
use daisi_ws_domain::{
    ids::{IdError, PodId},
    peer::PodRecord,
};
use futures_util::FutureExt as _;

pub use self::choice::{BackendChoice, StoreChoice, StreamChoice};
use crate::{
    adapters::{
        grpc::{GrpcPeers, GrpcServer, GrpcServerError, GrpcServerSettings, PeersSettings, SelfCheck, Tls, TlsError, TlsFiles},
        http::{HttpParts, HttpServer, Intake, probe_router, router},
        nats::{ConsumerDefaults, NatsReplay, NatsSource, NatsStartError},
        redis::{ConfigError as RedisConfigError, RedisStore},
    },
    application::{
        admission::throttle::Throttle,
        auth::{
            authenticator::{Authenticator, TokenKeys},
            mint::Minter,
        },
        fleet::key::FleetKey,
    },
    config::{
        Config, ConfigWatch, Server, TokenCacheKind, advertise_address, grpc_bind_ip, host_address, host_name, pod_id,
        probe_bind_ip,
    },
    metrics::{Metrics, labels::Lenience},
    pod::{Backends, Pod},
    ports::{EventSource, KillBus, Peers, Replay, Routes, SessionLocks, TokenCache},
    readiness::{Dependency, Readiness},
    runtime::{
        clock,
        fine_timer::FineTimer,
        lifecycle::{Shutdown, Tasks},
        workers::Teams,
    },
};

/// Why a pod could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The pod's name breaks the rule of pod ids; set `server.pod_id`.
    #[error("server.pod_id: {0}")]
    PodId(#[from] IdError),
    /// A listener could not be had.
    #[error("can't listen for browsers on {address} (server.http_port): {source}")]
    Http {
        /// The address that could not be bound.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The listener for probes could not be had.
    #[error("can't listen for probes on {address} (server.probe_port): {source}")]
    Probe {
        /// The address that could not be bound.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The listener for peers could not be had.
    #[error(transparent)]
    Grpc(#[from] GrpcServerError),
    /// The certificate for pods can't be used.
    #[error("server.grpc_tls_*: {0}")]
    Tls(#[from] TlsError),
    /// The stream can't be had as configured.
    #[error("nats: {0}")]
    Nats(#[from] NatsStartError),
    /// The session store can't be had as configured.
    #[error("redis: {0}")]
    Redis(#[from] RedisConfigError),
    /// A token key is none.
    #[error("auth: {0}")]
    Keys(#[from] crate::application::auth::token::KeyError),
}

/// Why a pod ended otherwise than it was told to.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The server for peers failed.
    #[error(transparent)]
    Grpc(#[from] GrpcServerError),
    /// Another process lives under this pod's id.
    #[error("another pod lives under the id {0}: give each a name of its own (server.pod_id)")]
    IdTaken(PodId),
}

/// A pod whose listeners are bound.
#[derive(Debug)]
pub struct Gateway {
    me: PodRecord,
    pod: Pod,
    http: HttpServer,
    routes: Router,
    probes: Option<(HttpServer, Router)>,
    grpc: GrpcServer,
    grpc_settings: GrpcServerSettings,
    readiness: Readiness,
    config: ConfigWatch,
    tasks: Tasks,
    metrics: Arc<Metrics>,
}

impl Gateway {
    /// Binds the listeners, connects the backends and starts the pod. `extra` routes are served beside a pod's own.
    ///
    /// # Errors
    /// When an address can't be had, or a backend can't be had as configured. A Redis or NATS that is merely away is no error,
    /// unless `nats.retry_on_failed_connect` is off.
    pub async fn bind(
        config: &ConfigWatch,
        choice: BackendChoice,
        shutdown: Shutdown,
        metrics: &Arc<Metrics>,
        extra: Option<Router>,
    ) -> Result<Self, StartError> {
        let settings = config.current();
        let host = host_name();
        let server = &settings.server;
        let grpc = GrpcServer::bind(SocketAddr::new(grpc_bind_ip(server), server.grpc_port)).await?;
        let id = pod_id(&settings.server, &host, grpc.local_addr().port())?;
        let tasks = Tasks::new(shutdown, Arc::clone(metrics), tracing::info_span!("pod", pod.id = %id));
        let address = SocketAddr::new(server.bind_address, server.http_port);
        let http = HttpServer::bind(address).await.map_err(|source| StartError::Http { address, source })?;
        let probe_server = probe_server(server).await?;
        let grpc_port = grpc.local_addr().port();
        let address = advertise_address(&settings.server, &id, grpc_port, || host_address(&host));
        let me = PodRecord { id: id.clone(), address, started_at: clock::now() };

        warn_of_lenience(&settings.server, metrics);
        let key = FleetKey::derive(&settings.auth.token_aes_key, &settings.auth.admin_token_aes_key);
        let tls = tls(&settings.server, &tasks)?;
        let readiness = Readiness::default();
        let around = Around { config: &settings, me: &id, key: &key, tls: tls.as_ref(), readiness: &readiness, tasks: &tasks };
        let (backends, cache) = backends(&choice, around).await?;
        let live = config.subscribe();
        let pod = Pod::start(&me, &live, &backends, readiness.clone(), &tasks, metrics);
        let auth = Authenticator::new(live.clone(), cache, Arc::clone(metrics), clock::now)?;
        let parts = HttpParts {
            config: live.clone(),
            auth: Arc::new(auth),
            minter: Minter::new(TokenKeys::parse(&settings.auth)?, clock::now),
            connector: Arc::clone(pod.connector()),
            throttle: Arc::new(Throttle::new(live, Arc::clone(metrics))),
            readiness: readiness.clone(),
            metrics: Arc::clone(metrics),
            tasks: tasks.clone(),
        };
        let grpc_settings = GrpcServerSettings {
            me: me.clone(),
            key,
            allow_unauthenticated: settings.server.grpc_allow_unauthenticated,
            accept_previous: settings.server.grpc_accept_previous,
            tls,
            enable_reflection: settings.server.enable_reflection,
        };
        Ok(Self {
            me,
            pod,
            http,
            probes: probe_server.map(|server| (server, probe_router(&parts))),
            routes: router(parts, extra),
            grpc,
            grpc_settings,
            readiness,
            config: config.clone(),
            tasks,
            metrics: Arc::clone(metrics),
        })
    }

    /// This pod, as others know it: id, address, start.
    #[must_use]
    pub fn record(&self) -> &PodRecord {
        &self.me
    }

    /// Where browsers connect, with the port that was picked.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http.local_addr()
    }

    /// Where probes ask, if not only where browsers connect.
    #[must_use]
    pub fn probe_addr(&self) -> Option<SocketAddr> {
        self.probes.as_ref().map(|(server, _)| server.local_addr())
    }

    /// Where peers connect, with the port that was picked.
    #[must_use]
    pub fn grpc_addr(&self) -> SocketAddr {
        self.grpc.local_addr()
    }

    /// What `/ready` says, for who wants to know without HTTP.
    #[must_use]
    pub fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    /// The owner of this pod's tasks, for what is to live as long as the pod.
    #[must_use]
    pub fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    /// Serves on the workers until the soft token is cancelled, then drains and ends, at the latest after
    /// `app.shutdown_timeout_seconds`. The hard token ends it at once.
    ///
    /// # Errors
    /// When the server for peers fails by itself, or another pod lives under this one's id: the pod is drained all the same.
    pub async fn run(self, workers: Teams) -> Result<(), RunError> {
        let Self { me, pod, http, routes, probes, grpc, grpc_settings, readiness, config, tasks, metrics } = self;
        let shutdown = tasks.shutdown().clone();
        tracing::info!(
            pod.id = %me.id, http.address = %http.local_addr(), grpc.address = %grpc.local_addr(), grpc.advertised = %me.address,
            "the pod serves"
        );
        http.serve(routes, Intake::Browsers(config.subscribe()), &tasks, &workers.sockets, pod.sequence().browsers().clone());
        if let Some((server, routes)) = probes {
            tracing::info!(probe.address = %server.local_addr(), "probes are answered on a port of their own");
            // Away from the sockets' threads, and until everything else has ended.
            server.serve(routes, Intake::Probes, &tasks, &workers.probes, shutdown.hard.clone());
        }
        let (look, watched) = (
            SelfCheck::new(me.clone(), grpc.local_addr(), grpc_settings.key.clone(), grpc_settings.tls.clone()),
            readiness.clone(),
        );
        tasks.supervise("look at the port for pods", move || {
            let (look, watched) = (look.clone(), watched.clone());
            async move { look.watch(&watched).await }
        });
        let mut peers =
            std::pin::pin!(grpc.serve(pod.peer_service(), grpc_settings, metrics, pod.sequence().peers().clone()).fuse());
        let mut failure = Ok(());
        tokio::select! {
            ended = &mut peers => {
                readiness.observe(Dependency::Grpc, false);
                tracing::error!("the server for peers ended by itself; the pod drains");
                failure = ended.map_err(RunError::from);
            }
            () = pod.id_lost() => failure = Err(RunError::IdTaken(me.id.clone())),
            () = shutdown.soft.cancelled() => {}
        }
        let allowed = config.current().app.shutdown_timeout;
        tracing::info!(pod.id = %me.id, timeout = ?allowed, "the pod drains");
        failure = failure.and(pod.end(peers, &tasks, allowed).await.map_err(RunError::from));
        tracing::info!(pod.id = %me.id, "the pod has ended");
        failure
    }
}

async fn probe_server(server: &Server) -> Result<Option<HttpServer>, StartError> {
    if server.probe_port == 0 {
        return Ok(None);
    }
    let address = SocketAddr::new(probe_bind_ip(server), server.probe_port);
    HttpServer::bind(address).await.map(Some).map_err(|source| StartError::Probe { address, source })
}

/// Says which doors stand open that are meant for a migration or a rollout, and shows it for as long as they do.
fn warn_of_lenience(server: &Server, metrics: &Metrics) {
    let open = [
        (
            Lenience::AllowUnauthenticated,
            server.grpc_allow_unauthenticated,
            "events are taken from anyone who reaches the port for pods",
        ),
        (Lenience::AcceptPrevious, server.grpc_accept_previous, "answers and records that prove nothing are believed"),
    ];
    for (setting, is_open, meaning) in open {
        let setting = setting.as_str();
        metrics.grpc_lenient.with_label_values(&[setting]).set(i64::from(is_open));
        if is_open {
            tracing::warn!(setting = format!("server.{setting}"), "{meaning}; switch it off when all pods are of this version");
        }
    }
}

/// TLS between pods, where it is configured, and the task that reads its files again.
fn tls(server: &Server, tasks: &Tasks) -> Result<Option<Tls>, TlsError> {
    let (Some(certificate), Some(key), Some(ca)) =
        (&server.grpc_tls_certificate_file, &server.grpc_tls_key_file, &server.grpc_tls_ca_file)
    else {
        return Ok(None);
    };
    let server_name = Some(server.grpc_tls_server_name.clone()).filter(|name| !name.is_empty());
    let tls = Tls::load(TlsFiles { certificate: certificate.clone(), key: key.clone(), ca: ca.clone(), server_name })?;
    let watched = tls.clone();
    tasks.supervise("certificate for pods", move || {
        let tls = watched.clone();
        async move { tls.watch().await }
    });
    Ok(Some(tls))
}

type Cache = Option<Arc<dyn TokenCache>>;

struct Around<'a> {
    config: &'a Config,
    me: &'a PodId,
    key: &'a FleetKey,
    tls: Option<&'a Tls>,
    readiness: &'a Readiness,
    tasks: &'a Tasks,
}

struct EventStream {
    source: Arc<dyn EventSource>,
    replay: Arc<dyn Replay>,
}

async fn backends(choice: &BackendChoice, around: Around<'_>) -> Result<(Backends, Cache), StartError> {
    let Around { config, me, key, tls, readiness, tasks } = around;
    let stream = match &choice.stream {
        StreamChoice::Nats => EventStream {
            source: Arc::new(NatsSource::connect(&config.nats, ConsumerDefaults::from(&config.app), tasks).await?),
            replay: Arc::new(NatsReplay::connect(&config.nats).await?),
        },
        StreamChoice::Memory(stream) => {
            EventStream { source: Arc::new(stream.handle(me.clone())), replay: Arc::new(stream.handle(me.clone())) }
        }
    };
    let settings = PeersSettings {
        me: me.clone(),
        key: key.clone(),
        accept_previous: config.server.grpc_accept_previous,
        tls: tls.cloned(),
        idle_timeout: config.app.grpc_pool_idle_timeout,
        health_check_interval: config.app.grpc_pool_health_check_interval,
    };
    let peers: Arc<dyn Peers> = Arc::new(GrpcPeers::new(settings, Arc::clone(tasks.metrics()), tasks));
    let kind = config.auth.token_cache;
    Ok(match &choice.store {
        StoreChoice::Redis => {
            let store = RedisStore::new(&config.redis, tasks.clone())?;
            let store = Arc::new(store.with_fleet_key(key.clone(), config.server.grpc_accept_previous));
            store.watch(readiness.clone());
            (join(&store, stream, peers), cache(kind, store))
        }
        StoreChoice::Memory(store) => {
            let store = Arc::new(store.handle(me.clone()));
            (join(&store, stream, peers), cache(kind, store))
        }
    })
}

fn join<S: SessionLocks + Routes + KillBus + 'static>(store: &Arc<S>, stream: EventStream, peers: Arc<dyn Peers>) -> Backends {
    Backends {
        locks: Arc::clone(store) as _,
        routes: Arc::clone(store) as _,
        kills: Arc::clone(store) as _,
        source: stream.source,
        replay: stream.replay,
        peers,
        timer: Arc::new(FineTimer::of_the_kernel()),
    }
}

fn cache<S: TokenCache + 'static>(kind: TokenCacheKind, store: Arc<S>) -> Cache {
    match kind {
        TokenCacheKind::Redis => Some(store),
        TokenCacheKind::Memory | TokenCacheKind::Off => None,
    }
}
