//! Many who come back at once, on the memory stream and paused time.

mod same;

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
};

use async_trait::async_trait;
use daisi_ws_domain::{
    ids::{AgentId, CompanyId, PodId},
    resume::{Cursor, NotResumed},
};
use futures_util::future::{join, join_all};

use super::{resume::Resumed, *};
use crate::{
    adapters::memory::stream::{Headers, Stream, StreamHandle, StreamOptions},
    config::testing,
    ports::{SpanRequest, StreamBounds, Stretch},
};

/// What a read of any kind takes.
const TAKES: Duration = Duration::from_millis(50);
/// By then, nobody uses a window any more.
const LATER: Duration = Duration::from_secs(11);

/// The stream, where reads take time and are counted.
struct Slow {
    stream: Mutex<Arc<StreamHandle>>,
    by_route: AtomicUsize,
    spans: Mutex<Vec<SpanRequest>>,
    /// Reads of all events are refused.
    refuses: AtomicBool,
    /// And what they bring ends before the end, as who leaves a hole has it.
    ends_early: AtomicBool,
}

impl Slow {
    fn stream(&self) -> Arc<StreamHandle> {
        Arc::clone(&self.stream.lock().unwrap())
    }
}

#[async_trait]
impl Replay for Slow {
    async fn bounds(&self) -> Result<StreamBounds, ReplayError> {
        sleep(Duration::from_millis(1)).await;
        self.stream().bounds().await
    }

    async fn read(&self, request: &ReadRequest) -> Result<Stretch, ReplayError> {
        self.by_route.fetch_add(1, Relaxed);
        sleep(TAKES).await;
        self.stream().read(request).await
    }

    async fn read_all(&self, request: &SpanRequest) -> Result<Stretch, ReplayError> {
        self.spans.lock().unwrap().push(*request);
        sleep(TAKES).await;
        if self.refuses.load(Relaxed) {
            return Err(ReplayError::unreachable("it is away"));
        }
        let upto = if self.ends_early.load(Relaxed) { request.after } else { request.upto };
        self.stream().read_all(&SpanRequest { upto, ..*request }).await
    }
}

struct World {
    stream: Stream,
    replay: Arc<Slow>,
    memory: Arc<Memory>,
    replayer: Arc<Replayer>,
    _config: watch::Sender<Arc<Config>>,
}

fn stream() -> (Stream, Arc<StreamHandle>) {
    let stream = Stream::new(StreamOptions { capacity: 1_000_000, ..StreamOptions::default() });
    let handle = Arc::new(stream.handle(PodId::parse("a").unwrap()));
    (stream, handle)
}

fn route(agent: usize) -> RouteKey {
    let (company, agent) = (CompanyId::parse("acme").unwrap(), AgentId::parse(&format!("a{agent}")).unwrap());
    RouteKey::Chats { company, agent }
}

