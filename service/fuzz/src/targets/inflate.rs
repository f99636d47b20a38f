//! A limit, whether context is kept, then compressed messages, each behind its length.

use std::cell::RefCell;

use daisi_ws_websocket::deflate::{InflateError, Inflater, MAX_WINDOW_BITS, shared};
use miniz_oxide::inflate::{
    TINFLStatus,
    core::{DecompressorOxide, decompress, inflate_flags as flags},
};

use crate::{input::Input, must};

/// What a flush ends with, which is left out on the wire.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// What inflating may take beside what it gives.
const SPARE: usize = 8192;

/// What another implementation makes of a first message.
#[derive(Debug)]
enum Told {
    Whole(Vec<u8>),
    /// A block says that it is the last; what follows is decided here.
    Ended,
    Long,
    /// It can't be read; so much came before that.
    Broken(Vec<u8>),
}

fn oracle(data: &[u8], limit: usize) -> Told {
    thread_local! {
        static DECOMPRESSOR: RefCell<Box<DecompressorOxide>> = RefCell::default();
    }
    let (input, mut output) = ([data, &TAIL].concat(), vec![0; limit + 1]);
    let how = flags::TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | flags::TINFL_FLAG_HAS_MORE_INPUT;
    let (status, _, written) = DECOMPRESSOR.with_borrow_mut(|decompressor| {
        decompressor.init();
        decompress(decompressor, &input, &mut output, 0, how)
    });
    output.truncate(written);
    match status {
        TINFLStatus::NeedsMoreInput if written > limit => Told::Long,
        TINFLStatus::NeedsMoreInput => Told::Whole(output),
        TINFLStatus::Done => Told::Ended,
        TINFLStatus::HasMoreOutput => Told::Long,
        _ => Told::Broken(output),
    }
}

pub(super) fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let mode = input.byte();
    let limit = [64, 300, 4096, 65_536][usize::from(mode >> 1 & 3)];
    let keeps_context = mode & 1 == 1;
    let mut inflater = if keeps_context { Inflater::Own(None) } else { Inflater::Shared };
    let mut is_first = true;
    while !input.is_empty() {
        let message = if mode & 8 == 0 { std::mem::replace(&mut input, Input::new(&[])).rest() } else { input.part() };
        let ours = inflater.inflate(message, limit);
        if is_first || !keeps_context {
            compare(&ours, oracle(message, limit));
            // A smaller limit changes nothing but what is too long for it.
            let half = Inflater::Shared.inflate(message, limit / 2);
            match (&ours, &half) {
                (Ok(whole), Ok(half)) => assert_eq!(whole, half),
                (Ok(whole), Err(InflateError::TooBig)) => assert!(whole.len() > limit / 2),
                (Ok(whole), Err(InflateError::Invalid)) => assert!(whole.len() > limit / 2, "the limit makes data invalid"),
                (Err(_), half) => assert!(half.is_err(), "the smaller limit lets in more"),
            }
        }
        is_first = false;
        // After an error the socket ends, and so does its context; that of the thread goes on.
        let Ok(whole) = ours else {
            assert_eq!(Inflater::Shared.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 5), Ok(b"Hello".to_vec()));
            return;
        };
        assert!(whole.len() <= limit, "{} bytes, past the limit of {limit}", whole.len());
        assert!(whole.capacity() <= limit + SPARE, "memory for {} bytes, with a limit of {limit}", whole.capacity());
        let again = shared(&whole, MAX_WINDOW_BITS);
        assert_eq!(must(Inflater::Shared.inflate(&again, limit), "what was compressed here"), whole);
    }
}

fn compare(ours: &Result<Vec<u8>, InflateError>, told: Told) {
    match told {
        Told::Whole(whole) => assert_eq!(ours.as_ref(), Ok(&whole), "another implementation reads it otherwise"),
        Told::Long => assert!(ours.is_err(), "another implementation finds it too long"),
        // zlib waits for the rest of some headers that can't become good; then nothing comes of them.
        Told::Broken(before) => {
            assert!(ours.as_ref().is_err() || ours.as_ref() == Ok(&before), "another implementation refuses it");
        }
        Told::Ended => {}
    }
}
