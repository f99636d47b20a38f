//! What Redis is asked, counted: round trips are the latency of a connect, and what all pods together ask is what one Redis has
//! to bear.
//!
//! A pod with nothing to do, on a real Redis; its events and peers are on memory.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{
    claims::Claims,
    ids::{ChatId, PodId},
    peer::PodRecord,
};
use daisi_ws_service::{
    adapters::{
        memory::{
            network::Network,
            stream::{Headers, Stream, StreamOptions},
        },
        redis::RedisStore,
    },
    application::admission::{connect::Admission, renew::Renewer},
    config,
    metrics::Metrics,
    pod::{Backends, Pod},
    ports::{Routes as _, SessionLocks as _},
    readiness::Readiness,
    runtime::{clock, fine_timer::FineTimer, lifecycle::Tasks, workers::Workers},
};
use redis::AsyncCommands as _;
use tokio::sync::watch;

use crate::support::{
    config::test_config,
    fleet::{admin, total, user},
    redis::{RedisServer, tasks},
    round_trips::{Flight, RoundTrips},
    wait,
};

/// Nothing that goes by the clock happens while a test runs.
const NEVER: Duration = Duration::from_secs(3600);
/// Sessions that are too many to be served one by one.
const MANY: usize = 1000;

struct Gateway {
    pod: Pod,
    me: PodRecord,
    store: Arc<RedisStore>,
    stream: Stream,
    proxy: RoundTrips,
    tasks: Tasks,
    metrics: Arc<Metrics>,
    server: RedisServer,
    workers: Workers,
}

impl Gateway {
    /// Starts one that refreshes locks and routes once in `refresh`, and has had and renewed one session, and looked up routes,
    /// so that scripts and connections are there.
    async fn start(refresh: Duration) -> Self {
        let server = RedisServer::start().await;
        let mut client = server.client().await;
        // A pod that finds no epoch takes no events for one announcement, which is never here.
        let () = client.set("routes:epoch", "1").await.unwrap();
        let proxy = RoundTrips::start(server.config().address).await;
        let tasks = tasks();
        let store = Arc::new(
            RedisStore::new(&config::Redis { address: proxy.address().into(), ..server.config() }, tasks.clone()).unwrap(),
        );
        let stream = Stream::new(StreamOptions::default());
        let id = PodId::parse("pod-a").unwrap();
        let backends = Backends {
            locks: Arc::clone(&store) as _,
            routes: Arc::clone(&store) as _,
            // Its listener pings by the clock: that is not to be counted.
            kills: Arc::new(server.store()),
            source: Arc::new(stream.handle(id.clone())),
            replay: Arc::new(stream.handle(id.clone())),
            peers: Arc::new(Network::new().handle(id.clone())),
            timer: Arc::new(FineTimer::of_the_runtime()),
        };
        let mut settings = test_config();
        settings.app.pod_ttl = NEVER;
        settings.app.ttl_refresh_interval = refresh;
        let config = watch::Sender::new(Arc::new(settings)).subscribe();
        let metrics = Arc::clone(tasks.metrics());
        let me = PodRecord { id, address: "pod-a:50051".into(), started_at: clock::now() };
        let pod = Pod::start(&me, &config, &backends, Readiness::default(), &tasks, &metrics);
        pod.joined().await;
        // The pod checks all locks once it hears kills.
        wait::until("the pod listens for kills", || {
            let mut client = client.clone();
            async move { redis::cmd("PUBSUB").arg("NUMPAT").query_async::<usize>(&mut client).await.unwrap() == 1 }
        })
        .await;
        let workers = Workers::start(1).unwrap();
        let gateway = Self { pod, me, store, stream, proxy, tasks, metrics, server, workers };
        let warm = gateway.connect(user("warm", "up", "one")).await;
        gateway.renewer().renew_all().await.unwrap();
        gateway.store.lookup(&gateway.me.id, &[]).await.unwrap();
        drop(warm);
        gateway.released().await;
        gateway
    }

    async fn connect(&self, claims: Claims) -> Admission {
        self.pod
            .connector()
            .connect(claims, daisi_ws_service::application::admission::connect::Wishes::default(), "test", self.workers.first())
            .await
            .unwrap()
    }

    fn renewer(&self) -> &Renewer {
        self.pod.renewer()
    }

    /// Opens [`MANY`] sessions, each at a desk of its own.
    async fn connect_many(&self) -> Vec<Admission> {
        let mut sessions = Vec::with_capacity(MANY);
        for n in 0..MANY {
            sessions.push(self.connect(user("acme", &format!("a{n}"), "sari")).await);
        }
        sessions
    }

    /// Waits until Redis holds no lock and no route any more.
    async fn released(&self) {
        let client = self.server.client().await;
        wait::until("locks and routes are gone", || {
            let mut client = client.clone();
            async move {
                let keys: Vec<String> = client.keys("*").await.unwrap();
                keys.iter().all(|key| !key.starts_with("session:") && (key == "routes:epoch" || !key.starts_with("route")))
            }
        })
        .await;
    }

    /// How many routes were written, as Redis counts it.
    async fn writes(&self) -> usize {
        let mut client = self.server.client().await;
        let counts: String = redis::cmd("INFO").arg("commandstats").query_async(&mut client).await.unwrap();
        let count = counts.split("cmdstat_sadd:calls=").nth(1).unwrap();
        count.split(',').next().unwrap().parse().unwrap()
    }

    fn renewed(&self) -> f64 {
        total(&self.metrics, "dws_session_renewals_total", Some("renewed"))
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.tasks.shutdown().hard.cancel();
    }
}

