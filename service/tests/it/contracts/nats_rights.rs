//! What the users may do that are shipped with compose and Kubernetes: all that they need, and nothing that breaks the stream.

use std::time::Duration;

use daisi_ws_service::{
    adapters::nats::{PublishError, Publisher, publish},
    config::Nats,
    ports::EventSource as _,
};
use futures_util::StreamExt as _;

use super::nats_source::{SUBJECT, ack, pull, seqs, source, until};
use crate::support::nats::{Access, NatsServer, publication, store_anything};

/// What ends, empties or changes the stream or its consumer, or is no business of a user of either.
const NOBODYS: [&str; 8] = [
    "$JS.API.STREAM.DELETE.wa_stream",
    "$JS.API.STREAM.PURGE.wa_stream",
    "$JS.API.STREAM.UPDATE.wa_stream",
    "$JS.API.STREAM.CREATE.other",
    "$JS.API.CONSUMER.DELETE.wa_stream.ws_fanout",
    "$JS.API.STREAM.LIST",
    "$SYS.REQ.SERVER.PING",
    "other",
];

async fn client(nats: &Nats) -> async_nats::Client {
    let options = async_nats::ConnectOptions::with_user_and_password(nats.user.clone(), nats.password.expose().to_owned());
    options.custom_inbox_prefix(&nats.inbox_prefix).connect(&nats.url).await.unwrap()
}

/// Nothing comes back where nothing may be sent.
async fn is_refused(client: &async_nats::Client, subject: &str) -> bool {
    let request = async_nats::Request::new().payload("{}".into()).timeout(Some(Duration::from_millis(300)));
    client
        .send_request(subject.to_owned(), request)
        .await
        .is_err_and(|error| error.kind() == async_nats::RequestErrorKind::TimedOut)
}

#[tokio::test]
async fn the_shipped_users_can_do_all_that_they_need() {
    let mut server = NatsServer::start_with(Access::Shipped).await;
    let (gateway, publisher) = (server.section(), server.section_of_publisher());
    let source = source(&gateway).await;
    for subject in [SUBJECT, "wa.acme.a1.messages.62811@s.whatsapp.net", "wa.acme.a1.agents"] {
        let seq = publish(&publisher, &publication(subject, "{}"), Some("r1")).await.unwrap();
        let events = pull(&source, 1).await;
        assert_eq!((seqs(&events), events[0].subject.as_str()), (vec![seq], subject));
        ack(&source, &events).await;
    }
    let looking = client(&gateway).await;
    until("all is settled", async || {
        let answer = looking.request("$JS.API.CONSUMER.INFO.wa_stream.ws_fanout", "".into()).await.unwrap();
        serde_json::from_slice::<serde_json::Value>(&answer.payload).unwrap()["num_ack_pending"] == 0
    })
    .await;
    // They come back by themselves, too.
    server.stop();
    server.restart().await;
    until("it is connected", async || source.is_connected()).await;
    let publisher = Publisher::connect(&publisher).await.unwrap();
    let seq = publisher.publish(&publication(SUBJECT, "{}"), &[]).await.unwrap();
    assert_eq!(seqs(&pull(&source, 1).await), [seq]);
}

#[tokio::test]
async fn neither_user_can_end_empty_or_change_the_stream() {
    let server = NatsServer::start_with(Access::Shipped).await;
    let source = source(&server.section()).await;
    for nats in [server.section(), server.section_of_publisher()] {
        let client = client(&nats).await;
        for subject in NOBODYS {
            assert!(is_refused(&client, subject).await, "{} may publish to {subject}", nats.user);
        }
    }
    let publisher = Publisher::connect(&server.section_of_publisher()).await.unwrap();
    for subject in ["wa.acme.a1.unknown", "wa.acme.chats", "$JS.API.CONSUMER.MSG.NEXT.wa_stream.ws_fanout"] {
        assert!(store_anything(&publisher, subject, "{}", &[]).await.is_err(), "{subject}");
    }
    let own = publish(&server.section(), &publication(SUBJECT, "{}"), None).await;
    assert!(matches!(own, Err(PublishError::Unconfirmed(_))), "the gateway publishes: {own:?}");
    // It is all there.
    let seq = publisher.publish(&publication(SUBJECT, "{}"), &[]).await.unwrap();
    assert_eq!((seq, seqs(&pull(&source, 1).await)), (1, vec![1]));
}

#[tokio::test]
async fn the_gateway_may_read_the_stream_again_and_publishers_may_not() {
    let server = NatsServer::start_with(Access::Shipped).await;
    let _pod = source(&server.section()).await;
    let seq = publish(&server.section_of_publisher(), &publication(SUBJECT, r#"{"private":1}"#), None).await.unwrap();
    let (gateway, publisher) = (client(&server.section()).await, client(&server.section_of_publisher()).await);
    let by_seq = format!(r#"{{"seq":{seq}}}"#);
    // From the leader, and in the ways that any replica answers.
    for (subject, question) in [
        ("$JS.API.STREAM.MSG.GET.wa_stream".to_owned(), by_seq.clone()),
        ("$JS.API.DIRECT.GET.wa_stream".to_owned(), by_seq),
        (format!("$JS.API.DIRECT.GET.wa_stream.{SUBJECT}"), String::new()),
    ] {
        let answer = gateway.request(subject.clone(), question.into()).await.unwrap();
        let read = answer.headers.and_then(|headers| headers.get("Nats-Sequence").map(ToString::to_string));
        let read = read.or_else(|| {
            let answer: serde_json::Value = serde_json::from_slice(&answer.payload).unwrap();
            answer["message"]["seq"].as_u64().map(|seq| seq.to_string())
        });
        assert_eq!(read, Some(seq.to_string()), "{subject}");
        assert!(is_refused(&publisher, &subject).await, "publishers may ask {subject}");
    }
}

#[tokio::test]
async fn publishers_hear_no_event_on_its_way_to_a_pod() {
    let server = NatsServer::start_with(Access::Shipped).await;
    let source = source(&server.section()).await;
    let listener = client(&server.section_of_publisher()).await;
    let mut heard = Vec::new();
    for subject in ["_INBOX_gateway.>", "wa.>", ">", "_INBOX.>"] {
        heard.push(listener.subscribe(subject.to_owned()).await.unwrap());
    }
    listener.flush().await.unwrap();
    let seq = publish(&server.section_of_publisher(), &publication(SUBJECT, r#"{"private":1}"#), None).await.unwrap();
    assert_eq!(seqs(&pull(&source, 1).await), [seq]);
    listener.flush().await.unwrap();
    for subscription in &mut heard {
        while let Ok(Some(message)) = tokio::time::timeout(Duration::from_millis(50), subscription.next()).await {
            assert!(!String::from_utf8_lossy(&message.payload).contains("private"), "{}", message.subject);
        }
    }
}
