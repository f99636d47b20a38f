//! Messages from bytes (RFC 6455, sections 5 and 8.1), however the bytes are cut.

use std::io::Cursor;

use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{CloseCode, Control, Data, OpCode},
};

use crate::{deflate::Inflater, encode::MAX_CONTROL_BYTES, error::ProtocolError, intake::Intake};

/// A message of a client, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A whole text message, valid UTF-8.
    Text(String),
    /// A whole binary message.
    Binary(Vec<u8>),
    /// A ping, whose payload the pong must carry.
    Ping(Vec<u8>),
    /// An answer to a ping, or a sign of life by itself.
    Pong(Vec<u8>),
    /// The client leaves, with its code if it gave one. Nothing follows.
    Close(Option<u16>),
}

impl Message {
    /// Bytes of its payload, as the client meant it: inflated and unmasked.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) | Self::Ping(bytes) | Self::Pong(bytes) => bytes.len(),
            Self::Close(_) => 0,
        }
    }

    /// Has it no payload?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a look for the next message comes to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A message is whole.
    Message(Message),
    /// A frame was taken in, and its message is not whole.
    Part,
    /// There is no whole frame.
    Nothing,
}

/// A message whose last frame is yet to come.
#[derive(Debug)]
struct Fragments {
    kind: Data,
    compressed: bool,
    payload: Vec<u8>,
    /// So much of it is known to be UTF-8.
    valid: usize,
}

/// Turns one client's bytes into messages. Holds memory only while a frame or a message is not all there.
///
/// In memory as in the source, with what a look for a message touches at the front.
#[derive(Debug)]
#[repr(C)]
pub struct Decoder {
    closed: bool,
    /// Where in `pending` the next frame begins.
    start: usize,
    pending: Vec<u8>,
    fragments: Option<Box<Fragments>>,
    limit: usize,
    /// What the client may send; in a box, as it is looked at only when something comes.
    intake: Option<Box<Intake>>,
    inflater: Inflater,
}

impl Decoder {
    /// A decoder for messages of at most `limit` bytes, before and after inflation.
    #[must_use]
    pub fn new(limit: usize, inflater: Inflater) -> Self {
        Self { limit, inflater, pending: Vec::new(), start: 0, fragments: None, closed: false, intake: None }
    }

    /// The same, for a client that may send no more than its intake allows.
    pub(super) fn limited(self, intake: Intake) -> Self {
        Self { intake: Some(Box::new(intake)), ..self }
    }

    /// What the client may still send, if that is limited.
    pub(super) fn intake(&mut self) -> Option<&mut Intake> {
        self.intake.as_deref_mut()
    }

    /// Bytes of memory that it holds for a frame or a message that is not all there.
    #[must_use]
    pub fn held(&self) -> usize {
        self.pending.capacity() + self.fragments.as_ref().map_or(0, |fragments| fragments.payload.capacity())
    }

    /// Lets go of all that, and takes no more.
    pub(super) fn give_up(&mut self) {
        (self.pending, self.start, self.fragments) = (Vec::new(), 0, None);
    }

