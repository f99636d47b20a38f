//! Who waits for what, what is held, and what is worth reading: data behind one lock, without a wait.

use std::{collections::BTreeMap, ops::RangeInclusive, time::Duration};

use daisi_ws_domain::event::StreamId;
use tokio::time::Instant;

use super::{
    super::window::{Piece, Window},
    price::Prices,
};

/// What somebody waits for: events of some routes after one sequence and up to another.
#[derive(Debug, Clone, Copy)]
pub(in crate::application::replay) struct Want {
    pub(in crate::application::replay) stream: StreamId,
    pub(in crate::application::replay) after: u64,
    pub(in crate::application::replay) upto: u64,
}

/// How a window changes by a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Grows {
    Anew,
    Later,
    Earlier,
}

/// A span that is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Order {
    pub(super) stream: StreamId,
    pub(super) after: u64,
    pub(super) upto: u64,
    pub(super) grows: Grows,
}

#[derive(Default)]
pub(super) struct State {
    /// How many wait, by stream and cursor.
    waiting: BTreeMap<(i128, u64), usize>,
    /// How many wait or are read for by route.
    count: usize,
    /// The newest place in a stream that anybody knows of.
    newest: Option<(StreamId, u64)>,
    window: Option<Window>,
    /// When the window was used last, or made.
    used: Option<Instant>,
    pub(super) reading: Option<Order>,
    /// When a span could not be read.
    pub(super) unfit: Option<Instant>,
    pub(super) prices: Prices,
}

impl State {
    pub(super) fn enter(&mut self, want: &Want) {
        *self.waiting.entry((want.stream.0, want.after)).or_default() += 1;
        self.count += 1;
        let known = self.newest.filter(|(stream, _)| *stream == want.stream).map_or(0, |(_, upto)| upto);
        self.newest = Some((want.stream, known.max(want.upto)));
    }

    /// One waits no more, and may be read for by route.
    pub(super) fn wait_no_more(&mut self, want: &Want) {
        let key = (want.stream.0, want.after);
        if let Some(count) = self.waiting.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.waiting.remove(&key);
            }
        }
    }

    pub(super) fn leave(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// How many wait or are read for by route.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn window(&self) -> Option<&Window> {
        self.window.as_ref()
    }

    pub(super) fn use_window(&mut self) -> Option<&Window> {
        let window = self.window.as_ref()?;
        self.used = Some(Instant::now());
        Some(window)
    }

    pub(super) fn drop_window(&mut self) {
        self.window = None;
    }

    /// What is known of the stream is of one that is no more: who still waits for that is read for by route, and told.
    pub(super) fn forget_stream(&mut self) {
        self.window = None;
        self.newest = None;
    }

    /// Drops a window that nobody used for so long. True if there is none.
    pub(super) fn is_idle(&mut self, idle: Duration) -> bool {
        if self.used.is_none_or(|used| used.elapsed() >= idle) {
            self.window = None;
        }
        self.window.is_none()
    }

    /// Is it held?
    pub(super) fn has(&self, want: &Want) -> bool {
        self.window.as_ref().is_some_and(|window| window.has(want.stream, want.after, want.upto))
    }

    /// Is it, or what is left of it, being read, or will it be next? An end that has moved on is.
    pub(super) fn reads(&self, want: &Want) -> bool {
        let Some(order) = self.reading.filter(|order| order.stream == want.stream) else { return false };
        let after = match (order.grows, &self.window) {
            (Grows::Later, Some(window)) => window.after(),
            _ => order.after,
        };
        after <= want.after
    }

    /// What was read is held from now on.
    pub(super) fn put(&mut self, order: &Order, piece: Piece) {
        let Order { stream, after, upto, grows } = *order;
        self.used = Some(Instant::now());
        match (grows, &mut self.window) {
            (Grows::Later, Some(window)) if window.stream() == stream && window.through() == after => window.append(upto, piece),
            (Grows::Earlier, Some(window)) if window.stream() == stream && window.after() == upto => window.prepend(after, piece),
            (Grows::Anew, window) => *window = Some(Window::new(stream, after, upto, piece)),
            _ => {}
        }
    }

    /// What is worth to be read now, of at most so many events, if at least so many wait for one that is new.
    pub(super) fn next_order(&mut self, least: usize, most: u64, pause: Duration) -> Option<Order> {
        let (stream, upto) = self.newest.filter(|_| self.count > 0)?;
        let nearest = self.waiting.range((stream.0, 0)..=(stream.0, u64::MAX)).next().map(|((_, after), _)| *after);
        self.window.take_if(|window| window.stream() != stream || nearest.is_some_and(|after| after > window.through()));
        if self.unfit.is_some_and(|since| since.elapsed() < pause) {
            return None;
        }
        let order = |after, upto, grows| Order { stream, after, upto, grows };
        let Some(window) = &self.window else {
            let after = self.worth_reading(stream, 0..=u64::MAX, upto, upto, most).filter(|_| self.count >= least)?;
            return Some(order(after, upto, Grows::Anew));
        };
        let (begin, end) = (window.after(), window.through());
        if end < upto && upto - begin <= most {
            let waiting = self.waiting.range((stream.0, begin)..=(stream.0, upto));
            let saved: f64 = waiting.map(|((_, after), count)| *count as f64 * self.prices.by_route(upto - after)).sum();
            if saved >= Prices::whole(upto - end) {
                return Some(order(end, upto, Grows::Later));
            }
        }
        let may_reach_back = window.may_reach_back() && begin > 0;
        let after = self
            .worth_reading(stream, 0..=begin.saturating_sub(1), begin, upto, most.saturating_sub(end - begin))
            .filter(|_| may_reach_back)?;
        Some(order(after, begin, Grows::Earlier))
    }

    /// The lowest of these cursors from which on to read up to `end`, at most so many events, costs no more than to read up to
    /// `upto` by route for each of them.
    fn worth_reading(&self, stream: StreamId, cursors: RangeInclusive<u64>, end: u64, upto: u64, most: u64) -> Option<u64> {
        let (mut saved, mut lowest) = (0.0, None);
        let (from, to) = cursors.into_inner();
        for ((_, after), count) in self.waiting.range((stream.0, from)..=(stream.0, to)).rev() {
            if end.saturating_sub(*after) > most {
                break;
            }
            saved += *count as f64 * self.prices.by_route(upto.saturating_sub(*after));
            if *after < end && saved >= Prices::whole(end - after) {
                lowest = Some(*after);
            }
        }
        lowest
    }
}
