//! G1, G2, G4: every event reaches exactly those that should see it, once, and is settled by what became of it.

use std::{collections::BTreeMap, time::Duration};

use crate::support::fleet::{Fleet, admin, user};

const QUIET: Duration = Duration::from_secs(3);

#[tokio::test(start_paused = true)]
async fn g1_every_session_gets_its_events_once_and_in_order_whichever_pods_are_involved() {
    let fleet = Fleet::start(3).await;
    let mut clients = Vec::new();
    for pod in 0..3 {
        for agent in ["a1", "a2"] {
            clients.push((agent, fleet.connect(pod, user("acme", agent, &format!("u{pod}"))).await.unwrap()));
        }
    }
    let mut published: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for n in 0..300 {
        let agent = ["a1", "a2"][n % 2];
        published.entry(agent).or_default().push(fleet.publish(&format!("wa.acme.{agent}.chats"), "{\"n\":1}"));
    }
    for (agent, client) in &mut clients {
        let mut seen = client.drain_seqs(QUIET).await;
        seen.sort_unstable();
        assert_eq!(&seen, &published[agent]);
    }
    fleet.all_settled().await;
}

#[tokio::test(start_paused = true)]
async fn g1_a_crowd_at_a_desk_gets_a_burst_once_and_in_order_and_one_of_it_what_is_its_own_in_between() {
    // More than may wait for a worker is taken at a time.
    let fleet = Fleet::with(1, |config| config.app.nats_pull_batch = 1000).await;
    let mut crowd = Vec::new();
    for n in 0..40 {
        crowd.push(fleet.connect(0, user("acme", "a1", &format!("u{n}"))).await.unwrap());
    }
    let mut one = fleet.connect(0, user("acme", "a1", "one")).await.unwrap();
    one.select_chat("c1").await;
    let (mut all, mut everything) = (Vec::new(), Vec::new());
    for n in 0..1500 {
        if n % 3 == 0 {
            everything.push(fleet.publish("wa.acme.a1.messages.c1", "{}"));
        } else {
            all.push(fleet.publish("wa.acme.a1.chats", "{}"));
            everything.extend(all.last());
        }
    }
    assert_eq!(one.drain_seqs(QUIET).await, everything);
    for client in &mut crowd {
        assert_eq!(client.drain_seqs(QUIET).await, all);
    }
    fleet.all_settled().await;
}

