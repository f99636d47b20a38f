//! Asks a pod how it is, again and again, and notes how long the answer takes.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use daisi_ws_testbed::http;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, timeout},
};

use super::{audience, samples::Samples};
use crate::strangers::{http2, order::Pass};

/// Longest wait for an answer: longer than that of any orchestrator.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two questions over HTTP.
const PERIOD: Duration = Duration::from_millis(50);
/// Between two new connections of another kind.
const SLOW_PERIOD: Duration = Duration::from_millis(250);

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Question {
    /// A path, on a new connection.
    Http(SocketAddr, &'static str),
    /// The greeting of the server of pods, on a new connection.
    Grpc(SocketAddr),
    /// A session for the next of these tokens, up to `ready`.
    Session(SocketAddr, Vec<Pass>),
}

impl Question {
    const fn period(&self) -> Duration {
        match self {
            Self::Http(..) => PERIOD,
            Self::Grpc(_) | Self::Session(..) => SLOW_PERIOD,
        }
    }

    async fn ask(&self, turn: usize) -> bool {
        let answered = async {
            match self {
                Self::Http(to, path) => http::get_within(PATIENCE, *to, path).await.is_ok_and(|answer| answer.status == 200),
                Self::Grpc(to) => http2::greeted(*to).await,
                Self::Session(to, passes) => match passes.get(turn % passes.len().max(1)) {
                    Some(Pass { path, token }) => audience::open(*to, path, token, None).await.is_ok(),
                    None => false,
                },
            }
        };
        timeout(PATIENCE, answered).await.unwrap_or(false)
    }
}

/// One question and its fate; none yet: the answer is waited for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    fate: Option<(Duration, bool)>,
}

/// Answers of a span of time.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    /// How long each took; one that did not come, as long as it was waited for.
    pub took: Samples,
    /// Questions without an answer, or with a wrong one.
    pub failed: usize,
}

/// A question that is asked again and again, one at a time, until this is dropped.
#[derive(Debug)]
pub(crate) struct Probe {
    asked: Arc<Mutex<Vec<Asked>>>,
    _task: JoinSet<()>,
}

impl Probe {
    /// Starts to ask.
    #[must_use]
    pub(crate) fn start(question: Question) -> Self {
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (noted, mut task) = (Arc::clone(&asked), JoinSet::new());
        task.spawn(async move {
            let mut ticks = interval(question.period());
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            for turn in 0.. {
                ticks.tick().await;
                let at = Instant::now();
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(Asked { at, fate: None });
                let answered = question.ask(turn).await;
                if let Some(asked) = noted.lock().unwrap_or_else(PoisonError::into_inner).last_mut() {
                    asked.fate = Some((at.elapsed(), answered));
                }
            }
        });
        Self { asked, _task: task }
    }

    /// What was asked from `since` until `until`; a question that waits for its answer counts as one without.
    #[must_use]
    pub(crate) fn answers(&self, since: Instant, until: Instant) -> Answers {
        let mut answers = Answers::default();
        for asked in self.asked.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if asked.at >= since && asked.at < until {
                let (took, answered) = asked.fate.unwrap_or_else(|| (asked.at.elapsed(), false));
                answers.took.add(took);
                answers.failed += usize::from(!answered);
            }
        }
        answers
    }
}
