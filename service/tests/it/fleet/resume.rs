//! Clients that come back with a cursor get what they missed, all of it, in order and once.

use std::time::Duration;

use daisi_ws_domain::{ids::ChatId, resume::Cursor};
use daisi_ws_service::application::admission::connect::Wishes;
use serde_json::Value;

use crate::support::{
    client::Client,
    fleet::{Fleet, admin, user},
    wait,
};

const CHATS: &str = "wa.acme.a1.chats";
/// By then, what was settled is known, and an announcement has confirmed it.
const SAFE_WITHIN: Duration = Duration::from_secs(2);

/// What comes with `ready`, as a cursor.
fn cursor(ready: &Value) -> String {
    format!("{}:{}", ready["payload"]["stream"].as_str().unwrap(), ready["payload"]["safe"])
}

fn resuming(cursor: &str) -> Wishes {
    Wishes { resume: Some(Cursor::parse(cursor)), ..Wishes::default() }
}

/// Has the client ask where it stands.
async fn ask(client: &mut Client) -> String {
    client.send(r#"{"type":"ready"}"#).await;
    cursor(&client.expect_ready().await)
}

async fn known(fleet: &Fleet) {
    wait::until("a floor is known", || async { fleet.pods.iter().all(|pod| pod.pod.hub().floor().is_some()) }).await;
}

#[tokio::test(start_paused = true)]
async fn g10_who_was_away_gets_all_it_missed_in_order_and_before_anything_newer() {
    let fleet = Fleet::start(2).await;
    known(&fleet).await;
    let mut sari = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    let seen = fleet.publish(CHATS, r#"{"n":0}"#);
    assert_eq!(sari.expect_event().await.seq, seen);
    tokio::time::sleep(SAFE_WITHIN).await;
    let at = ask(&mut sari).await;
    assert!(at.ends_with(&format!(":{seen}")), "with nothing pending it is the stream's end: {at}");
    sari.close().await;
    let missed: Vec<u64> = (0..5).map(|_| fleet.publish(CHATS, "{}")).collect();
    fleet.publish("wa.acme.a2.chats", "{}");
    fleet.all_settled().await;
    let (mut sari, ready) = fleet.connect_with(1, user("acme", "a1", "sari"), resuming(&at)).await.unwrap();
    assert_eq!((&ready["payload"]["resumed"], &ready["payload"]["replayed"]), (&Value::from(true), &Value::from(5)));
    assert_eq!(ready["payload"]["safe"], seen, "a ready before a replay names the cursor");
    let newer = fleet.publish(CHATS, "{}");
    for seq in &missed {
        let frame: Value = serde_json::from_str(&sari.expect_event().await.text).unwrap();
        assert_eq!((frame["seq"].as_u64(), frame["safe"].as_u64(), &frame["replayed"]), (Some(*seq), Some(*seq), &true.into()));
    }
    let frame: Value = serde_json::from_str(&sari.expect_event().await.text).unwrap();
    assert_eq!((frame["seq"].as_u64(), &frame["replayed"]), (Some(newer), &Value::Null));
    sari.expect_silence(Duration::from_secs(30)).await;
}

#[tokio::test(start_paused = true)]
async fn g10_an_admin_and_a_chat_are_resumed_as_well() {
    let fleet = Fleet::start(2).await;
    known(&fleet).await;
    let mut boss = fleet.connect(0, admin("boss", Some("acme"))).await.unwrap();
    let at = ask(&mut boss).await;
    boss.close().await;
    let agents = fleet.publish("wa.acme.a1.agents", "{}");
    fleet.publish("wa.other.a1.agents", "{}");
    let message = fleet.publish("wa.acme.a1.messages.c.1", "{}");
    fleet.publish("wa.acme.a1.messages.c", "{}");
    let chats = fleet.publish(CHATS, "{}");
    fleet.all_settled().await;
    let (mut boss, ready) = fleet.connect_with(1, admin("boss", Some("acme")), resuming(&at)).await.unwrap();
    assert_eq!((ready["payload"]["replayed"].as_u64(), boss.expect_event().await.seq), (Some(1), agents));
    let wishes = Wishes { chat: Some(ChatId::parse("c.1").unwrap()), ..resuming(&at) };
    let (mut sari, ready) = fleet.connect_with(0, user("acme", "a1", "sari"), wishes).await.unwrap();
    assert_eq!(ready["payload"]["chat_id"], "c.1");
    assert_eq!(sari.expect_events(2).await, [message, chats]);
    sari.close().await;
    // It is remembered as one that was selected.
    let (_sari, ready) = fleet.connect_with(1, user("acme", "a1", "sari"), Wishes::default()).await.unwrap();
    assert_eq!(ready["payload"]["chat_id"], "c.1");
}

#[tokio::test(start_paused = true)]
async fn g10_what_is_redelivered_after_a_resume_is_not_seen_twice() {
    let fleet = Fleet::with(3, |config| config.app.nats_ack_wait = Duration::from_secs(10)).await;
    known(&fleet).await;
    let mut sari = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    let at = ask(&mut sari).await;
    // Pod 2 takes events and dies with them: they come again after the ack wait, when the session has them by its resume.
    for pod in [0, 1] {
        fleet.stream.cut(&fleet.pods[pod].id, true);
    }
    fleet.cut_link(2, 0, true);
    fleet.cut_link(2, 1, true);
    let missed: Vec<u64> = (0..3).map(|_| fleet.publish(CHATS, "{}")).collect();
    wait::until("pod 2 has them", || async { fleet.stream.ack_pending() == 3 }).await;
    fleet.kill(2);
    for pod in [0, 1] {
        fleet.stream.cut(&fleet.pods[pod].id, false);
    }
    sari.close().await;
    let (mut sari, _) = fleet.connect_with(1, user("acme", "a1", "sari"), resuming(&at)).await.unwrap();
    assert_eq!(sari.expect_events(3).await, missed);
    fleet.all_settled().await;
    sari.expect_silence(Duration::from_secs(60)).await;
}

#[tokio::test(start_paused = true)]
async fn a_cursor_that_can_not_be_resumed_says_why_and_the_session_is_as_without_it() {
    let fleet = Fleet::with(1, |config| config.resume.max_events = 3).await;
    known(&fleet).await;
    let mut sari = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    let at = ask(&mut sari).await;
    let stream = at.split(':').next().unwrap().to_owned();
    sari.close().await;
    for _ in 0..4 {
        fleet.publish(CHATS, "{}");
    }
    fleet.all_settled().await;
    tokio::time::sleep(SAFE_WITHIN).await;
    for (cursor, reason, place) in [
        (at.clone(), "too_much", 4),
        ("elsewhere:1".to_owned(), "stream_changed", 5),
        (format!("{stream}:999"), "stream_changed", 6),
    ] {
        let (mut sari, ready) = fleet.connect_with(0, user("acme", "a1", "sari"), resuming(&cursor)).await.unwrap();
        let payload = &ready["payload"];
        assert_eq!((&payload["resumed"], &payload["reason"]), (&false.into(), &reason.into()), "{cursor}");
        assert_eq!(payload["safe"], place, "{cursor}");
        let seq = fleet.publish(CHATS, "{}");
        assert_eq!(sari.expect_event().await.seq, seq);
        fleet.all_settled().await;
        tokio::time::sleep(SAFE_WITHIN).await;
        sari.close().await;
    }
    let malformed = Wishes { resume: Some(Cursor::parse("nonsense")), ..Wishes::default() };
    let (_, ready) = fleet.connect_with(0, user("acme", "a1", "sari"), malformed).await.unwrap();
    assert_eq!(ready["payload"]["reason"], "malformed");
}

#[tokio::test(start_paused = true)]
async fn where_the_stream_does_not_answer_the_place_stays_at_the_cursor_and_may_be_asked_for_again() {
    let fleet = Fleet::start(2).await;
    known(&fleet).await;
    let mut sari = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    let at = ask(&mut sari).await;
    sari.close().await;
    let missed = fleet.publish(CHATS, "{}");
    fleet.all_settled().await;
    fleet.stream.cut(&fleet.pods[1].id, true);
    let (mut sari, ready) = fleet.connect_with(1, user("acme", "a1", "sari"), resuming(&at)).await.unwrap();
    assert_eq!((&ready["payload"]["reason"], cursor(&ready)), (&"unavailable".into(), at.clone()));
    let live = fleet.publish(CHATS, "{}");
    let frame: Value = serde_json::from_str(&sari.expect_event().await.text).unwrap();
    let old: u64 = at.split(':').nth(1).unwrap().parse().unwrap();
    assert_eq!((frame["seq"].as_u64(), frame["safe"].as_u64()), (Some(live), Some(old)));
    fleet.stream.cut(&fleet.pods[1].id, false);
    tokio::time::sleep(SAFE_WITHIN).await;
    assert_eq!(ask(&mut sari).await, at);
    sari.close().await;
    let (mut sari, ready) = fleet.connect_with(1, user("acme", "a1", "sari"), resuming(&at)).await.unwrap();
    assert_eq!(ready["payload"]["replayed"], 2);
    assert_eq!(sari.expect_events(2).await, [missed, live]);
}

#[tokio::test(start_paused = true)]
async fn g10_events_of_a_pod_that_was_taken_for_dead_do_not_raise_the_place_of_its_sessions_before_they_have_them() {
    let fleet = Fleet::start(2).await;
    known(&fleet).await;
    let mut frozen = fleet.connect(1, user("acme", "a1", "frozen")).await.unwrap();
    let at = ask(&mut frozen).await;
    fleet.freeze(1, true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let missed: Vec<u64> = (0..5).map(|_| fleet.publish(CHATS, "{}")).collect();
    fleet.all_settled().await;
    assert_eq!(ask(&mut frozen).await, at);
    fleet.freeze(1, false);
    for seq in &missed {
        let frame: Value = serde_json::from_str(&frozen.expect_event().await.text).unwrap();
        assert_eq!((frame["seq"].as_u64(), &frame["replayed"]), (Some(*seq), &true.into()));
        assert!(frame["safe"].as_u64() <= Some(0), "{frame}");
    }
    tokio::time::sleep(2 * SAFE_WITHIN).await;
    assert!(ask(&mut frozen).await.ends_with(":5"));
}
