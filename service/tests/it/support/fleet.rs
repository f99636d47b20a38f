//! A fleet of pods in this process, on memory backends and paused time, with clients that speak real WebSocket over in-memory
//! pipes.
//!
//! ```text
//! let fleet = Fleet::start(3).await;
//! let mut sari = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
//! let seq = fleet.publish("wa.acme.a1.chats", "{}");
//! assert_eq!(sari.expect_event().await.seq, seq);
//! ```

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{
    claims::{AdminClaims, Claims, UserClaims},
    ids::{AdminId, AgentId, CompanyId, PodId, UserId},
    peer::PodRecord,
    session::SessionKey,
};
use daisi_ws_service::{
    adapters::memory::{
        network::Network,
        store::Store,
        stream::{Headers, Stream, StreamOptions},
    },
    application::admission::connect::{ConnectError, Wishes},
    config::Config,
    metrics::{Metrics, SPECS},
    pod::{Backends, Pod},
    ports::{EventSource, Routes, SessionLocks},
    readiness::Readiness,
    runtime::{
        clock,
        fine_timer::FineTimer,
        lifecycle::{Shutdown, Tasks},
        workers::Workers,
    },
};
use serde_json::Value;
use tokio::{io::DuplexStream, sync::watch};
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::Role};

use super::{
    client::{Client, Pipe},
    config::test_config,
    slow::Slow,
};

/// Bytes that fit the pipe between a pod and a client that does not read.
const PIPE: usize = 16 * 1024;

/// One pod of the fleet.
pub(crate) struct TestPod {
    pub(crate) id: PodId,
    pub(crate) record: PodRecord,
    pub(crate) pod: Pod,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Arc<Metrics>,
    /// Held, so that the pod sees a configuration that may still change.
    config: watch::Sender<Arc<Config>>,
}

/// Pods, and what they share.
pub(crate) struct Fleet {
    pub(crate) store: Store,
    pub(crate) stream: Stream,
    pub(crate) network: Network,
    pub(crate) pods: Vec<TestPod>,
    /// All pods' sockets are on it.
    pub(crate) workers: Workers,
    /// Stands in the way of the stream, for pods that are added later.
    pub(crate) around_source: Option<Around<dyn EventSource>>,
    settings: Config,
}

/// Makes a backend out of another.
pub(crate) type Around<P> = Box<dyn Fn(Arc<P>) -> Arc<P>>;

/// Stands in the way of a pod's store.
pub(crate) struct Wrap {
    pub(crate) locks: Option<Around<dyn SessionLocks>>,
    pub(crate) routes: Option<Around<dyn Routes>>,
}

/// Has gaps announced, and nothing read again: for what leads to a gap.
pub(crate) fn without_repair(config: &mut Config) {
    config.app.gap_repair = false;
}

/// An operator's claims, good for a day.
pub(crate) fn user(company: &str, agent: &str, user: &str) -> Claims {
    Claims::User(UserClaims {
        company: CompanyId::parse(company).unwrap(),
        agent: AgentId::parse(agent).unwrap(),
        user: UserId::parse(user).unwrap(),
        expires_at: clock::now() + Duration::from_secs(86_400),
    })
}

/// An administrator's claims for one company, or all; good for a day.
pub(crate) fn admin(name: &str, company: Option<&str>) -> Claims {
    let expires_at = clock::now() + Duration::from_secs(86_400);
    Claims::Admin(AdminClaims::new(AdminId::parse(name).unwrap(), company, None, None, expires_at).unwrap())
}

impl Fleet {
    /// Starts so many pods and waits until all know each other.
    pub(crate) async fn start(pods: usize) -> Self {
        Self::with(pods, |_| {}).await
    }

    /// The same with other settings.
    pub(crate) async fn with(pods: usize, tweak: impl FnOnce(&mut Config)) -> Self {
        Self::on(StreamOptions::default(), pods, tweak).await
    }

    /// The same on another stream.
    pub(crate) async fn on(stream: StreamOptions, pods: usize, tweak: impl FnOnce(&mut Config)) -> Self {
        let mut settings = test_config();
        tweak(&mut settings);
        let options =
            StreamOptions { ack_wait: settings.app.nats_ack_wait, max_ack_pending: settings.app.nats_max_ack_pending, ..stream };
        let mut fleet = Self {
            store: Store::new(),
            stream: Stream::new(options),
            network: Network::new(),
            pods: Vec::new(),
            workers: Workers::of_the_runtime(),
            around_source: None,
            settings,
        };
        for _ in 0..pods {
            fleet.add_pod(None).await;
        }
        // Who has just come trusts no look-up for a liveness key's life and two announcements.
        tokio::time::sleep(fleet.settings.app.pod_ttl * 2).await;
        fleet
    }

