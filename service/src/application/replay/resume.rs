//! What a client missed while it was away.

use std::sync::Arc;

use daisi_ws_domain::{
    event::StreamId,
    resume::{Cursor, NotResumed},
    route::RouteKey,
};
use tokio::time::{Instant, timeout};

use super::{LONG_AGO, NEAR_THE_EDGE, Part, Replayer, Span, Turn, Want};
use crate::{
    application::hub::prepared_message::PreparedMessage,
    metrics::labels::{ReplayCause, ResumeOutcome},
    ports::{ReplayError, StreamBounds},
    telemetry::Chain,
};

/// A session goes on where its client was.
#[derive(Debug)]
pub(crate) struct Resumed {
    /// The stream that it goes on in.
    pub(crate) stream: StreamId,
    /// All that concerned it up to here is in `events`.
    pub(crate) upto: u64,
    /// In ascending order.
    pub(crate) events: Vec<Arc<PreparedMessage>>,
}

impl Replayer {
    /// Reads what passed over the routes since the cursor. Whatever is stored from now on has to come to the session in another
    /// way already.
    pub(crate) async fn resume(&self, cursor: &Cursor, routes: &[RouteKey]) -> Result<Resumed, NotResumed> {
        let outcome = self.resume_in_turn(cursor, routes).await;
        let label = match &outcome {
            Ok(_) => ResumeOutcome::Resumed,
            Err(reason) => ResumeOutcome::from(*reason),
        };
        self.note_resume(label);
        outcome
    }

    /// Counts a client that brought something else than a cursor.
    pub(crate) fn note_malformed(&self) {
        self.note_resume(ResumeOutcome::Malformed);
    }

    /// Reckons how old a cursor is: the stream says how old its first event is.
    fn note_age(&self, cursor: &Cursor, bounds: &StreamBounds) {
        let share = (bounds.last - cursor.safe) as f64 / ((bounds.last + 1).saturating_sub(bounds.first)).max(1) as f64;
        let age = bounds.window.unwrap_or_default().as_secs_f64() * share.min(1.0);
        self.metrics.resume_cursor_age_seconds.observe(age);
    }

    fn note_resume(&self, outcome: ResumeOutcome) {
        self.metrics.resumes_total.with_label_values(&[outcome.as_str()]).inc();
    }

    async fn resume_in_turn(&self, cursor: &Cursor, routes: &[RouteKey]) -> Result<Resumed, NotResumed> {
        let resume = self.config.borrow().resume;
        let unavailable = |error: ReplayError| {
            tracing::debug!(error = %Chain(&error), "a session can't be resumed");
            NotResumed::Unavailable
        };
        let asked = Instant::now();
        let bounds = self.within(resume.timeout, self.replay.bounds()).await.map_err(unavailable)?;
        let left = resume.timeout.saturating_sub(asked.elapsed());
        if !cursor.is_in(bounds.stream) || cursor.safe > bounds.last {
            return Err(NotResumed::StreamChanged);
        }
        self.note_age(cursor, &bounds);
        if is_gone(cursor, bounds.first) {
            return Err(NotResumed::TooOld);
        }
        let want = Want { stream: bounds.stream, after: cursor.safe, upto: bounds.last };
        let turn = timeout(resume.timeout, self.turn(&self.resumes, ReplayCause::Resume, want)).await;
        let mut turn = turn.map_err(|_| NotResumed::Busy)?;
        let started = Instant::now();
        let read = self.within(left, self.read_since(&mut turn, asked, cursor, &bounds, routes)).await;
        let resumed = read.map_err(unavailable)??;
        let why = ReplayCause::Resume.as_str();
        self.metrics.replay_seconds.with_label_values(&[why]).observe(started.elapsed().as_secs_f64());
        self.metrics.replayed_events_total.with_label_values(&[why]).inc_by(resumed.events.len() as u64);
        Ok(resumed)
    }

    async fn read_since(
        &self,
        turn: &mut Turn<'_>,
        asked: Instant,
        cursor: &Cursor,
        bounds: &StreamBounds,
        routes: &[RouteKey],
    ) -> Result<Result<Resumed, NotResumed>, ReplayError> {
        let resume = self.config.borrow().resume;
        let span = Span {
            routes,
            stream: bounds.stream,
            after: cursor.safe,
            upto: bounds.last,
            max_events: resume.max_events,
            max_bytes: resume.max_bytes,
        };
        let Part { events, through } = self.read(turn, span, |_| true).await?;
        if through < span.upto {
            return Ok(Err(NotResumed::TooMuch));
        }
        let may_be_gone = cursor.safe - bounds.first.min(cursor.safe) < NEAR_THE_EDGE || asked.elapsed() >= LONG_AGO;
        if may_be_gone && span.after < span.upto {
            let now = self.replay.bounds().await?;
            if now.stream != bounds.stream {
                return Ok(Err(NotResumed::StreamChanged));
            }
            if is_gone(cursor, now.first) {
                return Ok(Err(NotResumed::TooOld));
            }
        }
        Ok(Ok(Resumed { stream: bounds.stream, upto: span.upto, events }))
    }
}

/// Has a stream that begins there let go of anything after the cursor?
fn is_gone(cursor: &Cursor, first: u64) -> bool {
    first > cursor.safe.saturating_add(1)
}