impl World {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = testing::config();
        change(&mut config);
        let (config, changes) = watch::channel(Arc::new(config));
        let (stream, handle) = stream();
        let replay = Slow {
            stream: Mutex::new(handle),
            by_route: AtomicUsize::default(),
            spans: Mutex::default(),
            refuses: AtomicBool::default(),
            ends_early: AtomicBool::default(),
        };
        let (replay, memory) = (Arc::new(replay), Arc::new(Memory::default()));
        let metrics = Arc::new(Metrics::new().unwrap());
        let replayer = Replayer::new(Arc::clone(&replay) as _, Arc::clone(&memory), changes, metrics);
        Self { stream, replay, memory, replayer: Arc::new(replayer), _config: config }
    }

    /// So many events for each of so many agents, in turn.
    fn publish(&self, agents: usize, each: usize) {
        for _ in 0..each {
            for agent in 0..agents {
                self.stream.append(&format!("wa.acme.a{agent}.chats"), "{}", Headers::default()).unwrap();
            }
        }
    }

    async fn resume(&self, agent: usize, safe: u64) -> Result<Resumed, NotResumed> {
        let stream = self.replay.stream().bounds().await.unwrap().stream;
        let cursor = Cursor::parse(&format!("{}:{safe}", stream.name())).unwrap();
        self.replayer.resume(&cursor, &[route(agent)]).await
    }

    /// All of them come back at once, after they missed so many.
    async fn storm(&self, agents: usize, safe: u64, missed: usize) {
        let outcomes = join_all((0..agents).map(|agent| self.resume(agent, safe))).await;
        let last = self.stream.last_seq();
        for (agent, outcome) in outcomes.into_iter().enumerate() {
            let resumed = outcome.unwrap();
            let first = usize::try_from(safe).unwrap() + 1;
            let due: Vec<u64> = (0..missed).map(|turn| (first + turn * agents + agent) as u64).collect();
            let got: Vec<u64> = resumed.events.iter().map(|event| event.seq).collect();
            assert_eq!((got, resumed.upto), (due, last), "{agent}");
        }
    }

    /// What is done while spans are read.
    async fn run(&self, what: impl Future<Output = ()>) {
        tokio::select! {
            biased;
            () = what => {}
            () = self.replayer.read_spans() => {}
        }
    }

    fn by_route(&self) -> usize {
        self.replay.by_route.load(Relaxed)
    }

    fn spans(&self) -> Vec<(u64, u64)> {
        self.replay.spans.lock().unwrap().iter().map(|request| (request.after, request.upto)).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn a_storm_reads_the_stream_once_for_all_and_nobody_is_told_that_it_is_busy() {
    // One by one, it would take 50 s.
    let world = World::new(|config| config.resume.max_in_flight = 1);
    world.publish(1000, 1);
    world.publish(1000, 5);
    world.run(world.storm(1000, 1000, 5)).await;
    let spans = world.spans();
    assert_eq!(spans, [(1000, 6000)]);
    assert!(world.by_route() <= 2, "{} by route", world.by_route());
}

#[tokio::test(start_paused = true)]
async fn a_few_are_read_for_by_route() {
    let world = World::new(|_| {});
    world.publish(5, 100);
    world.run(world.storm(5, 0, 100)).await;
    assert_eq!((world.spans(), world.by_route()), (Vec::new(), 5));
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_read_at_once_is_read_by_route() {
    for (refuses, ends_early) in [(true, false), (false, true)] {
        let world = World::new(|_| {});
        world.publish(500, 2);
        world.replay.refuses.store(refuses, Relaxed);
        world.replay.ends_early.store(ends_early, Relaxed);
        world.run(world.storm(500, 0, 2)).await;
        assert_eq!((world.spans().len(), world.by_route()), (1, 500));
        assert_eq!(world.memory.used(), 0);
        world.replay.refuses.store(false, Relaxed);
        world.replay.ends_early.store(false, Relaxed);
        sleep(LATER).await;
        world.run(world.storm(500, 0, 2)).await;
        assert!(world.by_route() < 600, "it is tried again");
    }
}

#[tokio::test(start_paused = true)]
async fn a_span_that_is_too_long_for_so_few_or_too_large_is_read_by_route() {
    let dear = World::new(|_| {});
    dear.publish(1, 20_000);
    dear.publish(20, 1);
    dear.run(dear.storm(20, 20_000, 1)).await;
    dear.run(async { assert!(join_all((1..20).map(|agent| dear.resume(agent, 0))).await.iter().all(Result::is_ok)) }).await;
    assert!(dear.spans().iter().all(|(after, _)| *after >= 20_000), "{:?}", dear.spans());

    let large = World::new(|config| config.resume.window_max_bytes = 100_000);
    large.publish(300, 1);
    for agent in 0..300 {
        let payload = format!(r#"{{"a":"{}"}}"#, "x".repeat(1000));
        large.stream.append(&format!("wa.acme.a{agent}.chats"), payload, Headers::default()).unwrap();
    }
    large.run(large.storm(300, 0, 2)).await;
    assert_eq!((large.spans().len(), large.by_route()), (1, 300));

    let never = World::new(|config| config.resume.window_max_bytes = 0);
    never.publish(300, 2);
    never.run(never.storm(300, 0, 2)).await;
    assert_eq!((never.spans().len(), never.by_route()), (0, 300));
}

#[tokio::test(start_paused = true)]
async fn a_window_grows_at_both_ends_and_is_dropped_when_nobody_uses_it() {
    let world = World::new(|_| {});
    world.publish(300, 4);
    let storms = async {
        world.storm(300, 300, 3).await;
        let (by_route, held) = (world.by_route(), world.memory.used());
        assert!(held > 900 * window::OVERHEAD, "{held}");
        world.publish(300, 1);
        world.storm(300, 300, 4).await;
        assert_eq!(world.by_route(), by_route, "who comes to a window waits for it");
        world.storm(300, 0, 5).await;
        assert_eq!(world.spans(), [(300, 1200), (1200, 1500), (0, 300)]);
        assert!(world.by_route() < by_route + 8);
        assert!(world.memory.used() > held);
        sleep(LATER).await;
        assert_eq!(world.memory.used(), 0);
    };
    world.run(storms).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_was_made_anew_has_nothing_of_the_old_ones_window() {
    let world = World::new(|_| {});
    world.publish(300, 2);
    let storms = async {
        world.storm(300, 0, 2).await;
        assert_eq!(world.spans().len(), 1);
        let (anew, handle) = stream();
        let id = handle.bounds().await.unwrap().stream;
        for _ in 0..600 {
            anew.append("wa.acme.a1.chats", r#"{"anew":1}"#, Headers::default()).unwrap();
        }
        *world.replay.stream.lock().unwrap() = handle;
        let all = join_all((0..300).map(|agent| world.resume(agent, 300))).await;
        for (agent, resumed) in all.into_iter().enumerate() {
            let resumed = resumed.unwrap();
            assert_eq!((resumed.stream, resumed.events.len()), (id, if agent == 1 { 300 } else { 0 }));
        }
    };
    world.run(storms).await;
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_made_anew_while_it_is_read_gives_no_window() {
    let world = World::new(|_| {});
    world.publish(300, 2);
    let change = async {
        sleep(TAKES / 2).await;
        let (_, handle) = stream();
        *world.replay.stream.lock().unwrap() = handle;
    };
    let storm = async {
        let all = join_all((0..300).map(|agent| world.resume(agent, 0)));
        let (outcomes, ()) = join(all, change).await;
        let other = outcomes.iter().find(|outcome| !matches!(outcome, Err(NotResumed::StreamChanged)));
        assert!(other.is_none(), "{other:?}");
        assert_eq!(world.memory.used(), 0);
    };
    world.run(storm).await;
}

#[tokio::test(start_paused = true)]
async fn who_goes_leaves_the_span_to_the_others() {
    let world = World::new(|config| config.resume.max_in_flight = 1);
    world.publish(400, 3);
    let storm = async {
        let gone = join_all((0..400).map(|agent| timeout(TAKES / 2, world.resume(agent, 0))));
        let (gone, ()) = join(gone, world.storm(400, 0, 3)).await;
        assert!(gone.iter().filter(|gone| gone.is_err()).count() > 300);
    };
    world.run(storm).await;
    assert_eq!(world.spans()[0], (0, 1200));
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_the_others_are_answered_has_the_same_window() {
    let world = World::new(|_| {});
    world.publish(1000, 5);
    let storm = async {
        let late = (0..1000).map(|agent| {
            let world = &world;
            async move {
                sleep(Duration::from_micros(100) * u32::try_from(agent).unwrap()).await;
                world.resume(agent, 0).await
            }
        });
        assert!(join_all(late).await.iter().all(|resumed| resumed.as_ref().is_ok_and(|resumed| resumed.events.len() == 5)));
    };
    world.run(storm).await;
    assert_eq!(world.spans(), [(0, 5000)]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_held_once_nobody_reads_spans() {
    let world = World::new(|_| {});
    world.publish(300, 2);
    world
        .run(async {
            world.storm(300, 0, 2).await;
            assert!(world.memory.used() > 0);
        })
        .await;
    assert_eq!(world.memory.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_anybody_who_reads_spans_all_are_read_for_by_route() {
    let world = World::new(|_| {});
    world.publish(300, 2);
    world.storm(300, 0, 2).await;
    assert_eq!(world.by_route(), 300);
}
