//! Starts the pods of a dev fleet and runs them until a signal.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use daisi_ws_domain::ids::PodId;

use super::{
    control,
    error::FleetError,
    plan::{Login, Plan},
    publish::{Backend, Sink},
    running::Fleet as Running,
    slot::{ChangeError, Common, Slot},
    welcome,
};
use crate::{
    adapters::memory::{
        store::Store,
        stream::{Stream, StreamOptions},
    },
    application::auth::{
        authenticator::TokenKeys,
        mint::{AdminTokenRequest, Minter, UserTokenRequest},
    },
    config::Config,
    gateway::{BackendChoice, StoreChoice, StreamChoice},
    metrics::Metrics,
    runtime::{
        clock,
        lifecycle::{Shutdown, Tasks},
        workers::PodWorkers,
    },
};

/// Life of the ready-made tokens: a working day and more.
const TOKEN_LIFE_SECONDS: i64 = 7 * 86_400;
/// A dev fleet has few sockets and an impatient owner.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// Pods that are bound and started.
#[derive(Debug)]
pub struct Fleet {
    inner: Arc<Running>,
    shutdown: Shutdown,
    pods: Tasks,
    logins: Vec<Login>,
    plan: Plan,
    #[expect(dead_code, reason = "the pods' threads end with it")]
    workers: PodWorkers,
}

impl Fleet {
    /// Binds and starts every pod. `config` must have its secrets.
    ///
    /// # Errors
    /// When a pod can't start.
    pub async fn start(plan: &Plan, config: &Config) -> Result<Self, FleetError> {
        let mut settings = config.clone();
        settings.server.bind_address = Ipv4Addr::LOCALHOST.into();
        settings.server.serve_client = true;
        settings.app.shutdown_timeout = settings.app.shutdown_timeout.min(SHUTDOWN_TIMEOUT);
        let (backends, sink) = backends(plan, &mut settings);
        let shutdown = Shutdown::default();
        let metrics = Arc::new(Metrics::new()?);
        let tasks = |name| Tasks::new(shutdown.clone(), Arc::clone(&metrics), tracing::info_span!("fleet", part = name));
        let (doors, pods) = (tasks("doors"), tasks("pods"));
        let workers = PodWorkers::start().map_err(FleetError::Workers)?;
        let common = Common {
            settings: &settings,
            backends: &backends,
            fleet: &shutdown,
            doors: &doors,
            pods: &pods,
            workers: &workers.teams(),
        };
        let mut slots = Vec::new();
        for number in 0..plan.pods {
            let port = if plan.base_port == 0 { 0 } else { plan.base_port + number };
            let id = PodId::parse(&format!("dev-{}", number + 1))
                .map_err(|source| FleetError::Start { pod: format!("dev-{}", number + 1), source: source.into() })?;
            slots.push(Arc::new(Slot::new(id, port, &common).await?));
        }
        let minter = Minter::new(TokenKeys::parse(&settings.auth)?, clock::now);
        let logins = logins(&minter)?;
        let BackendChoice { store, stream } = backends;
        let inner = Arc::new(Running {
            slots,
            store,
            stream,
            minter,
            max_token_ttl: settings.auth.max_token_ttl,
            api_key: settings.auth.secret_token.expose().to_owned(),
            sink,
        });
        for slot in &inner.slots {
            Box::pin(slot.start(control::routes(&inner))).await.map_err(|source| start_error(&slot.id, source))?;
        }
        Ok(Self { inner, shutdown, pods, logins, plan: plan.clone(), workers })
    }

    /// Where the pods are, tokens for them, and commands to try: text for a terminal. It has secrets, made for this fleet alone.
    #[must_use]
    pub fn welcome(&self) -> String {
        welcome::text(&self.plan, &self.addresses(), self.api_key(), &self.logins)
    }

    /// Name and address of each pod.
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, SocketAddr)> {
        self.inner.slots.iter().map(|slot| (slot.id.to_string(), slot.http.address())).collect()
    }

    /// The key that browsers hold.
    #[must_use]
    pub fn api_key(&self) -> &str {
        &self.inner.api_key
    }

    /// Ends the fleet: the soft token drains it.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Serves until a signal, then drains every pod.
    ///
    /// # Errors
    /// When signals can't be heard.
    pub async fn run(self) -> Result<(), FleetError> {
        let drained = async {
            self.shutdown.soft.cancelled().await;
            self.pods.ended().await;
        };
        let signals = self.shutdown.clone().obey_signals(|| {});
        tokio::select! {
            () = drained => Ok(()),
            listened = signals => Ok(listened?),
        }
    }
}

/// What the pods stand on, and where published events go.
fn backends(plan: &Plan, settings: &mut Config) -> (BackendChoice, Sink) {
    let store = match &plan.redis {
        Some(address) => {
            settings.redis.address.clone_from(address);
            StoreChoice::Redis
        }
        None => StoreChoice::Memory(Store::new()),
    };
    let (stream, backend) = match &plan.nats {
        Some(url) => {
            settings.nats.url.clone_from(url);
            (StreamChoice::Nats, Backend::Nats(Arc::new(settings.nats.clone())))
        }
        None => {
            let options = StreamOptions {
                ack_wait: settings.app.nats_ack_wait,
                max_ack_pending: settings.app.nats_max_ack_pending,
                ..StreamOptions::default()
            };
            let stream = Stream::new(options);
            (StreamChoice::Memory(stream.clone()), Backend::Memory(stream))
        }
    };
    let sink = Sink { subject_prefix: settings.nats.subject_prefix.as_str().into(), backend };
    (BackendChoice { store, stream }, sink)
}

fn start_error(pod: &PodId, error: ChangeError) -> FleetError {
    match error {
        ChangeError::Start(source) => FleetError::Start { pod: pod.to_string(), source },
        ChangeError::Metrics(error) => FleetError::Metrics(error),
        other => FleetError::Order(other.to_string()),
    }
}

fn logins(minter: &Minter) -> Result<Vec<Login>, FleetError> {
    let limit = Duration::from_secs(TOKEN_LIFE_SECONDS.unsigned_abs());
    let user = |user: &'static str| -> Result<Login, FleetError> {
        let request = UserTokenRequest {
            company_id: "acme".into(),
            agent_id: "agent-7".into(),
            user_id: user.into(),
            expires_in_seconds: TOKEN_LIFE_SECONDS,
        };
        Ok(Login { path: "/ws/acme/agent-7".into(), name: user, token: minter.user(&request, limit)? })
    };
    let admin = AdminTokenRequest {
        admin_id: "root".into(),
        expires_in_seconds: TOKEN_LIFE_SECONDS,
        subscribed_company_id: None,
        subscribed_agent_id: None,
        company_id_restriction: None,
    };
    let admin = Login { path: "/ws/admin".into(), name: "root", token: minter.admin(&admin, limit)? };
    Ok(vec![user("sari")?, user("budi")?, admin])
}
