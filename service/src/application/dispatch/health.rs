//! How the stream is, asked again and again while no event comes.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use crate::{
    application::hub::deliver::LocalDelivery,
    config::Config,
    metrics::Metrics,
    ports::EventSource,
    readiness::{Dependency, Readiness},
    telemetry::Chain,
};

/// How often the stream's connection is looked at.
const WATCH_PERIOD: Duration = Duration::from_millis(500);
/// How often the consumer is asked how far it is: every pod asks, and an answer costs the consumer's leader some tens of
/// microseconds. What is remembered to recognise redeliveries is what came since, and what frames say of where a session stands
/// is as old.
const LAG_PERIOD: Duration = Duration::from_millis(500);

/// Looks at the stream, and shows what is there.
#[derive(Clone)]
pub(crate) struct Health {
    /// The stream.
    pub source: Arc<dyn EventSource>,
    /// Told how far events are settled, and what is missed.
    pub local: LocalDelivery,
    /// Told whether the stream answers.
    pub readiness: Readiness,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Where it is shown.
    pub metrics: Arc<Metrics>,
}

impl Health {
    /// Looks again and again whether the stream is there, also while no event comes, and shows what is there.
    pub(crate) async fn watch_dependencies(&self) {
        loop {
            match self.source.trouble() {
                Some(trouble) => self.readiness.observe_trouble(Dependency::Nats, format!("nats: {}", Chain(&trouble))),
                None => self.readiness.observe(Dependency::Nats, true),
            }
            let report = self.readiness.report(Duration::ZERO);
            self.metrics.dependency_up.with_label_values(&[Dependency::Nats.as_str()]).set(i64::from(report.nats));
            self.metrics.dependency_up.with_label_values(&[Dependency::Redis.as_str()]).set(i64::from(report.redis));
            self.metrics.dependency_up.with_label_values(&[Dependency::Grpc.as_str()]).set(i64::from(report.grpc));
            self.metrics.ready.set(i64::from(report.ready));
            self.metrics.draining.set(i64::from(report.draining));
            self.metrics.connections_limit.set(gauge(self.config.borrow().app.max_connections));
            self.metrics.consumer_ack_pending_limit.set(gauge(self.source.limits().max_ack_pending));
            tokio::time::sleep(WATCH_PERIOD).await;
        }
    }

    /// Asks again and again how far the consumer is. Apart from the rest: the answer may take a while.
    pub(crate) async fn watch_lag(&self) {
        let mut safe = SafeLag::default();
        loop {
            match self.source.lag().await {
                Ok(lag) => {
                    self.metrics.consumer_pending.set(i64::try_from(lag.pending).unwrap_or(i64::MAX));
                    self.metrics.consumer_ack_pending.set(gauge(lag.ack_pending));
                    if let Some(settled) = lag.settled {
                        self.local.settled_up_to(settled);
                        self.metrics.safe_lag_seconds.set(safe.look(settled.seq, self.local.floor()).as_secs_f64());
                    }
                }
                // The last answer stays; that the stream is away shows elsewhere.
                Err(error) => tracing::debug!(error = %Chain(&error), "the consumer's lag is not known"),
            }
            if let Some(gap) = self.source.take_missed() {
                let told = self.local.announce_missed(gap);
                tracing::warn!(
                    gap.first = gap.first_seq,
                    gap.last = gap.last_seq,
                    sessions = told,
                    "the consumer or the stream was made anew and passes over events; the sessions are told"
                );
            }
            tokio::time::sleep(LAG_PERIOD).await;
        }
    }
}

/// How long the floor that frames carry has been behind what was settled.
#[derive(Debug, Default)]
struct SafeLag {
    /// Since when it has been behind this sequence.
    behind: Option<(u64, Instant)>,
}

impl SafeLag {
    /// Takes in what is settled now, and the floor.
    fn look(&mut self, settled: u64, floor: u64) -> Duration {
        let now = Instant::now();
        self.behind = self.behind.filter(|(seq, _)| floor < *seq).or((floor < settled).then_some((settled, now)));
        self.behind.map_or(Duration::ZERO, |(_, since)| now.saturating_duration_since(since))
    }
}

fn gauge(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
