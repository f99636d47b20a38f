//! Links that are neither up nor down, under load.

use std::time::Duration;

use daisi_ws_fleet::containers::cluster::Options;
use tokio::time::Instant;

use crate::measure::{IN_HAND, measured, newcomers, no_session_noticed, others_were_spared, until_now};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn pods_links_flap() {
    let fault = "Pod's links to Redis and peers cut and open every 300–700 ms for 15 s";
    let verdict = measured(53, fault, Options::pods(3), async |cluster, load| {
        newcomers(cluster, load, 6, &[0, 1, 2]).await?;
        let began = Instant::now();
        cluster.flap(&cluster.pods[1], Duration::from_secs(15)).await?;
        Ok(until_now(began, false).at(1))
    })
    .await;
    no_session_noticed(&verdict);
    others_were_spared(&verdict, IN_HAND);
}
