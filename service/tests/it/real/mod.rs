//! The whole fleet for real: the binary, as several processes, on a real NATS and a real Redis.

mod lifecycle;
mod strangers;
mod traces;
mod traffic;

use std::time::Duration;

use daisi_ws_service::adapters::nats::Publisher;

use crate::support::{
    nats::{NatsServer, publication},
    process::{ServePod, Surroundings},
    redis::RedisServer,
    wait,
};

/// Pods, and what they stand on.
struct RealFleet {
    nats: NatsServer,
    redis: RedisServer,
    around: Surroundings,
    pods: Vec<ServePod>,
    publisher: Publisher,
}

impl RealFleet {
    async fn start(pods: usize) -> Self {
        Self::with(pods, &[]).await
    }

    async fn with(pods: usize, extra: &[(&str, &str)]) -> Self {
        let (nats, redis) = (NatsServer::start().await, RedisServer::start().await);
        let around = Surroundings { nats: nats.url(), redis: redis.config().address };
        let mut started = Vec::new();
        for n in 0..pods {
            started.push(ServePod::start(&format!("pod-{n}"), &around, extra).await);
        }
        let publisher = Publisher::connect(&nats.section()).await.unwrap();
        let fleet = Self { nats, redis, around, pods: started, publisher };
        // Every pod knows every other.
        for pod in &fleet.pods {
            wait::until("the pods know each other", || async {
                pod.get("/metrics").await.is_some_and(|text| text.contains(&format!("dws_peers{{state=\"alive\"}} {}", pods - 1)))
            })
            .await;
        }
        fleet
    }

    /// Stores an event and returns its sequence.
    async fn publish(&self, subject: &str, event: &str) -> u64 {
        self.publisher.publish(&publication(subject, event.to_owned()), &[]).await.unwrap()
    }

    /// Waits until nothing in the stream is unsettled or untaken.
    async fn all_settled(&self, within: Duration) {
        let deadline = tokio::time::Instant::now() + within;
        loop {
            let (unsettled, untaken) = self.nats.consumer_state().await;
            if unsettled == 0 && untaken == 0 {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "{unsettled} events are unsettled, {untaken} untaken");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
