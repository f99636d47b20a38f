//! Pods that record what peers send them, and a wire to them that can be frozen.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use daisi_ws_domain::{
    event::{Address, Event, Payload, StreamId},
    gap::Gap,
    ids::{ConnectionId, PodId},
    peer::PodRecord,
    route::RouteKey,
    session::{Kill, KillClaim},
};
use daisi_ws_service::{
    adapters::grpc::{GrpcPeers, GrpcServer, GrpcServerSettings, PeersSettings},
    application::fleet::key::FleetKey,
    config::Secret,
    metrics::Metrics,
    ports::{Evicted, Handed, PeerService, PodLoad},
    runtime::lifecycle::{Shutdown, Tasks},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// A pod that takes the events of company `here`, has a session of company `between` on its way elsewhere, holds the sockets that
/// begin with `here`, lets a socket serve on whose client may move, tells two sessions of every gap, knows who made itself known, and remembers all of it.
#[derive(Default)]
pub(crate) struct Recorder {
    events: Mutex<Vec<(PodId, Event)>>,
    gaps: Mutex<Vec<(PodId, Option<RouteKey>, Gap)>>,
    newcomers: Mutex<Vec<PodRecord>>,
    kills: Mutex<Vec<Kill>>,
    panics: AtomicBool,
    room: AtomicBool,
    unwell: AtomicBool,
    load: Mutex<PodLoad>,
}

impl Recorder {
    pub(crate) fn events(&self) -> Vec<(PodId, Event)> {
        self.events.lock().unwrap().clone()
    }

    pub(crate) fn sequences(&self) -> Vec<u64> {
        self.events().iter().map(|(_, event)| event.seq).collect()
    }

    pub(crate) fn gaps(&self) -> Vec<(PodId, Option<RouteKey>, Gap)> {
        self.gaps.lock().unwrap().clone()
    }

    pub(crate) fn kills(&self) -> Vec<Kill> {
        self.kills.lock().unwrap().clone()
    }

    /// From now on every call panics, or none does.
    pub(crate) fn panic(&self, panics: bool) {
        self.panics.store(panics, Ordering::SeqCst);
    }

    /// From now on it has room, or none.
    pub(crate) fn make_room(&self, room: bool) {
        self.room.store(room, Ordering::SeqCst);
    }

    /// From now on it has so many sockets, and drains or not.
    pub(crate) fn carry(&self, load: PodLoad) {
        *self.load.lock().unwrap() = load;
    }

    /// From now on it is unwell, or well.
    pub(crate) fn be_unwell(&self, unwell: bool) {
        self.unwell.store(unwell, Ordering::SeqCst);
    }

    fn maybe_panic(&self) {
        assert!(!self.panics.load(Ordering::SeqCst), "on purpose");
    }
}

impl PeerService for Recorder {
    fn deliver(&self, from: &PodId, events: Vec<Event>) -> Vec<Handed> {
        self.maybe_panic();
        let by_company = |event: &Event| match event.address.company().as_str() {
            "here" => Handed::Taken,
            "between" => Handed::Between,
            _ => Handed::Nobody,
        };
        let taken = events.iter().map(by_company).collect();
        self.events.lock().unwrap().extend(events.into_iter().map(|event| (from.clone(), event)));
        taken
    }

    fn has_room(&self) -> bool {
        self.room.load(Ordering::SeqCst)
    }

    fn load(&self) -> PodLoad {
        self.maybe_panic();
        *self.load.lock().unwrap()
    }

    fn is_well(&self) -> bool {
        !self.unwell.load(Ordering::SeqCst)
    }

    fn holds(&self, sockets: &[ConnectionId]) -> Vec<bool> {
        self.maybe_panic();
        sockets.iter().map(|socket| socket.as_str().starts_with("here")).collect()
    }

    fn evict(&self, kill: &Kill) -> Evicted {
        self.maybe_panic();
        self.kills.lock().unwrap().push(kill.clone());
        if kill.claim == KillClaim::Second { Evicted::Serves } else { Evicted::Gone }
    }

    fn gap(&self, from: &PodId, route: Option<&RouteKey>, gap: Gap) -> usize {
        self.maybe_panic();
        self.gaps.lock().unwrap().push((from.clone(), route.cloned(), gap));
        2
    }

    fn introduce(&self, newcomer: &PodRecord) -> Vec<PodRecord> {
        self.maybe_panic();
        let mut known = self.newcomers.lock().unwrap();
        let others = known.iter().filter(|pod| pod.id != newcomer.id).cloned().collect();
        known.push(newcomer.clone());
        others
    }
}

pub(crate) fn pod_id(text: &str) -> PodId {
    PodId::parse(text).unwrap()
}

/// An event on `wa.{company}.a1.{tail}`.
pub(crate) fn event(company: &str, tail: &str, seq: u64, payload: &str) -> Arc<Event> {
    Arc::new(Event {
        address: Address::parse("wa", &format!("wa.{company}.a1.{tail}")).unwrap(),
        payload: Payload::parse(&Bytes::copy_from_slice(payload.as_bytes())).unwrap(),
        stream: StreamId(1_700_000_000_000_000_007),
        seq,
        stored_at: Duration::from_nanos(1_700_000_001_000_000_009),
        request_id: Some(format!("request-{seq}")),
        traceparent: None,
    })
}

pub(crate) fn fleet_key() -> FleetKey {
    FleetKey::derive(&Secret::new("ab".repeat(32)), &Secret::new("cd".repeat(32)))
}

/// A gRPC server on loopback around a [`Recorder`].
pub(crate) struct GrpcPod {
    pub(crate) record: PodRecord,
    pub(crate) recorder: Arc<Recorder>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: Tasks,
}

impl GrpcPod {
    pub(crate) async fn start(id: &str, started_at: u64) -> Self {
        Self::start_with(id, started_at, |_| {}).await
    }

    pub(crate) async fn start_with(id: &str, started_at: u64, change: impl FnOnce(&mut GrpcServerSettings)) -> Self {
        let server = GrpcServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.local_addr().to_string();
        let record = PodRecord { id: pod_id(id), address, started_at: Duration::from_secs(started_at) };
        let mut settings = GrpcServerSettings::new(record, fleet_key());
        change(&mut settings);
        Self::serve(server, settings)
    }

    /// A pod whose peers dial a wire.
    pub(crate) async fn start_behind_wire(id: &str, started_at: u64) -> (Self, FreezableWire) {
        let server = GrpcServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let wire = FreezableWire::to(server.local_addr().to_string()).await;
        let record = PodRecord { id: pod_id(id), address: wire.address.to_string(), started_at: Duration::from_secs(started_at) };
        (Self::serve(server, GrpcServerSettings::new(record, fleet_key())), wire)
    }

    fn serve(server: GrpcServer, settings: GrpcServerSettings) -> Self {
        let record = settings.me.clone();
        let (recorder, metrics, stop) = (Arc::<Recorder>::default(), new_metrics(), CancellationToken::new());
        let tasks = Tasks::new(Shutdown::default(), Arc::clone(&metrics), tracing::Span::none());
        let serving = server.serve(recorder.clone(), settings, Arc::clone(&metrics), stop.clone());
        tasks.spawn("peer server", async move { serving.await.unwrap() });
        Self { record, recorder, metrics, stop, tasks }
    }

    /// Ends the pod as a crash would: connections break, nobody listens any more.
    pub(crate) async fn kill(&self) {
        self.tasks.shutdown().hard.cancel();
        self.tasks.ended().await;
    }

    pub(crate) fn refused(&self, reason: &str) -> u64 {
        self.metrics.grpc_calls_refused_total.with_label_values(&[reason]).get()
    }
}

impl Drop for GrpcPod {
    fn drop(&mut self) {
        self.tasks.shutdown().hard.cancel();
    }
}

pub(crate) fn new_metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

/// A gRPC client with its task, in the name of pod `me`.
pub(crate) struct GrpcCaller {
    pub(crate) peers: Arc<GrpcPeers>,
    pub(crate) metrics: Arc<Metrics>,
    tasks: Tasks,
}

impl GrpcCaller {
    pub(crate) fn new(me: &str) -> Self {
        Self::with(me, |_| {})
    }

    pub(crate) fn with(me: &str, change: impl FnOnce(&mut PeersSettings)) -> Self {
        let mut settings = PeersSettings {
            me: pod_id(me),
            key: fleet_key(),
            accept_previous: false,
            tls: None,
            idle_timeout: Duration::from_secs(300),
            health_check_interval: Duration::from_secs(60),
        };
        change(&mut settings);
        let metrics = new_metrics();
        let tasks = Tasks::new(Shutdown::default(), Arc::clone(&metrics), tracing::Span::none());
        let peers = Arc::new(GrpcPeers::new(settings, Arc::clone(&metrics), &tasks));
        Self { peers, metrics, tasks }
    }

    pub(crate) fn closed(&self, reason: &str) -> u64 {
        self.metrics.grpc_pool_connections_closed_total.with_label_values(&[reason]).get()
    }

    /// Ends the client's task, as a drain does.
    pub(crate) async fn stop(&self) {
        self.tasks.shutdown().soft.cancel();
        self.tasks.ended().await;
    }
}

impl Drop for GrpcCaller {
    fn drop(&mut self) {
        self.tasks.shutdown().hard.cancel();
    }
}

/// A TCP relay that can be frozen: connections stay up, no byte moves.
pub(crate) struct FreezableWire {
    pub(crate) address: SocketAddr,
    frozen: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl FreezableWire {
    pub(crate) async fn to(target: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (frozen, watching) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut links = JoinSet::new();
            while let Ok((inner, _)) = listener.accept().await {
                let (target, watching) = (target.clone(), watching.clone());
                links.spawn(async move {
                    let Ok(outer) = TcpStream::connect(target).await else { return };
                    let ((inner_read, inner_write), (outer_read, outer_write)) = (inner.into_split(), outer.into_split());
                    tokio::select! {
                        () = pump(inner_read, outer_write, watching.clone()) => {}
                        () = pump(outer_read, inner_write, watching) => {}
                    }
                });
            }
        });
        Self { address, frozen, _tasks: tasks }
    }

    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }
}

async fn pump(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, mut frozen: watch::Receiver<bool>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if frozen.wait_for(|frozen| !frozen).await.is_err() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(tokio::time::Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
