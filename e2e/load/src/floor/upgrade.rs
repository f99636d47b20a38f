//! The handshake: which subject, and the answer.

use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use crate::wire;

/// The end of a request's head.
pub(super) const HEAD_END: &[u8] = b"\r\n\r\n";
const READY: &[u8] = br#"{"type":"ready","payload":{"pod_id":"floor"}}"#;

/// The subject that the request is for and the bytes that answer it, `ready` included; none if it is no handshake.
pub(super) fn accept(head: &[u8]) -> Option<(String, Vec<u8>)> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let target = lines.next()?.strip_prefix("GET /ws/")?.split([' ', '?']).next()?;
    let (company, agent) = target.split_once('/')?;
    let key = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim())
    })?;
    let mut answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\
         Sec-WebSocket-Protocol: json.v1\r\n\r\n",
        derive_accept_key(key.as_bytes())
    )
    .into_bytes();
    wire::put_unmasked(&mut answer, wire::TEXT, READY);
    Some((format!("wa.{company}.{agent}.chats"), answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_names_its_subject_and_is_answered_as_the_rfc_says() {
        let head = b"GET /ws/acme/desk-7?token=x HTTP/1.1\r\nHost: a\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let (subject, answer) = accept(head).unwrap();
        assert_eq!(subject, "wa.acme.desk-7.chats");
        assert!(String::from_utf8_lossy(&answer).contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
    }

    #[test]
    fn what_is_no_handshake_is_refused() {
        for head in ["", "GET / HTTP/1.1\r\n\r\n", "GET /ws/acme HTTP/1.1\r\n\r\n", "GET /ws/a/b HTTP/1.1\r\nHost: a\r\n\r\n"] {
            assert_eq!(accept(head.as_bytes()), None, "{head}");
        }
    }
}
