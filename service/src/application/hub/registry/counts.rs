//! How many are here, and whether more may come.

use std::sync::atomic::Ordering;

use super::Hub;
use crate::ports::PodLoad;

impl Hub {
    /// How many sessions are here, pending ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Is nobody here, pending sessions included?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of them have clients that can move.
    #[must_use]
    pub(crate) fn movers(&self) -> usize {
        self.lock().movers
    }

    /// How many sessions are here, and whether nobody is let in any more.
    #[must_use]
    pub(crate) fn load(&self) -> PodLoad {
        let tables = self.lock();
        PodLoad { sockets: tables.entries.len().try_into().unwrap_or(u64::MAX), draining: !tables.admitting }
    }

    /// Notes whether connects that another pod has no room for may come here.
    pub(crate) fn note_room(&self, has_room: bool) {
        self.has_room.store(has_room, Ordering::Relaxed);
    }

    /// May connects come here that another pod has no room for, as noted last?
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.has_room.load(Ordering::Relaxed)
    }
}