    /// Adds a pod; `wrap` may stand in the way of its store.
    pub(crate) async fn add_pod(&mut self, wrap: Option<Wrap>) -> usize {
        let id = format!("pod-{}", self.pods.len());
        let at = self.launch(&id, &format!("{id}:50051"), wrap);
        self.network.register(&at.record, at.pod.peer_service());
        at.pod.joined().await;
        self.pods.push(at);
        self.pods.len() - 1
    }

    /// Starts a pod that is none of the fleet's and that nobody can call, and does not wait for anything.
    pub(crate) fn launch(&self, id: &str, address: &str, wrap: Option<Wrap>) -> TestPod {
        let id = PodId::parse(id).unwrap();
        let record = PodRecord { id: id.clone(), address: address.to_owned(), started_at: clock::now() };
        let metrics = Arc::new(Metrics::new().unwrap());
        let tasks = Tasks::new(Shutdown::default(), Arc::clone(&metrics), tracing::info_span!("pod", pod.id = %id));
        let store = Arc::new(self.store.handle(id.clone()));
        let (locks, routes): (Arc<dyn SessionLocks>, Arc<dyn Routes>) = (Arc::clone(&store) as _, Arc::clone(&store) as _);
        let wrap = wrap.unwrap_or(Wrap { locks: None, routes: None });
        let stream = Arc::new(self.stream.handle(id.clone()));
        let source: Arc<dyn EventSource> = Arc::clone(&stream) as _;
        let backends = Backends {
            locks: wrap.locks.map_or_else(|| Arc::clone(&locks), |around| around(Arc::clone(&locks))),
            routes: wrap.routes.map_or_else(|| Arc::clone(&routes), |around| around(Arc::clone(&routes))),
            kills: store,
            source: self.around_source.as_ref().map_or_else(|| Arc::clone(&source), |around| around(Arc::clone(&source))),
            replay: stream,
            peers: Arc::new(self.network.handle(id.clone())),
            timer: Arc::new(FineTimer::of_the_runtime()),
        };
        let (config, live) = watch::channel(Arc::new(self.settings.clone()));
        let pod = Pod::start(&record, &live, &backends, Readiness::default(), &tasks, &metrics);
        TestPod { id, record, pod, tasks, metrics, config }
    }

    /// Lets two rounds of announcements pass: everybody knows what everybody is.
    pub(crate) async fn settle(&self) {
        tokio::time::sleep(self.settings.app.pod_ttl / 2).await;
    }

    /// Opens a session on a pod and waits for `ready`.
    pub(crate) async fn connect(&self, pod: usize, claims: Claims) -> Result<Client, ConnectError> {
        let mut client = self.open(pod, claims, PIPE).await?;
        client.expect_ready().await;
        Ok(client.eager())
    }

    /// Opens a session with wishes; what its `ready` said, too.
    pub(crate) async fn connect_with(&self, pod: usize, claims: Claims, wishes: Wishes) -> Result<(Client, Value), ConnectError> {
        let ours = self.open_raw_with(pod, claims, wishes, PIPE).await?;
        let mut client = Client::lazy(WebSocketStream::from_raw_socket(Box::new(ours) as _, Role::Client, None).await);
        let ready = client.expect_ready().await;
        Ok((client.eager(), ready))
    }

    /// Opens a session whose pipe holds so many bytes, and does not wait for anything.
    pub(crate) async fn open(&self, pod: usize, claims: Claims, pipe: usize) -> Result<Client, ConnectError> {
        self.open_through(pod, claims, pipe, |ours| Box::new(ours)).await
    }

    /// Opens a session of a client that reads all the time, and no more than so many bytes a second; waits for `ready`.
    pub(crate) async fn connect_slow(&self, pod: usize, claims: Claims, bytes_a_second: usize) -> Result<Client, ConnectError> {
        let mut client = self.open_through(pod, claims, PIPE, |ours| Box::new(Slow::new(ours, bytes_a_second))).await?;
        client.expect_ready().await;
        Ok(client.eager())
    }

    /// Opens a session for a test that speaks for its client byte by byte.
    pub(crate) async fn open_raw(&self, pod: usize, claims: Claims, pipe: usize) -> Result<DuplexStream, ConnectError> {
        self.open_raw_with(pod, claims, Wishes::default(), pipe).await
    }