/// The flights with a command that begins like this.
fn with<'a>(flights: &'a [Flight], command: &str) -> Vec<&'a Flight> {
    flights.iter().filter(|flight| flight.iter().any(|sent| sent.starts_with(command))).collect()
}

#[tokio::test]
async fn a_new_session_costs_two_round_trips() {
    let gateway = Gateway::start(NEVER).await;
    let (_sari, flights) = gateway.proxy.during(gateway.connect(user("acme", "a1", "sari"))).await;
    let lock = vec!["EVALSHA session:acme:a1:sari session:acme:a1:sari:selected_chat"];
    let route = vec!["EVALSHA route:acme:a1:chats"];
    assert_eq!(flights, [lock, route]);
}

#[tokio::test]
async fn a_session_on_a_route_that_is_there_costs_two_round_trips() {
    let gateway = Gateway::start(NEVER).await;
    let _sari = gateway.connect(user("acme", "a1", "sari")).await;
    let (_budi, flights) = gateway.proxy.during(gateway.connect(user("acme", "a1", "budi"))).await;
    assert!(flights.len() <= 2, "{flights:?}");
}

#[tokio::test]
async fn a_session_with_a_saved_chat_costs_two_round_trips() {
    let gateway = Gateway::start(NEVER).await;
    let (sari, chat) = (user("acme", "a1", "sari"), ChatId::parse("c1").unwrap());
    gateway.store.save_chat(&sari.session_key(), &chat, NEVER).await.unwrap();
    let (admission, flights) = gateway.proxy.during(gateway.connect(sari)).await;
    assert_eq!(admission.chat(), Some(&chat));
    assert_eq!(flights.len(), 2, "{flights:?}");
    assert_eq!(with(&flights, "EVALSHA route:acme:a1:chats route:acme:a1:messages:c1").len(), 1, "{flights:?}");
}

/// The writer of routes runs on another worker than the session that asks for one, and must not see half of what it asks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_several_cores_no_route_is_written_twice() {
    let gateway = Gateway::start(NEVER).await;
    let before = gateway.writes().await;
    let sessions = gateway.connect_many().await;
    assert_eq!(gateway.writes().await - before, sessions.len());
}

#[tokio::test]
async fn an_admins_session_costs_two_round_trips() {
    let gateway = Gateway::start(NEVER).await;
    let (_root, flights) = gateway.proxy.during(gateway.connect(admin("root", Some("acme")))).await;
    assert_eq!(flights.len(), 2, "{flights:?}");
}

#[tokio::test]
async fn a_batch_of_events_costs_one_round_trip() {
    let gateway = Gateway::start(NEVER).await;
    let _sari = gateway.connect(user("acme", "a1", "sari")).await;
    let dispatched = async {
        // Without a pause between them, so that one pull takes them all.
        for n in 0..100 {
            let subject = match n % 3 {
                0 => format!("wa.acme.a{n}.chats"),
                1 => format!("wa.acme.a1.messages.c{n}"),
                _ => format!("wa.acme.a{n}.agents"),
            };
            gateway.stream.append(&subject, "{}", Headers::default()).unwrap();
        }
        let stream = &gateway.stream;
        wait::until("all are settled", || async { stream.pending() == 0 && stream.ack_pending() == 0 }).await;
    };
    let ((), flights) = gateway.proxy.during(dispatched).await;
    assert_eq!(flights.len(), 1, "{flights:?}");
    assert_eq!(flights[0].len(), 1, "{flights:?}");
    for route in ["route:acme:a99:chats", "route:acme:a1:messages:c1"] {
        assert!(flights[0][0].starts_with("EVALSHA routes:epoch ") && flights[0][0].contains(route), "{flights:?}");
    }
}

#[tokio::test]
async fn a_thousand_locks_are_renewed_in_two_round_trips() {
    let gateway = Gateway::start(NEVER).await;
    let _sessions = gateway.connect_many().await;
    let renewer = gateway.renewer();
    let before = gateway.renewed();
    let (outcome, flights) = gateway.proxy.during(renewer.renew_all()).await;
    outcome.unwrap();
    assert!((gateway.renewed() - before - MANY as f64).abs() < 0.5, "every lock was renewed");
    assert_eq!(flights.len(), 2, "{:?}", flights.iter().map(Vec::len).collect::<Vec<_>>());
}

#[tokio::test]
async fn idle_sockets_cost_round_trips_by_the_interval_and_none_each() {
    let gateway = Gateway::start(Duration::from_secs(1)).await;
    let _sessions = gateway.connect_many().await;
    let whole_rounds = |renewed: f64| (renewed / MANY as f64).floor();
    let (before, after) = (gateway.renewed(), gateway.renewed() + 3.0 * MANY as f64);
    let ((), flights) = gateway.proxy.during(wait::until("three rounds", || async { gateway.renewed() >= after })).await;
    let rounds = whole_rounds(gateway.renewed() - before) + 1.0;
    let (renewals, routes) = (with(&flights, "EVALSHA session:"), with(&flights, "EVALSHA route:"));
    assert!(renewals.len() as f64 <= 2.0 * rounds, "{} round trips for {rounds} rounds of renewal", renewals.len());
    assert!(routes.len() as f64 <= rounds + 1.0, "{} round trips for {rounds} rounds of routes", routes.len());
    assert_eq!(flights.len(), renewals.len() + routes.len(), "nothing else is asked");
}

#[tokio::test]
async fn sessions_that_end_together_are_given_back_in_batches() {
    let gateway = Gateway::start(NEVER).await;
    let sessions = gateway.connect_many().await;
    let ((), flights) = gateway
        .proxy
        .during(async {
            drop(sessions);
            gateway.released().await;
        })
        .await;
    assert!(flights.len() <= 4, "{:?}", flights.iter().map(Vec::len).collect::<Vec<_>>());
}
