//! Compression of one message (RFC 7692, section 7.2), in both directions.
//!
//! Where no context is kept, a message's compressed bytes depend on nothing but the message and the window, so they are made once
//! for all sockets, and one compressor and one decompressor a thread serve every socket. Where context is kept, each socket has
//! its own of both: about 260 KiB for the compressor (window 15) and 45 KiB for the decompressor, from its first compressed
//! message on.

use std::{cell::RefCell, collections::HashMap};

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// What a flush ends with, which is left out on the wire.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// The largest window, and the one that a client's compressor may use unless told otherwise.
pub const MAX_WINDOW_BITS: u8 = 15;
/// The smallest that zlib has for raw data.
pub const MIN_WINDOW_BITS: u8 = 9;
/// Made once for many sockets: zlib's usual level.
const SHARED_LEVEL: u32 = 6;
/// Made for each socket anew: the cheapest level.
const OWN_LEVEL: u32 = 1;
/// Blocks of one message that say they are the last: a compressor makes one, and each more costs a new beginning.
const MAX_LAST_BLOCKS: usize = 16;
/// Room that output grows by.
const CHUNK: usize = 4096;

/// Why compressed data gives no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InflateError {
    /// Not what a compressor makes.
    #[error("the data is not DEFLATE")]
    Invalid,
    /// It would be longer than the limit. No more than the limit was ever held.
    #[error("the data is longer than the limit")]
    TooBig,
}

