//! Admins on every pod see the agents of what they may see.

use daisi_ws_fleet::{
    containers::cluster::{Cluster, Options},
    identity::{Kind, Subject, Who},
    traffic::{client::Client, ledger::Seen, publisher::Publisher},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs containers: .ci/e2e"]
async fn every_admin_on_every_pod_gets_each_event_that_it_may_see_once() {
    let cluster = Cluster::start(Options::pods(3)).await.unwrap();
    let mut admins = Vec::new();
    for (at, pod) in cluster.pods.iter().enumerate() {
        for company in [None, Some("acme".to_owned())] {
            let who = Who::Admin { admin: format!("admin-{at}-{}", company.is_some()), company };
            let token = pod.token(&who).await.unwrap();
            let client = Client::start(who, token, vec![pod.shared_ip()]);
            client.ready().await.unwrap();
            admins.push(client);
        }
    }
    let publisher = Publisher::connect(&cluster.nats_url()).await.unwrap();
    let subject = |company: &str, kind| Subject { company: company.into(), agent: "a1".into(), kind };
    for _ in 0..50 {
        publisher.store(&subject("acme", Kind::Agents)).await;
        publisher.store(&subject("globex", Kind::Agents)).await;
        publisher.store(&subject("acme", Kind::Chats)).await;
    }
    // One that everybody gets ends it; order holds only per source, so all of them are waited for.
    for admin in &admins {
        let (who, records) = (admin.ledger().who, publisher.records());
        let mut wanted: Vec<u64> = records.iter().filter(|event| who.wants(&event.subject)).map(|event| event.number).collect();
        let got = || {
            admin.look(|entries| {
                let numbers = entries.iter().filter_map(|entry| match entry.seen {
                    Seen::Event { number, .. } => Some(number),
                    _ => None,
                });
                numbers.collect::<Vec<_>>()
            })
        };
        let count = wanted.len();
        daisi_ws_testbed::wait::until("the admin has its events", std::time::Duration::from_secs(20), || {
            std::future::ready(got().len() >= count)
        })
        .await
        .unwrap();
        let mut got = got();
        got.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(got, wanted, "{}", who.name());
    }
}
