//! Keys of Redis that hold something else than what pods write there: each costs what it is about, and nothing else.

use bytes::Bytes;
use daisi_ws_domain::{
    ids::ChatId,
    route::RouteKey,
    session::{LockOwner, SessionKey, SessionKind},
};
use daisi_ws_service::ports::{
    Acquire, Announce, KeyKind, LockRenewal, Renewal, RouteChange, Routes as _, SessionLocks as _, Standing, StoreError,
    TokenCache as _,
};
use redis::{AsyncCommands as _, aio::MultiplexedConnection};

use super::fleet::{LONG, SHORT, agent, chat, company, nobody, owner, pod, record, user};
use crate::support::{redis::RedisServer, wait};

const KINDS: [&str; 6] = ["string", "list", "set", "hash", "zset", "stream"];

/// Puts something of that kind under the key, in place of what is there.
async fn poison(client: &mut MultiplexedConnection, key: &str, kind: &str) {
    let (command, arguments): (&str, &[&str]) = match kind {
        "string" => ("SET", &["no such thing"]),
        "list" => ("RPUSH", &["x"]),
        "set" => ("SADD", &["x y"]),
        "hash" => ("HSET", &["x", "y"]),
        "zset" => ("ZADD", &["1", "x"]),
        _ => ("XADD", &["*", "x", "y"]),
    };
    let () = client.del(key).await.unwrap();
    redis::cmd(command).arg(key).arg(arguments).exec_async(client).await.unwrap();
}

/// All kinds but one.
fn kinds_but(right: &'static str) -> impl Iterator<Item = &'static str> {
    KINDS.into_iter().filter(move |kind| *kind != right)
}

/// Bytes that the server has sent.
async fn sent(client: &mut MultiplexedConnection) -> u64 {
    let stats: String = redis::cmd("INFO").arg("stats").query_async(client).await.unwrap();
    let bytes = stats.lines().find_map(|line| line.strip_prefix("total_net_output_bytes:")).unwrap();
    bytes.trim().parse().unwrap()
}

fn renewal(key: &SessionKey, owner: &LockOwner, chat: Option<ChatId>) -> LockRenewal {
    LockRenewal { key: key.clone(), owner: owner.clone(), ttl: LONG, chat, chat_ttl: LONG }
}

fn messages(id: &str) -> RouteKey {
    RouteKey::Messages { company: company(), agent: agent(), chat: chat(id) }
}

#[tokio::test]
async fn a_lock_of_another_kind_costs_its_own_session_and_nobody_else() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    let locks = ["sari", "bad", "tono", "wati"].map(|name| (user(name), owner(&format!("a/{name}"))));
    for kind in kinds_but("string") {
        poison(&mut client, "session:acme:desk:bad", kind).await;
        let claims = locks.iter().map(|(key, owner)| store.acquire(key, owner, LONG));
        for ((key, _), taken) in locks.iter().zip(futures_util::future::join_all(claims).await) {
            match taken {
                Ok(taken) => assert_eq!((*key != user("bad"), taken), (true, Acquire::Acquired { saved_chat: None }), "{kind}"),
                Err(error) => {
                    assert!(*key == user("bad") && matches!(error, StoreError::WrongType(KeyKind::Lock, _)), "{kind}: {error}");
                }
            }
        }
        let batch = locks.each_ref().map(|(key, owner)| renewal(key, owner, None));
        assert_eq!(store.renew(&batch).await.unwrap(), [const { Renewal::Renewed }; 4], "{kind}");
        assert_eq!(store.release(&locks).await.unwrap(), 3, "{kind}");
    }
}

#[tokio::test]
async fn one_bad_lock_in_a_batch_does_not_cost_the_batch_a_round_trip_for_each_of_the_others() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    poison(&mut client, "session:acme:desk:7", "hash").await;
    let names: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let locks: Vec<_> = names.iter().map(|name| (user(name), owner(&format!("a/{name}")))).collect();
    let _ = store.acquire(&user("first"), &owner("a/1"), LONG).await;
    redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut client).await.unwrap();
    let claims = locks.iter().map(|(key, owner)| store.acquire(key, owner, LONG));
    let refused = futures_util::future::join_all(claims).await.into_iter().filter(Result::is_err).count();
    let released = store.release(&locks).await.unwrap();
    assert_eq!((refused, released), (1, 49));
    let stats: String = redis::cmd("INFO").arg("commandstats").query_async(&mut client).await.unwrap();
    let scripts = stats.split("cmdstat_evalsha:calls=").nth(1).and_then(|rest| rest.split(',').next()).unwrap();
    assert_eq!(scripts, "100", "one a claim and one a release");
}

