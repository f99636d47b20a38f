//! The frames of RFC 6455, as far as a load test needs them: whole, not fragmented, and each looked at where it lies.

/// A text frame.
pub(crate) const TEXT: u8 = 1;
/// A close frame; its payload begins with the code, if there is one.
pub(crate) const CLOSE: u8 = 8;
/// A ping, to be answered with a pong of the same payload.
pub(crate) const PING: u8 = 9;
/// A pong.
pub(crate) const PONG: u8 = 10;

const FIN: u8 = 0x80;
const RESERVED: u8 = 0x70;
const OPCODE: u8 = 0x0f;
const MASKED: u8 = 0x80;
const LENGTH: u8 = 0x7f;
/// Says that the length is in the next two bytes.
const LENGTH_16: u8 = 126;
/// Says that the length is in the next eight bytes.
const LENGTH_64: u8 = 127;
const MASK_BYTES: usize = 4;
/// Payloads of control frames are no longer.
const MAX_CONTROL: usize = 125;

/// A frame, in the bytes that it came in. Its payload is still masked if the sender masks.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    /// What it is.
    pub(crate) opcode: u8,
    /// The mask; none if the sender does not mask.
    pub(crate) mask: Option<[u8; MASK_BYTES]>,
    /// What it carries.
    pub(crate) payload: &'a [u8],
    /// Bytes from its first to the first of the next.
    pub(crate) length: usize,
}

/// Bytes that are no frame of this protocol, or one of a kind that no end of a load test sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// A part of a message, or a continuation.
    #[error("a fragmented message")]
    Fragmented,
    /// Bits that only an extension may set.
    #[error("reserved bits are set")]
    Reserved,
    /// A length that no memory holds.
    #[error("a length of more than the address space")]
    TooLong,
}

/// The frame at the start of `bytes`; none if more bytes are needed.
///
/// # Errors
/// When the bytes can't be the start of a frame.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<Frame<'_>>, FrameError> {
    let &[first, second, ..] = bytes else { return Ok(None) };
    if first & RESERVED != 0 {
        return Err(FrameError::Reserved);
    }
    if first & FIN == 0 || first & OPCODE == 0 {
        return Err(FrameError::Fragmented);
    }
    let (header, payload) = match second & LENGTH {
        LENGTH_16 => match bytes.get(2..4).and_then(|length| length.try_into().ok()) {
            Some(length) => (4, usize::from(u16::from_be_bytes(length))),
            None => return Ok(None),
        },
        LENGTH_64 => match bytes.get(2..10).and_then(|length| length.try_into().ok()) {
            Some(length) => (10, usize::try_from(u64::from_be_bytes(length)).map_err(|_| FrameError::TooLong)?),
            None => return Ok(None),
        },
        length => (2, usize::from(length)),
    };
    let masked = second & MASKED != 0;
    let start = header + if masked { MASK_BYTES } else { 0 };
    let length = start.checked_add(payload).ok_or(FrameError::TooLong)?;
    let Some(payload) = bytes.get(start..length) else { return Ok(None) };
    let mask = masked.then(|| bytes.get(header..start).and_then(|mask| mask.try_into().ok())).flatten();
    Ok(Some(Frame { opcode: first & OPCODE, mask, payload, length }))
}

/// Appends a frame as a server sends it, unmasked.
pub(crate) fn put_unmasked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    out.push(FIN | opcode);
    put_length(out, payload.len(), 0);
    out.extend_from_slice(payload);
}

/// Appends a short frame as a client sends it. The mask is all zeroes: it is there to protect proxies from what pages send, and
/// here no page sends anything, so that the payload goes as it is. What is beyond the longest payload of a control frame is cut
/// off.
pub(crate) fn put_masked(out: &mut Vec<u8>, opcode: u8, payload: &[u8]) {
    let payload = payload.get(..MAX_CONTROL).unwrap_or(payload);
    out.push(FIN | opcode);
    put_length(out, payload.len(), MASKED);
    out.extend_from_slice(&[0; MASK_BYTES]);
    out.extend_from_slice(payload);
}

fn put_length(out: &mut Vec<u8>, length: usize, masked: u8) {
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < LENGTH_16 => out.push(masked | short),
        (_, Ok(medium)) => {
            out.push(masked | LENGTH_16);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(masked | LENGTH_64);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// The payload as its sender meant it.
pub(crate) fn unmask(frame: &Frame<'_>) -> Vec<u8> {
    let mask = frame.mask.unwrap_or_default();
    frame.payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

/// The code of a close frame's payload.
pub(crate) fn close_code(payload: &[u8]) -> Option<u16> {
    payload.first_chunk().map(|code| u16::from_be_bytes(*code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_come_back_as_they_were_put() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 100_000] {
            let payload = vec![b'x'; length];
            let mut bytes = Vec::new();
            put_unmasked(&mut bytes, TEXT, &payload);
            let whole = bytes.len();
            bytes.extend_from_slice(b"the next");
            let frame = parse(&bytes).unwrap().unwrap();
            assert_eq!((frame.opcode, frame.mask, frame.payload, frame.length), (TEXT, None, &payload[..], whole));
        }
    }

    #[test]
    fn no_part_of_a_frame_is_taken_for_a_frame() {
        for length in [0, 5, 126, 70_000] {
            let mut bytes = Vec::new();
            put_unmasked(&mut bytes, TEXT, &vec![b'x'; length]);
            for cut in (0..bytes.len()).step_by(1 + bytes.len() / 100) {
                assert_eq!(parse(&bytes[..cut]), Ok(None), "{cut} bytes of {}", bytes.len());
            }
        }
    }

    #[test]
    fn a_masked_pong_carries_the_pings_payload() {
        let mut bytes = Vec::new();
        put_masked(&mut bytes, PONG, b"are you there");
        let frame = parse(&bytes).unwrap().unwrap();
        assert_eq!((frame.opcode, frame.mask.is_some(), unmask(&frame)), (PONG, true, b"are you there".to_vec()));
    }

    #[test]
    fn a_mask_is_taken_off() {
        let bytes = [0x89, 0x82, 1, 2, 3, 4, b'h' ^ 1, b'i' ^ 2];
        assert_eq!(unmask(&parse(&bytes).unwrap().unwrap()), b"hi");
    }

    #[test]
    fn what_no_end_sends_is_an_error() {
        assert_eq!(parse(&[0x01, 0]), Err(FrameError::Fragmented));
        assert_eq!(parse(&[0x80, 0]), Err(FrameError::Fragmented));
        assert_eq!(parse(&[0xc1, 0]), Err(FrameError::Reserved));
        assert_eq!(parse(&[0x81, 127, 255, 255, 255, 255, 255, 255, 255, 255]), Err(FrameError::TooLong));
    }

    #[test]
    fn a_close_frame_tells_its_code_if_it_has_one() {
        assert_eq!(close_code(&4402_u16.to_be_bytes()), Some(4402));
        assert_eq!((close_code(&[]), close_code(&[1])), (None, None));
    }
}
