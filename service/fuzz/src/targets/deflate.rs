//! A window, then messages, each behind its length; they are compressed for a client, alone and in a row.

use daisi_ws_websocket::deflate::{Deflater, Inflater, MAX_WINDOW_BITS, MIN_WINDOW_BITS, shared};
use flate2::{Decompress, FlushDecompress};

use crate::{input::Input, must};

const LIMIT: usize = 64 << 10;

/// Longest that a message may become: stored blocks, each with its head.
fn longest(message: usize) -> usize {
    message + message / 1000 * 5 + 64
}

pub(super) fn check(input: &[u8]) {
    let mut input = Input::new(input);
    let mode = input.byte();
    let bits = MIN_WINDOW_BITS + mode % (MAX_WINDOW_BITS - MIN_WINDOW_BITS + 1);
    let (mut deflater, mut inflater) = (Deflater::new(bits), Inflater::Own(None));
    // A client that keeps to its window has no more of what came before than that.
    let mut client = Decompress::new_with_window_bits(false, bits);
    while !input.is_empty() {
        let part = input.part();
        let message = part.repeat(1 + usize::from(mode >> 3));
        let alone = shared(&message, bits);
        assert!(alone.len() <= longest(message.len()), "{} bytes for {}", alone.len(), message.len());
        assert_eq!(must(Inflater::Shared.inflate(&alone, LIMIT), "a message alone"), message);
        let next = deflater.deflate(&message);
        assert!(next.len() <= longest(message.len()), "{} bytes for {}", next.len(), message.len());
        let mut seen = Vec::with_capacity(message.len() + 64);
        let whole = [&next[..], &[0, 0, 0xff, 0xff]].concat();
        must(client.decompress_vec(&whole, &mut seen, FlushDecompress::Sync), "a message within the window");
        assert_eq!(seen, message, "a client with this window reads something else");
        assert_eq!(must(inflater.inflate(&next, LIMIT), "a message in its row"), message);
    }
}
