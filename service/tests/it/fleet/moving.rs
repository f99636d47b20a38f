//! Sockets that move before their pod goes, and sessions that are taken over by asking their pod.

use std::{collections::BTreeSet, time::Duration};

use daisi_ws_domain::{claims::Claims, ids::PodId, resume::Cursor};
use daisi_ws_service::application::admission::connect::{ConnectError, Wishes};
use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::time::sleep;

use crate::support::{
    client::{Client, Seen},
    fleet::{Fleet, user},
    wait,
};

const CHATS: &str = "wa.acme.a1.chats";
const DRAIN: Duration = Duration::from_secs(27);

fn sari() -> Claims {
    user("acme", "a1", "sari")
}

fn moving(cursor: Option<&str>) -> Wishes {
    Wishes { resume: cursor.map(Cursor::parse), moves: true, ..Wishes::default() }
}

fn cursor(ready: &Value) -> String {
    format!("{}:{}", ready["payload"]["stream"].as_str().unwrap(), ready["payload"]["safe"])
}

async fn known(fleet: &Fleet) {
    wait::until("a floor is known", || async { fleet.pods.iter().all(|pod| pod.pod.hub().floor().is_some()) }).await;
}

/// A session of a client that can move, and its cursor.
async fn connect(fleet: &Fleet, pod: usize) -> (Client, String) {
    known(fleet).await;
    let (client, ready) = fleet.connect_with(pod, sari(), moving(None)).await.unwrap();
    (client, cursor(&ready))
}

/// The pods that locks name.
fn holders(fleet: &Fleet) -> Vec<PodId> {
    fleet.store.holdings().locks.into_iter().map(|(_, owner)| owner.pod).collect()
}

/// Sequences of events, in order, up to the close and its code.
fn read_out(seen: &[Seen]) -> (Vec<u64>, Option<u16>) {
    let seq = |seen: &Seen| match seen {
        Seen::Frame(frame, _) if frame["type"] == "event" => frame["seq"].as_u64(),
        _ => None,
    };
    let code = seen.iter().find_map(|seen| if let Seen::Closed(code) = seen { *code } else { None });
    (seen.iter().filter_map(seq).collect(), code)
}

#[tokio::test(start_paused = true)]
async fn g11_a_client_that_moves_before_its_pod_goes_misses_nothing_and_gets_nothing_twice() {
    let fleet = Fleet::start(3).await;
    let (mut first, at) = connect(&fleet, 0).await;
    let mut published = BTreeSet::new();
    let mut drain = Box::pin(fleet.pods[0].pod.drain(DRAIN).fuse());
    let asked = loop {
        tokio::select! {
            biased;
            seen = first.next() => match seen {
                Seen::Frame(frame, _) if frame["type"] == "move" => break frame,
                _ => {}
            },
            () = &mut drain => panic!("it drained without asking"),
            () = sleep(Duration::from_millis(7)) => drop(published.insert(fleet.publish(CHATS, "{}"))),
        }
    };
    assert_eq!(asked["payload"]["reason"], "drain");
    assert!(asked["payload"]["within_ms"].as_u64().is_some_and(|within| (5_000..=15_000).contains(&within)), "{asked}");
    // It still serves.
    published.insert(fleet.publish(CHATS, "{}"));
    assert_eq!(fleet.pods[0].pod.hub().len(), 1);
    let (mut second, ready) = fleet.connect_with(1, sari(), moving(Some(&at))).await.unwrap();
    assert_eq!(ready["payload"]["resumed"], true);
    published.insert(fleet.publish(CHATS, "{}"));
    drain.await;
    let (on_second, open) = read_out(&second.drain(Duration::from_secs(5)).await);
    assert_eq!(open, None);
    assert!(on_second.is_sorted_by(|one, next| one < next), "{on_second:?}");
    assert_eq!(on_second.iter().copied().collect::<BTreeSet<_>>(), published, "its cursor was before all of it");
    let (_, closed) = read_out(&first.drain(Duration::from_secs(1)).await);
    assert_eq!(closed, Some(1001));
    assert_eq!(fleet.labelled("dws_session_moves_total", "moved"), 1.0);
    assert_eq!(fleet.labelled("dws_connections_closed_total", "moved"), 1.0);
    assert_eq!(holders(&fleet), [fleet.pods[1].id.clone()]);
}

