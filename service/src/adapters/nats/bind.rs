//! Finding the stream and the consumer, and making them where they are missing. Nothing here changes or deletes what exists.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use async_nats::jetstream::{
    Context, ErrorCode,
    consumer::{self, AckPolicy, pull},
    context::{CreateStreamErrorKind, GetStreamErrorKind},
    response::Response,
    stream::{self, DiscardPolicy, RetentionPolicy, StorageType},
};
use daisi_ws_domain::event::StreamId;
use serde::Deserialize as _;
use tokio::time::Instant;

use super::{
    fitness::judge,
    progress::{CONTINUES, Progress, Reading, Start},
    server_time::ServerTime,
};

use crate::{
    config::{App, Nats},
    ports::SourceLimits,
};

/// Another pod or an operator may make or delete things between two of our requests; so often the sequence is tried before that
/// counts as an outage.
const ATTEMPTS: usize = 3;
/// Stands for "no limit" in a consumer without one: more than any fleet has in flight, and small enough to calculate with.
const NO_LIMIT: usize = 1_000_000;

/// What a consumer gets that we create.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsumerDefaults {
    /// An event not settled within this time is delivered again.
    pub ack_wait: Duration,
    /// So many events may be unsettled over the whole fleet.
    pub max_ack_pending: usize,
}

impl From<&App> for ConsumerDefaults {
    fn from(app: &App) -> Self {
        Self { ack_wait: app.nats_ack_wait, max_ack_pending: app.nats_max_ack_pending }
    }
}

/// What is known of the stream beside its binding, and grows with every look at it. Its locks are held for a few instructions,
/// and never across an await.
#[derive(Debug, Default)]
pub(super) struct Known {
    progress: Mutex<Progress>,
    time: Mutex<ServerTime>,
    warned: Mutex<Vec<String>>,
}

