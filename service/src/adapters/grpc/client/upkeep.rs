//! What is done for the pool of connections in rounds.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use super::{hello::hello, pool::Pool, proving::Prover};
use crate::adapters::grpc::{CONNECT_TIMEOUT, PROBE_TIMEOUT};

/// Peers whose health is asked at a time.
const CHECKS_AT_ONCE: usize = 16;

/// The shortest time between two rounds over the pool, whatever is configured.
const SHORTEST_ROUND: Duration = Duration::from_millis(10);

/// Closes what nobody uses any more, for ever.
pub(super) async fn close_idle(pool: &Pool, idle_timeout: Duration) {
    // Half the time-out: a channel lives at most one and a half times as long as it may.
    let mut rounds = rounds(idle_timeout / 2);
    loop {
        rounds.tick().await;
        pool.close_idle(idle_timeout);
    }
}

/// Asks every peer whether it serves, and closes the connections to those that do not, for ever.
pub(super) async fn check_health(pool: &Pool, prover: &Prover, interval: Duration) {
    let mut rounds = rounds(interval);
    loop {
        rounds.tick().await;
        let checks = futures_util::stream::iter(pool.settled());
        checks
            .for_each_concurrent(CHECKS_AT_ONCE, |(peer, link)| async move {
                // Time for a connect, too: when this is over, none is under way any more.
                let connection = link.connection();
                let check = timeout(CONNECT_TIMEOUT + PROBE_TIMEOUT, hello(prover, &connection, &peer));
                if !matches!(check.await, Ok(Ok(()))) {
                    pool.close_unhealthy(&peer.id, &link);
                }
            })
            .await;
    }
}

fn rounds(period: Duration) -> tokio::time::Interval {
    let period = period.max(SHORTEST_ROUND);
    let mut rounds = tokio::time::interval_at(Instant::now() + period, period);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    rounds
}
