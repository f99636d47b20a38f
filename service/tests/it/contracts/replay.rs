//! What every way to read the stream again promises, on the memory stream and on JetStream.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{self, stream};
use async_trait::async_trait;
use daisi_ws_domain::{
    ids::{AgentId, ChatId, CompanyId, PodId},
    route::{RouteKey, Scope},
};
use daisi_ws_service::{
    adapters::{
        memory::stream::{Headers, Stream, StreamOptions},
        nats::{NatsReplay, NatsSource, Publisher},
    },
    ports::{EventSource, ReadRequest, Replay, ReplayError, SpanRequest, StoredEvent, StreamBounds, Stretch},
};
use tokio::{sync::Mutex, time::Instant};

use super::event_source::PATIENCE;
use crate::support::nats::{DEFAULTS, NatsServer, store_anything, tasks};

/// The stream keeps so many events.
const CAPACITY: u64 = 150;
pub(crate) const SUBJECT: &str = "wa.acme.a1.chats";

/// A fleet's stream, real or not.
#[async_trait]
trait World: Send + Sync {
    async fn replay(&self) -> Arc<dyn Replay>;
    async fn source(&self) -> Arc<dyn EventSource>;
    async fn publish(&self, subject: &str, payload: &[u8]) -> u64;
    async fn set_down(&self, down: bool);
}

struct Memory {
    stream: Stream,
}

impl Memory {
    async fn new() -> Self {
        Self { stream: Stream::new(StreamOptions { capacity: CAPACITY as usize, ..StreamOptions::default() }) }
    }
}

#[async_trait]
impl World for Memory {
    async fn replay(&self) -> Arc<dyn Replay> {
        Arc::new(self.stream.handle(PodId::parse("a").unwrap()))
    }

    async fn source(&self) -> Arc<dyn EventSource> {
        Arc::new(self.stream.handle(PodId::parse("a").unwrap()))
    }

    async fn publish(&self, subject: &str, payload: &[u8]) -> u64 {
        self.stream.append(subject, payload.to_vec(), Headers::default()).unwrap()
    }

    async fn set_down(&self, down: bool) {
        self.stream.set_down(down);
    }
}

struct Real {
    server: Mutex<NatsServer>,
    publisher: Publisher,
}

/// The stream of the tests.
pub(crate) fn stream_config(allow_direct: bool) -> stream::Config {
    stream::Config {
        name: "wa_stream".to_owned(),
        subjects: vec!["wa.>".to_owned()],
        max_messages: CAPACITY as i64,
        allow_direct,
        ..Default::default()
    }
}

impl Real {
    async fn new(allow_direct: bool) -> Self {
        let server = NatsServer::start().await;
        let publisher = Publisher::connect(&server.section()).await.unwrap();
        jetstream::new(publisher.client().clone()).create_stream(stream_config(allow_direct)).await.unwrap();
        Self { server: Mutex::new(server), publisher }
    }
}

#[async_trait]
impl World for Real {
    async fn replay(&self) -> Arc<dyn Replay> {
        Arc::new(NatsReplay::connect(&self.server.lock().await.section()).await.unwrap())
    }

    async fn source(&self) -> Arc<dyn EventSource> {
        Arc::new(NatsSource::connect(&self.server.lock().await.section(), DEFAULTS, &tasks()).await.unwrap())
    }

    async fn publish(&self, subject: &str, payload: &[u8]) -> u64 {
        let headers = [("X-Request-ID", "req-1"), ("Nats-Subject", "wa.other.a1.chats"), ("Nats-Sequence", "1")];
        let deadline = Instant::now() + PATIENCE;
        loop {
            match store_anything(&self.publisher, subject, payload.to_vec(), &headers).await {
                Ok(seq) => return seq,
                // Just after a restart, JetStream may need a moment.
                Err(error) => assert!(Instant::now() < deadline, "{error}"),
            }
        }
    }

    async fn set_down(&self, down: bool) {
        let mut server = self.server.lock().await;
        if down { server.kill() } else { server.restart().await }
    }
}

fn company(id: &str) -> CompanyId {
    CompanyId::parse(id).unwrap()
}

