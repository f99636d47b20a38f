//! What the server says in a row, with zero bytes between: of the consumer in JSON, of the stream in two numbers.

use daisi_ws_domain::event::StreamId;
use daisi_ws_service::adapters::nats::fuzzing::Consumer;

use crate::input::text;

pub(in super::super) fn check(input: &[u8]) {
    let mut consumer = Consumer::default();
    let (mut stream, mut floor) = (StreamId(0), 0);
    consumer.stream(stream, 0);
    for said in input.split(|byte| *byte == 0).take(16) {
        if said.starts_with(b"{") {
            consumer.read(said);
        } else {
            let said = text(said);
            let mut numbers = said.split(' ').map(|number| number.parse::<u64>().unwrap_or(0));
            let (now, last) = (StreamId(numbers.next().unwrap_or(0).into()), numbers.next().unwrap_or(0));
            consumer.stream(now, last);
            // What is settled falls only with the stream that it was settled in.
            if now != stream || last < floor {
                floor = if now == stream { floor.min(last) } else { 0 };
            }
            stream = now;
        }
        if let Some(settled) = consumer.settled() {
            assert_eq!(settled.stream, stream, "what is settled is of another stream");
            assert!(settled.seq >= floor, "{} is settled, after {floor}", settled.seq);
            floor = settled.seq;
        }
        if let Some(gap) = consumer.take_missed() {
            assert!(gap.first_seq.zip(gap.last_seq).is_none_or(|(first, last)| 0 < first && first <= last), "{gap:?}");
            assert_eq!(consumer.take_missed(), None, "a gap is told twice");
        }
    }
}