thread_local! {
    static COMPRESSORS: RefCell<HashMap<u8, Compress>> = RefCell::default();
    static DECOMPRESSOR: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// Compresses a message by itself, with a window of 2^`window_bits` bytes, [`MIN_WINDOW_BITS`] to [`MAX_WINDOW_BITS`].
#[must_use]
pub fn shared(message: &[u8], window_bits: u8) -> Vec<u8> {
    COMPRESSORS.with_borrow_mut(|compressors| {
        let new = || Compress::new_with_window_bits(Compression::new(SHARED_LEVEL), false, window(window_bits));
        let compressor = compressors.entry(window_bits).or_insert_with(new);
        compressor.reset();
        compress(compressor, message)
    })
}

fn window(bits: u8) -> u8 {
    bits.clamp(MIN_WINDOW_BITS, MAX_WINDOW_BITS)
}

fn compress(compressor: &mut Compress, message: &[u8]) -> Vec<u8> {
    let mut output = Vec::with_capacity(message.len() / 2 + 64);
    let before = compressor.total_in();
    loop {
        let consumed = usize::try_from(compressor.total_in() - before).unwrap_or(message.len());
        // From memory to memory nothing can fail; a flush is done when there is room left over.
        let _ = compressor.compress_vec(&message[consumed..], &mut output, FlushCompress::Sync);
        if output.len() < output.capacity() {
            break;
        }
        output.reserve(CHUNK);
    }
    if output.ends_with(&TAIL) {
        output.truncate(output.len() - TAIL.len());
    }
    if output.is_empty() {
        // An empty message (RFC 7692, section 7.2.3.6).
        output.push(0);
    }
    output
}

/// Compresses what one socket is sent, each message with those before it in view.
#[derive(Debug)]
pub struct Deflater {
    window_bits: u8,
    compressor: Option<Box<Compress>>,
}

impl Deflater {
    /// A compressor with a window of 2^`window_bits` bytes, which takes its memory at its first message.
    #[must_use]
    pub fn new(window_bits: u8) -> Self {
        Self { window_bits: window(window_bits), compressor: None }
    }

    /// Compresses the next message. It must be sent, and in this order: those after it refer to it.
    pub fn deflate(&mut self, message: &[u8]) -> Vec<u8> {
        let bits = self.window_bits;
        let new = || Box::new(Compress::new_with_window_bits(Compression::new(OWN_LEVEL), false, bits));
        compress(self.compressor.get_or_insert_with(new), message)
    }
}

/// Inflates what one client sends.
#[derive(Debug)]
pub enum Inflater {
    /// Compression was not agreed on.
    Off,
    /// Each message by itself, by the decompressor of the thread.
    Shared,
    /// Each message with those before it in view; made at the first.
    Own(Option<Box<Decompress>>),
}

impl Inflater {
    /// May a message be compressed?
    #[must_use]
    pub fn is_on(&self) -> bool {
        !matches!(self, Self::Off)
    }

    /// Inflates one message, to at most `limit` bytes.
    ///
    /// # Errors
    /// When the data is not DEFLATE, or longer than the limit when inflated.
    pub fn inflate(&mut self, data: &[u8], limit: usize) -> Result<Vec<u8>, InflateError> {
        match self {
            Self::Off => Err(InflateError::Invalid),
            Self::Shared => DECOMPRESSOR.with_borrow_mut(|decompressor| {
                decompressor.reset(false);
                inflate(decompressor, data, limit)
            }),
            Self::Own(own) => inflate(own.get_or_insert_with(|| Box::new(Decompress::new(false))), data, limit),
        }
    }
}

fn inflate(decompressor: &mut Decompress, data: &[u8], limit: usize) -> Result<Vec<u8>, InflateError> {
    let mut output = Vec::with_capacity((data.len() * 4).clamp(64, limit.max(64)));
    let mut last_blocks = 0;
    for mut input in [data, &TAIL] {
        loop {
            let before = decompressor.total_in();
            let status = decompressor.decompress_vec(input, &mut output, FlushDecompress::Sync);
            let consumed = usize::try_from(decompressor.total_in() - before).unwrap_or(usize::MAX);
            input = input.get(consumed..).unwrap_or_default();
            if output.len() > limit {
                return Err(InflateError::TooBig);
            }
            match status {
                // A block that says it is the last (section 7.2.3.4): another may follow all the same.
                Ok(Status::StreamEnd) => {
                    last_blocks += 1;
                    if last_blocks > MAX_LAST_BLOCKS {
                        return Err(InflateError::Invalid);
                    }
                    decompressor.reset(false);
                }
                Ok(_) => {}
                Err(_) => return Err(InflateError::Invalid),
            }
            let full = output.len() == output.capacity();
            if full {
                output.reserve(CHUNK.max(output.len()).min(limit.saturating_sub(output.len()) + 1));
            } else if input.is_empty() {
                break;
            } else if consumed == 0 {
                return Err(InflateError::Invalid);
            }
        }
    }
    Ok(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 65_536;

    fn json(n: usize) -> Vec<u8> {
        format!(r#"{{"type":"event","seq":{n},"payload":{{"event_type":"chats","text":"{}"}}}}"#, "lorem ipsum ".repeat(n))
            .into_bytes()
    }

    #[test]
    fn the_example_of_the_rfc_inflates() {
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        assert_eq!(Inflater::Shared.inflate(&hello, LIMIT).unwrap(), b"Hello");
        // Section 7.2.3.4: a block that is marked as the last one.
        let last = [0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00];
        assert_eq!(Inflater::Shared.inflate(&last, LIMIT).unwrap(), b"Hello");
        // Section 7.2.3.3: a stored block.
        let stored = [0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00];
        assert_eq!(Inflater::Shared.inflate(&stored, LIMIT).unwrap(), b"Hello");
    }

    #[test]
    fn what_is_compressed_by_itself_inflates_in_any_window_and_order() {
        for bits in MIN_WINDOW_BITS..=MAX_WINDOW_BITS {
            for n in [3000, 0, 100, 1] {
                let message = json(n);
                let bytes = shared(&message, bits);
                assert_eq!(Inflater::Shared.inflate(&bytes, LIMIT).unwrap(), message);
                assert_eq!(bytes, shared(&message, bits), "the same bytes for every socket");
            }
        }
        assert_eq!(shared(b"", 15), [0]);
        assert_eq!(Inflater::Shared.inflate(&[0], LIMIT).unwrap(), b"");
    }

    #[test]
    fn with_context_a_repeated_message_shrinks_and_comes_out_whole() {
        let (mut deflater, mut inflater) = (Deflater::new(15), Inflater::Own(None));
        let message = json(3);
        let (first, second) = (deflater.deflate(&message), deflater.deflate(&message));
        assert!(second.len() < first.len() / 2, "{} and {}", first.len(), second.len());
        assert_eq!(inflater.inflate(&first, LIMIT).unwrap(), message);
        assert_eq!(inflater.inflate(&second, LIMIT).unwrap(), message);
    }

    #[test]
    fn a_small_frame_never_becomes_a_large_one() {
        let bomb = shared(&vec![0; 5_000_000], 15);
        assert!(bomb.len() < 6_000);
        assert_eq!(Inflater::Shared.inflate(&bomb, LIMIT), Err(InflateError::TooBig));
        assert_eq!(Inflater::Shared.inflate(&shared(&vec![0; LIMIT], 15), LIMIT).unwrap().len(), LIMIT);
        assert_eq!(Inflater::Shared.inflate(&shared(&vec![0; LIMIT + 1], 15), LIMIT), Err(InflateError::TooBig));
    }

    #[test]
    fn data_that_is_no_deflate_is_refused_and_leaves_nothing_behind() {
        assert_eq!(Inflater::Shared.inflate(&[0xff; 20], LIMIT), Err(InflateError::Invalid));
        assert_eq!(Inflater::Off.inflate(&[0], LIMIT), Err(InflateError::Invalid));
        assert_eq!(Inflater::Shared.inflate(&shared(b"next", 15), LIMIT).unwrap(), b"next");
    }

    #[test]
    fn a_message_of_thousands_of_last_blocks_is_refused_and_one_of_a_few_is_not() {
        // The last block, with fixed codes, and nothing in it.
        let empty_and_last = [0x03, 0x00];
        assert_eq!(Inflater::Shared.inflate(&empty_and_last.repeat(10), LIMIT).unwrap(), b"");
        let mut own = Inflater::Own(None);
        for inflater in [&mut Inflater::Shared, &mut own] {
            assert_eq!(inflater.inflate(&empty_and_last.repeat(LIMIT / 2), LIMIT), Err(InflateError::Invalid));
        }
    }
}
