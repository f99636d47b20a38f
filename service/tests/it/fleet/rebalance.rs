//! A pod with more sockets than others asks clients to move, and a fleet that changes moves nobody.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, sleep};

use crate::support::{
    crowd::{Guest, Manner, crowd, live},
    fleet::Fleet,
    wait,
};

const CHATS: &str = "wa.acme.a1.chats";
/// For so long nothing may change in the fleet before anybody moves.
const STEADY: Duration = Duration::from_secs(60);
/// Time for everybody to move who is going to.
const LONG: Duration = Duration::from_mins(5);

/// Pods, and a crowd on some of them.
async fn fleet_with(guests: &[usize]) -> (Fleet, Vec<Guest>) {
    let fleet = Fleet::start(guests.len()).await;
    let guests = crowd_on(&fleet, guests).await;
    (fleet, guests)
}

async fn crowd_on(fleet: &Fleet, guests: &[usize]) -> Vec<Guest> {
    wait::until("a floor is known", || async { fleet.pods.iter().all(|pod| pod.pod.hub().floor().is_some()) }).await;
    let mut all = Vec::new();
    for (pod, guests) in guests.iter().enumerate() {
        all.extend(crowd(fleet, pod, *guests, true).await);
    }
    all
}

fn sockets(fleet: &Fleet) -> Vec<usize> {
    fleet.pods.iter().map(|pod| pod.pod.hub().len()).collect()
}

fn moves(fleet: &Fleet, outcome: &str) -> f64 {
    fleet.labelled("dws_session_moves_total", outcome)
}

/// Has them live until the first is asked to move, to the second.
async fn until_asked(fleet: &Fleet, guests: &mut [Guest]) {
    let began = Instant::now();
    while moves(fleet, "asked") == 0.0 {
        assert!(began.elapsed() < STEADY * 2, "nobody is asked");
        live(fleet, guests, Duration::from_secs(1)).await;
    }
}

