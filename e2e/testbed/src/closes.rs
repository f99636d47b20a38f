//! Sockets that ended, in words.

use std::collections::BTreeMap;

/// How many ended with which code; 0: with none.
#[must_use]
pub fn words(closes: &BTreeMap<u16, usize>) -> String {
    if closes.is_empty() {
        return "0".to_owned();
    }
    let words =
        closes.iter().map(|(code, count)| if *code == 0 { format!("{count} broken") } else { format!("{count} × {code}") });
    words.collect::<Vec<_>>().join(", ")
}