#[tokio::test(start_paused = true)]
async fn g11_the_first_socket_gets_what_comes_until_the_second_has_the_session() {
    let fleet = Fleet::start(2).await;
    let (mut first, at) = connect(&fleet, 0).await;
    let drain = fleet.pods[0].pod.drain(DRAIN);
    let moved = async {
        first.expect("move").await;
        let before = fleet.publish(CHATS, "{}");
        assert_eq!(first.expect_event().await.seq, before);
        let (mut second, _) = fleet.connect_with(1, sari(), moving(Some(&at))).await.unwrap();
        let after = fleet.publish(CHATS, "{}");
        assert_eq!(second.expect_events(2).await, [before, after]);
        assert_eq!(first.expect_close().await, Some(1001));
        second
    };
    let ((), _second) = tokio::join!(drain, moved);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_move_is_closed_when_its_time_is_over() {
    let fleet = Fleet::start(2).await;
    let (mut first, _) = connect(&fleet, 0).await;
    let began = tokio::time::Instant::now();
    let waiting = async {
        let within = first.expect("move").await["payload"]["within_ms"].as_u64().unwrap();
        let asked = tokio::time::Instant::now();
        assert_eq!(first.expect_close().await, Some(1001));
        assert!(asked.elapsed().abs_diff(Duration::from_millis(within)) < Duration::from_secs(1), "{:?}", asked.elapsed());
    };
    tokio::join!(fleet.pods[0].pod.drain(DRAIN), waiting);
    assert!(began.elapsed() <= DRAIN);
    assert_eq!(fleet.labelled("dws_session_moves_total", "overdue"), 1.0);
    assert_eq!(fleet.labelled("dws_connections_closed_total", "going-away"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cannot_move_is_closed_at_once_as_ever() {
    let fleet = Fleet::start(2).await;
    let mut client = fleet.connect(0, sari()).await.unwrap();
    let began = tokio::time::Instant::now();
    let closed = async {
        assert!(matches!(client.next().await, Seen::Closed(Some(1001))));
        assert!(began.elapsed() < Duration::from_secs(1));
    };
    tokio::join!(fleet.pods[0].pod.drain(DRAIN), closed);
}

#[tokio::test(start_paused = true)]
async fn a_second_socket_that_is_refused_leaves_the_first_as_it_is() {
    let fleet = Fleet::start(2).await;
    let (mut first, at) = connect(&fleet, 0).await;
    let moved = async {
        first.expect("move").await;
        let refused = fleet.connect_with(0, sari(), moving(Some(&at))).await.err();
        assert!(matches!(refused, Some(ConnectError::Draining)), "{refused:?}");
        let seq = fleet.publish(CHATS, "{}");
        assert_eq!(first.expect_event().await.seq, seq);
        let (second, _) = fleet.connect_with(1, sari(), moving(Some(&at))).await.unwrap();
        assert_eq!(first.expect_close().await, Some(1001));
        second
    };
    let ((), _second) = tokio::join!(fleet.pods[0].pod.drain(DRAIN), moved);
}

#[tokio::test(start_paused = true)]
async fn g3_of_two_second_sockets_one_has_the_session() {
    let fleet = Fleet::start(3).await;
    let (mut first, at) = connect(&fleet, 0).await;
    let moved = async {
        first.expect("move").await;
        let (one, two) =
            tokio::join!(fleet.connect_with(1, sari(), moving(Some(&at))), fleet.connect_with(2, sari(), moving(Some(&at))));
        assert_eq!(first.expect_close().await, Some(1001));
        [one, two]
    };
    let ((), seconds) = tokio::join!(fleet.pods[0].pod.drain(DRAIN), moved);
    let here = |pod: usize| fleet.pods[pod].pod.hub().len();
    wait::until("one of them is left", || async { here(1) + here(2) == 1 }).await;
    assert_eq!(holders(&fleet), [fleet.pods[if here(1) == 1 { 1 } else { 2 }].id.clone()]);
    drop(seconds);
}

#[tokio::test(start_paused = true)]
async fn g3_a_connect_that_does_not_say_that_it_moves_takes_over() {
    let fleet = Fleet::start(2).await;
    let (mut first, _) = connect(&fleet, 0).await;
    let taken = async {
        first.expect("move").await;
        let other = fleet.connect(1, sari()).await.unwrap();
        assert_eq!(first.expect_close().await, Some(4402));
        other
    };
    let ((), _other) = tokio::join!(fleet.pods[0].pod.drain(DRAIN), taken);
}

#[tokio::test(start_paused = true)]
async fn g3_another_tab_that_could_move_takes_over_from_one_that_was_not_asked() {
    let fleet = Fleet::start(2).await;
    let (mut first, at) = connect(&fleet, 0).await;
    let (_other, _) = fleet.connect_with(1, sari(), moving(Some(&at))).await.unwrap();
    assert_eq!(first.expect_close().await, Some(4402));
    assert_eq!(fleet.labelled("dws_session_moves_total", "moved"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_moves_without_its_chat_has_that_too() {
    let fleet = Fleet::start(2).await;
    let (mut first, at) = connect(&fleet, 0).await;
    first.select_chat("c1").await;
    let moved = async {
        first.expect("move").await;
        let missed = fleet.publish("wa.acme.a1.messages.c1", "{}");
        let (mut second, ready) = fleet.connect_with(1, sari(), moving(Some(&at))).await.unwrap();
        assert_eq!((ready["payload"]["chat_id"].as_str(), ready["payload"]["replayed"].as_u64()), (Some("c1"), Some(1)));
        let newer = fleet.publish("wa.acme.a1.messages.c1", "{}");
        assert_eq!(second.expect_events(2).await, [missed, newer]);
        second
    };
    let ((), _second) = tokio::join!(fleet.pods[0].pod.drain(DRAIN), moved);
}

#[tokio::test(start_paused = true)]
async fn a_take_over_between_pods_that_reach_each_other_asks_one_of_them_and_nobody_else() {
    let fleet = Fleet::start(3).await;
    let mut before = fleet.connect(0, sari()).await.unwrap();
    let began = tokio::time::Instant::now();
    let _after = fleet.connect(1, sari()).await.unwrap();
    assert_eq!(began.elapsed(), Duration::ZERO, "nothing is waited for but answers");
    assert_eq!(before.expect_close().await, Some(4402));
    let asked = |way| fleet.labelled("dws_session_evictions_total", way);
    assert_eq!([asked("here"), asked("peer"), asked("bus")], [0.0, 1.0, 0.0]);
    assert_eq!(fleet.total("dws_session_kills_total"), 1.0, "no other pod hears of it");
    assert_eq!(fleet.total("dws_session_lock_attempts_total"), 3.0);
}

#[tokio::test(start_paused = true)]
async fn an_owner_whose_pod_gives_no_answer_is_told_over_the_kill_channel() {
    let fleet = Fleet::start(2).await;
    let mut before = fleet.connect(0, sari()).await.unwrap();
    fleet.cut_link(0, 1, true);
    let began = tokio::time::Instant::now();
    let _after = fleet.connect(1, sari()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert_eq!(before.expect_close().await, Some(4402));
    assert_eq!(fleet.labelled("dws_session_evictions_total", "bus"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_moved_socket_is_told_so_where_only_the_kill_channel_reaches_it() {
    let fleet = Fleet::start(2).await;
    let (mut first, at) = connect(&fleet, 0).await;
    let moved = async {
        first.expect("move").await;
        fleet.cut_link(0, 1, true);
        let (second, _) = fleet.connect_with(1, sari(), moving(Some(&at))).await.unwrap();
        assert_eq!(first.expect_close().await, Some(1001));
        second
    };
    let ((), _second) = tokio::join!(fleet.pods[0].pod.drain(DRAIN), moved);
    assert_eq!(fleet.labelled("dws_session_moves_total", "moved"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn g3_a_socket_that_was_asked_to_move_does_not_win_over_another_when_the_store_goes_back() {
    let fleet = Fleet::start(2).await;
    let before = fleet.store.snapshot();
    let (mut first, _) = connect(&fleet, 0).await;
    let with_first = fleet.store.snapshot();
    fleet.store.cut(&fleet.pods[0].id, true);
    fleet.store.restore(&before);
    let drain = fleet.pods[0].pod.drain(DRAIN);
    let asked = async {
        first.expect("move").await;
        // Nobody knows of the first, which is not told.
        let (mut second, _) = fleet.connect_with(1, sari(), moving(None)).await.unwrap();
        fleet.store.restore(&with_first);
        let (_, closed) = read_out(&second.drain(Duration::from_secs(3)).await);
        assert_eq!((closed, holders(&fleet)), (None, vec![fleet.pods[1].id.clone()]));
        fleet.store.cut(&fleet.pods[0].id, false);
        second
    };
    let (_, mut second) = tokio::join!(drain, asked);
    let (_, closed) = read_out(&second.drain(Duration::from_secs(30)).await);
    assert_eq!((closed, holders(&fleet)), (None, vec![fleet.pods[1].id.clone()]));
}
