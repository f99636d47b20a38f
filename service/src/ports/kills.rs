//! Orders to let a session go.

use async_trait::async_trait;
use daisi_ws_domain::session::Kill;

use super::errors::StoreError;

/// What a listener hears: an order, or that orders may have been missed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KillSignal {
    /// Somebody wants a session: its victim, if it is here, has to go.
    Kill(Kill),
    /// Listening was interrupted and goes on: kills may have been missed, so the locks must be checked.
    Resubscribed,
}

/// Orders to let a session go, to every pod, at most once.
#[async_trait]
pub trait KillBus: Send + Sync {
    /// Sends to every pod that listens now, this one included.
    async fn publish(&self, kill: &Kill) -> Result<(), StoreError>;

    /// Starts to listen. The first signal is [`KillSignal::Resubscribed`], once the subscription is in force.
    async fn listen(&self) -> Box<dyn KillListener>;
}

/// One subscription to the kill bus.
#[async_trait]
pub trait KillListener: Send {
    /// Waits for the next signal, for ever if need be: it reconnects by itself, without end. Cancel-safe.
    async fn next(&mut self) -> KillSignal;
}
