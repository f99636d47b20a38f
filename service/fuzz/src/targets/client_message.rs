//! A text message of a client.

use daisi_ws_domain::{
    close::ErrorCode,
    frame::{ClientFrame, ErrorBody, Frame},
    ids::ChatId,
};
use serde_json::Value;

use crate::{input::text, must};

/// The longest answer: an error that quotes nothing, or a chat id.
const ANSWER: usize = 2048;

pub(super) fn check(input: &[u8]) {
    let text = text(input);
    let json: Option<Value> = serde_json::from_str(&text).ok();
    let answer = match ClientFrame::parse(&text) {
        Ok(frame) => {
            let (kind, canonical) = match &frame {
                ClientFrame::Ready => ("ready", serde_json::json!({"type": "ready"})),
                ClientFrame::SelectChat(chat) => {
                    ("select_chat", serde_json::json!({"type": "select_chat", "payload": {"chat_id": chat}}))
                }
            };
            // An independent reader sees the same. Some numbers and escapes are none for it, where they are passed over here.
            if let Some(json) = &json {
                assert_eq!(json["type"], kind);
                if let ClientFrame::SelectChat(chat) = &frame {
                    assert_eq!(json["payload"]["chat_id"], chat.as_str());
                }
            }
            assert_eq!(ClientFrame::parse(&canonical.to_string()).as_ref(), Ok(&frame));
            match frame {
                ClientFrame::Ready => Frame::ready_echo(None),
                ClientFrame::SelectChat(chat) => Frame::chat_selected(&chat),
            }
        }
        Err(error) => {
            if let Some(Value::Object(object)) = &json
                && object.get("type").is_some_and(|kind| kind == "select_chat")
                && object.len() <= 2
                && let Some(chat) = object.get("payload").and_then(|payload| payload.get("chat_id")?.as_str())
                && text.matches("\"type\"").count() + text.matches("\\u").count() < 2
                && text.matches("chat_id").count() < 2
                && text.matches("payload").count() < 2
            {
                assert!(ChatId::parse(chat).is_err(), "a good selection is refused: {error}");
            }
            Frame::error(&ErrorBody::new(ErrorCode::BadRequest, error.to_string()))
        }
    };
    assert!(answer.bytes().len() <= ANSWER, "an answer of {} bytes", answer.bytes().len());
    let answer: Value = must(serde_json::from_slice(answer.bytes()), "an answer is JSON");
    assert!(answer["type"].is_string());
}
