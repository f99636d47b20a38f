//! What reads cost, in microseconds of the server and of the pod together, as measured (docs: 0022).

/// A read by route, wherever its cursor is.
const BY_ROUTE: f64 = 100.0;
/// For each event of the span, if there is any of the route in it: the server passes over those between.
const PASSED_OVER: f64 = 0.06;
/// For each event of a span that is read whole.
const READ: f64 = 6.0;
/// So much the next read by route counts of all that were.
const WEIGHT: f64 = 0.125;

/// What reads are held to cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prices {
    /// Of the reads by route lately, so many found something: where there is nothing, nothing is passed over.
    finding: f64,
}

impl Default for Prices {
    /// Each finds something.
    fn default() -> Self {
        Self { finding: 1.0 }
    }
}

impl Prices {
    /// A read by route found something, or not.
    pub(super) fn note(&mut self, found: bool) {
        self.finding += WEIGHT * (f64::from(u8::from(found)) - self.finding);
    }

    /// Of a read by route over so many events.
    pub(super) fn by_route(self, events: u64) -> f64 {
        BY_ROUTE + self.finding * PASSED_OVER * events as f64
    }

    /// Of so many events, read whole.
    pub(super) fn whole(events: u64) -> f64 {
        READ * events as f64
    }
}
