//! G2, G5, G6: what one pod can't be handed costs no other its events, and anyone who goes without is told.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, timeout};

use crate::support::{
    client::{Client, Seen},
    fleet::{Fleet, user, without_repair},
};

/// Later than this is late.
const LATE: Duration = Duration::from_secs(1);

/// What a client saw: events in their order, each with how long it was under way, and the gaps.
#[derive(Default)]
struct Log {
    events: Vec<(u64, Duration)>,
    gaps: Vec<serde_json::Value>,
}

impl Log {
    fn late(&self) -> usize {
        self.events.iter().filter(|(_, took)| *took > LATE).count()
    }

    fn seqs(&self) -> BTreeSet<u64> {
        self.events.iter().map(|(seq, _)| *seq).collect()
    }

    /// Of those published, what neither came nor lies in a gap.
    fn missing(&self, published: &[u64]) -> Vec<u64> {
        let announced = |seq: u64| {
            self.gaps.iter().any(|gap| match (gap["first_seq"].as_u64(), gap["last_seq"].as_u64()) {
                (Some(first), Some(last)) => (first..=last).contains(&seq),
                _ => true,
            })
        };
        let seqs = self.seqs();
        published.iter().copied().filter(|seq| !seqs.contains(seq) && !announced(*seq)).collect()
    }
}

/// Notes what comes until it has been silent for so long. Events say in their payload when they were published, as milliseconds
/// since `start`.
async fn log(client: &mut Client, start: Instant, silence: Duration) -> Log {
    let mut log = Log::default();
    while let Ok(seen) = timeout(silence, client.next()).await {
        match seen {
            Seen::Frame(frame, _) if frame["type"] == "event" => {
                let at = Duration::from_millis(frame["payload"]["at"].as_u64().unwrap());
                log.events.push((frame["seq"].as_u64().unwrap(), start.elapsed().saturating_sub(at)));
            }
            Seen::Frame(frame, _) if frame["type"] == "gap" => log.gaps.push(frame["payload"].clone()),
            Seen::Frame(..) => {}
            Seen::Closed(_) => break,
        }
    }
    log
}

