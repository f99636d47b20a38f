//! What strangers count.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Counts of what was done, shared by the tasks of a process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<BTreeMap<String, u64>>>);

impl Tally {
    pub(super) fn add(&self, what: &str, count: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match counts.get_mut(what) {
            Some(so_far) => *so_far += count,
            None => {
                counts.insert(what.to_owned(), count);
            }
        }
    }

    pub(super) fn one(&self, what: &str) {
        self.add(what, 1);
    }

    /// The counts so far.
    #[must_use]
    pub(crate) fn counts(&self) -> BTreeMap<String, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
