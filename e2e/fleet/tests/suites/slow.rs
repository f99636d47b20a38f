//! A client that takes no bytes harms itself alone, and is told what it missed.

use std::{collections::BTreeSet, time::Duration};

use daisi_ws_fleet::{
    containers::cluster::{Cluster, Options},
    identity::{Kind, Subject, Who},
    proxy::{Mode, Proxy},
    traffic::{client, ledger::Seen},
};
use daisi_ws_testbed::wait;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::Message;

use crate::measure::{measured, until_now};

/// Enough large events to fill every buffer on the way to one client.
const EVENTS: usize = 1500;
const SIZE: usize = 16 * 1024;
const SOON: Duration = Duration::from_secs(40);

fn who(user: &str) -> Who {
    Who::User { company: "acme".into(), agent: "slow".into(), user: user.into(), chat: None }
}

async fn behind_a_proxy(cluster: &Cluster, pod: usize) -> Proxy {
    let to = cluster.pods[pod].http().unwrap();
    let lookup = std::sync::Arc::new(move || Box::pin(std::future::ready(Some(to))) as _);
    Proxy::start(std::net::Ipv4Addr::LOCALHOST.into(), lookup).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn slow_client() {
    // It is about what is dropped, not about when the socket is given up.
    let options = Options::pods(3).with("DAISI_WS_APP_WRITE_TIMEOUT_SECONDS", "300");
    let verdict = measured(60, "A client takes no bytes, then reads on", options, async |cluster, load| {
        let token = cluster.pods[0].token(&who("slow")).await?;
        let mut socket = client::open(cluster.pods[0].http()?, &who("slow"), &token).await?;
        let ready = socket.next().await.unwrap()?;
        assert!(ready.to_text()?.contains("ready"));
        let began = Instant::now();
        let subject = Subject { company: "acme".into(), agent: "slow".into(), kind: Kind::Chats };
        let mut owed = BTreeSet::new();
        for _ in 0..EVENTS {
            owed.insert(load.publisher.store_padded(&subject, SIZE).await.seq);
        }
        // It reads on, slowly or fast: what it gets and what the gaps cover is all there was. Pods are not in step, so the last
        // event may come before others.
        let (mut got, mut gaps) = (BTreeSet::new(), Vec::new());
        let mut missing = owed.clone();
        while !missing.is_empty() {
            let Ok(message) = timeout(SOON, socket.next()).await else {
                panic!("{} events silently lost; gaps {gaps:?}", missing.len())
            };
            match message {
                Some(Ok(Message::Text(text))) => match Seen::read(&text) {
                    Seen::Event { seq, .. } => {
                        assert!(got.insert(seq), "{seq} came twice");
                        missing.remove(&seq);
                    }
                    Seen::Gap { range, reason } => {
                        assert_eq!(reason, "slow_client");
                        let (first, last) = range.expect("the pod knows what it dropped");
                        missing.retain(|seq| !(first..=last).contains(seq));
                        gaps.push((first, last));
                    }
                    other => panic!("{other:?}"),
                },
                Some(Ok(_)) => {}
                other => panic!("{other:?}, with {} events and gaps {gaps:?}", got.len()),
            }
        }
        assert!(!gaps.is_empty(), "nothing was dropped: the test is too small");
        assert!(got.is_subset(&owed));
        Ok(until_now(began, false))
    })
    .await;
    // Nobody else noticed.
    assert_eq!((verdict.closes.len(), verdict.announced, verdict.away), (0, 0, 0), "{}", verdict.describe());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn dead_client() {
    let options = Options::pods(3).with("DAISI_WS_APP_PING_INTERVAL_SECONDS", "1").with("DAISI_WS_APP_PONG_WAIT_SECONDS", "3");
    let verdict = measured(61, "A client vanishes without a goodbye", options, async |cluster, _| {
        let token = cluster.pods[0].token(&who("dead")).await?;
        let proxy = behind_a_proxy(cluster, 0).await;
        let mut socket = client::open(proxy.address, &who("dead"), &token).await?;
        socket.next().await.unwrap()?;
        let held = || async { cluster.redis_cli(&["exists", "session:acme:slow:dead"]).await.is_ok_and(|answer| answer == "1") };
        assert!(held().await);
        let began = Instant::now();
        proxy.set(Mode::Stall);
        wait::until("its session is free", SOON, || async { !held().await }).await?;
        Ok(until_now(began, false))
    })
    .await;
    assert_eq!((verdict.closes.len(), verdict.announced, verdict.away), (0, 0, 0), "{}", verdict.describe());
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn trickling_client() {
    let thin = Who::User { company: "acme".into(), agent: "agent-0".into(), user: "thin".into(), chat: None };
    let verdict = measured(62, "A client takes 2 kB/s for 6 s", Options::pods(3), async |cluster, load| {
        let token = cluster.pods[0].token(&thin).await?;
        let proxy = behind_a_proxy(cluster, 0).await;
        let mut socket = client::open(proxy.address, &thin, &token).await?;
        assert!(socket.next().await.unwrap()?.to_text()?.contains("ready"));
        let began = Instant::now();
        proxy.set(Mode::Trickle(2048));
        let mut got = Vec::new();
        let mut read = async |until: Instant| {
            while let Ok(Some(Ok(message))) = tokio::time::timeout_at(until, socket.next()).await {
                if let Seen::Event { seq, .. } = Seen::read(message.to_text().unwrap_or_default()) {
                    got.push(seq);
                }
            }
        };
        read(began + Duration::from_secs(6)).await;
        proxy.heal();
        let time = until_now(began, false);
        read(Instant::now() + Duration::from_secs(3)).await;
        // It fell behind, caught up and missed nothing.
        let records = load.publisher.records();
        let owed =
            records.iter().filter(|event| thin.wants(&event.subject) && event.started > began && event.stored < time.ended);
        let missing: Vec<u64> = owed.map(|event| event.seq).filter(|seq| !got.contains(seq)).collect();
        assert!(missing.is_empty(), "missing: {missing:?}");
        Ok(time)
    })
    .await;
    assert_eq!((verdict.closes.len(), verdict.announced, verdict.away), (0, 0, 0), "{}", verdict.describe());
}