    /// Was there a [`Message::Close`]? Nothing is decoded after it.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Takes what was read. Call [`Decoder::next_message`] until it gives nothing before pushing more, so that what waits stays
    /// within the limit and one read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.drain(..self.start);
        self.start = 0;
        self.pending.extend_from_slice(bytes);
    }

    /// The next message, if it is all there. After [`Message::Close`] there is none.
    ///
    /// # Errors
    /// When the client breaks a rule; the decoder must not be used after that.
    pub fn next_message(&mut self) -> Result<Option<Message>, ProtocolError> {
        loop {
            match self.next_step()? {
                Step::Message(message) => return Ok(Some(message)),
                Step::Part => {}
                Step::Nothing => return Ok(None),
            }
        }
    }

    /// Takes in one frame.
    pub(super) fn next_step(&mut self) -> Result<Step, ProtocolError> {
        if self.closed {
            return Ok(Step::Nothing);
        }
        let Some((header, payload)) = self.next_frame()? else { return Ok(Step::Nothing) };
        if let Some(intake) = &mut self.intake {
            intake.frame(header.opcode, payload.len() as u64)?;
        }
        Ok(self.on_frame(&header, payload)?.map_or(Step::Part, Step::Message))
    }

    fn next_frame(&mut self) -> Result<Option<(FrameHeader, Vec<u8>)>, ProtocolError> {
        if self.start == self.pending.len() {
            // An idle socket holds no memory.
            self.pending = Vec::new();
            self.start = 0;
            return Ok(None);
        }
        let mut cursor = Cursor::new(&self.pending[self.start..]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| ProtocolError::Violation("an unknown op-code"))?;
        let Some((header, length)) = parsed else { return Ok(None) };
        self.check(&header, length)?;
        let begin = self.start + usize::try_from(cursor.position()).unwrap_or(usize::MAX);
        let end = begin + usize::try_from(length).map_err(|_| ProtocolError::TooBig)?;
        let Some(masked) = self.pending.get(begin..end) else { return Ok(None) };
        let Some(mask) = header.mask else { return Err(ProtocolError::Violation("a frame that is not masked")) };
        let payload = masked.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        self.start = end;
        Ok(Some((header, payload)))
    }

    /// All that can be said from the header alone, so that nothing is kept for a frame that is refused.
    fn check(&self, header: &FrameHeader, length: u64) -> Result<(), ProtocolError> {
        use ProtocolError::Violation;
        if header.mask.is_none() {
            return Err(Violation("a frame that is not masked"));
        }
        if header.rsv2 || header.rsv3 {
            return Err(Violation("a reserved bit that no extension uses"));
        }
        match header.opcode {
            OpCode::Control(_) if header.rsv1 => Err(Violation("a compressed control frame")),
            OpCode::Control(Control::Reserved(_)) | OpCode::Data(Data::Reserved(_)) => Err(Violation("an unknown op-code")),
            OpCode::Control(_) if !header.is_final => Err(Violation("a control frame in fragments")),
            OpCode::Control(_) if length > MAX_CONTROL_BYTES as u64 => Err(Violation("a control frame of more than 125 bytes")),
            OpCode::Control(_) => Ok(()),
            OpCode::Data(Data::Continue) if self.fragments.is_none() => Err(Violation("a continuation of nothing")),
            OpCode::Data(Data::Continue) if header.rsv1 => Err(Violation("a continuation that says it is compressed")),
            OpCode::Data(Data::Text | Data::Binary) if self.fragments.is_some() => Err(Violation("a message within a message")),
            OpCode::Data(_) if header.rsv1 && !self.inflater.is_on() => Err(Violation("compression that was not agreed on")),
            OpCode::Data(_) => {
                let before = self.fragments.as_ref().map_or(0, |fragments| fragments.payload.len()) as u64;
                if before.saturating_add(length) > self.limit as u64 { Err(ProtocolError::TooBig) } else { Ok(()) }
            }
        }
    }

    fn on_frame(&mut self, header: &FrameHeader, payload: Vec<u8>) -> Result<Option<Message>, ProtocolError> {
        let kind = match header.opcode {
            OpCode::Control(Control::Ping) => return Ok(Some(Message::Ping(payload))),
            OpCode::Control(Control::Pong) => return Ok(Some(Message::Pong(payload))),
            OpCode::Control(_) => return self.on_close(&payload).map(Some),
            OpCode::Data(kind) => kind,
        };
        let mut fragments = match self.fragments.take() {
            Some(mut fragments) => {
                fragments.payload.extend_from_slice(&payload);
                fragments
            }
            None => Box::new(Fragments { kind, compressed: header.rsv1, payload, valid: 0 }),
        };
        if !header.is_final {
            if fragments.kind == Data::Text && !fragments.compressed {
                fragments.validate()?;
            }
            self.fragments = Some(fragments);
            return Ok(None);
        }
        let Fragments { kind, compressed, mut payload, .. } = *fragments;
        if compressed {
            let inflated = self.inflater.inflate(&payload, self.limit)?;
            if let Some(intake) = &mut self.intake {
                intake.inflated(payload.len(), inflated.len())?;
            }
            payload = inflated;
        }
        match kind {
            Data::Text => String::from_utf8(payload).map(|text| Some(Message::Text(text))).map_err(|_| ProtocolError::Invalid),
            _ => Ok(Some(Message::Binary(payload))),
        }
    }

    fn on_close(&mut self, payload: &[u8]) -> Result<Message, ProtocolError> {
        self.closed = true;
        self.give_up();
        let Some((code, reason)) = payload.split_first_chunk() else {
            let empty = payload.is_empty();
            return if empty { Ok(Message::Close(None)) } else { Err(ProtocolError::Violation("half a close code")) };
        };
        let code = u16::from_be_bytes(*code);
        if !CloseCode::from(code).is_allowed() {
            return Err(ProtocolError::Violation("a close code that must not be sent"));
        }
        if std::str::from_utf8(reason).is_err() {
            return Err(ProtocolError::Invalid);
        }
        Ok(Message::Close(Some(code)))
    }
}

impl Fragments {
    /// Fails as soon as a frame is all there that can't be part of UTF-8 text.
    fn validate(&mut self) -> Result<(), ProtocolError> {
        match std::str::from_utf8(&self.payload[self.valid..]) {
            Ok(_) => self.valid = self.payload.len(),
            Err(error) if error.error_len().is_some() => return Err(ProtocolError::Invalid),
            Err(error) => self.valid += error.valid_up_to(),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client's frame, masked.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
        let mut bytes = vec![first];
        match payload.len() {
            length @ ..=125 => bytes.push(0x80 | u8::try_from(length).unwrap()),
            length => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(length).unwrap().to_be_bytes());
            }
        }
        bytes.extend(MASK);
        bytes.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    /// All messages of the bytes, read in pieces of `piece` bytes.
    fn decode(bytes: &[u8], piece: usize, inflater: Inflater) -> Result<Vec<Message>, ProtocolError> {
        let (mut decoder, mut messages) = (Decoder::new(300, inflater), Vec::new());
        for piece in bytes.chunks(piece) {
            decoder.push(piece);
            while let Some(message) = decoder.next_message()? {
                messages.push(message);
            }
        }
        assert_eq!(decoder.pending.capacity(), 0, "an idle decoder holds no memory");
        Ok(messages)
    }

