//! Log lines that wait to be written: in order, bounded in number and bytes, and what is kept when there are too many.
//!
//! Of ordinary lines the newest is dropped: what came first tells the cause, and what follows is mostly its echo. An audit line
//! has the place of the newest ordinary ones; it is dropped only where nothing but audit lines waits.

use std::{collections::VecDeque, mem};

/// Lines that may wait.
pub(super) const MAX_LINES: usize = 8192;
/// Bytes that may wait, with what each line costs beside its text.
pub(super) const MAX_BYTES: usize = 4 * 1024 * 1024;
/// A longer line is dropped: a panic's stack is a tenth of it.
pub(super) const MAX_LINE_BYTES: usize = 256 * 1024;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Ordinary,
    Audit,
}

/// Lines that were dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) ordinary: u64,
    pub(super) audit: u64,
}

impl Dropped {
    pub(super) fn any(self) -> bool {
        self != Self::default()
    }

    fn add(&mut self, class: Class) {
        match class {
            Class::Ordinary => self.ordinary += 1,
            Class::Audit => self.audit += 1,
        }
    }
}

#[derive(Debug)]
struct Line {
    /// Its place among the lines of both classes.
    place: u64,
    text: Box<[u8]>,
}

impl Line {
    fn cost(&self) -> usize {
        cost(&self.text)
    }
}

fn cost(text: &[u8]) -> usize {
    text.len() + size_of::<Line>()
}

/// The lines that wait.
#[derive(Debug, Default)]
pub(super) struct Queue {
    ordinary: VecDeque<Line>,
    audit: VecDeque<Line>,
    bytes: usize,
    next_place: u64,
    /// Since it was told last.
    untold: Dropped,
}

impl Queue {
    /// Puts a line at the end. Returns what was dropped for it, itself included.
    pub(super) fn push(&mut self, class: Class, text: &[u8]) -> Dropped {
        let mut dropped = Dropped::default();
        if text.len() > MAX_LINE_BYTES {
            dropped.add(class);
        } else {
            if class == Class::Audit {
                while !self.fits(text)
                    && let Some(line) = self.ordinary.pop_back()
                {
                    self.bytes -= line.cost();
                    dropped.add(Class::Ordinary);
                }
            }
            if self.fits(text) {
                self.keep(class, text);
            } else {
                dropped.add(class);
            }
        }
        self.untold.ordinary += dropped.ordinary;
        self.untold.audit += dropped.audit;
        dropped
    }

    fn fits(&self, text: &[u8]) -> bool {
        self.ordinary.len() + self.audit.len() < MAX_LINES && self.bytes + cost(text) <= MAX_BYTES
    }

    fn keep(&mut self, class: Class, text: &[u8]) {
        let line = Line { place: self.next_place, text: text.into() };
        self.next_place += 1;
        self.bytes += line.cost();
        match class {
            Class::Ordinary => self.ordinary.push_back(line),
            Class::Audit => self.audit.push_back(line),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ordinary.is_empty() && self.audit.is_empty()
    }

    /// Moves lines to `chunk`, in their order, until it has so many bytes or more.
    pub(super) fn take(&mut self, chunk: &mut Vec<u8>, bytes: usize) {
        while chunk.len() < bytes {
            let older = |one: &VecDeque<Line>, other: &VecDeque<Line>| match (one.front(), other.front()) {
                (Some(one), Some(other)) => one.place < other.place,
                (one, _) => one.is_some(),
            };
            let from = if older(&self.audit, &self.ordinary) { &mut self.audit } else { &mut self.ordinary };
            let Some(line) = from.pop_front() else { break };
            self.bytes -= line.cost();
            chunk.extend_from_slice(&line.text);
        }
        if self.is_empty() {
            // A storm's room is not kept.
            self.ordinary.shrink_to(64);
            self.audit.shrink_to(64);
        }
    }

    /// What was dropped since this was asked last.
    pub(super) fn tell_dropped(&mut self) -> Dropped {
        mem::take(&mut self.untold)
    }

    pub(super) fn untold(&self) -> Dropped {
        self.untold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(queue: &mut Queue) -> String {
        let mut chunk = Vec::new();
        queue.take(&mut chunk, usize::MAX);
        String::from_utf8(chunk).unwrap()
    }

    #[test]
    fn lines_of_both_classes_come_in_their_order() {
        let mut queue = Queue::default();
        for (class, text) in
            [(Class::Ordinary, "1"), (Class::Audit, "2"), (Class::Audit, "3"), (Class::Ordinary, "4"), (Class::Audit, "5")]
        {
            assert_eq!(queue.push(class, text.as_bytes()), Dropped::default());
        }
        let mut chunk = Vec::new();
        queue.take(&mut chunk, 2);
        assert_eq!(chunk, b"12");
        assert_eq!((all(&mut queue).as_str(), queue.bytes, queue.is_empty()), ("345", 0, true));
    }

    #[test]
    fn the_newest_ordinary_line_is_dropped_by_number() {
        let mut queue = Queue::default();
        for n in 0..MAX_LINES + 5 {
            queue.push(Class::Ordinary, format!("{n}\n").as_bytes());
        }
        assert_eq!(queue.tell_dropped(), Dropped { ordinary: 5, audit: 0 });
        assert_eq!(queue.tell_dropped(), Dropped::default());
        let text = all(&mut queue);
        assert!(text.starts_with("0\n1\n") && text.ends_with(&format!("\n{}\n", MAX_LINES - 1)));
    }

    #[test]
    fn bytes_are_bounded_with_what_lines_cost_beside_their_text() {
        let mut queue = Queue::default();
        let line = vec![b'x'; 100 * 1024];
        let mut kept = 0;
        while !queue.push(Class::Ordinary, &line).any() {
            kept += 1;
        }
        assert_eq!(kept, MAX_BYTES / cost(&line));
        assert!(queue.bytes <= MAX_BYTES);
        assert!(queue.push(Class::Audit, &vec![0; MAX_LINE_BYTES + 1]).audit == 1, "no line is longer than its bound");
    }

    #[test]
    fn an_audit_line_is_dropped_only_where_no_ordinary_one_waits() {
        let mut queue = Queue::default();
        for _ in 0..MAX_LINES {
            queue.push(Class::Ordinary, b"o");
        }
        for _ in 0..MAX_LINES {
            assert_eq!(queue.push(Class::Audit, b"a"), Dropped { ordinary: 1, audit: 0 });
        }
        assert_eq!(queue.push(Class::Audit, b"a"), Dropped { ordinary: 0, audit: 1 });
        assert_eq!(queue.push(Class::Ordinary, b"o"), Dropped { ordinary: 1, audit: 0 });
        assert_eq!(all(&mut queue), "a".repeat(MAX_LINES));
    }
}