#[tokio::test]
async fn a_lock_that_is_longer_than_any_owner_is_replaced_and_never_read() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    let (sari, me, before) = (user("sari"), owner("a/1"), sent(&mut client).await);
    for _ in 0..2 {
        let () = client.set("session:acme:desk:sari", vec![b'x'; 1 << 20]).await.unwrap();
        assert_eq!(store.acquire(&sari, &me, LONG).await.unwrap(), Acquire::Acquired { saved_chat: None });
        let () = client.set("session:acme:desk:sari", vec![b'x'; 1 << 20]).await.unwrap();
        assert_eq!(store.renew(&[renewal(&sari, &me, None)]).await.unwrap(), [Renewal::Restored]);
    }
    assert!(sent(&mut client).await - before < 1 << 16);
}

#[tokio::test]
async fn a_saved_chat_that_is_none_is_forgotten_and_can_be_saved_again() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    let (sari, me, key) = (user("sari"), owner("a/1"), "session:acme:desk:sari:selected_chat");
    for kind in KINDS {
        poison(&mut client, key, kind).await;
        assert_eq!(store.acquire(&sari, &me, LONG).await.unwrap(), Acquire::Acquired { saved_chat: None }, "{kind}");
        let renewed = store.renew(&[renewal(&sari, &me, Some(chat("c1")))]).await.unwrap();
        assert_eq!(renewed, [Renewal::Renewed], "{kind}");
        let saved = Acquire::Acquired { saved_chat: Some(chat("c1")) };
        assert_eq!(store.acquire(&sari, &me, LONG).await.unwrap(), saved, "{kind}");
        poison(&mut client, key, kind).await;
        store.save_chat(&sari, &chat("c1"), LONG).await.unwrap();
        assert_eq!(store.acquire(&sari, &me, LONG).await.unwrap(), saved, "{kind}");
    }
    for value in [&b"\xff\xfe"[..], b"a b", &[b'x'; 1 << 20]] {
        let () = client.set(key, value).await.unwrap();
        assert_eq!(store.acquire(&sari, &me, LONG).await.unwrap(), Acquire::Acquired { saved_chat: None });
    }
}

#[tokio::test]
async fn a_route_of_another_kind_is_named_and_the_others_are_written_looked_up_and_left() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    let routes = ["first", "bad", "last"].map(messages);
    for kind in kinds_but("set") {
        poison(&mut client, "route:acme:desk:messages:bad", kind).await;
        let add = routes.clone().map(|route| RouteChange::Add { route, ttl: LONG });
        assert_eq!(store.apply(&pod("a"), &add).await.unwrap(), [1], "{kind}");
        let found = store.lookup(&nobody(), &routes).await.unwrap();
        assert_eq!((found.refused, found.pods), (vec![1], vec![vec![pod("a")], vec![], vec![pod("a")]]), "{kind}");
        for route in ["first", "last"] {
            assert!(client.pttl::<_, i64>(format!("route:acme:desk:messages:{route}")).await.unwrap() > 0, "{route}");
        }
        store.retire(&[pod("a")]).await.unwrap();
        let gone = store.resolve(&[(pod("a"), routes.to_vec())], true).await.unwrap().1;
        assert_eq!(gone, [Standing::Gone], "{kind}");
        assert_eq!(store.lookup(&nobody(), &routes).await.unwrap().pods, [const { Vec::new() }; 3], "{kind}");
        let remove = routes.clone().map(|route| RouteChange::Remove { route });
        assert_eq!(store.apply(&pod("a"), &remove).await.unwrap(), [1], "{kind}");
    }
    let () = client.del("route:acme:desk:messages:bad").await.unwrap();
    let add = routes.clone().map(|route| RouteChange::Add { route, ttl: LONG });
    assert_eq!(store.apply(&pod("a"), &add).await.unwrap(), [0; 0]);
}

#[tokio::test]
async fn members_of_a_route_that_are_no_pods_are_passed_over() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    let members: [&[u8]; 6] = [b"a", b"", b"b/c", b"x y", b"\xff", &[b'x'; 1 << 20]];
    let () = client.sadd("route:acme:desk:messages:c1", &members[..]).await.unwrap();
    let before = sent(&mut client).await;
    assert_eq!(store.lookup(&nobody(), &[messages("c1")]).await.unwrap().pods, [[pod("a")]]);
    assert!(sent(&mut client).await - before < 1 << 16, "what can't be a pod never leaves Redis");
}

