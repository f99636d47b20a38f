//! What a client says, out of its bytes.

use criterion::{Criterion, Throughput};
use daisi_ws_websocket::{Message, decode::Decoder, deflate::Inflater};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    let text = br#"{"type":"select_chat","payload":{"chat_id":"62811200345@s.whatsapp.net"}}"#;
    let (selection, pong) = (frame(0x81, text), frame(0x8a, b""));
    for (name, bytes) in [("a selection", &selection), ("a pong", &pong)] {
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        let mut decoder = Decoder::new(65_536, Inflater::Off);
        group.bench_function(name, |bencher| bencher.iter(|| decode(&mut decoder, bytes)));
    }
    group.finish();
}

/// As a socket does it: the buffer is given back when nothing is left in it.
fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Message {
    decoder.push(bytes);
    let message = decoder.next_message().unwrap().unwrap();
    assert!(decoder.next_message().unwrap().is_none());
    message
}

/// A client's frame of less than 126 bytes, masked.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let masked = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [first, 0x80 | u8::try_from(payload.len()).unwrap()].into_iter().chain(MASK).chain(masked).collect()
}
