//! What happened, in order: each line goes into one hash, so that two runs can be compared by a number.

use std::fmt::{self, Write as _};
use std::time::Duration;

/// A trace under way.
#[derive(Debug, Default)]
pub struct Trace {
    hash: Hash,
    lines: u64,
    /// In words, where somebody wants to read them.
    text: Option<Vec<String>>,
}

/// FNV-1a, of 64 bits. Fixed for all time and on all machines.
#[derive(Debug, Clone, Copy)]
struct Hash(u64);

impl Default for Hash {
    fn default() -> Self {
        Self(0xCBF2_9CE4_8422_2325)
    }
}

impl fmt::Write for Hash {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3);
        }
        Ok(())
    }
}

impl Trace {
    /// One that is kept in words too.
    #[must_use]
    pub fn readable() -> Self {
        Self { text: Some(Vec::new()), ..Self::default() }
    }

    /// Adds a line.
    pub fn note(&mut self, at: Duration, line: fmt::Arguments<'_>) {
        self.lines += 1;
        let (seconds, micros) = (at.as_secs(), at.subsec_micros());
        // Writing to a hash does not fail.
        let _ = writeln!(self.hash, "{seconds}.{micros:06} {line}");
        if let Some(text) = &mut self.text {
            text.push(format!("{seconds:3}.{micros:06} {line}"));
        }
    }

    /// The hash of all lines so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash.0
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.lines
    }

    /// Is there none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines == 0
    }

    /// The lines, if they are kept.
    #[must_use]
    pub fn text(&self) -> &[String] {
        self.text.as_deref().unwrap_or_default()
    }
}

/// The first place where two traces differ, with both lines.
#[must_use]
pub fn first_difference<'a>(a: &'a [String], b: &'a [String]) -> Option<(usize, &'a str, &'a str)> {
    let line = |trace: &'a [String], place: usize| trace.get(place).map_or("(nothing more)", String::as_str);
    (0..a.len().max(b.len())).map(|place| (place, line(a, place), line(b, place))).find(|(_, a, b)| a != b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traced(lines: &[&str]) -> Trace {
        let mut trace = Trace::readable();
        lines.iter().for_each(|line| trace.note(Duration::from_millis(5), format_args!("{line}")));
        trace
    }

    #[test]
    fn traces_of_the_same_lines_have_the_same_hash_and_others_another() {
        let (a, b) = (traced(&["a", "b"]), traced(&["a", "b"]));
        assert_eq!((a.hash(), first_difference(a.text(), b.text())), (b.hash(), None));
        let c = traced(&["a", "c"]);
        assert_ne!(a.hash(), c.hash());
        assert_eq!(first_difference(a.text(), c.text()).map(|(place, ..)| place), Some(1));
        assert_eq!(first_difference(a.text(), &a.text()[..1]).map(|(.., b)| b), Some("(nothing more)"));
    }

    #[test]
    fn the_hash_is_that_of_everybody_who_has_this_function() {
        let mut hash = Hash::default();
        assert!(hash.write_str("foobar").is_ok());
        assert_eq!(hash.0, 0x8594_4171_F739_67E8);
    }
}
