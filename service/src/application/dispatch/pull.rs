//! Asks the source for events, at a pace that leaves sockets and other pods their turn.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, mpsc, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{deliver::Deliverer, in_flight::InFlightEvents, pass_on::PassOn, taken::Taken};
use crate::{
    config::Config,
    ports::{EventSource, RawEvent, SourceError},
    runtime::{backoff::Backoff, fine_timer::FineTimer, linger::Linger},
    telemetry::Chain,
};

/// From one pull to the next while many events come: long enough that some thirty share what a pull costs where there are 20,000
/// a second.
const BETWEEN_PULLS: Duration = Duration::from_micros(1500);
/// So many bytes of events are followed by a millisecond in which sockets write: mailboxes are filled no faster than a fast
/// client could read.
const BYTES_A_MILLISECOND: usize = 1024 * 1024;
/// From one pull to the next when events come back that were given back: it is for others to take them.
const FOR_OTHERS: Duration = Duration::from_millis(5);
/// The pauses after pulls that failed at once.
const PULL_PAUSES: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
/// How often an outage of the stream is logged again.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Pulls events for this pod, as many as may be in flight, and brings them to its own sockets at once.
#[derive(Clone)]
pub struct Puller {
    /// Where they come from.
    pub source: Arc<dyn EventSource>,
    /// Ends the pauses between pulls.
    pub timer: Arc<FineTimer>,
    /// Gives back what is better off elsewhere; told whether this pod takes events.
    pub pass_on: PassOn,
    /// Says how many more may be taken.
    pub in_flight: InFlightEvents,
    /// Brings them to this pod's sockets.
    pub deliverer: Deliverer,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
}

impl Puller {
    /// Takes events until `stop`, then gives back what was fetched and not begun. Each is in this pod's mailboxes before it goes
    /// to `taken`.
    pub(super) async fn run(&self, stop: &CancellationToken, taken: mpsc::UnboundedSender<Vec<Taken>>) {
        let (mut complained_at, mut pauses): (Option<Instant>, _) = (None, PULL_PAUSES);
        loop {
            let batch = self.config.borrow().app.nats_pull_batch;
            let pulled = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                pulled = self.pull(batch) => pulled,
            };
            match pulled {
                Ok((raw, places)) => {
                    complained_at = None;
                    pauses.reset();
                    let mut pause = time_to_write(&raw);
                    if self.pass_on.wellness.stance().gives_back() && raw.iter().any(|raw| raw.delivery.count > 1) {
                        pause = pause.max(FOR_OTHERS);
                    }
                    let linger = Linger::of(raw.len(), batch, BETWEEN_PULLS).no_shorter_than(pause);
                    let (here, poison) = self.deliverer.deliver(raw, places);
                    // Here already, as anyone who looks routes up may have to wait for the store.
                    if let Some((rest, _)) = self.pass_on.split(here) {
                        // Its other end lives as long as this one.
                        let _ = taken.send(rest);
                    }
                    self.deliverer.terminate(poison).await;
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = linger.wait_by(&self.timer) => {}
                    }
                }
                Err(error) => {
                    if complained_at.is_none_or(|at| at.elapsed() >= COMPLAIN_EVERY) {
                        complained_at = Some(Instant::now());
                        tracing::warn!(
                            error = %Chain(&error),
                            "no events can be taken; sockets stay, and the durable consumer will catch up"
                        );
                    }
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => break,
                        () = tokio::time::sleep(pauses.pause()) => {}
                    }
                }
            }
        }
        drop(taken);
        self.pass_on.wellness.takes_events(false);
        self.source.close().await;
    }

    /// Pulls no more events than may be in flight.
    async fn pull(&self, batch: usize) -> Result<(Vec<RawEvent>, OwnedSemaphorePermit), SourceError> {
        let places = self.in_flight.places(batch).await;
        let raw = self.source.pull(places.num_permits()).await?;
        Ok((raw, places))
    }
}

/// Nothing for less than a millisecond's bytes.
fn time_to_write(raw: &[RawEvent]) -> Duration {
    let bytes: usize = raw.iter().map(|raw| raw.payload.len()).sum();
    Duration::from_millis((bytes / BYTES_A_MILLISECOND).try_into().unwrap_or(u64::MAX))
}