#[tokio::test(start_paused = true)]
async fn events_that_come_in_quick_succession_share_a_look_up_of_their_routes() {
    const ROUNDS: u64 = 10;
    let fleet = Fleet::start(1).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    let look_ups = || fleet.labelled("dws_route_lookups_total", "trusted");
    let (before, since) = (look_ups(), tokio::time::Instant::now());
    let mut published = Vec::new();
    for _ in 0..ROUNDS {
        published.extend((0..20).map(|_| fleet.publish("wa.acme.a1.chats", "{}")));
        // Every task has had its turn, and no time has passed.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(since.elapsed(), Duration::ZERO);
    assert_eq!(client.drain_seqs(QUIET).await, published);
    assert!((1.0..=3.0).contains(&(look_ups() - before)), "{} look-ups", look_ups() - before);
    // One by itself waits for nothing.
    let since = tokio::time::Instant::now();
    fleet.publish("wa.acme.a1.chats", "{}");
    client.expect_event().await;
    assert_eq!(since.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn g1_an_event_published_right_after_ready_arrives_on_whichever_pod_the_session_is() {
    let fleet = Fleet::start(3).await;
    for n in 0..50 {
        let mut client = fleet.connect(n % 3, user("acme", "a1", &format!("user-{n}"))).await.unwrap();
        let seq = fleet.publish("wa.acme.a1.chats", "{}");
        assert_eq!(client.expect_event().await.seq, seq);
        client.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn g1_events_of_a_selected_chat_arrive_right_after_chat_selected() {
    let fleet = Fleet::start(3).await;
    let mut client = fleet.connect(1, user("acme", "a1", "sari")).await.unwrap();
    for chat in ["62811@s.whatsapp.net", "c:2", "c3"] {
        client.select_chat(chat).await;
        let seq = fleet.publish(&format!("wa.acme.a1.messages.{chat}"), "{}");
        let event = client.expect_event().await;
        assert_eq!((event.seq, &event.payload["event_type"]), (seq, &"message".into()));
    }
    fleet.publish("wa.acme.a1.messages.c:2", "{}");
    client.expect_silence(QUIET).await;
}

#[tokio::test(start_paused = true)]
async fn g1_a_redelivery_after_a_lost_answer_is_not_shown_twice() {
    let fleet = Fleet::start(2).await;
    let mut clients =
        [fleet.connect(0, user("acme", "a1", "u0")).await.unwrap(), fleet.connect(1, user("acme", "a1", "u1")).await.unwrap()];
    // Calls to pod 1 hang and are delivered when it thaws, long after the caller has given up on the answer.
    fleet.network.freeze(&fleet.pods[1].id, true);
    let published: Vec<u64> = (0..20).map(|_| fleet.publish("wa.acme.a1.chats", "{}")).collect();
    tokio::time::sleep(Duration::from_secs(7)).await;
    fleet.network.freeze(&fleet.pods[1].id, false);
    fleet.all_settled().await;
    for client in &mut clients {
        let mut seen = client.drain_seqs(QUIET).await;
        seen.sort_unstable();
        assert_eq!(seen, published);
    }
    assert!(fleet.total("dws_events_duplicate_total") > 0.0);
}

#[tokio::test(start_paused = true)]
async fn g2_an_event_that_nobody_wants_is_acked() {
    let fleet = Fleet::start(2).await;
    fleet.publish("wa.acme.a1.chats", "{}");
    fleet.all_settled().await;
    assert_eq!(fleet.total("dws_events_unclaimed_total"), 1.0);
}

#[tokio::test(start_paused = true)]
async fn g2_events_for_an_unreachable_pod_are_parked_and_delivered_when_the_link_heals() {
    let fleet = Fleet::start(2).await;
    let mut far = fleet.connect(1, user("acme", "a1", "far")).await.unwrap();
    fleet.cut_link(0, 1, true);
    let mut published: Vec<u64> = (0..40).map(|_| fleet.publish("wa.acme.a1.chats", "{}")).collect();
    tokio::time::sleep(Duration::from_secs(20)).await;
    fleet.cut_link(0, 1, false);
    published.push(fleet.publish("wa.acme.a1.chats", "{}"));
    fleet.all_settled().await;
    let mut seen = far.drain_seqs(QUIET).await;
    seen.sort_unstable();
    assert_eq!(seen, published);
    assert_eq!(fleet.labelled("dws_events_settled_total", "given_up"), 0.0);
}

#[tokio::test(start_paused = true)]
async fn g4_no_event_reaches_another_company_or_agent() {
    let fleet = Fleet::start(2).await;
    let tenants = [("acme", "a1"), ("acme", "a2"), ("other", "a1")];
    let mut clients = Vec::new();
    for (n, (company, agent)) in tenants.iter().enumerate() {
        let mut client = fleet.connect(n % 2, user(company, agent, "same-user")).await.unwrap();
        client.select_chat("same-chat").await;
        clients.push(client);
    }
    for (company, agent) in tenants {
        for kind in ["chats", "messages.same-chat", "agents"] {
            fleet.publish(&format!("wa.{company}.{agent}.{kind}"), &format!("{{\"to\":\"{company}.{agent}\"}}"));
        }
    }
    for ((company, agent), client) in tenants.iter().zip(&mut clients) {
        for _ in 0..2 {
            assert_eq!(client.expect_event().await.payload["to"], format!("{company}.{agent}"));
        }
        client.expect_silence(QUIET).await;
    }
}

#[tokio::test(start_paused = true)]
async fn g4_admins_on_every_pod_see_agent_events_within_their_restriction_only() {
    let fleet = Fleet::start(3).await;
    let mut everything = fleet.connect(0, admin("root", None)).await.unwrap();
    let mut acme = fleet.connect(1, admin("acme-admin", Some("acme"))).await.unwrap();
    let mut other = fleet.connect(2, admin("other-admin", Some("other"))).await.unwrap();
    let first = fleet.publish("wa.acme.a1.agents", "{}");
    let second = fleet.publish("wa.other.a9.agents", "{}");
    let mut seen = everything.expect_events(2).await;
    seen.sort_unstable();
    assert_eq!(seen, [first, second]);
    assert_eq!(acme.expect_event().await.seq, first);
    assert_eq!(other.expect_event().await.seq, second);
    for client in [&mut everything, &mut acme, &mut other] {
        client.expect_silence(QUIET).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_payload_arrives_byte_for_byte_also_when_forwarded() {
    let fleet = Fleet::start(2).await;
    let payload = r#"{"id": 9007199254740993,"z":1.0,"a":"\u00e9é","event_type":"custom"}"#;
    let mut clients =
        [fleet.connect(0, user("acme", "a1", "u0")).await.unwrap(), fleet.connect(1, user("acme", "a1", "u1")).await.unwrap()];
    let seq = fleet.publish("wa.acme.a1.chats", payload);
    for client in &mut clients {
        let expected = format!(r#"{{"type":"event","seq":{seq},"safe":0,"payload":{payload}}}"#);
        assert_eq!(client.expect_event().await.text, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn fault_poison_events_are_terminated_and_never_block_the_next() {
    let fleet = Fleet::start(2).await;
    let mut client = fleet.connect(0, user("acme", "a1", "sari")).await.unwrap();
    let poison = [
        ("wa.acme.a1.chats", "[]"),
        ("wa.acme.a1.chats", "{"),
        ("wa.acme.a1.unknown", "{}"),
        ("wa.acme.a1.messages", "{}"),
        ("wa.acme", "{}"),
        ("wa.a c.a1.chats", "{}"),
    ];
    let bad: Vec<u64> = poison.iter().map(|(subject, payload)| fleet.publish(subject, payload)).collect();
    let good = fleet.publish("wa.acme.a1.chats", "{}");
    assert_eq!(client.expect_event().await.seq, good);
    fleet.all_settled().await;
    assert_eq!(fleet.stream.terminated(), bad);
    assert_eq!(fleet.labelled("dws_events_settled_total", "poison"), 6.0);
}
