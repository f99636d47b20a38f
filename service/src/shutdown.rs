//! How a pod ends: the order of the stages stands here and nowhere else, and so does every token that tells a part of the pod to
//! stop.
//!
//! [`Sequence::end`] is that order. Each part listens to the [`Stop`] that it got from here, or to the tokens of [`Shutdown`],
//! and cancels none. What comes after a
//! pod's end is its process's: telemetry is flushed last, however the pod ended.

use std::{pin::Pin, time::Duration};

use futures_util::future::{Fuse, FusedFuture as _};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{
    drain::Drain,
    runtime::{
        lifecycle::{Shutdown, Tasks},
        stop::Stop,
    },
    telemetry::Chain,
};

/// What is left of the shutdown time for closing servers, after the drain.
const CLOSING_TIME: Duration = Duration::from_secs(3);

/// The order in which a pod ends.
#[derive(Debug, Clone)]
pub struct Sequence {
    shutdown: Shutdown,
    pulling: Stop,
    announcing: Stop,
    peers: Stop,
    browsers: Stop,
}

impl Sequence {
    /// The order of a pod in which nothing stops yet.
    #[must_use]
    pub fn new(shutdown: Shutdown) -> Self {
        Self {
            shutdown,
            pulling: Stop::new("pulling"),
            announcing: Stop::new("announcing"),
            peers: Stop::new("server for peers"),
            browsers: Stop::new("server for browsers"),
        }
    }

    /// Of the loop that takes events.
    #[must_use]
    pub(crate) fn pulling(&self) -> &Stop {
        &self.pulling
    }

    /// Of the announcements that make this pod a member.
    #[must_use]
    pub(crate) fn announcing(&self) -> &Stop {
        &self.announcing
    }

    /// Of the server for peers, which says by its end that it has stopped.
    #[must_use]
    pub fn peers(&self) -> &CancellationToken {
        self.peers.told()
    }

    /// Of the server for browsers.
    #[must_use]
    pub(crate) fn browsers(&self) -> &CancellationToken {
        self.browsers.told()
    }

    /// Ends the pod: drains it while `peers`, the server for them, goes on, then stops the servers, then all of `tasks`. The hard
    /// token, or the end of the time, cuts that short.
    ///
    /// # Errors
    /// What the server for peers failed with, if it did.
    pub async fn end<P, E>(&self, drain: &Drain, mut peers: Pin<&mut Fuse<P>>, tasks: &Tasks, within: Duration) -> Result<(), E>
    where
        P: Future<Output = Result<(), E>>,
    {
        let (deadline, mut served) = (Instant::now() + within, Ok(()));
        self.shutdown.soft.cancel();
        {
            let mut drained = std::pin::pin!(self.drain(drain, within.saturating_sub(CLOSING_TIME)));
            loop {
                tokio::select! {
                    biased;
                    () = &mut drained => break,
                    () = self.shutdown.hard.cancelled() => break,
                    () = sleep_until(deadline) => break,
                    // It serves on: forwards land until the hub is empty.
                    ended = peers.as_mut() => served = served.and(ended),
                }
            }
        }
        self.peers.tell();
        self.browsers.tell();
        if !peers.is_terminated() {
            let _ = timeout(CLOSING_TIME, peers).await;
        }
        // What serves the store (route writer, releaser, membership) has no end of its own.
        tracing::debug!(drain.stage = "everything", "a part of the pod is told to stop");
        self.shutdown.hard.cancel();
        let _ = timeout_at(deadline.max(Instant::now() + CLOSING_TIME), tasks.ended()).await;
        served
    }

    /// The first part of it: empties the pod within the time. Peers may go on handing events over meanwhile, and should.
    pub async fn drain(&self, drain: &Drain, within: Duration) {
        let begun = Instant::now();
        let (half, deadline) = (begun + within / 2, begun + within);
        drain.entrance.close();
        self.pulling.tell();
        // Sockets at once, as a client that has much to read yet needs the time.
        tokio::join!(drain.events.finish(&self.pulling, half), drain.sockets.close(deadline, drain.events.sent_back()));
        let left = async {
            let given_back = drain.leaving.give_back().await;
            // An announcement that is overtaken by the goodbye would make it a member again.
            self.announcing.tell();
            self.announcing.stopped().await;
            given_back.and(drain.leaving.leave().await)
        };
        // What could not be told before is tried once more: nobody else knows of it.
        let (left, ()) = tokio::join!(timeout_at(deadline, left), drain.events.settle_debts(deadline));
        match left {
            Ok(Ok(())) => tracing::info!("the pod is empty: no lock, no route, no membership left"),
            Ok(Err(error)) => {
                tracing::warn!(
                    error = %Chain(&error), error.kind = error.as_str(),
                    "locks or routes are left to their time to live"
                );
            }
            Err(_) => tracing::warn!("the drain's time is over; locks or routes are left to their time to live"),
        }
    }
}
