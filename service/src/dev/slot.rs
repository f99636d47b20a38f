//! One pod's place in a dev fleet: it keeps its name and ports while the pod in it is started, frozen, drained and killed.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::Router;
use daisi_ws_domain::ids::PodId;
use serde::Serialize;

use super::{error::FleetError, gate::Gate};
use crate::{
    config::{Config, ConfigWatch},
    gateway::{BackendChoice, Gateway, RunError, StartError, StoreChoice, StreamChoice},
    metrics::Metrics,
    readiness::Readiness,
    runtime::{
        lifecycle::{Shutdown, Tasks},
        workers::Teams,
    },
    telemetry::Chain,
};

/// What the pod in a slot does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Phase {
    /// It binds and connects.
    Starting,
    /// It serves.
    Running,
    /// Its sockets and calls stand still, and it is cut off from store and stream.
    Frozen,
    /// It was asked to end and brings what is under way to an end.
    Draining,
    /// There is none.
    Stopped,
}

/// Why a pod was not changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChangeError {
    /// Not from where it is.
    #[error("the pod is {0:?}: {1}")]
    Phase(Phase, &'static str),
    /// Not with real servers.
    #[error(
        "a pod of a fleet on real servers can't be cut off from them from within; run pods of their own (`serve`) and stop one \
        with SIGSTOP"
    )]
    RealServers,
    /// It does not start.
    #[error("the pod can't start: {0}")]
    Start(#[from] StartError),
    /// It has no metrics.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}

/// The pod that is, or was, in a slot.
#[derive(Debug, Clone)]
pub(super) struct Tenant {
    pub(super) phase: Phase,
    pub(super) metrics: Arc<Metrics>,
    pub(super) readiness: Readiness,
    /// Which start this is: what an earlier pod's end has to say is not about this one.
    start: u64,
    shutdown: Shutdown,
}

/// A pod's place.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: PodId,
    pub(super) http: Gate,
    pub(super) grpc: Gate,
    settings: Config,
    backends: BackendChoice,
    fleet: Shutdown,
    tasks: Tasks,
    workers: Teams,
    tenant: Mutex<Tenant>,
}

/// What all slots of a fleet share.
#[derive(Debug)]
pub(super) struct Common<'a> {
    pub(super) settings: &'a Config,
    pub(super) backends: &'a BackendChoice,
    pub(super) fleet: &'a Shutdown,
    /// Own the doors: they outlive the pods, so that a drain's goodbyes get through.
    pub(super) doors: &'a Tasks,
    /// Own the pods.
    pub(super) pods: &'a Tasks,
    /// Serve the pods.
    pub(super) workers: &'a Teams,
}

impl Slot {
    /// Binds the doors of a pod that does not run yet.
    pub(super) async fn new(id: PodId, http_port: u16, common: &Common<'_>) -> Result<Self, FleetError> {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let at_start = |address, source| FleetError::Start { pod: id.to_string(), source: StartError::Http { address, source } };
        let bind = async |port| Gate::bind(local(port), common.doors).await.map_err(|e| at_start(local(port), e));
        let (http, grpc) = (bind(http_port).await?, bind(0).await?);
        let mut settings = common.settings.clone();
        settings.server.pod_id = id.to_string();
        (settings.server.http_port, settings.server.grpc_port, settings.server.probe_port) = (0, 0, 0);
        settings.server.grpc_advertise_address = grpc.address().to_string();
        let tenant = Tenant {
            phase: Phase::Stopped,
            metrics: Arc::new(Metrics::new()?),
            readiness: Readiness::default(),
            start: 0,
            shutdown: Shutdown::default(),
        };
        Ok(Self {
            id,
            http,
            grpc,
            settings,
            backends: common.backends.clone(),
            fleet: common.fleet.clone(),
            tasks: common.pods.clone(),
            workers: common.workers.clone(),
            tenant: Mutex::new(tenant),
        })
    }

    /// The pod as it is now.
    pub(super) fn tenant(&self) -> Tenant {
        self.lock().clone()
    }

