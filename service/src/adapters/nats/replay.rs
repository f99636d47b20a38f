//! Reading the stream again, by subject or whole.
//!
//! The stream's leader says what comes after a cursor, and so proves where the end is. What lies between is read in bulk by direct
//! gets, which any replica answers, where server and stream allow them. `link` is the connection, `answers` how JetStream writes
//! what it says, `gather` shares one look at the stream among all who want one.

pub(super) mod answers;
mod gather;
mod link;

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

use self::{
    answers::{Piece, Unanswered},
    gather::Gather,
    link::Link,
};
use super::{connect::NatsStartError, subjects::covers};
use crate::{
    config::Nats,
    ports::{ReadRequest, Replay, ReplayError, SpanRequest, StoredEvent, StreamBounds, Stretch},
};

/// Most events of one direct get: where each lies in another block of the store, each costs the server 90 µs.
const BATCH: usize = 64;
/// The same where all events are read, one after the other: each costs the server some 2 µs.
const SPAN_BATCH: usize = 8192;
/// Every subject, without a look at any: a filter of our prefix would cost the server a look at the subjects of each block.
const ALL: &str = ">";
/// Most bytes of one, though a single event may have more; and the server reads no number that is far higher.
const BATCH_BYTES: usize = 1 << 20;
const SPAN_BATCH_BYTES: usize = 8 << 20;

/// JetStream as a buffer that is read by subject, over a connection of its own.
#[derive(Debug)]
pub struct NatsReplay {
    link: Link,
    stream: String,
    prefix: String,
    looks: Gather<Result<StreamBounds, ReplayError>>,
}

impl NatsReplay {
    /// Connects, or goes on trying: a server that is away ends no start here.
    ///
    /// # Errors
    /// When the configuration can't be right.
    pub async fn connect(nats: &Nats) -> Result<Self, NatsStartError> {
        let link = Link::connect(nats).await?;
        let (stream, prefix) = (nats.stream_name.clone(), nats.subject_prefix.clone());
        Ok(Self { link, stream, prefix, looks: Gather::default() })
    }

    async fn look(&self) -> Result<StreamBounds, ReplayError> {
        let answer = self.link.ask(&format!("$JS.API.STREAM.INFO.{}", self.stream), Bytes::new()).await?;
        Ok(answers::bounds(&answer.payload)?)
    }

    /// The next event, as the leader says.
    async fn next(&self, filter: &str, after: u64) -> Result<Option<StoredEvent>, ReplayError> {
        let subject = format!("$JS.API.STREAM.MSG.GET.{}", self.stream);
        let question = Question { seq: after.saturating_add(1), next_by_subj: filter, batch: None, max_bytes: None };
        let answer = self.link.ask(&subject, question.body()).await?;
        match answers::found(&answer.payload)? {
            Some(event) if event.seq <= after => Err(Unanswered::malformed("an event from before the cursor").into()),
            found => Ok(found),
        }
    }

    /// The next events, as any replica has them: each comes right after the one before, and there may be more.
    async fn bulk(&self, filter: &str, reading: &Reading<'_>) -> Bulk {
        let subject = format!("$JS.API.DIRECT.GET.{}", self.stream);
        let (number, bytes) = reading.room();
        let (number, bytes) = (number.min(reading.batch), bytes.min(reading.batch_bytes()));
        let question =
            Question { seq: reading.cursor.saturating_add(1), next_by_subj: filter, batch: Some(number), max_bytes: Some(bytes) };
        let mut bulk = Bulk { events: Vec::new(), fit: true, more: false };
        let Ok(mut answers) = self.link.ask_for_many(&subject, question.body()).await else { return bulk.unfit() };
        // The end is a message, too; a server that never ends is not heard out.
        while bulk.events.len() <= number {
            match answers.next().await.map(|message| answers::piece(&self.stream, message)) {
                Some(Piece::Event { event, before }) => {
                    let last = bulk.events.last().map(|last: &StoredEvent| last.seq);
                    // A hole in the answer is a hole in what was heard.
                    if before != last.unwrap_or(0)
                        || event.seq <= last.unwrap_or(reading.cursor)
                        || !covers(filter, &event.subject)
                    {
                        return bulk.unfit();
                    }
                    bulk.events.push(event);
                }
                Some(Piece::End { more }) => return Bulk { more, ..bulk },
                Some(Piece::Nothing) => return bulk,
                Some(Piece::Unfit) | None => break,
            }
        }
        bulk.unfit()
    }

