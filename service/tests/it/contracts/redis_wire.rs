//! What only the real store can show: the wire that old pods and operators know, round trips, passwords, TLS.

use std::{collections::HashMap, time::Duration};

use daisi_ws_domain::{
    ids::ConnectionId,
    route::RouteKey,
    session::{Kill, KillClaim, SessionKind},
};
use daisi_ws_service::{
    adapters::redis::RedisStore,
    config::{self, Secret},
    ports::{
        Acquire, Announce, KeyKind, KillBus as _, KillSignal, LockRenewal, Renewal, RouteChange, Routes as _, SessionLocks as _,
        StoreError, TokenCache as _,
    },
    telemetry::Chain,
};
use redis::{AsyncCommands as _, aio::MultiplexedConnection};

use super::fleet::{LONG, admin, agent, chat, company, nobody, owner, pod, record, signal, user};
use crate::support::{
    late_proxy::LateProxy,
    redis::{Options, RedisServer, tasks},
    wait,
};

async fn get(client: &mut MultiplexedConnection, key: &str) -> Option<String> {
    client.get(key).await.unwrap()
}

#[tokio::test]
async fn keys_and_values_are_those_of_the_contract() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    store.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap();
    store.acquire(&admin("root"), &owner("a/2"), LONG).await.unwrap();
    store.save_chat(&user("sari"), &chat("c1"), LONG).await.unwrap();
    store.put(SessionKind::Admin, "00aa", bytes::Bytes::from_static(b"x"), LONG).await.unwrap();
    store.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    let route = RouteKey::Messages { company: company(), agent: agent(), chat: chat("c.1") };
    store.apply(&pod("a"), &[RouteChange::Add { route, ttl: LONG }]).await.unwrap();

    assert_eq!(get(&mut client, "session:acme:desk:sari").await.as_deref(), Some("a/1"));
    assert_eq!(get(&mut client, "session:admin:root").await.as_deref(), Some("a/2"));
    assert_eq!(get(&mut client, "session:acme:desk:sari:selected_chat").await.as_deref(), Some("c1"));
    assert_eq!(get(&mut client, "token_cache:00aa").await.as_deref(), Some("x"));
    let liveness = get(&mut client, "pod:a").await.unwrap();
    let proved = liveness.strip_prefix(r#"{"address":"a.svc:50051","started_at_ms":1700000000123,"proof":""#).unwrap();
    assert_eq!(proved.strip_suffix(r#""}"#).unwrap().len(), 64, "{liveness}");
    let members: Vec<String> = client.smembers("route:acme:desk:messages:c.1").await.unwrap();
    assert_eq!(members, ["a"]);

    let mut keys: Vec<String> = client.keys("*").await.unwrap();
    keys.sort();
    for key in &keys {
        let ttl: i64 = client.pttl(key).await.unwrap();
        let lasts = ["pods", "routes:epoch"].contains(&key.as_str());
        assert_eq!(ttl == -1, lasts, "{key} has a time to live of {ttl} ms");
    }
    assert_eq!(keys.len(), 8, "{keys:?}");
}

#[tokio::test]
async fn a_lock_of_an_old_pod_is_held_without_connection() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    let () = client.set_ex("session:acme:desk:sari", "old-pod", 60).await.unwrap();
    assert_eq!(store.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap(), Acquire::Held(owner("old-pod")));
}

#[tokio::test]
async fn a_lock_value_that_is_no_owner_is_replaced() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    for value in ["a/b/c", "a b", "", "/"] {
        let () = client.set_ex("session:acme:desk:sari", value, 60).await.unwrap();
        let taken = store.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap();
        assert_eq!(taken, Acquire::Acquired { saved_chat: None }, "{value:?}");
        let () = client.set_ex("session:acme:desk:sari", value, 60).await.unwrap();
        let renewal = LockRenewal { key: user("sari"), owner: owner("a/1"), ttl: LONG, chat: None, chat_ttl: LONG };
        assert_eq!(store.renew(&[renewal]).await.unwrap(), [Renewal::Restored], "{value:?}");
        assert_eq!(get(&mut client, "session:acme:desk:sari").await.as_deref(), Some("a/1"));
    }
    let () = client.set_ex("session:acme:desk:binary", &b"\xff\xfe"[..], 60).await.unwrap();
    assert_eq!(store.acquire(&user("binary"), &owner("a/1"), LONG).await.unwrap(), Acquire::Acquired { saved_chat: None });
}