impl Known {
    /// How far the consumer is.
    pub(super) fn progress<T>(&self, look: impl FnOnce(&mut Progress) -> T) -> T {
        look(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What time it is there.
    pub(super) fn time<T>(&self, look: impl FnOnce(&mut ServerTime) -> T) -> T {
        look(&mut self.time.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Logs what was not logged before.
    pub(super) fn warn(&self, warnings: &[String]) {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in warnings.iter().filter(|warning| !warned.contains(warning)) {
            tracing::warn!(reason = warning, "the stream or its consumer is not as it should be, and is used as it is");
        }
        *warned = warnings.to_vec();
    }

    fn take_in(&self, reading: &Reading) {
        let now = Instant::now();
        let at = self.time(|time| match reading.at() {
            Some(at) => {
                time.told(at, now);
                Some(at)
            }
            None => time.at(now),
        });
        self.progress(|progress| progress.read(reading, at));
    }
}

/// The stream and consumer as they are, as far as pulling has to know.
#[derive(Debug, Clone)]
pub(super) struct Binding {
    pub(super) stream: StreamId,
    pub(super) limits: SourceLimits,
    /// Most events that one request may ask for.
    pub(super) max_batch: usize,
    /// Longest that one request may wait.
    pub(super) max_expires: Duration,
    /// Most bytes that one request may ask for.
    pub(super) max_bytes: usize,
    /// So often an event is delivered, at most; `None` is without a limit.
    pub(super) max_deliveries: Option<u64>,
    /// What is not as it should be, and can be lived with.
    pub(super) warnings: Vec<String>,
    /// Was something missing, and was made?
    pub(super) made: bool,
}

/// Why there is no binding.
#[derive(Debug, thiserror::Error)]
pub(super) enum BindError {
    #[error("the consumer is a push consumer, from which pods can't pull")]
    Push,
    /// As it is, it breaks a promise.
    #[error("{0}")]
    Unfit(String),
    /// Trying again won't help until somebody changes something.
    #[error("it is refused")]
    Refused(#[source] Step),
    #[error("it is not to be had now")]
    Unavailable(#[source] Step),
}

/// A step of the binding that failed.
#[derive(Debug, thiserror::Error)]
#[error("can't {what}")]
pub struct Step {
    what: &'static str,
    #[source]
    why: Box<dyn std::error::Error + Send + Sync>,
}

impl BindError {
    pub(super) fn refused(what: &'static str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Refused(Step { what, why: why.into() })
    }

    pub(super) fn unavailable(what: &'static str, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Unavailable(Step { what, why: why.into() })
    }

    /// Has somebody to change something before it can work?
    pub(super) fn is_refusal(&self) -> bool {
        !matches!(self, Self::Unavailable(_))
    }
}

/// What is wrong with a name or an answer.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Wrong {
    #[error("nats.stream_name is no name of a stream")]
    StreamName,
    #[error("nats.consumer_name is no name of a consumer")]
    ConsumerName,
    #[error("one vanishes as fast as it is made")]
    Vanishes,
}

/// Finds or makes both. Safe to run on many pods at once: anyone who comes second uses what the first has made.
pub(super) async fn bind(js: &Context, nats: &Nats, defaults: ConsumerDefaults, known: &Known) -> Result<Binding, BindError> {
    let mut made = false;
    for _ in 0..ATTEMPTS {
        let Some(info) = find_stream(js, nats).await? else {
            made |= make_stream(js, nats).await?;
            continue;
        };
        let stream = id(&info);
        known.progress(|progress| progress.stream(stream, info.state.last_sequence));
        let Some(consumer) = find_consumer(js, nats, known).await? else {
            let start = known.progress(|progress| progress.start(stream));
            if make_consumer(js, nats, defaults, &info.config.subjects, start).await? {
                made = true;
                known.progress(|progress| progress.began(start));
            }
            continue;
        };
        return read(nats, &info, &consumer, made, js.client().max_payload());
    }
    Err(BindError::unavailable("make the stream and the consumer", Wrong::Vanishes))
}

async fn find_stream(js: &Context, nats: &Nats) -> Result<Option<stream::Info>, BindError> {
    match js.get_stream(&nats.stream_name).await {
        Ok(stream) => Ok(Some(stream.cached_info().clone())),
        Err(error) => match error.kind() {
            GetStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
            GetStreamErrorKind::JetStream(e) => Err(api_error("look up the stream", e)),
            GetStreamErrorKind::EmptyName | GetStreamErrorKind::InvalidStreamName => {
                Err(BindError::refused("look up the stream", Wrong::StreamName))
            }
            GetStreamErrorKind::Request => Err(BindError::unavailable("look up the stream", error)),
        },
    }
}

async fn make_stream(js: &Context, nats: &Nats) -> Result<bool, BindError> {
    let config = stream::Config {
        name: nats.stream_name.clone(),
        subjects: vec![format!("{}.>", nats.subject_prefix)],
        storage: StorageType::File,
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_age: nats.stream_max_age,
        max_bytes: i64::try_from(nats.stream_max_bytes).unwrap_or(i64::MAX),
        num_replicas: nats.stream_replicas,
        // Reads of what a client missed may then be answered by any replica, many events at a time.
        allow_direct: true,
        ..Default::default()
    };
    match js.create_stream(config).await {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            // Another pod was faster, with another configuration.
            CreateStreamErrorKind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NAME_EXIST => Ok(false),
            CreateStreamErrorKind::JetStream(e) => Err(api_error("make the stream", e)),
            _ => Err(BindError::unavailable("make the stream", error)),
        },
    }
}

/// Looks at the consumer, and takes in how far it is.
pub(super) async fn read_consumer(js: &Context, nats: &Nats, known: &Known) -> Result<Option<Reading>, BindError> {
    let Some(value) = ask_for_consumer(js, nats).await? else { return Ok(None) };
    take_in(&value, known).map(Some)
}

async fn find_consumer(js: &Context, nats: &Nats, known: &Known) -> Result<Option<consumer::Info>, BindError> {
    let Some(value) = ask_for_consumer(js, nats).await? else { return Ok(None) };
    take_in(&value, known)?;
    consumer::Info::deserialize(&value).map(Some).map_err(unreadable)
}

fn take_in(value: &serde_json::Value, known: &Known) -> Result<Reading, BindError> {
    let reading = Reading::deserialize(value).map_err(unreadable)?;
    known.take_in(&reading);
    Ok(reading)
}

fn unreadable(error: serde_json::Error) -> BindError {
    BindError::unavailable("read what the server says of the consumer", error)
}

/// The answer as it comes: the client's own type leaves out the server's time.
async fn ask_for_consumer(js: &Context, nats: &Nats) -> Result<Option<serde_json::Value>, BindError> {
    let name = &nats.consumer_name;
    if name.is_empty() || name.contains(['.', '*', '>', '/', '\\']) || name.contains(char::is_whitespace) {
        return Err(BindError::refused("look up the consumer", Wrong::ConsumerName));
    }
    let subject = format!("CONSUMER.INFO.{}.{name}", nats.stream_name);
    match js.request(subject, &serde_json::json!({})).await {
        Ok(Response::Ok(value)) => Ok(Some(value)),
        Ok(Response::Err { error }) if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND => Ok(None),
        Ok(Response::Err { error }) => Err(api_error("look up the consumer", error)),
        Err(error) => Err(BindError::unavailable("look up the consumer", error)),
    }
}

/// The strict request never changes a consumer that came into being meanwhile; an ordinary one would.
async fn make_consumer(
    js: &Context,
    nats: &Nats,
    defaults: ConsumerDefaults,
    subjects: &[String],
    start: Start,
) -> Result<bool, BindError> {
    use stream::ConsumerCreateStrictErrorKind as Kind;
    let config = pull::Config {
        durable_name: Some(nats.consumer_name.clone()),
        description: matches!(start, Start::After(_)).then(|| CONTINUES.to_owned()),
        deliver_policy: start.policy(),
        ack_policy: AckPolicy::Explicit,
        ack_wait: defaults.ack_wait,
        max_ack_pending: i64::try_from(defaults.max_ack_pending).unwrap_or(i64::MAX),
        // Events are given up by us, and counted; a limit here would make them vanish.
        max_deliver: -1,
        filter_subject: filter(&nats.subject_prefix, subjects),
        ..Default::default()
    };
    match js.create_consumer_strict_on_stream(config, &nats.stream_name).await {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            Kind::AlreadyExists => Ok(false),
            Kind::JetStream(e) if e.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(false),
            Kind::JetStream(e) if e.error_code() == ErrorCode::CONSUMER_ALREADY_EXISTS => Ok(false),
            Kind::JetStream(e) if e.error_code() == ErrorCode::CONSUMER_NAME_EXIST => Ok(false),
            Kind::JetStream(e) => Err(api_error("make the consumer", e)),
            _ => Err(BindError::unavailable("make the consumer", error)),
        },
    }
}

/// Keeps foreign subjects of a shared stream away; none is needed, or wanted, where all are ours.
fn filter(prefix: &str, subjects: &[String]) -> String {
    let ours = |subject: &String| subject.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
    if subjects.iter().all(ours) { String::new() } else { format!("{prefix}.>") }
}

fn id(info: &stream::Info) -> StreamId {
    StreamId(info.created.unix_timestamp_nanos())
}

fn read(
    nats: &Nats,
    info: &stream::Info,
    consumer: &consumer::Info,
    made: bool,
    max_payload: usize,
) -> Result<Binding, BindError> {
    let config = &consumer.config;
    if config.deliver_subject.is_some() {
        return Err(BindError::Push);
    }
    let warnings = judge(&nats.subject_prefix, &info.config, config, max_payload).map_err(BindError::Unfit)?;
    let within = |limit: i64, otherwise: usize| usize::try_from(limit).ok().filter(|limit| *limit > 0).unwrap_or(otherwise);
    let expires = if config.max_expires.is_zero() { Duration::MAX } else { config.max_expires };
    Ok(Binding {
        stream: id(info),
        limits: SourceLimits {
            // A back-off list overrides the ack wait, step by step.
            ack_wait: config
                .backoff
                .iter()
                .copied()
                .chain([config.ack_wait])
                .filter(|wait| !wait.is_zero())
                .min()
                .unwrap_or(config.ack_wait),
            max_ack_pending: within(config.max_ack_pending, NO_LIMIT),
        },
        max_batch: within(config.max_batch, usize::MAX),
        max_expires: expires,
        max_bytes: within(config.max_bytes, usize::MAX),
        max_deliveries: u64::try_from(config.max_deliver).ok().filter(|limit| *limit > 0),
        warnings,
        made,
    })
}

/// Codes of the 400s say that the request is at fault (or the server's configuration), the others that the server is. "No
/// suitable peers" is a 400 as well, but is what a cluster says whose servers have just found each other or restart one by one.
fn api_error(what: &'static str, error: async_nats::jetstream::Error) -> BindError {
    let passing = matches!(error.code(), 404 | 408) || error.error_code() == ErrorCode::CLUSTER_NO_PEERS;
    if (400..500).contains(&error.code()) && !passing {
        BindError::refused(what, error)
    } else {
        BindError::unavailable(what, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_without_enough_peers_yet_is_an_outage_and_no_refusal() {
        let answer = |code: u64, err_code: u64| {
            let json = format!(r#"{{"code":{code},"err_code":{err_code},"description":"x"}}"#);
            api_error("make the stream", serde_json::from_str(&json).unwrap())
        };
        assert!(matches!(answer(400, 10005), BindError::Unavailable(_)));
        assert!(matches!(answer(503, 10008), BindError::Unavailable(_)));
        assert!(matches!(answer(400, 10074), BindError::Refused(_)));
    }

    #[test]
    fn only_a_stream_with_foreign_subjects_needs_a_filter() {
        let subjects = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        assert_eq!(filter("wa", &subjects(&["wa.>"])), "");
        assert_eq!(filter("wa", &subjects(&["wa.acme.>", "wa.other.*.chats"])), "");
        assert_eq!(filter("wa", &subjects(&["wa.>", "orders.>"])), "wa.>");
        assert_eq!(filter("wa", &subjects(&["wax.>"])), "wa.>");
        assert_eq!(filter("wa", &subjects(&[">"])), "wa.>");
    }
}
