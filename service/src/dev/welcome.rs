//! What a developer sees when the fleet is up.

use std::{fmt::Write as _, net::SocketAddr};

use super::plan::{Login, Plan};

/// Where things are and what to try. The commands work as they stand.
pub(super) fn text(plan: &Plan, pods: &[(String, SocketAddr)], api_key: &str, logins: &[Login]) -> String {
    let mut text = String::new();
    let store = plan.redis.as_ref().map_or("memory".to_owned(), |address| format!("redis at {address}"));
    let stream = if plan.nats.is_some() { "nats" } else { "memory" };
    let _ = writeln!(text, "\n{} pods are up. Sessions are kept in {store}, events come from {stream}.\n", pods.len());
    let Some((_, first)) = pods.first() else { return text };
    let _ = writeln!(text, "Watch it, publish to it and break it in a browser:\n\n  http://{first}/\n");
    for (id, address) in pods {
        let _ = writeln!(text, "  {id:<7} http://{address}   ready: http://{address}/ready   metrics: http://{address}/metrics");
    }
    let _ = writeln!(text, "\nOpen a socket (any WebSocket client will do, on any pod; a second one takes the session over):\n");
    for (login, (_, address)) in logins.iter().zip(pods.iter().cycle()) {
        let _ = writeln!(text, "  {:<5} ws://{address}{}?x-api-key={api_key}&token={}", login.name, login.path, login.token);
    }
    let program = program();
    let publish = |subject: &str, event: &str| format!("  {program} publish --url http://{first} {subject} '{event}'\n");
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

/// This program as a shell can call it from here: its own path, relative where that is shorter.
fn program() -> String {
    let Ok(path) = std::env::current_exe() else { return "daisi-ws-service".to_owned() };
    let here = std::env::current_dir().unwrap_or_default();
    let path = path.strip_prefix(&here).unwrap_or(&path).display().to_string();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+".contains(&byte);
    if path.bytes().all(plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}
