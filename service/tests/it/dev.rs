//! The embedded fleet, as a developer uses it: real listeners and gRPC, memory or real backends.

use std::time::Duration;

use daisi_ws_service::{
    cli::publish::{Target, publish_event},
    dev::{Fleet, Plan},
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::{
    client::{Client, Pipe},
    config::test_config,
    nats::NatsServer,
    redis::RedisServer,
    wait,
};

/// Opens a socket by one of the URLs that the welcome prints.
async fn open(url: &str) -> Client {
    let request = url.into_client_request().unwrap();
    let address = request.uri().authority().unwrap().to_string();
    let pipe: Box<dyn Pipe> = Box::new(tokio::net::TcpStream::connect(address).await.unwrap());
    let (socket, _) = tokio_tungstenite::client_async(request, pipe).await.unwrap();
    let mut client = Client::lazy(socket);
    client.expect_ready().await;
    client.eager()
}

/// What would delete or empty the stream, is nobody's event, or no event at all.
const NO_EVENTS: [(&str, &[u8]); 9] = [
    ("$JS.API.STREAM.DELETE.wa_stream", b"{}"),
    ("$JS.API.STREAM.PURGE.wa_stream", b"{}"),
    ("$JS.API.CONSUMER.DELETE.wa_stream.ws_fanout", b"{}"),
    ("wa.>", b"{}"),
    ("wa.acme.agent-7.unknown", b"{}"),
    ("wa.acme.agent-7.messages.a..b", b"{}"),
    ("other.acme.agent-7.chats", b"{}"),
    ("wa.acme.agent-7.chats", b"[1]"),
    ("wa.acme.agent-7.chats", b"{\"n\":1} no JSON"),
];

async fn try_it(plan: &Plan) {
    let mut config = test_config();
    config.nats.stream_max_bytes = 16 * 1024 * 1024;
    let fleet = Fleet::start(plan, &config).await.unwrap();
    let welcome = fleet.welcome();
    let urls: Vec<String> = welcome.split_whitespace().filter(|word| word.starts_with("ws://")).map(str::to_owned).collect();
    assert_eq!(urls.len(), 3, "{welcome}");
    let through = Target::DevFleet(format!("http://{}", fleet.addresses()[2].1));
    let shutdown = fleet.shutdown().clone();
    let use_it = async {
        let mut clients = Vec::new();
        for url in &urls {
            clients.push(open(url).await);
        }
        clients[0].select_chat("62811200345@s.whatsapp.net").await;
        let publish = async |subject: &str| publish_event(&through, subject, b"{\"event_id\":\"1\"}", &config).await.unwrap();
        let chats = publish("wa.acme.agent-7.chats").await;
        assert_eq!(clients[0].expect_event().await.seq, chats);
        assert_eq!(clients[1].expect_event().await.seq, chats);
        let message = publish("wa.acme.agent-7.messages.62811200345@s.whatsapp.net").await;
        assert_eq!(clients[0].expect_event().await.seq, message);
        let agents = publish("wa.acme.agent-7.agents").await;
        assert_eq!(clients[2].expect_event().await.seq, agents);
        let not_stored = publish_event(&Target::DevFleet("http://127.0.0.1:1".into()), "wa.a.b.chats", b"{}", &config).await;
        assert!(not_stored.is_err());
        for (subject, event) in NO_EVENTS {
            let refused = publish_event(&through, subject, event, &config).await.unwrap_err().to_string();
            assert!(refused.contains("400") && refused.contains("this is no event"), "{subject}: {refused}");
        }
        if let Some(nats) = &plan.nats {
            // Nor past the fleet.
            for (subject, event) in NO_EVENTS {
                assert!(publish_event(&Target::Nats(nats.clone()), subject, event, &config).await.is_err(), "{subject}");
            }
        }
        let after = publish("wa.acme.agent-7.agents").await;
        assert_eq!(after, agents + 1, "nothing was stored meanwhile, and the stream is still there");
        assert_eq!(clients[2].expect_event().await.seq, after);
        // The same session on another pod.
        let other_pod = urls[0].replacen(&fleet_address(&urls[0]), &fleet_address(&urls[1]), 1);
        let _second = open(&other_pod).await;
        assert_eq!(clients[0].expect_close().await, Some(4402));
        shutdown.soft.cancel();
        assert_eq!(clients[1].expect_close().await, Some(1001));
    };
    let (ended, ()) = tokio::join!(wait::within("the fleet ends", fleet.run()), use_it);
    ended.unwrap();
}

fn fleet_address(url: &str) -> String {
    url.split('/').nth(2).unwrap().to_owned()
}

#[tokio::test]
async fn a_fleet_on_memory_backends_delivers_moves_and_drains() {
    try_it(&Plan { pods: 3, nats: None, redis: None, base_port: 0 }).await;
}

#[tokio::test]
async fn the_same_fleet_runs_on_real_backends() {
    let (nats, redis) = (NatsServer::start().await, RedisServer::start().await);
    let plan = Plan { pods: 3, nats: Some(nats.url()), redis: Some(redis.config().address), base_port: 0 };
    tokio::time::timeout(Duration::from_secs(60), try_it(&plan)).await.unwrap();
}

#[tokio::test]
async fn a_taken_port_is_named_in_the_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let plan = Plan { pods: 1, nats: None, redis: None, base_port: port };
    let error = Fleet::start(&plan, &test_config()).await.unwrap_err().to_string();
    assert!(error.contains(&port.to_string()) && error.contains("dev-1"), "{error}");
}
