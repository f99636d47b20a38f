//! What is heard of a client's bytes: by the gateway's decoder, and by tungstenite, which is the oracle.

use std::io::{self, Cursor, Read, Write};

use daisi_ws_websocket::{Message, ProtocolError, decode::Decoder, deflate::Inflater};
use tokio_tungstenite::tungstenite::{
    self, WebSocket,
    error::Error,
    protocol::{Role, WebSocketConfig},
};

use crate::{fail, input::cut};

/// Bytes of a message, so few that they are often too many.
pub(super) const LIMIT: usize = 300;
/// A frame's header has at most so many bytes.
pub(super) const HEADER: usize = 14;

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It has not: more may come.
    Open,
    /// The client said goodbye.
    Closed(Option<u16>),
    /// The client broke a rule, and is told by this code.
    Failed(u16),
}

/// Messages, and how it ended.
pub(super) type Heard = (Vec<Message>, End);

/// By what a byte says: none, one for all sockets, or one of its own.
pub(super) fn inflater(of: u8) -> Inflater {
    match of % 3 {
        0 => Inflater::Off,
        1 => Inflater::Shared,
        _ => Inflater::Own(None),
    }
}

/// What the decoder hears. It never holds more than a message, a frame and a read, twice that where memory grows by doubling.
pub(super) fn ours(bytes: &[u8], sizes: &[usize], inflater: Inflater) -> Heard {
    let (mut decoder, mut messages) = (Decoder::new(LIMIT, inflater), Vec::new());
    for piece in cut(bytes, sizes) {
        decoder.push(piece);
        loop {
            match decoder.next_message() {
                Ok(Some(Message::Close(code))) => {
                    assert!(decoder.is_closed() && decoder.held() == 0, "something is held behind the end");
                    assert_eq!(decoder.next_message(), Ok(None), "something is read behind the end");
                    return (messages, End::Closed(code));
                }
                Ok(Some(message)) => {
                    assert!(message.len() <= LIMIT, "a message of {} bytes", message.len());
                    messages.push(message);
                }
                Ok(None) => break,
                Err(error) => return (messages, End::Failed(error.code())),
            }
        }
        assert!(decoder.held() <= 2 * (2 * LIMIT + HEADER + piece.len()), "{} bytes are held", decoder.held());
    }
    (messages, End::Open)
}

/// What is written is nobody's business.
struct Bytes<'a>(Cursor<&'a [u8]>);

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            read => Ok(read),
        }
    }
}

impl Write for Bytes<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite hears.
pub(super) fn oracle(bytes: &[u8]) -> Heard {
    let limits = WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT)).read_buffer_size(1024);
    let mut socket = WebSocket::from_raw_socket(Bytes(Cursor::new(bytes)), Role::Server, Some(limits));
    let mut messages = Vec::new();
    loop {
        messages.push(match socket.read() {
            Ok(tungstenite::Message::Text(text)) => Message::Text(text.to_string()),
            Ok(tungstenite::Message::Binary(bytes)) => Message::Binary(bytes.to_vec()),
            Ok(tungstenite::Message::Ping(payload)) => Message::Ping(payload.to_vec()),
            Ok(tungstenite::Message::Pong(payload)) => Message::Pong(payload.to_vec()),
            // It answers a code that must not be sent as if it had been sent this one.
            Ok(tungstenite::Message::Close(Some(close))) if close.reason == "Protocol violation" => {
                return (messages, End::Failed(close.code.into()));
            }
            Ok(tungstenite::Message::Close(close)) => return (messages, End::Closed(close.map(|close| close.code.into()))),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return (messages, End::Open),
            Err(Error::Protocol(_)) => return (messages, End::Failed(ProtocolError::Violation("").code())),
            Err(Error::Utf8(_)) => return (messages, End::Failed(ProtocolError::Invalid.code())),
            Err(Error::Capacity(_)) => return (messages, End::Failed(ProtocolError::TooBig.code())),
            other => fail(&format!("nothing that a reading server gives: {other:?}")),
        });
    }
}
