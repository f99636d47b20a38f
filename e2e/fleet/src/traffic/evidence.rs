//! What a run leaves behind, for the oracle.

use tokio::time::Instant;

use super::ledger::{Ledger, Published};

/// All that a run left in writing.
pub struct Evidence {
    /// A ledger a session.
    pub ledgers: Vec<Ledger>,
    /// A record an event.
    pub published: Vec<Published>,
    /// When publishing began, with every session ready.
    pub started: Instant,
    /// When publishing ended.
    pub ended: Instant,
}