/// Publishes an event every few seconds, for ever.
async fn publish(fleet: &Fleet, published: &mut BTreeSet<u64>) {
    loop {
        published.insert(fleet.publish(CHATS, "{}"));
        sleep(Duration::from_secs(4)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g11_a_pod_that_joins_gets_sockets_of_the_others_and_nobody_misses_anything_or_moves_twice() {
    let (mut fleet, mut guests) = fleet_with(&[300; 3]).await;
    fleet.add_pod(None).await;
    let mut published = BTreeSet::new();
    let all_the_time = async {
        tokio::select! {
            () = publish(&fleet, &mut published) => {}
            () = async {
                sleep(STEADY - Duration::from_secs(1)).await;
                assert_eq!(sockets(&fleet), [300, 300, 300, 0]);
                // From 300 to 247 it is 3 in the first second and 2 in each other.
                sleep(Duration::from_secs(1 + 6 + 26)).await;
                let now = sockets(&fleet);
                assert!(now.iter().sum::<usize>() == 900 && now[..3].iter().all(|pod| *pod == 247), "{now:?}");
                assert!(fleet.total("dws_sockets_ratio") > 3.0);
                sleep(STEADY).await;
            } => {}
        }
    };
    tokio::join!(all_the_time, live(&fleet, &mut guests, STEADY * 2 + Duration::from_secs(33)));
    assert_eq!((sockets(&fleet), moves(&fleet, "asked")), (vec![247, 247, 247, 159], 159.0), "nobody moves any more");
    assert_eq!(moves(&fleet, "moved"), 159.0);
    for guest in &guests {
        assert!(guest.asked.len() <= 1 && guest.closed.is_none());
        assert_eq!(guest.events, published);
    }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_comes_and_goes_moves_nobody() {
    let (mut fleet, mut guests) = fleet_with(&[90, 0]).await;
    for _ in 0..6 {
        let flapping = fleet.add_pod(None).await;
        live(&fleet, &mut guests, Duration::from_secs(30)).await;
        let gone = fleet.pods.remove(flapping);
        gone.pod.drain(Duration::from_secs(5)).await;
        fleet.network.kill(&gone.id);
        gone.tasks.shutdown().hard.cancel();
        live(&fleet, &mut guests, Duration::from_secs(30)).await;
    }
    assert_eq!((moves(&fleet, "asked"), sockets(&fleet)), (0.0, vec![90, 0]));
    live(&fleet, &mut guests, LONG).await;
    assert_eq!(sockets(&fleet), [49, 41]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_is_gone_from_the_store_now_and_then_moves_nobody() {
    let (fleet, mut guests) = fleet_with(&[90, 0, 0]).await;
    for _ in 0..10 {
        fleet.freeze(2, true);
        live(&fleet, &mut guests, Duration::from_secs(25)).await;
        fleet.freeze(2, false);
        live(&fleet, &mut guests, Duration::from_secs(25)).await;
    }
    assert_eq!((moves(&fleet, "asked"), sockets(&fleet)), (0.0, vec![90, 0, 0]));
}

#[tokio::test(start_paused = true)]
async fn switched_off_nobody_moves_until_it_is_switched_on() {
    let fleet = Fleet::with(2, |config| config.rebalance.enabled = false).await;
    let mut guests = crowd_on(&fleet, &[60, 0]).await;
    live(&fleet, &mut guests, LONG).await;
    assert_eq!((moves(&fleet, "asked"), sockets(&fleet)), (0.0, vec![60, 0]));
    (0..2).for_each(|pod| fleet.reconfigure(pod, |config| config.rebalance.enabled = true));
    live(&fleet, &mut guests, LONG).await;
    assert_eq!(sockets(&fleet), [33, 27]);
}

#[tokio::test(start_paused = true)]
async fn sockets_that_cannot_move_are_left_alone() {
    let (fleet, mut guests) = fleet_with(&[60, 0]).await;
    let mut others = crowd(&fleet, 0, 140, false).await;
    let all = [live(&fleet, &mut guests, LONG), live(&fleet, &mut others, LONG)];
    futures_util::future::join_all(all).await;
    // With fewer than 20 that can, nobody is asked anything.
    assert_eq!((sockets(&fleet), moves(&fleet, "asked")), (vec![159, 41], 41.0));
    assert!(guests.iter().all(|guest| guest.asked.len() <= 1 && guest.closed.is_none()));
    assert!(others.iter().all(|guest| guest.asked.is_empty() && guest.closed.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_came_by_a_move_is_left_alone_for_ten_minutes() {
    let (fleet, mut guests) = fleet_with(&[100, 0]).await;
    live(&fleet, &mut guests, LONG).await;
    assert_eq!((sockets(&fleet), moves(&fleet, "asked")), (vec![55, 45], 45.0));
    guests.retain(|guest| !guest.asked.is_empty());
    live(&fleet, &mut guests, LONG).await;
    assert_eq!((sockets(&fleet), moves(&fleet, "asked")), (vec![0, 45], 45.0));
    live(&fleet, &mut guests, Duration::from_mins(10)).await;
    assert_eq!(sockets(&fleet), [21, 24]);
}

#[tokio::test(start_paused = true)]
async fn a_fleet_that_was_restarted_pod_by_pod_is_even_a_while_later() {
    let (mut fleet, mut guests) = fleet_with(&[100; 4]).await;
    for number in 0..4 {
        let old = fleet.pods.remove(0);
        tokio::join!(old.pod.drain(Duration::from_secs(27)), live(&fleet, &mut guests, Duration::from_secs(40)));
        fleet.network.kill(&old.id);
        old.tasks.shutdown().hard.cancel();
        let new = fleet.launch(&format!("new-{number}"), &format!("new-{number}:50051"), None);
        fleet.network.register(&new.record, new.pod.peer_service());
        new.pod.joined().await;
        fleet.pods.push(new);
    }
    let before = sockets(&fleet);
    assert!(before.iter().sum::<usize>() == 400 && before.contains(&0), "the last pod that came has none: {before:?}");
    live(&fleet, &mut guests, Duration::from_mins(15)).await;
    let now = sockets(&fleet);
    assert!(now.iter().sum::<usize>() == 400 && now.iter().all(|pod| *pod <= 110), "{now:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_does_not_say_what_it_has_stops_it() {
    let (fleet, mut guests) = fleet_with(&[200, 0, 0]).await;
    until_asked(&fleet, &mut guests).await;
    let before = moves(&fleet, "asked");
    fleet.cut_link(0, 2, true);
    // What was reckoned last holds for some seconds.
    live(&fleet, &mut guests, Duration::from_secs(10)).await;
    let stopped = moves(&fleet, "asked");
    assert!(stopped <= before + 14.0, "{before} to {stopped}");
    live(&fleet, &mut guests, LONG).await;
    assert_eq!(moves(&fleet, "asked"), stopped);
    fleet.cut_link(0, 2, false);
    live(&fleet, &mut guests, LONG).await;
    assert_eq!(sockets(&fleet), [73, 64, 63]);
}

#[tokio::test(start_paused = true)]
async fn without_the_stream_nobody_is_asked_as_nobody_could_go_on_elsewhere() {
    let (fleet, mut guests) = fleet_with(&[200, 0]).await;
    until_asked(&fleet, &mut guests).await;
    fleet.stream.cut(&fleet.pods[0].id, true);
    live(&fleet, &mut guests, Duration::from_secs(2)).await;
    let stopped = moves(&fleet, "asked");
    live(&fleet, &mut guests, LONG).await;
    assert_eq!(moves(&fleet, "asked"), stopped);
    fleet.stream.cut(&fleet.pods[0].id, false);
    live(&fleet, &mut guests, LONG).await;
    assert_eq!(sockets(&fleet), [110, 90]);
}

#[tokio::test(start_paused = true)]
async fn where_balancers_bring_clients_back_only_some_are_asked_in_vain() {
    let (fleet, mut guests) = fleet_with(&[200, 0]).await;
    guests.iter_mut().for_each(|guest| guest.manner = Manner::Sticky(0));
    live(&fleet, &mut guests, LONG).await;
    // It would take 90.
    assert_eq!((moves(&fleet, "asked"), sockets(&fleet)), (180.0, vec![200, 0]));
    live(&fleet, &mut guests, LONG).await;
    assert_eq!(moves(&fleet, "asked"), 180.0);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_leaves_meanwhile_stops_it_for_a_minute() {
    let (fleet, mut guests) = fleet_with(&[200, 0, 0]).await;
    until_asked(&fleet, &mut guests).await;
    live(&fleet, &mut guests, Duration::from_secs(10)).await;
    let leaving = fleet.pods[2].pod.drain(Duration::from_secs(27));
    tokio::join!(leaving, live(&fleet, &mut guests, Duration::from_secs(30)));
    let rebalanced = |guests: &[Guest]| guests.iter().filter(|guest| guest.asked.iter().any(|why| why == "rebalance")).count();
    let before = rebalanced(&guests);
    assert!(guests.iter().any(|guest| guest.asked == ["rebalance", "drain"]), "a pod that goes asks who came lately, too");
    live(&fleet, &mut guests, Duration::from_secs(30)).await;
    assert_eq!(rebalanced(&guests), before);
    live(&fleet, &mut guests, LONG).await;
    assert!(rebalanced(&guests) > before);
    assert!(sockets(&fleet)[0] <= 110, "{:?}", sockets(&fleet));
    assert!(guests.iter().all(|guest| guest.closed.is_none()));
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_drains_while_it_asks_asks_nobody_twice() {
    let (fleet, mut guests) = fleet_with(&[200, 0]).await;
    until_asked(&fleet, &mut guests).await;
    let drain = fleet.pods[0].pod.drain(Duration::from_secs(27));
    tokio::join!(drain, live(&fleet, &mut guests, Duration::from_secs(40)));
    assert!(guests.iter().all(|guest| guest.asked.len() == 1 && guest.closed.is_none()));
    assert_eq!(sockets(&fleet), [0, 200]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_move_is_closed_after_fifteen_seconds() {
    let (fleet, mut guests) = fleet_with(&[60, 0]).await;
    guests.iter_mut().for_each(|guest| guest.manner = Manner::Deaf);
    until_asked(&fleet, &mut guests).await;
    live(&fleet, &mut guests, Duration::from_secs(13)).await;
    assert_eq!((moves(&fleet, "overdue"), sockets(&fleet)), (0.0, vec![60, 0]));
    live(&fleet, &mut guests, Duration::from_secs(3)).await;
    let overdue = moves(&fleet, "overdue");
    assert!((1.0..=4.0).contains(&overdue), "{overdue}");
    let closed = guests.iter().filter(|guest| guest.closed == Some(Some(1001))).count();
    assert_eq!(fleet.labelled("dws_connections_closed_total", "going-away"), overdue);
    assert!(closed > 0 && guests.iter().all(|guest| guest.closed.is_none() || guest.asked == ["rebalance"]));
}