fn agent(id: &str) -> AgentId {
    AgentId::parse(id).unwrap()
}

/// The route of [`SUBJECT`].
pub(crate) fn chats() -> RouteKey {
    RouteKey::Chats { company: company("acme"), agent: agent("a1") }
}

/// Everything of a route after one sequence and up to another.
pub(crate) fn whole(route: RouteKey, after: u64, upto: u64) -> ReadRequest {
    ReadRequest { route, after, upto, max_events: 10_000, max_bytes: usize::MAX }
}

/// Everything after one sequence and up to another.
pub(crate) fn span(after: u64, upto: u64) -> SpanRequest {
    SpanRequest { after, upto, max_events: 10_000, max_bytes: usize::MAX }
}

pub(crate) fn seqs(events: &[StoredEvent]) -> Vec<u64> {
    events.iter().map(|event| event.seq).collect()
}

fn of(stretch: &Stretch) -> (Vec<u64>, u64) {
    (seqs(&stretch.events), stretch.through)
}

/// A busy machine may have no answer in time; asks again after a moment.
async fn bear(error: ReplayError, until: Instant) {
    assert!(matches!(error, ReplayError::Unreachable(_)) && Instant::now() < until, "{error:?}");
    tokio::time::sleep(Duration::from_millis(20)).await;
}

/// Reads, however busy the machine is.
pub(crate) async fn patient_read(replay: &dyn Replay, request: &ReadRequest) -> Stretch {
    let until = Instant::now() + PATIENCE;
    loop {
        match replay.read(request).await {
            Ok(stretch) => return stretch,
            Err(error) => bear(error, until).await,
        }
    }
}

/// Reads all, however busy the machine is.
pub(crate) async fn patient_read_all(replay: &dyn Replay, request: &SpanRequest) -> Stretch {
    let until = Instant::now() + PATIENCE;
    loop {
        match replay.read_all(request).await {
            Ok(stretch) => return stretch,
            Err(error) => bear(error, until).await,
        }
    }
}

/// Looks at the stream, however busy the machine is.
pub(crate) async fn look(replay: &dyn Replay) -> StreamBounds {
    let until = Instant::now() + PATIENCE;
    loop {
        match replay.bounds().await {
            Ok(bounds) => return bounds,
            Err(error) => bear(error, until).await,
        }
    }
}

async fn publish(world: &dyn World, count: u64, subject: &str) -> Vec<u64> {
    let mut published = Vec::new();
    for number in 0..count {
        published.push(world.publish(subject, number.to_string().as_bytes()).await);
    }
    published
}