#[tokio::test]
async fn a_key_of_another_kind_is_refused_and_harms_no_connection() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    let () = client.sadd("session:acme:desk:sari", "x").await.unwrap();
    for _ in 0..10 {
        assert!(matches!(store.acquire(&user("sari"), &owner("a/1"), LONG).await, Err(StoreError::WrongType(KeyKind::Lock, _))));
    }
    store.ping().await.unwrap();
}

#[tokio::test]
async fn members_and_records_that_cannot_be_read_are_skipped() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    let () = client.sadd("route:acme:desk:chats", &[&b"a"[..], b"b/c", b"", b"\xff"]).await.unwrap();
    let route = RouteKey::Chats { company: company(), agent: agent() };
    assert_eq!(store.lookup(&nobody(), &[route]).await.unwrap().pods, [[pod("a")]]);

    let () = client.sadd("pods", &["x y", "odd", "dead"]).await.unwrap();
    let () = client.set("pod:odd", "not json").await.unwrap();
    let mut seen = store.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    seen.lapsed.sort();
    // A record that no pod wrote names nobody.
    assert_eq!((seen.pods, seen.lapsed), (vec![record("a")], vec![pod("dead")]));
}

#[tokio::test]
async fn kills_are_understood_from_and_by_old_pods() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    let mut listener = store.listen().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    for message in ["{}", "nonsense", r#"{"victim":"a/1"}"#, r#"{"new_pod_id":"b","victim":"a/b/c"}"#] {
        let () = client.publish("session_kill:acme:desk:sari", message).await.unwrap();
    }
    let () = client.publish("session_kill:acme:desk", r#"{"new_pod_id":"b"}"#).await.unwrap();
    let () = client.publish("session_kill:acme:desk:sari", r#"{"new_pod_id":"old-pod"}"#).await.unwrap();
    let heard = signal(&mut listener).await;
    assert_eq!(
        heard,
        KillSignal::Kill(Kill {
            key: user("sari"),
            new_pod: pod("old-pod"),
            connection: None,
            victim: None,
            claim: KillClaim::Newer
        })
    );

    let mut old = redis::Client::open(format!("redis://{}", server.config().address)).unwrap().get_async_pubsub().await.unwrap();
    old.psubscribe("session_kill:*:*:*").await.unwrap();
    let connection = Some(ConnectionId::parse("2").unwrap());
    store
        .publish(&Kill { key: user("sari"), new_pod: pod("b"), connection, victim: Some(owner("a/1")), claim: KillClaim::Newer })
        .await
        .unwrap();
    let message = futures_util::StreamExt::next(&mut old.on_message()).await.unwrap();
    assert_eq!(message.get_channel_name(), "session_kill:acme:desk:sari");
    assert_eq!(message.get_payload_bytes(), br#"{"new_pod_id":"b","connection_id":"2","victim":"a/1"}"#);
}

/// How often each command came from a client since the last reset.
async fn calls(client: &mut MultiplexedConnection) -> HashMap<String, u64> {
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(client).await.unwrap();
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    stats.lines().filter_map(line).collect()
}

#[tokio::test]
async fn counts_round_trips() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    // The first call loads the script and connects.
    store.acquire(&user("first"), &owner("a/1"), LONG).await.unwrap();
    store.save_chat(&user("sari"), &chat("c1"), LONG).await.unwrap();
    let renewal = |name: &str| LockRenewal { key: user(name), owner: owner("a/1"), ttl: LONG, chat: None, chat_ttl: LONG };
    store.renew(&[renewal("first")]).await.unwrap();
    let reset = async |client: &mut MultiplexedConnection| {
        redis::cmd("CONFIG").arg("RESETSTAT").exec_async(client).await.unwrap();
    };

    reset(&mut client).await;
    let taken = store.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap();
    assert_eq!(taken, Acquire::Acquired { saved_chat: Some(chat("c1")) });
    store.acquire(&user("sari"), &owner("a/2"), LONG).await.unwrap();
    let counted = calls(&mut client).await;
    assert_eq!(counted.get("evalsha"), Some(&2), "one a call: {counted:?}");
    for extra in ["ping", "eval", "script|load", "hello", "auth"] {
        assert_eq!(counted.get(extra), None, "{counted:?}");
    }

    let renewals: Vec<_> = (0..100).map(|number| renewal(&number.to_string())).collect();
    reset(&mut client).await;
    assert_eq!(store.renew(&renewals).await.unwrap(), vec![Renewal::Restored; 100]);
    let counted = calls(&mut client).await;
    assert_eq!((counted.get("evalsha"), counted.get("script|load")), (Some(&1), None), "{counted:?}");
}

#[tokio::test]
async fn scripts_survive_being_flushed() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    for round in 0..3 {
        let (key, me) = (user(&round.to_string()), owner("a/1"));
        let renewal = LockRenewal { key: key.clone(), owner: me.clone(), ttl: LONG, chat: None, chat_ttl: LONG };
        store.acquire(&key, &me, LONG).await.unwrap();
        assert_eq!(store.renew(&[renewal]).await.unwrap(), [Renewal::Renewed]);
        store.announce(Announce::of(&record("a"), LONG)).await.unwrap();
        assert_eq!(store.release(&[(key, me)]).await.unwrap(), 1);
        redis::cmd("SCRIPT").arg("FLUSH").exec_async(&mut client).await.unwrap();
    }
}