    /// Starts a pod in this slot, as a new process would be.
    pub(super) async fn start(self: &Arc<Self>, extra: Router) -> Result<(), ChangeError> {
        let metrics = Arc::new(Metrics::with(self.settings.telemetry.metrics)?);
        // A pod ends with the fleet, and the end of one (its hard token) leaves the others alone.
        let own = Shutdown { soft: self.fleet.soft.child_token(), hard: self.fleet.hard.child_token() };
        let start = {
            let mut tenant = self.lock();
            if tenant.phase != Phase::Stopped {
                return Err(ChangeError::Phase(tenant.phase, "only a stopped one can be started"));
            }
            tenant.phase = Phase::Starting;
            tenant.shutdown = own.clone();
            tenant.start += 1;
            tenant.start
        };
        self.cut_off(false);
        let config = ConfigWatch::fixed(self.settings.clone(), Arc::clone(&metrics));
        let bound = Box::pin(Gateway::bind(&config, self.backends.clone(), own, &metrics, Some(extra))).await;
        let gateway = bound.inspect_err(|_| self.ended(start))?;
        {
            let mut tenant = self.lock();
            tenant.phase = Phase::Running;
            tenant.metrics = metrics;
            tenant.readiness = gateway.readiness().clone();
        }
        self.http.open(gateway.http_addr());
        self.grpc.open(gateway.grpc_addr());
        let slot = Arc::clone(self);
        self.tasks.spawn("dev pod", async move {
            slot.report(Box::pin(gateway.run(slot.workers.clone())).await);
            slot.ended(start);
        });
        Ok(())
    }

    /// Asks the pod to end, as SIGTERM does.
    pub(super) fn drain(&self) -> Result<(), ChangeError> {
        let mut tenant = self.lock();
        if tenant.phase != Phase::Running {
            return Err(ChangeError::Phase(tenant.phase, "only a running one can be drained"));
        }
        tenant.phase = Phase::Draining;
        tenant.shutdown.soft.cancel();
        Ok(())
    }

    /// Ends the pod as SIGKILL does: it tells nobody, and its locks and routes stay behind until others take or drop them.
    pub(super) fn kill(&self) -> Result<(), ChangeError> {
        let (start, shutdown) = {
            let tenant = self.lock();
            if tenant.phase == Phase::Stopped || tenant.phase == Phase::Starting {
                return Err(ChangeError::Phase(tenant.phase, "there is nothing to kill"));
            }
            (tenant.start, tenant.shutdown.clone())
        };
        // First, or its last acts would be those of a pod that knows that it ends.
        self.cut_off(true);
        self.ended(start);
        shutdown.hard.cancel();
        shutdown.soft.cancel();
        Ok(())
    }

    /// Freezes the pod or lets it go on: bytes of sockets and of peers' calls stand still, and store and stream are out of its
    /// reach.
    ///
    /// What it differs in from SIGSTOP: the pod's own timers run on.
    pub(super) fn freeze(&self, frozen: bool) -> Result<(), ChangeError> {
        if !self.can_be_cut_off() {
            return Err(ChangeError::RealServers);
        }
        let (from, to) = if frozen { (Phase::Running, Phase::Frozen) } else { (Phase::Frozen, Phase::Running) };
        {
            let mut tenant = self.lock();
            if tenant.phase != from {
                let why = if frozen { "only a running one can be frozen" } else { "only a frozen one can be thawed" };
                return Err(ChangeError::Phase(tenant.phase, why));
            }
            tenant.phase = to;
        }
        self.cut_off(frozen);
        self.http.freeze(frozen);
        self.grpc.freeze(frozen);
        Ok(())
    }

    fn can_be_cut_off(&self) -> bool {
        matches!(self.backends, BackendChoice { store: StoreChoice::Memory(_), stream: StreamChoice::Memory(_) })
    }

    /// Cuts the pod off from the backends in memory, or heals the cut.
    fn cut_off(&self, cut: bool) {
        let BackendChoice { store, stream } = &self.backends;
        if let StoreChoice::Memory(store) = store {
            store.cut(&self.id, cut);
        }
        if let StreamChoice::Memory(stream) = stream {
            stream.cut(&self.id, cut);
        }
    }

    fn ended(&self, start: u64) {
        let mut tenant = self.lock();
        if tenant.start == start && tenant.phase != Phase::Stopped {
            tenant.phase = Phase::Stopped;
            // The counters stay to be looked at.
            self.http.shut();
            self.grpc.shut();
        }
    }

    fn report(&self, ended: Result<(), RunError>) {
        if let Err(error) = ended {
            tracing::error!(pod.id = %self.id, error = %Chain(&error), "the pod ended by itself");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Tenant> {
        self.tenant.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
