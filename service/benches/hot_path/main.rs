//! What is done for every event, connect and message, without network: one file a piece.
//!
//! ```text
//! cargo bench -p daisi-ws-service --bench hot_path                       # all of it, some minutes
//! cargo bench -p daisi-ws-service --bench hot_path -- --quick deliver    # one piece, in seconds
//! ```
//!
//! `--profile image` builds it in a third of the time, nearly as fast. Two states of the code are compared by `--save-baseline
//! NAME` on one and `--baseline NAME` on the other, on a machine with nothing else to do.
#![expect(clippy::unwrap_used, reason = "a bench whose input is wrong has to stop")]

mod decode;
mod deliver;
mod event;
mod samples;
mod token;

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    event::bench(&mut criterion);
    deliver::bench(&mut criterion);
    decode::bench(&mut criterion);
    token::bench(&mut criterion);
    criterion.final_summary();
}