#[tokio::test]
async fn calls_that_were_given_up_leave_no_bad_connection_behind() {
    let server = RedisServer::start().await;
    let store = server.store();
    let (sari, me) = (user("sari"), owner("a/1"));
    let (budi, other) = (user("budi"), owner("b/7"));
    store.acquire(&budi, &other, LONG).await.unwrap();
    for _ in 0..50 {
        tokio::select! {
            biased;
            _ = store.acquire(&sari, &me, LONG) => {}
            () = tokio::task::yield_now() => {}
        }
        assert_eq!(store.acquire(&budi, &me, LONG).await.unwrap(), Acquire::Held(other.clone()));
    }
}

#[tokio::test]
async fn a_password_and_a_database_are_used() {
    let server = RedisServer::start_with(Options { password: Some("correct horse"), ..Options::default() }).await;
    let config = config::Redis { db: 3, ..server.config() };
    let store = RedisStore::new(&config, tasks()).unwrap();
    store.acquire(&user("sari"), &owner("a/1"), LONG).await.unwrap();
    let mut listener = store.listen().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    let route = RouteKey::Chats { company: company(), agent: agent() };
    store.apply(&pod("a"), &[RouteChange::Add { route, ttl: LONG }]).await.unwrap();

    let authenticated = redis::RedisConnectionInfo::default().set_password("correct horse").set_db(3);
    let info = redis::IntoConnectionInfo::into_connection_info(format!("redis://{}", config.address)).unwrap();
    let client = redis::Client::open(info.set_redis_settings(authenticated)).unwrap();
    let mut client = client.get_multiplexed_async_connection().await.unwrap();
    assert_eq!(get(&mut client, "session:acme:desk:sari").await.as_deref(), Some("a/1"));
    assert_eq!(redis::cmd("DBSIZE").query_async::<u64>(&mut client).await.unwrap(), 2);
}

#[tokio::test]
async fn a_wrong_password_is_refused_and_not_shown() {
    let server = RedisServer::start_with(Options { password: Some("right"), ..Options::default() }).await;
    let config = config::Redis { password: Secret::new("hunter2"), ..server.config() };
    let store = RedisStore::new(&config, tasks()).unwrap();
    let error = store.ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Denied(_)), "{error:?}");
    assert!(!format!("{error:?} {error} {store:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_password_that_is_renewed_in_its_file_is_used_by_the_next_connections() {
    let mut server = RedisServer::start_with(Options { password: Some("first"), ..Options::default() }).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "first\n").unwrap();
    let config = config::Redis { password: Secret::of_file(&file).unwrap(), ..server.config() };
    let store = RedisStore::new(&config, tasks()).unwrap();
    let mut listener = store.listen().await;
    let route = RouteKey::Chats { company: company(), agent: agent() };
    let change = [RouteChange::Add { route, ttl: LONG }];
    store.apply(&pod("a"), &change).await.unwrap();
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);

    std::fs::write(&file, "").unwrap();
    server.stop();
    server.set_password("second");
    server.start_again_empty().await;
    let error = store.ping().await.unwrap_err();
    let shown = format!("{error:?} {}", Chain(&error));
    assert!(shown.contains(file.to_str().unwrap()) && !shown.contains("first"), "{shown}");
    std::fs::write(&file, "second").unwrap();
    store.ping().await.unwrap();
    store.apply(&pod("a"), &change).await.unwrap();
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
}

#[tokio::test]
async fn a_server_with_a_certificate_of_the_given_ca_is_trusted_and_no_other() {
    let server = RedisServer::start_with(Options { tls: true, ..Options::default() }).await;
    let store = server.store();
    store.ping().await.unwrap();
    let mut listener = store.listen().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);

    let distrustful = RedisStore::new(&config::Redis { ca_file: None, ..server.config() }, tasks()).unwrap();
    assert!(distrustful.ping().await.is_err());
}

