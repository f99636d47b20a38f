//! An event before it goes anywhere: its subject and payload are read, its frame is built.

use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, Throughput};
use daisi_ws_domain::event::{Address, Path, Payload};
use daisi_ws_domain::frame::Stamp;
use daisi_ws_service::application::hub::{memory::Memory, prepared_message::PreparedMessage};

use crate::samples::{CHATS, MESSAGES, PREFIX, event, payload};

pub(crate) fn bench(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("subject");
    for (name, subject) in [("chats", CHATS), ("messages", MESSAGES)] {
        group.bench_function(name, |bencher| bencher.iter(|| Address::parse(PREFIX, black_box(subject)).unwrap()));
    }
    group.finish();

    let mut group = criterion.benchmark_group("event");
    let bytes = payload();
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("payload", |bencher| bencher.iter(|| Payload::parse(black_box(&bytes)).unwrap()));
    let (event, held) = (event(MESSAGES, 1), Arc::<Memory>::default());
    group.bench_function("frame", |bencher| {
        bencher.iter(|| PreparedMessage::new(black_box(&event), Path::Local, Stamp::default(), &held));
    });
    // Once an event and window, for all sockets that keep no context.
    let compressed = |prepared: &PreparedMessage| prepared.compressed(15).len();
    group.bench_function("frame, compressed", |bencher| {
        bencher.iter(|| compressed(&PreparedMessage::new(black_box(&event), Path::Local, Stamp::default(), &held)));
    });
    group.finish();
}
