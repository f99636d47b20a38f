//! What a developer sees when the fleet is up.

use std::fmt::Write as _;

use super::fleet::{Plan, Ticket};
use crate::gateway::Gateway;

/// Where things are and what to try. The commands work as they stand.
pub(super) fn text(plan: &Plan, pods: &[Gateway], api_key: &str, tickets: &[Ticket]) -> String {
    let mut text = String::new();
    let store = plan.redis.as_ref().map_or("memory".to_owned(), |address| format!("redis at {address}"));
    let stream = if plan.nats.is_some() { "nats" } else { "memory" };
    let _ = writeln!(text, "\n{} pods are up. Sessions are kept in {store}, events come from {stream}.\n", pods.len());
    for pod in pods {
        let _ = writeln!(
            text,
            "  {:<7} http://{}   peers: {}   ready: http://{}/ready   metrics: http://{}/metrics",
            pod.record().id,
            pod.http_addr(),
            pod.grpc_addr(),
            pod.http_addr(),
            pod.http_addr()
        );
    }
    let _ = writeln!(text, "\nOpen a socket (any WebSocket client will do, on any pod; a second one takes the session over):\n");
    for (ticket, pod) in tickets.iter().zip(pods.iter().cycle()) {
        let address = pod.http_addr();
        let _ = writeln!(text, "  {:<5} ws://{address}{}?x-api-key={api_key}&token={}", ticket.name, ticket.path, ticket.token);
    }
    let Some(first) = pods.first() else { return text };
    let address = first.http_addr();
    let publish = |subject: &str, event: &str| format!("  daisi-ws-service publish --url http://{address} {subject} '{event}'\n");
    text.push_str("\nPublish an event, through any pod; select_chat decides who sees messages:\n\n");
    text.push_str(&publish(
        "wa.acme.agent-7.chats",
        r#"{"event_id":"1","chat_id":"62811200345@s.whatsapp.net","row_data":{"unread_count":3}}"#,
    ));
    text.push_str(r#"  then send on a socket: {"type":"select_chat","payload":{"chat_id":"62811200345@s.whatsapp.net"}}"#);
    text.push('\n');
    text.push_str(&publish(
        "wa.acme.agent-7.messages.62811200345@s.whatsapp.net",
        r#"{"event_id":"2","row_data":{"text":"Halo kak"}}"#,
    ));
    text.push_str(&publish("wa.acme.agent-7.agents", r#"{"event_id":"3","row_data":{"status":"online"}}"#));
    text.push_str(
        "\nThe keys and tokens are this fleet's own and end with it. Ctrl-C drains the fleet; twice ends it at once.\n\n",
    );
    text
}
