//! What clients send.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::ids::ChatId;

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// Asks for the messages of one chat, instead of those of the chat selected before.
    SelectChat(ChatId),
    /// Asks for a sign of life; echoed.
    Ready,
}

/// Why a client's frame was refused. The socket stays open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientFrameError {
    /// Not one JSON object with a string `type`.
    #[error("the message is not a JSON object with a \"type\"")]
    Malformed,
    /// A type that nothing is known about.
    #[error("there is no message of this type; send \"select_chat\" or \"ready\"")]
    UnknownType,
    /// `select_chat` without a usable chat id.
    #[error("select_chat needs a payload with a valid \"chat_id\": {0}")]
    ChatId(String),
}

impl ClientFrame {
    /// Reads a text frame of a client.
    ///
    /// # Errors
    /// When the text is no message of the protocol; the error is what the client is told.
    pub fn parse(text: &str) -> Result<Self, ClientFrameError> {
        #[derive(Deserialize)]
        struct Message<'a> {
            r#type: std::borrow::Cow<'a, str>,
            #[serde(borrow, default)]
            payload: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct SelectChat {
            chat_id: String,
        }
        if !text.trim_start().starts_with('{') {
            return Err(ClientFrameError::Malformed);
        }
        let message: Message<'_> = serde_json::from_str(text).map_err(|_| ClientFrameError::Malformed)?;
        match &*message.r#type {
            "ready" => Ok(Self::Ready),
            "select_chat" => {
                let payload = message.payload.map_or("null", RawValue::get);
                let chat: SelectChat = serde_json::from_str(payload)
                    .map_err(|_| ClientFrameError::ChatId("it is missing or not a string".into()))?;
                let chat = ChatId::parse(&chat.chat_id).map_err(|e| ClientFrameError::ChatId(e.to_string()))?;
                Ok(Self::SelectChat(chat))
            }
            _ => Err(ClientFrameError::UnknownType),
        }
    }
}
