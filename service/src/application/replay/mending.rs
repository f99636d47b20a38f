//! What a session lacks while its client is there.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use daisi_ws_domain::{gap::GapCause, route::RouteKey};
use futures_util::{FutureExt as _, future::BoxFuture};
use tokio::time::{Instant, sleep};

use super::{LONG_AGO, NEAR_THE_EDGE, Replayer, Span, Want};
use crate::{
    application::hub::{
        mailbox::repair::{MendOrder, Reading},
        prepared_message::PreparedMessage,
        session::Session,
    },
    metrics::labels::ReplayCause,
    ports::ReplayError,
    runtime::backoff::Backoff,
    telemetry::Chain,
};

/// For how long a stream that does not answer is asked again before a gap is told: while nothing else comes, and while newer events
/// come another way, which a peer forwards.
const MEND_WITHIN: Duration = Duration::from_secs(120);
const MEND_SOON: Duration = Duration::from_secs(2);
const MEND_PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));

/// It is another stream than the one that was asked first.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the stream was made anew meanwhile")]
struct MadeAnew;

/// What was read, and how far.
pub(crate) type Mended = (Reading, Vec<Arc<PreparedMessage>>);

/// A read that is under way for a session. Dropping it ends it.
pub(crate) struct Mending {
    cause: GapCause,
    read: BoxFuture<'static, Option<Mended>>,
}

impl Mending {
    /// Begins to read what a session lacks.
    pub(crate) fn begin(replayer: &Arc<Replayer>, session: &Arc<Session>, order: MendOrder) -> Self {
        let (replayer, session, cause) = (Arc::clone(replayer), Arc::clone(session), order.cause);
        Self { cause, read: async move { replayer.mend(&session, &order).await }.boxed() }
    }

    /// Why it is read.
    pub(crate) fn cause(&self) -> GapCause {
        self.cause
    }

    /// What was read; `None` in it if nothing can be.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Mended>> {
        self.read.as_mut().poll(cx)
    }
}

impl Replayer {
    /// Reads what a session lacks: a part of it, or all. Asks a stream that does not answer again; `None` if that was in vain.
    async fn mend(&self, session: &Session, order: &MendOrder) -> Option<Mended> {
        let (started, mut pauses, routes) = (Instant::now(), MEND_PAUSES, session.routes());
        loop {
            let asked = Instant::now();
            let patience = if session.mailbox().is_pressing() { MEND_SOON } else { MEND_WITHIN };
            match self.mend_once(&routes, order).await {
                Ok(read) => {
                    let events = read.1.len() as u64;
                    let why = ReplayCause::Gap.as_str();
                    self.metrics.replayed_events_total.with_label_values(&[why]).inc_by(events);
                    self.metrics.replay_seconds.with_label_values(&[why]).observe(asked.elapsed().as_secs_f64());
                    return Some(read);
                }
                Err(error) if started.elapsed() >= patience => {
                    tracing::warn!(error = %Chain(&error), "what a session missed can't be read again; it is told of a gap");
                    return None;
                }
                Err(error) => tracing::debug!(error = %Chain(&error), "what a session missed can't be read again yet"),
            }
            sleep(pauses.pause()).await;
        }
    }

    async fn mend_once(&self, routes: &[RouteKey], order: &MendOrder) -> Result<Mended, ReplayError> {
        let (resume, asked) = (self.config.borrow().resume, Instant::now());
        let bounds = self.within(resume.timeout, self.replay.bounds()).await?;
        let missing = &order.missing;
        let after = missing.after.max(bounds.first.saturating_sub(1));
        let want = Want { stream: bounds.stream, after, upto: missing.upto.unwrap_or(bounds.last).min(bounds.last) };
        let mut turn = self.turn(&self.mends, ReplayCause::Gap, want).await;
        self.within(resume.timeout, async {
            let upto = missing.upto.unwrap_or(bounds.last);
            let gone = |first: u64| (first > missing.after + 1).then(|| upto.min(first - 1));
            let span = Span {
                routes,
                stream: bounds.stream,
                after,
                upto: upto.min(bounds.last),
                max_events: resume.max_events,
                max_bytes: resume.max_bytes,
            };
            let mut part = self.read(&mut turn, span, |seq| missing.has(seq)).await?;
            if part.through >= span.upto {
                // What is past the stream's end is nowhere.
                part.through = upto;
            }
            let mut lost = gone(bounds.first);
            if missing.after.saturating_sub(bounds.first) < NEAR_THE_EDGE || asked.elapsed() >= LONG_AGO {
                let now = self.replay.bounds().await?;
                if now.stream != bounds.stream {
                    return Err(ReplayError::unreachable(MadeAnew));
                }
                lost = lost.max(gone(now.first));
            }
            let reading =
                Reading { stream: bounds.stream, events: part.events.len() as u64, through: part.through, upto, gone: lost };
            Ok((reading, part.events))
        })
        .await
    }
}
