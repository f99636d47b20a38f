//! Starts the pods of a dev fleet and runs them until a signal.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use futures_util::future::join_all;

use super::{
    publish::{self, Sink},
    welcome,
};
use crate::{
    adapters::{
        grpc::GrpcServerError,
        memory::{
            store::Store,
            stream::{Stream, StreamOptions},
        },
    },
    application::{
        auth::TokenKeys,
        mint::{AdminTokenRequest, MintError, Minter, UserTokenRequest},
        token::KeyError,
    },
    clock,
    config::{Config, ConfigWatch},
    gateway::{Gateway, StartError, StoreChoice, StreamChoice},
    lifecycle::Shutdown,
    metrics::Metrics,
};

/// Life of the ready-made tokens: a working day and more.
const TOKEN_LIFE_SECONDS: i64 = 7 * 86_400;
/// A dev fleet has few sockets and an impatient owner.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Pods.
    pub pods: u16,
    /// A real NATS, in place of the one in memory.
    pub nats: Option<String>,
    /// A real Redis (`host:port`), in place of the one in memory.
    pub redis: Option<String>,
    /// HTTP port of the first pod; the next pods have the next ports. With 0, each has a free one.
    pub base_port: u16,
}

/// Why a fleet could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// A pod could not start; if its port is taken, choose others with `--port`.
    #[error("pod {pod} can't start: {source}")]
    Start {
        /// Which.
        pod: String,
        /// Why not.
        source: StartError,
    },
    /// The metrics can't be made.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
    /// The ready-made tokens can't be made.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The ready-made tokens can't be made.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// The process may not listen to signals.
    #[error("can't listen to signals: {0}")]
    Signals(#[from] std::io::Error),
    /// A pod's server for peers failed.
    #[error(transparent)]
    Peers(#[from] GrpcServerError),
}

/// A ready-made token.
#[derive(Debug, Clone)]
pub struct Ticket {
    /// Path of the socket that it opens.
    pub path: String,
    /// Whose.
    pub name: &'static str,
    /// The token.
    pub token: String,
}

/// Pods that are bound and started.
#[derive(Debug)]
pub struct Fleet {
    pods: Vec<Gateway>,
    shutdown: Shutdown,
    api_key: String,
    tickets: Vec<Ticket>,
    plan: Plan,
}

impl Fleet {
    /// Binds and starts every pod. `config` must have its secrets.
    ///
    /// # Errors
    /// When a pod can't start.
    pub async fn start(plan: &Plan, config: &Config) -> Result<Self, FleetError> {
        let mut settings = config.clone();
        settings.server.bind_address = Ipv4Addr::LOCALHOST.into();
        settings.server.grpc_port = 0;
        settings.server.grpc_advertise_address = String::new();
        settings.app.shutdown_timeout = settings.app.shutdown_timeout.min(SHUTDOWN_TIMEOUT);
        let store = match &plan.redis {
            Some(address) => {
                settings.redis.address.clone_from(address);
                StoreChoice::Redis
            }
            None => StoreChoice::Memory(Store::new()),
        };
        let (stream, sink) = match &plan.nats {
            Some(url) => {
                settings.nats.url.clone_from(url);
                (StreamChoice::Nats, Sink::Nats(Arc::new(settings.nats.clone())))
            }
            None => {
                let options = StreamOptions {
                    ack_wait: settings.app.nats_ack_wait,
                    max_ack_pending: settings.app.nats_max_ack_pending,
                    ..StreamOptions::default()
                };
                let stream = Stream::new(options);
                (StreamChoice::Memory(stream.clone()), Sink::Memory(stream))
            }
        };
        let shutdown = Shutdown::default();
        let mut pods = Vec::new();
        for number in 0..plan.pods {
            let mut settings = settings.clone();
            settings.server.pod_id = format!("dev-{}", number + 1);
            settings.server.http_port = if plan.base_port == 0 { 0 } else { plan.base_port + number };
            let pod = settings.server.pod_id.clone();
            let metrics = Arc::new(Metrics::with(config.telemetry.metrics)?);
            let config = ConfigWatch::fixed(settings, Arc::clone(&metrics));
            // A pod ends with the fleet, and the end of one (its hard token) leaves the others alone.
            let own = Shutdown { soft: shutdown.soft.child_token(), hard: shutdown.hard.child_token() };
            let extra = Some(publish::routes(sink.clone()));
            let gateway = Box::pin(Gateway::bind(&config, (store.clone(), stream.clone()), own, &metrics, extra)).await;
            pods.push(gateway.map_err(|source| FleetError::Start { pod, source })?);
        }
        let minter = Minter::new(TokenKeys::parse(&settings.auth)?, clock::now);
        let api_key = settings.auth.secret_token.expose().to_owned();
        Ok(Self { pods, shutdown, api_key, tickets: tickets(&minter)?, plan: plan.clone() })
    }

    /// Where the pods are, tokens for them, and commands to try: text for a terminal. It has secrets, made for this fleet alone.
    #[must_use]
    pub fn welcome(&self) -> String {
        welcome::text(&self.plan, &self.pods, &self.api_key, &self.tickets)
    }

    /// The pods.
    #[must_use]
    pub fn pods(&self) -> &[Gateway] {
        &self.pods
    }

    /// The ready-made tokens.
    #[must_use]
    pub fn tickets(&self) -> &[Ticket] {
        &self.tickets
    }

    /// The key that browsers hold.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.api_key
    }

    /// Ends the fleet: the soft token drains it.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Serves until a signal, then drains every pod.
    ///
    /// # Errors
    /// When a pod's server for peers fails, or signals can't be heard.
    pub async fn run(self) -> Result<(), FleetError> {
        let shutdown = self.shutdown.clone();
        let pods = join_all(self.pods.into_iter().map(|pod| Box::pin(pod.run())));
        let signals = shutdown.clone().obey_signals(|| {});
        tokio::select! {
            ended = pods => ended.into_iter().collect::<Result<(), _>>().map_err(FleetError::Peers),
            listened = signals => Ok(listened?),
        }
    }
}

fn tickets(minter: &Minter) -> Result<Vec<Ticket>, FleetError> {
    let limit = Duration::from_secs(TOKEN_LIFE_SECONDS.unsigned_abs());
    let user = |user: &'static str| -> Result<Ticket, FleetError> {
        let request = UserTokenRequest {
            company_id: "acme".into(),
            agent_id: "agent-7".into(),
            user_id: user.into(),
            expires_in_seconds: TOKEN_LIFE_SECONDS,
        };
        Ok(Ticket { path: "/ws/acme/agent-7".into(), name: user, token: minter.user(&request, limit)? })
    };
    let admin = AdminTokenRequest {
        admin_id: "root".into(),
        expires_in_seconds: TOKEN_LIFE_SECONDS,
        subscribed_company_id: None,
        subscribed_agent_id: None,
        company_id_restriction: None,
    };
    let admin = Ticket { path: "/ws/admin".into(), name: "root", token: minter.admin(&admin, limit)? };
    Ok(vec![user("sari")?, user("budi")?, admin])
}
