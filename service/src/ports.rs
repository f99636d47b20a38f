//! What the gateway needs from outside, as traits that each ship twice: for real and on memory.
//!
//! Methods speak domain types, never keys or channels. Unless a method says otherwise: it returns within a short time-out of its
//! own (an outage is an error, not a wait), dropping its future is safe and leaves the outcome unknown, and calls may run
//! concurrently.

mod errors;
mod kills;
mod locks;
mod peers;
mod replay;
mod routes;
mod source;
mod tokens;

pub use crate::metrics::labels::KeyKind;
pub(crate) use errors::log_store_error;
pub use errors::{PeerError, ReplayError, SourceError, StoreError};
pub use kills::{KillBus, KillListener, KillSignal};
pub use locks::{Acquire, LockRenewal, Renewal, SessionLocks};
pub use peers::{Evicted, Handed, PeerService, Peers, PodLoad, RouteGap};
pub use replay::{ReadRequest, Replay, SpanRequest, StoredEvent, StreamBounds, Stretch};
pub use routes::{
    Announce, AnnounceError, Announcement, Epoch, Goodbye, IdTaken, Incarnation, Lookup, MAX_PODS, PASSED_OVER, RouteChange,
    Routes, Standing,
};
pub use source::{AckToken, Delivery, EventSource, RawEvent, SettledUpTo, Settlement, SourceLag, SourceLimits};
pub use tokens::TokenCache;
