//! What is wrong with a configuration, all of it.

use std::{borrow::Cow, time::Duration};

/// A key, and what is wrong with its value.
pub(in crate::config) type Breach = (Cow<'static, str>, String);

/// All that is wrong, in the order in which it was found.
pub(super) struct Breaches(pub(super) Vec<Breach>);

impl Breaches {
    pub(super) fn require(&mut self, holds: bool, key: impl Into<Cow<'static, str>>, reason: impl Into<String>) {
        if !holds {
            self.0.push((key.into(), reason.into()));
        }
    }

    pub(super) fn at_least_one(&mut self, counts: &[(&'static str, u64)]) {
        for (key, count) in counts {
            self.require(*count >= 1, *key, "must be at least 1");
        }
    }

    pub(super) fn not_zero(&mut self, durations: &[(&'static str, Duration)]) {
        for (key, duration) in durations {
            self.require(!duration.is_zero(), *key, "must be at least 1");
        }
    }
}
