//! Records of pods that no pod wrote: they name nobody, and cost nobody its place.

use daisi_ws_service::application::ports::{Announce, Routes as _, Standing};
use redis::AsyncCommands as _;

use super::fleet::{LONG, pod, record};
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
