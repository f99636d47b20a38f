//! HTTP/2 by hand: frames that no client library would send.

use std::{io, net::SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// What a client says first, with an empty SETTINGS frame behind it.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Bytes of a frame's header.
const HEADER: usize = 9;

/// The kinds of frames that are written here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// Bytes of a body.
    Data = 0,
    /// A header block, or its beginning.
    Headers = 1,
    /// The end of a stream, for bad.
    Reset = 3,
    /// What a side wants of the other.
    Settings = 4,
    /// Is the other side there?
    Ping = 6,
    /// More of a header block.
    Continuation = 9,
}

/// The last frame of its stream; of a SETTINGS or a PING: the answer to one.
pub(crate) const END_STREAM: u8 = 1;
/// The last of its header block.
pub(crate) const END_HEADERS: u8 = 4;

/// Writes a frame.
///
/// # Panics
/// Never: no attack writes a frame of more than 16 MiB.
#[must_use]
pub(crate) fn frame(kind: Kind, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind as u8, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Writes a header without compression and without a place in any table.
pub(crate) fn header(block: &mut Vec<u8>, name: &str, value: &str) {
    block.push(0);
    for text in [name, value] {
        number(block, text.len());
        block.extend_from_slice(text.as_bytes());
    }
}

/// An integer with a prefix of seven bits, as RFC 7541 section 5.1 has it.
fn number(block: &mut Vec<u8>, mut value: usize) {
    const PREFIX: usize = 0x7f;
    if value < PREFIX {
        block.push(u8::try_from(value).unwrap_or_default());
        return;
    }
    block.push(0x7f);
    value -= PREFIX;
    while value >= 0x80 {
        block.push(u8::try_from(value % 0x80).unwrap_or_default() | 0x80);
        value /= 0x80;
    }
    block.push(u8::try_from(value).unwrap_or_default());
}

/// The headers of a call.
#[must_use]
pub(crate) fn call(path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "pod"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        header(&mut block, name, value);
    }
    block
}

/// A message as gRPC frames it.
#[must_use]
pub(crate) fn message(compressed: bool, bytes: &[u8]) -> Vec<u8> {
    let mut framed = vec![u8::from(compressed)];
    framed.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or_default().to_be_bytes());
    framed.extend_from_slice(bytes);
    framed
}

/// Does a server greet its clients?
pub(crate) async fn greeted(by: SocketAddr) -> bool {
    let exchange = async {
        let mut socket = TcpStream::connect(by).await?;
        socket.write_all(PREFACE).await?;
        let mut answer = [0; HEADER];
        socket.read_exact(&mut answer).await?;
        io::Result::Ok(answer[3] == Kind::Settings as u8)
    };
    exchange.await.unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_headers_are_as_the_rfcs_have_them() {
        assert_eq!(frame(Kind::Ping, 0, 0, &[0; 8])[..HEADER], [0, 0, 8, 6, 0, 0, 0, 0, 0]);
        let mut block = Vec::new();
        header(&mut block, "a", "b");
        assert_eq!(block, [0, 1, b'a', 1, b'b']);
        block.clear();
        number(&mut block, 1337);
        assert_eq!(block, [0x7f, 0xba, 0x09]);
    }
}