#[tokio::test]
async fn keys_of_the_fleet_that_hold_something_else_are_made_anew_and_cost_no_pod_its_place() {
    let server = RedisServer::start().await;
    let (a, b, mut client) = (server.store(), server.store(), server.client().await);
    let announced = async || {
        a.announce(Announce::of(&record("a"), LONG)).await.unwrap();
        b.announce(Announce::of(&record("b"), LONG)).await.unwrap();
        let seen = a.announce(Announce::of(&record("a"), LONG)).await.unwrap();
        let mut pods = seen.pods.clone();
        pods.sort_by(|one, other| one.id.cmp(&other.id));
        assert_eq!((pods, seen.lapsed.len()), (vec![record("a"), record("b")], 0));
        seen.epoch
    };
    announced().await;
    a.apply(&pod("a"), &[RouteChange::Add { route: messages("c1"), ttl: LONG }]).await.unwrap();
    for (key, right) in [("pods", "set"), ("routes:epoch", "string"), ("pod:a", "string"), ("pod_retirements:a", "string")] {
        for kind in kinds_but(right) {
            poison(&mut client, key, kind).await;
            let found = b.lookup(&nobody(), &[messages("c1")]).await.unwrap();
            assert_eq!(found.pods, [[pod("a")]], "{key} is a {kind}");
            assert_eq!(found.epoch.is_none(), key == "routes:epoch", "{key} is a {kind}");
            b.retire(&[pod("c")]).await.unwrap();
            let epoch = announced().await;
            assert_eq!(b.lookup(&nobody(), &[]).await.unwrap().epoch, Some(epoch), "{key} is a {kind}");
        }
    }
}

#[tokio::test]
async fn a_liveness_key_of_another_kind_is_as_one_that_has_lapsed_and_a_text_that_no_pod_wrote_names_nobody() {
    let server = RedisServer::start().await;
    let (a, b, mut client) = (server.store(), server.store(), server.client().await);
    b.announce(Announce::of(&record("b"), LONG)).await.unwrap();
    for kind in KINDS {
        poison(&mut client, "pod:b", kind).await;
        let seen = a.announce(Announce::of(&record("a"), LONG)).await.unwrap();
        let lapsed = if kind == "string" { vec![] } else { vec![pod("b")] };
        assert_eq!((seen.pods, seen.lapsed), (vec![record("a")], lapsed), "{kind}");
    }
}

#[tokio::test]
async fn an_epoch_of_whatever_bytes_is_the_same_for_all_and_an_empty_or_huge_one_is_made_anew() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    for value in [&b"\xff\xfe"[..], b"", &[b'x'; 1 << 20]] {
        let () = client.set("routes:epoch", value).await.unwrap();
        let seen = store.announce(Announce::of(&record("a"), LONG)).await.unwrap();
        assert_eq!(seen.epoch_created, value.is_empty() || value.len() > 64);
        assert_eq!(store.lookup(&nobody(), &[]).await.unwrap().epoch, Some(seen.epoch));
    }
}

#[tokio::test]
async fn a_count_of_retirements_that_is_none_hides_no_retirement() {
    let server = RedisServer::start().await;
    let (a, b, mut client) = (server.store(), server.store(), server.client().await);
    for value in ["x", "", "-5", "1e400", "nan", "9223372036854775807", "1.5"] {
        let () = client.set("pod_retirements:a", value).await.unwrap();
        let before = a.announce(Announce::of(&record("a"), SHORT)).await.unwrap().retirements;
        wait::until("the liveness key lapses", || {
            let mut client = client.clone();
            async move { !client.exists::<_, bool>("pod:a").await.unwrap() }
        })
        .await;
        b.retire(&[pod("a")]).await.unwrap();
        assert_ne!(a.announce(Announce::of(&record("a"), LONG)).await.unwrap().retirements, before, "{value}");
        let () = client.set("pod_retirements:a", value).await.unwrap();
        b.pass_over(&pod("a")).await.unwrap();
        assert_ne!(a.announce(Announce::of(&record("a"), SHORT)).await.unwrap().retirements, before, "{value}");
    }
}

#[tokio::test]
async fn an_opened_token_of_another_kind_is_overwritten() {
    let server = RedisServer::start().await;
    let (store, mut client) = (server.store(), server.client().await);
    for kind in kinds_but("string") {
        poison(&mut client, "token_cache:00aa", kind).await;
        store.put(SessionKind::User, "00aa", Bytes::from_static(b"x"), LONG).await.unwrap();
        let left: String = client.get("token_cache:00aa").await.unwrap();
        assert_eq!(left, "x", "{kind}");
    }
}
