//! Records of pods that no pod wrote: they name nobody, and cost nobody its place.

use daisi_ws_service::ports::{Acquire, Announce, Routes as _, SessionLocks as _, Standing};
use redis::AsyncCommands as _;

use super::fleet::{LONG, nobody, owner, pod, record, user};
use crate::support::redis::RedisServer;

#[tokio::test]
async fn a_record_that_no_pod_of_the_fleet_wrote_names_nobody() {
    let server = RedisServer::start().await;
    let (a, b, mut client) = (server.store(), server.store(), server.client().await);
    a.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    let real: String = client.get("pod:a").await.unwrap();
    // Made up, copied under another id, and with another address.
    let forged = [
        ("x", r#"{"address":"10.6.6.6:1","started_at_ms":1}"#.to_owned()),
        ("y", real.clone()),
        ("z", real.replace("a.svc", "z.svc")),
    ];
    for (id, text) in &forged {
        let () = client.set(format!("pod:{id}"), text).await.unwrap();
        let () = client.sadd("pods", *id).await.unwrap();
    }
    let seen = b.announce(Announce::of(&record("b"), LONG)).await.unwrap();
    let mut pods: Vec<_> = seen.pods.iter().map(|pod| pod.id.as_str()).collect();
    pods.sort_unstable();
    assert_eq!((pods, seen.lapsed), (vec!["a", "b"], vec![]));
    let asked = forged.map(|(id, _)| (pod(id), Vec::new()));
    let (_, standings) = b.resolve(&asked, true).await.unwrap();
    assert_eq!(standings, [const { Standing::Unheard }; 3]);
}

#[tokio::test]
async fn a_pod_whose_record_was_overwritten_writes_it_again_with_its_next_announcement() {
    let server = RedisServer::start().await;
    let (a, b, mut client) = (server.store(), server.store(), server.client().await);
    a.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    let () = client.set_ex("pod:a", r#"{"address":"10.6.6.6:1","started_at_ms":1}"#, 600).await.unwrap();
    let seen = b.announce(Announce::of(&record("b"), LONG)).await.unwrap();
    assert_eq!(seen.pods, [record("b")]);
    a.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    let known = [pod("a")];
    let seen = b.announce(Announce { known: &known, ..Announce::of(&record("b"), LONG) }).await.unwrap();
    assert!(seen.pods.contains(&record("a")), "{:?}", seen.pods);
}

#[tokio::test]
async fn what_somebody_made_huge_is_not_sent_to_every_pod_and_costs_nobody_anything() {
    const HUGE: usize = 16 << 20;
    let server = RedisServer::start().await;
    let (a, b, mut client) = (server.store(), server.store(), server.client().await);
    a.announce(Announce::of(&record("a"), LONG)).await.unwrap();
    let ours = ["pod:a", "pod:x", "pod_left:x", "pod_retirements:a", "pod_retirements:b", "routes:epoch"];
    for huge in ours.into_iter().chain(["session:acme:a1:sari", "session:acme:a1:sari:selected_chat"]) {
        let () = client.set(huge, vec![b'x'; HUGE]).await.unwrap();
    }
    let () = client.sadd("pods", "x").await.unwrap();
    let before = sent(&mut client).await;
    for pods in [[record("b"), record("a")], [record("a"), record("b")]] {
        b.announce(Announce::of(&pods[0], LONG)).await.unwrap();
        a.announce(Announce::of(&pods[1], LONG)).await.unwrap();
    }
    a.resolve(&[(pod("x"), Vec::new()), (pod("b"), Vec::new())], true).await.unwrap();
    a.lookup(&nobody(), &[]).await.unwrap();
    let acquired = b.acquire(&user("sari"), &owner("b/1"), LONG).await.unwrap();
    assert!(matches!(acquired, Acquire::Acquired { saved_chat: None }), "{acquired:?}");
    assert!(sent(&mut client).await - before < 64 * 1024);
}

/// Bytes that the server has sent.
async fn sent(client: &mut redis::aio::MultiplexedConnection) -> u64 {
    let about: redis::InfoDict = redis::cmd("INFO").arg("stats").query_async(client).await.unwrap();
    about.get("total_net_output_bytes").unwrap()
}
