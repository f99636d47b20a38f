//! What taking and acknowledging an event costs the pod: our pull client beside the two of `async-nats`, on a real nats-server
//! that is started for it: `NATS_SERVER`, else `target/tools/bin/nats-server`, else the one on PATH.
//!
//! ```text
//! cargo bench -p daisi-ws-service --bench pull_client
//! ```
//!
//! All three run on one thread with the connection's own task, so the thread's CPU is the client's. Each turn gets a durable of
//! its own with the same limits, and all of the stream's events. Turns alternate; the table has the least and the most of all
//! turns.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a bench stops when its server fails"
)]

// The server that tests use; of what it can do, a bench needs the start alone.
#[path = "../../tests/it/support/nats.rs"]
#[expect(dead_code, reason = "tests use more of it")]
mod server;

use std::time::Duration;

use async_nats::jetstream::{
    self, Context,
    consumer::{AckPolicy, PullConsumer, pull},
    stream,
};
use daisi_ws_service::{
    adapters::nats::{ConsumerDefaults, NatsSource},
    ports::{EventSource as _, Settlement},
};
use futures_util::{StreamExt as _, TryStreamExt as _};
use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

const EVENTS: usize = 50_000;
const PAYLOAD_BYTES: usize = 300;
/// As `app.nats_pull_batch` has it.
const BATCH: usize = 256;
const TURNS: usize = 7;
const LIMITS: ConsumerDefaults = ConsumerDefaults { ack_wait: Duration::from_secs(30), max_ack_pending: 20_000 };

/// What one turn took for each event.
#[derive(Debug, Clone, Copy)]
struct Cost {
    cpu_micros: f64,
    wall_micros: f64,
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(measure());
}

async fn measure() {
    let server = server::NatsServer::start().await;
    let js = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    fill(&js).await;
    let mut costs: [Vec<Cost>; 3] = Default::default();
    // The first turn of each warms caches and the server's blocks, and is left out.
    for turn in 0..=TURNS {
        let results = [
            ours(&server, &js, &format!("ours-{turn}")).await,
            their_stream(&server, &js, &format!("stream-{turn}")).await,
            their_batches(&server, &js, &format!("batch-{turn}")).await,
        ];
        if turn > 0 {
            costs.iter_mut().zip(results).for_each(|(costs, cost)| costs.push(cost));
        }
    }
    println!("{EVENTS} events of {PAYLOAD_BYTES} bytes, acknowledged one by one; least to most of {TURNS} turns");
    println!("| Client | CPU of an event, µs | Time of an event, µs |\n|---|---|---|");
    for (name, costs) in ["ours", "async-nats, `messages()`", "async-nats, `batch()`"].iter().zip(&costs) {
        let range = |of: fn(&Cost) -> f64| {
            let values = || costs.iter().map(of);
            format!("{:.2}–{:.2}", values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max))
        };
        println!("| {name} | {} | {} |", range(|cost| cost.cpu_micros), range(|cost| cost.wall_micros));
    }
}

async fn fill(js: &Context) {
    let config = stream::Config { name: "wa_stream".to_owned(), subjects: vec!["wa.>".to_owned()], ..Default::default() };
    js.create_stream(config).await.unwrap();
    let payload = format!("{{\"event_id\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES - 15));
    for _ in 0..EVENTS / 500 {
        let mut confirmations = Vec::new();
        for chat in 0..500 {
            let subject = format!("wa.acme.agent-{chat}.chats");
            confirmations.push(js.publish(subject, payload.clone().into()).await.unwrap());
        }
        for confirmation in confirmations {
            confirmation.await.unwrap();
        }
    }
}

/// Makes the durable that a turn takes its events from.
async fn consumer(js: &Context, name: &str) -> PullConsumer {
    let config = pull::Config {
        durable_name: Some(name.to_owned()),
        ack_policy: AckPolicy::Explicit,
        ack_wait: LIMITS.ack_wait,
        max_ack_pending: i64::try_from(LIMITS.max_ack_pending).unwrap(),
        filter_subject: "wa.>".to_owned(),
        ..Default::default()
    };
    js.get_stream("wa_stream").await.unwrap().create_consumer(config).await.unwrap()
}

async fn ours(server: &server::NatsServer, js: &Context, name: &str) -> Cost {
    drop(consumer(js, name).await);
    let section = daisi_ws_service::config::Nats { consumer_name: name.to_owned(), ..server.section() };
    let source = NatsSource::connect(&section, LIMITS, &server::tasks()).await.unwrap();
    let clock = Clock::start();
    let mut taken = 0;
    while taken < EVENTS {
        let events = source.pull(BATCH).await.unwrap();
        taken += events.len();
        source.settle(events.into_iter().map(|event| (event.ack_token, Settlement::Ack)).collect()).await.unwrap();
    }
    let cost = clock.stop();
    source.close().await;
    cost
}

async fn their_stream(server: &server::NatsServer, js: &Context, name: &str) -> Cost {
    drop(consumer(js, name).await);
    let consumer = connect(server, name).await;
    let clock = Clock::start();
    let mut messages = consumer.stream().max_messages_per_batch(BATCH).messages().await.unwrap().take(EVENTS);
    while let Some(message) = messages.try_next().await.unwrap() {
        message.ack().await.unwrap();
    }
    clock.stop()
}

async fn their_batches(server: &server::NatsServer, js: &Context, name: &str) -> Cost {
    drop(consumer(js, name).await);
    let consumer = connect(server, name).await;
    let clock = Clock::start();
    let mut taken = 0;
    while taken < EVENTS {
        let mut batch = consumer.batch().max_messages(BATCH).messages().await.unwrap();
        while let Some(message) = batch.next().await {
            message.unwrap_or_else(|error| panic!("{error}")).ack().await.unwrap();
            taken += 1;
        }
    }
    clock.stop()
}

/// The consumer on a connection of its own, as our client has one.
async fn connect(server: &server::NatsServer, name: &str) -> PullConsumer {
    let js = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    js.get_consumer_from_stream(name, "wa_stream").await.unwrap()
}

/// The CPU of this thread, and time.
struct Clock {
    cpu: Duration,
    began: Instant,
}

impl Clock {
    fn start() -> Self {
        Self { cpu: thread_cpu(), began: Instant::now() }
    }

    fn stop(&self) -> Cost {
        let per_event = |time: Duration| time.as_secs_f64() * 1e6 / EVENTS as f64;
        Cost { cpu_micros: per_event(thread_cpu() - self.cpu), wall_micros: per_event(self.began.elapsed()) }
    }
}

fn thread_cpu() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("it is positive")
}
