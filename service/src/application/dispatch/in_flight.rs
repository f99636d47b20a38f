//! How many events may be in flight in this pod, and how many are.

use std::sync::Arc;

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::application::{
    forward::in_flight::Permit,
    hub::{
        memory::{Kind, Memory},
        prepared_message::EVENT_OVERHEAD,
    },
};

/// So many events may be in flight in one pod, whatever the consumer allows.
pub const MAX_IN_FLIGHT: usize = 16_384;

/// Counts events from when they are pulled until they are settled.
#[derive(Debug, Clone)]
pub struct InFlightEvents {
    memory: Arc<Memory>,
    /// One permit an event.
    places: Arc<Semaphore>,
}

impl InFlightEvents {
    /// None yet. `memory` counts their bytes, and says when to take less.
    #[must_use]
    pub fn new(memory: Arc<Memory>) -> Self {
        Self { memory, places: Arc::new(Semaphore::new(MAX_IN_FLIGHT)) }
    }

    /// Waits until an event may be taken; places for as many of `batch` as may be.
    pub(super) async fn places(&self, batch: usize) -> OwnedSemaphorePermit {
        let batch = self.memory.may_pull(batch).await;
        let first = Arc::clone(&self.places).acquire_owned().await;
        let Ok(mut places) = first else { std::future::pending().await };
        let more = batch.saturating_sub(1).min(self.places.available_permits());
        if let Ok(more) = Arc::clone(&self.places).try_acquire_many_owned(u32::try_from(more).unwrap_or(0)) {
            places.merge(more);
        }
        places
    }

    /// Puts an event of so many bytes in one of the places; `None` if there is none left.
    pub(super) fn enter(&self, places: &mut OwnedSemaphorePermit, bytes: usize) -> Option<Permit> {
        let place = places.split(1)?;
        Some(Permit::new(place, self.memory.charge(Kind::Dispatch, bytes + EVENT_OVERHEAD)))
    }

    /// How many there are now.
    #[must_use]
    pub fn count(&self) -> usize {
        MAX_IN_FLIGHT.saturating_sub(self.places.available_permits())
    }

    /// Waits until none is, at most until the deadline. True if so.
    pub(crate) async fn finished(&self, deadline: Instant) -> bool {
        let all = u32::try_from(MAX_IN_FLIGHT).unwrap_or(u32::MAX);
        tokio::time::timeout_at(deadline, self.places.acquire_many(all)).await.is_ok()
    }
}