#[tokio::test]
async fn a_ca_that_is_renewed_in_its_file_is_trusted_by_the_next_connections() {
    let mut server = RedisServer::start_with(Options { tls: true, ..Options::default() }).await;
    let store = server.store();
    store.ping().await.unwrap();
    server.stop();
    server.make_certificates();
    server.start_again_empty().await;
    store.ping().await.unwrap();
}

#[tokio::test]
async fn a_claim_that_is_carried_out_when_nobody_waits_for_it_is_given_back() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    store.acquire(&user("first"), &owner("a/1"), LONG).await.unwrap();
    server.freeze();
    let (sari, me) = (user("sari"), owner("a/2"));
    // Long enough that it is on its way, and given up before its time is over.
    let given_up = tokio::time::timeout(Duration::from_millis(100), store.acquire(&sari, &me, LONG)).await;
    assert!(given_up.is_err());
    server.thaw();
    wait::until("it was carried out and given back", || {
        let mut client = client.clone();
        async move {
            let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut client).await.unwrap();
            stats.contains("cmdstat_del:calls=1,")
        }
    })
    .await;
    assert_eq!(get(&mut client, "session:acme:desk:sari").await, None);
}

#[tokio::test]
async fn a_claim_whose_answer_never_came_is_given_back_after_it_is_carried_out() {
    let server = RedisServer::start().await;
    let proxy = LateProxy::start(server.config().address).await;
    let store = RedisStore::new(&config::Redis { address: proxy.address(), ..server.config() }, tasks()).unwrap();
    let mut client = server.client().await;
    store.acquire(&user("first"), &owner("a/1"), LONG).await.unwrap();
    proxy.hold();
    let refused = store.acquire(&user("sari"), &owner("a/2"), LONG).await;
    assert!(matches!(refused, Err(StoreError::TimedOut(_))), "{refused:?}");
    // As anyone who is refused does: too early.
    assert_eq!(store.release(&[(user("sari"), owner("a/2"))]).await.unwrap(), 0);
    proxy.deliver(1).await;
    wait::until("the late claim is given back", || {
        let mut client = client.clone();
        async move { get(&mut client, "session:acme:desk:sari").await.is_none() }
    })
    .await;
    // And stays so: nothing is on its way any more.
    store.acquire(&user("last"), &owner("a/3"), LONG).await.unwrap();
    assert_eq!(get(&mut client, "session:acme:desk:sari").await, None);
}

#[tokio::test]
async fn a_take_back_whose_answer_never_came_is_kept_when_it_is_carried_out() {
    let server = RedisServer::start().await;
    let proxy = LateProxy::start(server.config().address).await;
    let store = RedisStore::new(&config::Redis { address: proxy.address(), ..server.config() }, tasks()).unwrap();
    let mut client = server.client().await;
    store.acquire(&user("first"), &owner("a/1"), LONG).await.unwrap();
    proxy.hold();
    let refused = store.take_back(&user("sari"), &owner("b/1"), &owner("a/2"), LONG).await;
    assert!(matches!(refused, Err(StoreError::TimedOut(_))), "{refused:?}");
    proxy.deliver(1).await;
    // A release would have come with it.
    wait::until("it is carried out", || {
        let mut client = client.clone();
        async move { get(&mut client, "session:acme:desk:sari").await.is_some() }
    })
    .await;
    store.acquire(&user("last"), &owner("a/3"), LONG).await.unwrap();
    assert_eq!(get(&mut client, "session:acme:desk:sari").await.as_deref(), Some("a/2"));
}

#[tokio::test]
async fn a_late_route_change_does_not_undo_a_confirmed_one() {
    let server = RedisServer::start().await;
    let proxy = LateProxy::start(server.config().address).await;
    let writer = RedisStore::new(&config::Redis { address: proxy.address(), ..server.config() }, tasks()).unwrap();
    let (reader, chats) = (server.store(), RouteKey::Chats { company: company(), agent: agent() });
    let add = [RouteChange::Add { route: chats.clone(), ttl: LONG }];
    writer.apply(&pod("a"), &add).await.unwrap();

    proxy.hold();
    let removed = writer.apply(&pod("a"), &[RouteChange::Remove { route: chats.clone() }]).await;
    assert!(matches!(removed, Err(StoreError::TimedOut(_))), "{removed:?}");
    writer.apply(&pod("a"), &add).await.unwrap();

    proxy.deliver(1).await;
    // The server takes what arrived before the first of these no later than between it and the next.
    for _ in 0..3 {
        assert_eq!(reader.lookup(&nobody(), std::slice::from_ref(&chats)).await.unwrap().pods, [[pod("a")]]);
    }
}