    async fn open_raw_with(&self, pod: usize, claims: Claims, wishes: Wishes, pipe: usize) -> Result<DuplexStream, ConnectError> {
        let at = &self.pods[pod];
        let worker = self.workers.first();
        let admission = at.pod.connector().connect(claims, wishes, "test", worker).await?;
        let (ours, theirs) = tokio::io::duplex(pipe);
        at.tasks.spawn_many_on(worker, "socket", async move {
            admission.serve(theirs.into(), None).await;
        });
        Ok(ours)
    }

    async fn open_through(
        &self,
        pod: usize,
        claims: Claims,
        pipe: usize,
        end: impl FnOnce(DuplexStream) -> Box<dyn Pipe>,
    ) -> Result<Client, ConnectError> {
        let ours = self.open_raw(pod, claims, pipe).await?;
        Ok(Client::lazy(WebSocketStream::from_raw_socket(end(ours), Role::Client, None).await))
    }

    /// Stores an event; returns its sequence.
    pub(crate) fn publish(&self, subject: &str, payload: &str) -> u64 {
        self.stream.append(subject, payload.to_owned(), Headers::default()).expect("the stream is up")
    }

    /// As SIGKILL: nothing is said, nothing is given back.
    pub(crate) fn kill(&self, pod: usize) {
        let at = &self.pods[pod];
        self.store.cut(&at.id, true);
        self.stream.cut(&at.id, true);
        self.network.kill(&at.id);
        at.tasks.shutdown().hard.cancel();
    }

    /// As SIGSTOP, or SIGCONT: it neither hears nor says anything; what is sent to it waits in its sockets.
    pub(crate) fn freeze(&self, pod: usize, frozen: bool) {
        let id = &self.pods[pod].id;
        self.store.cut(id, frozen);
        self.stream.cut(id, frozen);
        self.network.freeze(id, frozen);
    }

    /// Reloads a pod's configuration.
    pub(crate) fn reconfigure(&self, pod: usize, tweak: impl FnOnce(&mut Config)) {
        let mut settings = self.settings.clone();
        tweak(&mut settings);
        self.pods[pod].config.send_replace(Arc::new(settings));
    }

    /// Cuts the link between two pods, or mends it.
    pub(crate) fn cut_link(&self, a: usize, b: usize, cut: bool) {
        self.network.cut(&self.pods[a].id, &self.pods[b].id, cut);
    }

    /// Waits, at most a minute, until nothing in the stream is unsettled or untaken.
    pub(crate) async fn all_settled(&self) {
        for _ in 0..6000 {
            if self.stream.ack_pending() == 0 && self.stream.pending() == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("after a minute {} events are unsettled and {} untaken", self.stream.ack_pending(), self.stream.pending());
    }

    /// The value of a counter or gauge over the whole fleet, all labels added up.
    pub(crate) fn total(&self, name: &str) -> f64 {
        self.pods.iter().map(|pod| total(&pod.metrics, name, None)).sum()
    }

    /// The same for one value of one label.
    pub(crate) fn labelled(&self, name: &str, label: &str) -> f64 {
        self.pods.iter().map(|pod| total(&pod.metrics, name, Some(label))).sum()
    }
}

impl Drop for Fleet {
    /// Whatever a test did to the fleet: every series that its pods have was there, or could be, from the start.
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.pods.iter().for_each(|pod| assert_declared(&pod.metrics));
        }
    }
}

/// Asserts that each label has one of the values that its metric was declared with: any other would appear with its first
/// increase, which nobody then sees.
pub(crate) fn assert_declared(metrics: &Metrics) {
    for family in metrics.gather() {
        let Some(spec) = SPECS.iter().find(|spec| spec.name == family.name()) else { continue };
        for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
            let values = spec.labels.iter().find(|(name, _)| *name == pair.name()).map_or(&[][..], |(_, values)| values);
            assert!(values.is_empty() || values.contains(&pair.value()), "{}: {} is {}", spec.name, pair.name(), pair.value());
        }
    }
}

/// The value of a counter or gauge of one pod, all labels, or those with one value, added up.
pub(crate) fn total(metrics: &Metrics, name: &str, label: Option<&str>) -> f64 {
    let families = metrics.gather();
    let series = families.iter().filter(|family| family.name() == name).flat_map(|family| family.get_metric());
    series
        .filter(|metric| label.is_none_or(|label| metric.get_label().iter().any(|pair| pair.value() == label)))
        .map(|metric| metric.get_counter().get_value() + metric.get_gauge().get_value())
        .sum()
}

/// The session key of claims, for looking into the store.
pub(crate) fn key(claims: &Claims) -> SessionKey {
    claims.session_key()
}
