//! What only the real store can show: that a server which is back with old data, has become a replica or throws keys away is
//! found out by the very next answer.

use daisi_ws_domain::route::RouteKey;
use daisi_ws_service::{
    adapters::redis::RedisStore,
    config::{self, Secret},
    ports::{Announce, Incarnation, KillBus as _, KillSignal, RouteChange, Routes as _, StoreError},
};
use futures_util::future::join_all;

use super::fleet::{LONG, agent, chat, company, nobody, pod, record, signal};
use crate::support::{
    redis::{RedisServer, tasks},
    wait,
};

fn chats() -> RouteKey {
    RouteKey::Chats { company: company(), agent: agent() }
}

fn add(route: RouteKey) -> [RouteChange; 1] {
    [RouteChange::Add { route, ttl: LONG }]
}

async fn incarnation(store: &RedisStore) -> Incarnation {
    store.lookup(&nobody(), &[]).await.unwrap().incarnation
}

#[tokio::test]
async fn a_server_that_is_back_with_its_last_snapshot_is_another_incarnation_in_the_first_answer() {
    let mut server = RedisServer::start().await;
    let store = server.store();
    let epoch = store.announce(Announce::of(&record("a"), LONG)).await.unwrap().epoch;
    let before = incarnation(&store).await;
    server.save().await;
    store.apply(&pod("a"), &add(chats())).await.unwrap();
    for _ in 0..2 {
        server.start_again().await;
        let lookup = store.lookup(&nobody(), &[chats()]).await.unwrap();
        assert_eq!((lookup.epoch.as_ref(), lookup.pods), (Some(&epoch), vec![vec![]]), "nothing but the incarnation shows it");
        assert!(lookup.incarnation > before);
    }
    let first = incarnation(&store).await;
    server.start_again().await;
    assert!(store.announce(Announce::of(&record("a"), LONG)).await.unwrap().incarnation > first, "an announcement shows it too");
}

#[tokio::test]
async fn a_restart_that_only_the_writer_of_routes_met_shows_in_the_next_look_up() {
    let mut server = RedisServer::start().await;
    let store = server.store();
    store.apply(&pod("a"), &add(chats())).await.unwrap();
    let before = incarnation(&store).await;
    server.save().await;
    server.start_again().await;
    store.apply(&pod("a"), &add(chats())).await.unwrap();
    assert!(incarnation(&store).await > before);
}

#[tokio::test]
async fn connections_that_come_and_go_on_one_server_are_no_trouble() {
    let server = RedisServer::start().await;
    let store = server.store();
    let before = incarnation(&store).await;
    let asker = nobody();
    let all = join_all((0..64).map(|_| store.lookup(&asker, &[]))).await;
    assert!(all.into_iter().all(|lookup| lookup.unwrap().incarnation == before), "the pool grew");
    store.apply(&pod("a"), &add(chats())).await.unwrap();
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("normal").exec_async(&mut server.client().await).await.unwrap();
    store.apply(&pod("a"), &add(chats())).await.unwrap();
    assert_eq!(incarnation(&store).await, before, "it is the same server, and lost nothing");
}

#[tokio::test]
async fn a_demoted_primary_answers_no_look_up_and_every_connection_to_it_is_given_up() {
    let (server, other) = (RedisServer::start().await, RedisServer::start().await);
    let store = server.store();
    let mut listener = store.listen().await;
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed);
    store.apply(&pod("a"), &add(chats())).await.unwrap();
    let before = incarnation(&store).await;

    server.follow(Some(&other)).await;
    // Nothing but a look-up, which writes nothing.
    let answer = store.lookup(&nobody(), &[chats()]).await;
    assert!(matches!(answer, Err(StoreError::Unready(_))), "a replica answers: {answer:?}");
    assert_eq!(signal(&mut listener).await, KillSignal::Resubscribed, "the listener left it");
    assert!(matches!(store.apply(&pod("a"), &add(chats())).await, Err(StoreError::Unready(_))));

    server.follow(None).await;
    assert!(incarnation(&store).await > before);
    store.apply(&pod("a"), &add(chats())).await.unwrap();
}

#[tokio::test]
async fn a_user_who_may_not_ask_who_the_server_is_takes_each_new_connection_for_trouble() {
    let mut server = RedisServer::start().await;
    let rules = ["on", ">secret", "~*", "&*", "+@all", "-info"];
    redis::cmd("ACL").arg("SETUSER").arg("blind").arg(&rules).exec_async(&mut server.client().await).await.unwrap();
    server.save_users().await;
    let section = config::Redis { username: "blind".into(), password: Secret::new("secret"), ..server.config() };
    let store = RedisStore::new(&section, tasks()).unwrap();
    let before = incarnation(&store).await;
    assert_eq!(incarnation(&store).await, before);
    server.save().await;
    server.start_again().await;
    let after = incarnation(&store).await;
    assert!(after > before);
    let asker = nobody();
    join_all((0..64).map(|_| store.lookup(&asker, &[]))).await;
    let settled = incarnation(&store).await;
    join_all((0..64).map(|_| store.lookup(&asker, &[]))).await;
    assert_eq!(incarnation(&store).await, settled, "a full pool makes no more of them");
}

#[tokio::test]
async fn a_route_that_was_evicted_for_want_of_memory_is_another_incarnation_in_the_first_look_up() {
    let server = RedisServer::start().await;
    let store = server.store();
    let mut client = server.client().await;
    for policy in ["allkeys-random", "volatile-random"] {
        let set = |name: &'static str, value: &'static str| {
            let mut set = redis::cmd("CONFIG");
            set.arg("SET").arg(name).arg(value);
            set
        };
        set("maxmemory", "0").exec_async(&mut client).await.unwrap();
        set("maxmemory-policy", policy).exec_async(&mut client).await.unwrap();
        let routes: Vec<RouteKey> =
            (0..200).map(|n| RouteKey::Messages { company: company(), agent: agent(), chat: chat(&n.to_string()) }).collect();
        let changes: Vec<_> = routes.iter().map(|route| RouteChange::Add { route: route.clone(), ttl: LONG }).collect();
        store.apply(&pod("a"), &changes).await.unwrap();
        let before = incarnation(&store).await;

        // Less than an empty server has, whatever its version.
        set("maxmemory", "100kb").exec_async(&mut client).await.unwrap();
        wait::until("Redis evicts", || {
            let mut client = client.clone();
            async move {
                // Refused where nothing more can be evicted.
                let _ = redis::cmd("SET").arg("filler").arg("x").exec_async(&mut client).await;
                let stats: String = redis::cmd("INFO").arg("stats").query_async(&mut client).await.unwrap();
                !stats.contains("evicted_keys:0\r")
            }
        })
        .await;
        let lookup = store.lookup(&nobody(), &routes).await.unwrap();
        assert!(lookup.incarnation > before, "{policy}: {} routes are left", lookup.pods.iter().flatten().count());
        redis::cmd("CONFIG").arg("RESETSTAT").exec_async(&mut client).await.unwrap();
    }
}