    fn error(bytes: &[u8]) -> ProtocolError {
        decode(bytes, 4096, Inflater::Off).unwrap_err()
    }

    #[test]
    fn messages_come_out_however_the_bytes_are_cut() {
        let bytes = [
            frame(0x81, b"Hello"),
            frame(0x01, b"Hel"),
            frame(0x89, b"p"),
            frame(0x80, "lö".as_bytes()),
            frame(0x82, &[7; 200]),
            frame(0x8a, b""),
            frame(0x88, &[0x03, 0xe8]),
        ]
        .concat();
        let expected = vec![
            Message::Text("Hello".into()),
            Message::Ping(b"p".to_vec()),
            Message::Text("Hellö".into()),
            Message::Binary(vec![7; 200]),
            Message::Pong(Vec::new()),
            Message::Close(Some(1000)),
        ];
        for piece in 1..bytes.len() {
            assert_eq!(decode(&bytes, piece, Inflater::Off).unwrap(), expected, "pieces of {piece}");
        }
    }

    #[test]
    fn nothing_is_read_after_the_close_frame() {
        let mut decoder = Decoder::new(300, Inflater::Off);
        decoder.push(&[frame(0x88, &[]), frame(0x81, b"late")].concat());
        assert_eq!(decoder.next_message(), Ok(Some(Message::Close(None))));
        assert_eq!(decoder.next_message(), Ok(None));
    }

    #[test]
    fn each_breach_of_the_protocol_is_found_in_the_header() {
        let unmasked = [0x81, 0x01, b'x'];
        let long_ping = frame(0x89, &[0; 126]);
        let nested = [frame(0x01, b"a"), frame(0x81, b"b")].concat();
        let cases: [&[u8]; 10] = [
            &unmasked,
            &frame(0xa1, b"x"),
            &frame(0x91, b"x"),
            &frame(0xc1, b"x"),
            &frame(0x83, b"x"),
            &frame(0x8b, b"x"),
            &frame(0x09, b"x"),
            &long_ping,
            &frame(0x80, b"x"),
            &nested,
        ];
        for bytes in cases {
            assert!(matches!(error(bytes), ProtocolError::Violation(_)), "{bytes:x?}");
        }
    }

    #[test]
    fn a_close_frame_must_have_a_whole_code_that_may_be_sent_and_a_reason_in_utf8() {
        for code in [0_u16, 999, 1004, 1005, 1006, 1016, 2999, 5000] {
            assert!(matches!(error(&frame(0x88, &code.to_be_bytes())), ProtocolError::Violation(_)), "{code}");
        }
        assert!(matches!(error(&frame(0x88, &[3])), ProtocolError::Violation(_)));
        assert_eq!(error(&frame(0x88, &[0x03, 0xe8, 0xff])), ProtocolError::Invalid);
    }

    #[test]
    fn text_that_is_no_utf8_is_refused_with_the_frame_it_is_in() {
        assert_eq!(error(&frame(0x81, &[0xff])), ProtocolError::Invalid);
        assert_eq!(error(&frame(0x01, &[0xff])), ProtocolError::Invalid);
        let half = "ö".as_bytes();
        assert_eq!(error(&[frame(0x01, &half[..1]), frame(0x80, b"x")].concat()), ProtocolError::Invalid);
    }

    #[test]
    fn a_long_message_is_refused_before_it_is_kept() {
        let mut decoder = Decoder::new(300, Inflater::Off);
        decoder.push(&frame(0x81, &[b'x'; 301])[..8]);
        assert_eq!(decoder.next_message(), Err(ProtocolError::TooBig));
        assert_eq!(error(&[frame(0x01, &[b'x'; 200]), frame(0x80, &[b'x'; 101])].concat()), ProtocolError::TooBig);
        let huge = [0x82, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        assert_eq!(error(&huge), ProtocolError::TooBig);
    }

    #[test]
    fn a_compressed_message_is_inflated_within_the_limit() {
        // RFC 7692, section 7.2.3.1, and 7.2.3.1 in two fragments.
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        let whole = [Message::Text("Hello".into())];
        assert_eq!(decode(&frame(0xc1, &hello), 3, Inflater::Shared).unwrap(), whole);
        let fragments = [frame(0x41, &hello[..3]), frame(0x80, &hello[3..])].concat();
        assert_eq!(decode(&fragments, 3, Inflater::Shared).unwrap(), whole);
        let bomb = crate::deflate::shared(&[b'x'; 100_000], 15);
        assert!(bomb.len() < 300);
        assert_eq!(decode(&frame(0xc1, &bomb), 4096, Inflater::Shared).unwrap_err(), ProtocolError::TooBig);
        assert_eq!(decode(&frame(0xc1, &[0xff; 9]), 4096, Inflater::Shared).unwrap_err(), ProtocolError::Invalid);
    }
}