/// Publishes for each agent at its own rate (a multiple of fifty a second), for a while. The sequences by agent.
async fn publish_for(fleet: &Fleet, start: Instant, rates: &[(&str, usize)], time: Duration) -> Vec<Vec<u64>> {
    let mut published = vec![Vec::new(); rates.len()];
    let until = Instant::now() + time;
    while Instant::now() < until {
        for ((agent, rate), seqs) in rates.iter().zip(&mut published) {
            for _ in 0..rate / 50 {
                let at = start.elapsed().as_millis();
                seqs.push(fleet.publish(&format!("wa.acme.{agent}.chats"), &format!("{{\"at\":{at}}}")));
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    published
}

#[tokio::test(start_paused = true)]
async fn g2_a_frozen_pod_with_much_traffic_of_its_own_makes_no_other_pods_events_late() {
    // As 2500 events a second are to the default of 5000.
    let fleet = Fleet::with(3, |config| config.app.nats_max_ack_pending = 500).await;
    let (mut frozen, mut other) = (
        fleet.connect(1, user("acme", "busy", "u1")).await.unwrap(),
        fleet.connect(2, user("acme", "calm", "u2")).await.unwrap(),
    );
    let start = Instant::now();
    let faults = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        fleet.freeze(1, true);
        tokio::time::sleep(Duration::from_secs(8)).await;
        fleet.freeze(1, false);
    };
    let rates = [("busy", 250), ("calm", 50)];
    let quiet = Duration::from_secs(20);
    let (published, (), frozen, other) = tokio::join!(
        publish_for(&fleet, start, &rates, Duration::from_secs(14)),
        faults,
        log(&mut frozen, start, quiet),
        log(&mut other, start, quiet),
    );
    assert_eq!((other.late(), other.missing(&published[1]), other.events.len()), (0, vec![], published[1].len()));
    assert_eq!(frozen.missing(&published[0]), Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn g1_what_a_pod_takes_that_is_cut_off_from_its_peers_comes_to_their_sessions_by_another_pod() {
    let fleet = Fleet::with(3, |config| config.app.nats_max_ack_pending = 500).await;
    let mut other = fleet.connect(0, user("acme", "calm", "u")).await.unwrap();
    let cut = |is_cut| [0, 1].into_iter().for_each(|pod| fleet.cut_link(pod, 2, is_cut));
    let start = Instant::now();
    let faults = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        cut(true);
        tokio::time::sleep(Duration::from_secs(60)).await;
        cut(false);
    };
    let rates = [("calm", 150)];
    let publish = publish_for(&fleet, start, &rates, Duration::from_secs(62));
    let (published, (), other) = tokio::join!(publish, faults, log(&mut other, start, Duration::from_secs(20)));
    assert_eq!(other.missing(&published[0]), Vec::<u64>::new());
    // Pod 2 takes a third, and now and then what it gave back, again and again.
    let (in_time, all) = (other.events.len() - other.late(), published[0].len());
    assert!(in_time * 100 >= all * 93, "{in_time} of {all} came in time");
}

#[tokio::test(start_paused = true)]
async fn g2_half_a_fleet_that_the_other_half_cannot_reach_leaves_room_for_each_halfs_own() {
    let fleet = Fleet::with(4, |config| config.app.nats_max_ack_pending = 400).await;
    let mut clients = Vec::new();
    for pod in 0..4 {
        clients.push(fleet.connect(pod, user("acme", &format!("a{pod}"), "u")).await.unwrap());
    }
    // Nobody can be reached but on one's own pod and its neighbour.
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        fleet.cut_link(a, b, true);
    }
    let start = Instant::now();
    let rates = [("a0", 100), ("a1", 100), ("a2", 100), ("a3", 100)];
    let publish = async {
        let published = publish_for(&fleet, start, &rates, Duration::from_secs(20)).await;
        for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
            fleet.cut_link(a, b, false);
        }
        published
    };
    let watch = async {
        // Whatever can't be handed over, the stream goes on delivering what is new.
        let mut most = 0;
        while start.elapsed() < Duration::from_secs(20) {
            most = most.max(fleet.stream.ack_pending());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        most
    };
    let quiet = Duration::from_secs(25);
    let logs = futures_util::future::join_all(clients.iter_mut().map(|client| log(client, start, quiet)));
    let (published, most, logs) = tokio::join!(publish, watch, logs);
    assert!(most < 400, "{most} unsettled of 400");
    for (log, published) in logs.iter().zip(&published) {
        assert_eq!(log.missing(published), Vec::<u64>::new());
    }
}

#[tokio::test(start_paused = true)]
async fn g5_gaps_that_are_owed_over_a_bad_link_hold_nobodys_events_up() {
    let fleet = Fleet::with(3, |config| {
        without_repair(config);
        config.app.forward_max_deliveries = 1;
        config.app.nats_max_ack_pending = 500;
    })
    .await;
    let mut far = Vec::new();
    for number in 0..300 {
        far.push(fleet.connect(1, user("acme", &format!("n{number}"), "u")).await.unwrap());
    }
    let mut other = fleet.connect(2, user("acme", "calm", "u")).await.unwrap();
    let mut same = fleet.connect(1, user("acme", "busy", "u")).await.unwrap();
    let start = Instant::now();
    let owe = async {
        // Only pod 0 takes events while the link is cut: it owes a gap on every route.
        fleet.stream.cut(&fleet.pods[1].id, true);
        fleet.stream.cut(&fleet.pods[2].id, true);
        fleet.cut_link(0, 1, true);
        tokio::time::sleep(Duration::from_secs(1)).await;
        for number in 0..300 {
            fleet.publish(&format!("wa.acme.n{number}.chats"), &format!("{{\"at\":{}}}", start.elapsed().as_millis()));
        }
        tokio::time::sleep(Duration::from_secs(11)).await;
        // It heals for long enough to begin telling, a call at a time too slowly to end it.
        fleet.network.delay(Duration::from_millis(20));
        fleet.cut_link(0, 1, false);
        tokio::time::sleep(Duration::from_millis(2500)).await;
        fleet.network.half_open(&fleet.pods[0].id, &fleet.pods[1].id, true);
        fleet.stream.cut(&fleet.pods[1].id, false);
        fleet.stream.cut(&fleet.pods[2].id, false);
    };
    owe.await;
    let rates = [("busy", 100), ("calm", 50)];
    let heal = async {
        tokio::time::sleep(Duration::from_secs(30)).await;
        fleet.network.half_open(&fleet.pods[0].id, &fleet.pods[1].id, false);
    };
    let quiet = Duration::from_secs(10);
    let (published, (), other, same) = tokio::join!(
        publish_for(&fleet, start, &rates, Duration::from_secs(40)),
        heal,
        log(&mut other, start, quiet),
        log(&mut same, start, quiet),
    );
    assert_eq!((other.late(), other.missing(&published[1])), (0, vec![]));
    assert_eq!(same.missing(&published[0]), Vec::<u64>::new());
    for client in &mut far {
        let gap = client.expect("gap").await;
        assert_eq!((&gap["payload"]["reason"], &gap["payload"]["dropped"]), (&"given_up".into(), &1.into()));
    }
}

#[tokio::test(start_paused = true)]
async fn g5_a_pod_that_its_peers_refuse_loses_nothing_without_a_gap() {
    let fleet = Fleet::with(3, |config| {
        config.app.forward_max_deliveries = 4;
    })
    .await;
    let mut clients = Vec::new();
    for pod in 0..3 {
        clients.push(fleet.connect(pod, user("acme", &format!("a{pod}"), "u")).await.unwrap());
    }
    fleet.network.estrange(&fleet.pods[2].id, true);
    let start = Instant::now();
    let rates = [("a0", 50), ("a1", 50), ("a2", 50)];
    let quiet = Duration::from_secs(50);
    let logs = futures_util::future::join_all(clients.iter_mut().map(|client| log(client, start, quiet)));
    let (published, logs) = tokio::join!(publish_for(&fleet, start, &rates, Duration::from_secs(16)), logs);
    assert!(fleet.labelled("dws_events_settled_total", "given_up") > 0.0);
    for (log, published) in logs.iter().zip(&published) {
        assert_eq!(log.missing(published), Vec::<u64>::new());
    }
    assert_eq!(fleet.total("dws_gaps_owed"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn g5_a_pod_that_drains_tells_what_it_owes_before_it_goes() {
    let fleet = Fleet::with(2, |config| {
        config.app.forward_max_deliveries = 1;
    })
    .await;
    // All events go through pod 0, and all are for pod 1.
    fleet.stream.cut(&fleet.pods[1].id, true);
    let mut far = fleet.connect(1, user("acme", "a1", "far")).await.unwrap();
    fleet.cut_link(0, 1, true);
    fleet.publish("wa.acme.a1.chats", "{}");
    fleet.all_settled().await;
    fleet.pods[0].pod.drain(Duration::from_secs(30)).await;
    fleet.pods[0].tasks.shutdown().hard.cancel();
    fleet.network.kill(&fleet.pods[0].id);
    let gap = far.expect("gap").await;
    assert_eq!(gap["payload"]["dropped"], serde_json::Value::Null);
}
