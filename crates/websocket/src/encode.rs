//! Frames to bytes (RFC 6455, section 5.2), unmasked as a server's are.

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// The longest payload of a control frame (RFC 6455, section 5.5).
pub const MAX_CONTROL_BYTES: usize = 125;

/// A frame's header takes at most so many bytes, as a server does not mask.
const MAX_HEADER: usize = 10;

fn frame(opcode: OpCode, rsv1: bool, payload: &[u8]) -> Bytes {
    let header = FrameHeader { is_final: true, rsv1, rsv2: false, rsv3: false, opcode, mask: None };
    let mut bytes = BytesMut::with_capacity(MAX_HEADER + payload.len()).writer();
    // Memory takes all that is written to it.
    let _ = header.format(payload.len() as u64, &mut bytes);
    let mut bytes = bytes.into_inner();
    bytes.put_slice(payload);
    bytes.freeze()
}

/// A text message in one frame. The caller vouches that it is UTF-8.
#[must_use]
pub fn text(payload: &[u8]) -> Bytes {
    frame(OpCode::Data(Data::Text), false, payload)
}

/// A text message in one frame whose payload is compressed.
#[must_use]
pub fn compressed_text(payload: &[u8]) -> Bytes {
    frame(OpCode::Data(Data::Text), true, payload)
}

/// A binary message in one frame, compressed or not.
#[must_use]
pub fn binary(payload: &[u8], compressed: bool) -> Bytes {
    frame(OpCode::Data(Data::Binary), compressed, payload)
}

/// The payload of a frame that was made here, sharing its bytes.
#[must_use]
pub fn payload(frame: &Bytes) -> Bytes {
    let header = match frame.get(1) {
        Some(126) => 4,
        Some(127) => MAX_HEADER,
        _ => 2,
    };
    frame.slice(header.min(frame.len())..)
}

/// A ping without a payload.
#[must_use]
pub fn ping() -> Bytes {
    Bytes::from_static(&[0x89, 0])
}

/// The answer to a ping; what is beyond [`MAX_CONTROL_BYTES`] is cut off.
#[must_use]
pub fn pong(payload: &[u8]) -> Bytes {
    frame(OpCode::Control(Control::Pong), false, &payload[..payload.len().min(MAX_CONTROL_BYTES)])
}

/// A close frame; without a code it has no body. A reason too long for it is cut at a character.
#[must_use]
pub fn close(code: Option<u16>, reason: &str) -> Bytes {
    let Some(code) = code else { return frame(OpCode::Control(Control::Close), false, &[]) };
    let mut end = reason.len().min(MAX_CONTROL_BYTES - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let body = [&code.to_be_bytes(), &reason.as_bytes()[..end]].concat();
    frame(OpCode::Control(Control::Close), false, &body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_come_out() {
        assert_eq!(&text(b"Hello")[..], [0x81, 5, b'H', b'e', b'l', b'l', b'o']);
        assert_eq!(&pong(b"Hello")[..], [0x8a, 5, b'H', b'e', b'l', b'l', b'o']);
        assert_eq!(&binary(&[0; 256], false)[..4], [0x82, 126, 1, 0]);
        assert_eq!(&binary(&[0; 65536], false)[..10], [0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
        for length in [0, 125, 126, 65536] {
            assert_eq!(payload(&text(&vec![7; length])), vec![7; length]);
        }
        assert_eq!(&ping()[..], [0x89, 0]);
        // RFC 7692, section 7.2.3.1.
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(compressed_text(&hello)[..2], [0xc1, 7]);
    }

    #[test]
    fn a_close_frame_stays_within_a_control_frame_and_within_utf8() {
        assert_eq!(&close(None, "ignored")[..], [0x88, 0]);
        assert_eq!(&close(Some(1001), "x")[..], [0x88, 3, 0x03, 0xe9, b'x']);
        let long = close(Some(1001), &"ä".repeat(100));
        assert!(long.len() <= 2 + MAX_CONTROL_BYTES);
        assert!(std::str::from_utf8(&long[4..]).is_ok());
        assert_eq!(pong(&[0; 200]).len(), 2 + MAX_CONTROL_BYTES);
    }
}
