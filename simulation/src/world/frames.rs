//! WebSocket as a browser speaks it, as far as the gateway speaks it back: without extensions, messages whole.

use bytes::{Buf as _, BytesMut};

/// What a server sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    Text(String),
    Close(Option<u16>),
    Ping(Vec<u8>),
    Pong,
    /// None that a server may send.
    Invalid(&'static str),
}

/// Takes the next frame out of what was read, if all of it is there.
pub(crate) fn next(read: &mut BytesMut) -> Option<Frame> {
    let [first, second, ..] = **read else { return None };
    let extended = match second & 0x7F {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let header = 2 + extended;
    let length = match extended {
        0 => u64::from(second & 0x7F),
        _ => read.get(2..header)?.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
    };
    let length = usize::try_from(length).ok()?;
    if read.len() < header + length {
        return None;
    }
    read.advance(header);
    let payload = read.split_to(length);
    if second & 0x80 != 0 {
        return Some(Frame::Invalid("a server does not mask"));
    }
    Some(match first {
        0x81 => String::from_utf8(payload.to_vec()).map_or(Frame::Invalid("text is UTF-8"), Frame::Text),
        0x88 => Frame::Close(payload.get(..2).map(|code| u16::from(code[0]) << 8 | u16::from(code[1]))),
        0x89 => Frame::Ping(payload.to_vec()),
        0x8A => Frame::Pong,
        _ => Frame::Invalid("no kind of frame that was agreed on"),
    })
}

fn masked(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | kind];
    match u8::try_from(payload.len()) {
        Ok(short @ 0..126) => frame.push(0x80 | short),
        _ => {
            frame.push(0x80 | 126);
            frame.extend(u16::try_from(payload.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    // A mask of zeros is a mask, and changes nothing.
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

/// A text of a client, of 64 KiB at most.
pub(crate) fn text(text: &str) -> Vec<u8> {
    masked(1, text.as_bytes())
}

/// A client's goodbye.
pub(crate) fn close(code: u16) -> Vec<u8> {
    masked(8, &code.to_be_bytes())
}

/// The answer to a ping.
pub(crate) fn pong(payload: &[u8]) -> Vec<u8> {
    masked(10, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_one_by_one_and_only_whole() {
        let mut read = BytesMut::from(&[0x81, 2, b'h', b'i', 0x88, 2, 0x11, 0x32, 0x89, 0][..]);
        assert_eq!(next(&mut read), Some(Frame::Text("hi".to_owned())));
        assert_eq!(next(&mut read), Some(Frame::Close(Some(4402))));
        assert_eq!(next(&mut read), Some(Frame::Ping(Vec::new())));
        assert_eq!(next(&mut read), None);
        let mut long = BytesMut::from(&[0x81, 126, 0x01, 0x00][..]);
        assert_eq!(next(&mut long), None);
        long.extend([b'x'; 256]);
        assert_eq!(next(&mut long), Some(Frame::Text("x".repeat(256))));
        assert!(matches!(next(&mut BytesMut::from(&[0x82, 0][..])), Some(Frame::Invalid(_))));
    }
}