    /// Reads what passes the filter, to the end or a bound.
    async fn read_through(&self, filter: &str, mut reading: Reading<'_>) -> Result<Stretch, ReplayError> {
        let request = reading.request;
        let mut in_bulk = self.link.is_fit_for_direct();
        while reading.cursor < request.upto {
            match self.next(filter, reading.cursor).await? {
                Some(event) if event.seq <= request.upto => {
                    if !reading.push(event) {
                        return Ok(reading.bounded());
                    }
                }
                _ => break,
            }
            while in_bulk && reading.wants_more() {
                let Bulk { events, fit, more } = self.bulk(filter, &reading).await;
                if !fit {
                    self.link.is_unfit_for_direct();
                }
                // A replica that has nothing where the leader has something lags, and is not asked again.
                in_bulk = fit && !events.is_empty();
                let more = more && events.last().is_some_and(|last| last.seq < request.upto);
                for event in events.into_iter().take_while(|event| event.seq <= request.upto) {
                    if !reading.push(event) {
                        return Ok(reading.bounded());
                    }
                }
                if !more {
                    break;
                }
            }
        }
        Ok(reading.complete())
    }
}

#[async_trait]
impl Replay for NatsReplay {
    async fn bounds(&self) -> Result<StreamBounds, ReplayError> {
        self.looks.ask(async || self.look().await).await
    }

    async fn read(&self, request: &ReadRequest) -> Result<Stretch, ReplayError> {
        let filter = request.route.filter(&self.prefix);
        let ReadRequest { after, upto, max_events, max_bytes, .. } = *request;
        self.read_through(&filter, Reading::new(&SpanRequest { after, upto, max_events, max_bytes }, BATCH)).await
    }

    async fn read_all(&self, request: &SpanRequest) -> Result<Stretch, ReplayError> {
        self.read_through(ALL, Reading::new(request, SPAN_BATCH)).await
    }
}

impl From<Unanswered> for ReplayError {
    fn from(error: Unanswered) -> Self {
        match error {
            Unanswered::Unready(_) => Self::unreachable(error),
            Unanswered::Refused(_) | Unanswered::Malformed(_) => Self::refused(error),
        }
    }
}

/// A request for the next event of a subject, or events, in the JSON of JetStream.
#[derive(Serialize)]
struct Question<'a> {
    seq: u64,
    next_by_subj: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<usize>,
}

impl Question<'_> {
    fn body(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

/// What a direct get has brought.
struct Bulk {
    events: Vec<StoredEvent>,
    /// Was it answered as it should be?
    fit: bool,
    /// Who answered has more.
    more: bool,
}

impl Bulk {
    fn unfit(self) -> Self {
        Self { fit: false, ..self }
    }
}

/// A read on its way.
struct Reading<'a> {
    request: &'a SpanRequest,
    /// Most events of one direct get.
    batch: usize,
    events: Vec<StoredEvent>,
    bytes: usize,
    /// Nothing is missing up to here.
    cursor: u64,
}

impl<'a> Reading<'a> {
    fn new(request: &'a SpanRequest, batch: usize) -> Self {
        Self { request, batch, events: Vec::new(), bytes: 0, cursor: request.after }
    }

    /// How many events, and of how many bytes, may still come.
    fn room(&self) -> (usize, usize) {
        let Self { request, events, bytes, .. } = self;
        (request.max_events.saturating_sub(events.len()), request.max_bytes.saturating_sub(*bytes))
    }

    /// Most bytes of one direct get.
    fn batch_bytes(&self) -> usize {
        if self.batch > BATCH { SPAN_BATCH_BYTES } else { BATCH_BYTES }
    }

    fn wants_more(&self) -> bool {
        let (number, bytes) = self.room();
        number > 0 && bytes > 0 && self.cursor < self.request.upto
    }

    /// Takes the next event; false if a bound is met, and it is not taken.
    fn push(&mut self, event: StoredEvent) -> bool {
        let (number, bytes) = self.room();
        if number == 0 || (!self.events.is_empty() && event.payload.len() > bytes) {
            return false;
        }
        self.bytes = self.bytes.saturating_add(event.payload.len());
        self.cursor = event.seq;
        self.events.push(event);
        true
    }

    /// There was no room for the next.
    fn bounded(self) -> Stretch {
        Stretch { events: self.events, through: self.cursor }
    }

    /// There is none that is missing.
    fn complete(self) -> Stretch {
        Stretch { events: self.events, through: self.request.upto }
    }
}