async fn bounds_move_with_what_is_stored(world: &dyn World) {
    let replay = world.replay().await;
    let empty = look(&*replay).await;
    assert_eq!((empty.first, empty.last, empty.window), (1, 0, None));
    for seq in 1..=3 {
        assert_eq!(world.publish(SUBJECT, b"{}").await, seq);
        let bounds = look(&*replay).await;
        assert_eq!((bounds.stream, bounds.first, bounds.last), (empty.stream, 1, seq));
        assert!(bounds.window.unwrap() < Duration::from_secs(60), "{bounds:?}");
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    let window = look(&*replay).await.window.unwrap();
    assert!(window >= Duration::from_millis(290), "{window:?}");
}

async fn the_stream_is_the_one_that_events_say_they_are_of(world: &dyn World) {
    let (replay, source) = (world.replay().await, world.source().await);
    world.publish(SUBJECT, b"{}").await;
    let event = tokio::time::timeout(PATIENCE, source.pull(1)).await.unwrap().unwrap().remove(0);
    let stretch = patient_read(&*replay, &whole(chats(), 0, 1)).await;
    assert_eq!(look(&*replay).await.stream, event.stream);
    let stored = &stretch.events[0];
    assert_eq!((stored.seq, &stored.subject, stored.stored_at), (event.seq, &event.subject, event.stored_at));
    source.close().await;
}

async fn what_the_stream_lets_go_of_is_below_its_bounds_and_in_no_read(world: &dyn World) {
    let replay = world.replay().await;
    let published = publish(world, CAPACITY + 30, SUBJECT).await;
    let bounds = look(&*replay).await;
    assert_eq!((bounds.first, bounds.last), (31, CAPACITY + 30));
    let stretch = patient_read(&*replay, &whole(chats(), 0, bounds.last)).await;
    assert_eq!(of(&stretch), (published[30..].to_vec(), bounds.last));
}

async fn a_read_brings_the_events_of_its_route_byte_for_byte_and_no_others(world: &dyn World) {
    let replay = world.replay().await;
    let chat = "wa.acme.a1.messages.62811@s.whatsapp.net";
    let large = vec![b'x'; 700_000];
    let stored: [(&str, &[u8]); 9] = [
        (SUBJECT, br#"{"id": 123456789012345678901234567890,"b":1.10 }"#),
        ("wa.acme.a2.chats", b"{}"),
        (SUBJECT, b""),
        ("wa.acme.a1.agents", b"{}"),
        (SUBJECT, b"\xff\x00\r\n"),
        (chat, "{\"t\":\"\u{1f40d}\"}".as_bytes()),
        ("wa.acme.a1.messages.62811@s.whatsapp", b"{}"),
        (SUBJECT, &large),
        ("wa.acme2.a1.chats", b"{}"),
    ];
    for (number, (subject, payload)) in (1..).zip(stored) {
        assert_eq!(world.publish(subject, payload).await, number);
    }
    let now = daisi_ws_service::runtime::clock::now();
    let messages =
        RouteKey::Messages { company: company("acme"), agent: agent("a1"), chat: ChatId::parse("62811@s.whatsapp.net").unwrap() };
    for (route, due) in [(chats(), &[1_u64, 3, 5, 8][..]), (messages, &[6][..])] {
        let stretch = patient_read(&*replay, &whole(route, 0, 9)).await;
        assert_eq!(of(&stretch), (due.to_vec(), 9));
        for event in stretch.events {
            let (subject, payload) = stored[usize::try_from(event.seq).unwrap() - 1];
            assert_eq!(event.subject, subject);
            assert!(event.payload == payload, "{:?}", event.payload);
            assert!(event.stored_at <= now && now - event.stored_at < Duration::from_secs(60), "{:?}", event.stored_at);
        }
    }
}

async fn an_admins_read_has_the_agents_that_its_scope_takes_in(world: &dyn World) {
    let replay = world.replay().await;
    for subject in ["wa.acme.a1.agents", "wa.acme.a2.agents", "wa.other.a1.agents", "wa.acme.a1.chats"] {
        world.publish(subject, b"{}").await;
    }
    let all: [(Scope<CompanyId>, Scope<AgentId>, &[u64]); 4] = [
        (Scope::Any, Scope::Any, &[1, 2, 3]),
        (Scope::Only(company("acme")), Scope::Any, &[1, 2]),
        (Scope::Any, Scope::Only(agent("a1")), &[1, 3]),
        (Scope::Only(company("acme")), Scope::Only(agent("a2")), &[2]),
    ];
    for (company, agent, due) in all {
        let stretch = patient_read(&*replay, &whole(RouteKey::Agents { company, agent }, 0, 4)).await;
        assert_eq!(of(&stretch), (due.to_vec(), 4));
    }
}

async fn a_read_begins_after_its_cursor_and_ends_where_it_is_told(world: &dyn World) {
    let replay = world.replay().await;
    publish(world, 100, SUBJECT).await;
    world.publish("wa.acme.a2.chats", b"{}").await;
    for (after, upto) in [(0, 100), (0, 101), (10, 90), (99, 100), (100, 101), (50, 50), (60, 40), (0, 1)] {
        let stretch = patient_read(&*replay, &whole(chats(), after, upto)).await;
        assert_eq!(of(&stretch), (((after + 1)..=upto.min(100)).collect(), upto), "{after} {upto}");
    }
}

async fn a_stream_that_has_nothing_of_the_route_is_read_to_the_end(world: &dyn World) {
    let replay = world.replay().await;
    assert_eq!(patient_read(&*replay, &whole(chats(), 0, 0)).await, Stretch::default());
    let last = *publish(world, 5, "wa.acme.a2.chats").await.last().unwrap();
    assert_eq!(of(&patient_read(&*replay, &whole(chats(), 0, last)).await), (Vec::new(), last));
}

async fn a_read_stops_at_its_number_of_events_and_says_up_to_where_it_is_complete(world: &dyn World) {
    let replay = world.replay().await;
    let mut due = Vec::new();
    for _ in 0..70 {
        due.push(world.publish(SUBJECT, b"{}").await);
        world.publish("wa.acme.a2.chats", b"{}").await;
    }
    for max_events in [1, 3, 35, 69] {
        let (mut read, mut after) = (Vec::new(), 0);
        while after < 140 {
            let stretch = patient_read(&*replay, &ReadRequest { max_events, ..whole(chats(), after, 140) }).await;
            assert!(stretch.events.len() <= max_events && stretch.through > after);
            let is_over = stretch.through == 140;
            assert!(is_over || stretch.events.last().unwrap().seq == stretch.through);
            read.extend(seqs(&stretch.events));
            after = stretch.through;
        }
        assert_eq!(read, due, "{max_events}");
    }
    // It has just as many as fit: there is nothing more.
    let exact = ReadRequest { max_events: 70, ..whole(chats(), 0, 140) };
    assert_eq!(of(&patient_read(&*replay, &exact).await), (due, 140));
}

async fn a_read_stops_at_its_bytes_but_never_before_one_event(world: &dyn World) {
    let replay = world.replay().await;
    for size in [400, 400, 400, 2000, 10, 10] {
        world.publish(SUBJECT, &vec![b'x'; size]).await;
    }
    let read_from =
        async |after, max_bytes| of(&patient_read(&*replay, &ReadRequest { max_bytes, ..whole(chats(), after, 6) }).await);
    assert_eq!(read_from(0, 1000).await, (vec![1, 2], 2));
    assert_eq!(read_from(0, 1200).await, (vec![1, 2, 3], 3));
    assert_eq!(read_from(0, 1).await, (vec![1], 1));
    assert_eq!(read_from(2, 1000).await, (vec![3], 3));
    assert_eq!(read_from(3, 1000).await, (vec![4], 4));
    assert_eq!(read_from(4, 20).await, (vec![5, 6], 6));
    assert_eq!(read_from(0, 3220).await, ((1..=6).collect(), 6));
    assert_eq!(read_from(0, 3219).await, ((1..=5).collect(), 5));
}

async fn a_read_of_all_brings_every_event_byte_for_byte_whatever_its_subject(world: &dyn World) {
    let replay = world.replay().await;
    let stored: [(&str, &[u8]); 6] = [
        (SUBJECT, br#"{"id": 123456789012345678901234567890,"b":1.10 }"#),
        ("wa.acme.a2.chats", b""),
        ("wa.acme.a1.agents", b"\xff\x00\r\n"),
        ("wa.acme.a1.messages.62811@s.whatsapp.net", b"{}"),
        ("wa.what.has.no.route", b"{}"),
        (SUBJECT, &[b'x'; 700_000]),
    ];
    for (subject, payload) in stored {
        world.publish(subject, payload).await;
    }
    let stretch = patient_read_all(&*replay, &span(0, 6)).await;
    assert_eq!(of(&stretch), ((1..=6).collect(), 6));
    for (event, (subject, payload)) in stretch.events.iter().zip(stored) {
        assert!(event.subject == subject && event.payload == payload, "{} {}", event.seq, event.subject);
    }
    let same = patient_read(&*replay, &whole(chats(), 0, 6)).await.events;
    assert_eq!(same, [stretch.events[0].clone(), stretch.events[5].clone()]);
}

async fn a_read_of_all_keeps_to_its_ends_and_bounds(world: &dyn World) {
    let replay = world.replay().await;
    assert_eq!(patient_read_all(&*replay, &span(0, 0)).await, Stretch::default());
    publish(world, CAPACITY + 10, SUBJECT).await;
    world.publish("wa.acme.a2.chats", b"{}").await;
    let (first, last) = (12, CAPACITY + 11);
    for (after, upto) in [(0, last), (20, 90), (last - 1, last), (50, 50), (60, 40), (0, first)] {
        let stretch = patient_read_all(&*replay, &span(after, upto)).await;
        assert_eq!(of(&stretch), (((after + 1).max(first)..=upto).collect(), upto), "{after} {upto}");
    }
    for max_events in [1, 3, 64, 149] {
        let stretch = patient_read_all(&*replay, &SpanRequest { max_events, ..span(0, last) }).await;
        let read = first + max_events as u64 - 1;
        assert_eq!(of(&stretch), ((first..=read).collect(), read));
    }
    let all = usize::try_from(CAPACITY).unwrap();
    let stretch = patient_read_all(&*replay, &SpanRequest { max_events: all, ..span(0, last) }).await;
    assert_eq!(of(&stretch), ((first..=last).collect(), last));
    // Numbers of two and three digits: 88 events of two bytes come before.
    let stretch = patient_read_all(&*replay, &SpanRequest { max_bytes: 6, ..span(first, last) }).await;
    assert_eq!(of(&stretch), (vec![13, 14, 15], 15));
    let stretch = patient_read_all(&*replay, &SpanRequest { max_bytes: 1, ..span(first, last) }).await;
    assert_eq!(of(&stretch), (vec![13], 13));
}

async fn an_outage_is_an_error_within_seconds_and_is_over_by_itself(world: &dyn World) {
    let replay = world.replay().await;
    let before = world.publish(SUBJECT, b"{}").await;
    let stream = look(&*replay).await.stream;
    world.set_down(true).await;
    let since = Instant::now();
    assert!(matches!(replay.bounds().await, Err(ReplayError::Unreachable(_))));
    assert!(matches!(replay.read(&whole(chats(), 0, before)).await, Err(ReplayError::Unreachable(_))));
    assert!(matches!(replay.read_all(&span(0, before)).await, Err(ReplayError::Unreachable(_))));
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    world.set_down(false).await;
    let deadline = Instant::now() + PATIENCE;
    let after = world.publish(SUBJECT, b"{}").await;
    while replay.bounds().await.is_err() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let bounds = look(&*replay).await;
    assert_eq!((bounds.stream, bounds.last), (stream, after));
    assert_eq!(of(&patient_read(&*replay, &whole(chats(), 0, after)).await), (vec![before, after], after));
}

async fn bounds_have_what_was_stored_before_they_were_asked_for_however_many_ask(world: &dyn World) {
    let replay = world.replay().await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let stored = world.publish(SUBJECT, b"{}").await;
        for _ in 0..3 {
            let replay = Arc::clone(&replay);
            asking.spawn(async move { (stored, look(&*replay).await.last) });
        }
    }
    while let Some(asked) = asking.join_next().await {
        let (stored, last) = asked.unwrap();
        assert!(last >= stored, "{stored} was stored, and the last is {last}");
    }
}

macro_rules! on_all {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $name() {
                super::$name(&super::Memory::new().await).await;
            })*
        }

        mod nats {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&super::Real::new(true).await).await;
            })*
        }

        mod nats_without_direct_gets {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(&super::Real::new(false).await).await;
            })*
        }
    };
}

on_all! {
    bounds_move_with_what_is_stored,
    the_stream_is_the_one_that_events_say_they_are_of,
    what_the_stream_lets_go_of_is_below_its_bounds_and_in_no_read,
    a_read_brings_the_events_of_its_route_byte_for_byte_and_no_others,
    an_admins_read_has_the_agents_that_its_scope_takes_in,
    a_read_begins_after_its_cursor_and_ends_where_it_is_told,
    a_stream_that_has_nothing_of_the_route_is_read_to_the_end,
    a_read_stops_at_its_number_of_events_and_says_up_to_where_it_is_complete,
    a_read_stops_at_its_bytes_but_never_before_one_event,
    a_read_of_all_brings_every_event_byte_for_byte_whatever_its_subject,
    a_read_of_all_keeps_to_its_ends_and_bounds,
    an_outage_is_an_error_within_seconds_and_is_over_by_itself,
    bounds_have_what_was_stored_before_they_were_asked_for_however_many_ask,
}
