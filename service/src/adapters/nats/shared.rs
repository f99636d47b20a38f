//! What the source and the task that pulls for it have in common.

use std::sync::Arc;

use async_nats::{Client, connection::State, jetstream::Context};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{
    bind::{ConsumerDefaults, Known},
    buffer::Buffer,
    trouble::Trouble,
};
use crate::config::Nats;

/// What the source and its task share.
pub(super) struct Shared {
    pub(super) client: Client,
    pub(super) js: Context,
    pub(super) nats: Nats,
    pub(super) defaults: ConsumerDefaults,
    pub(super) known: Known,
    pub(super) buffer: Buffer,
    /// What the server holds against us.
    pub(super) trouble: Arc<Trouble>,
    /// Told of every connect and disconnect.
    pub(super) changed: Arc<Notify>,
    /// No events are asked for while it is true.
    pub(super) held: watch::Sender<bool>,
    /// Cancelled by `close`.
    pub(super) closing: CancellationToken,
    /// Cancelled when everything has been given back.
    pub(super) closed: CancellationToken,
}

impl Shared {
    pub(super) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits until events are wanted, or not.
    pub(super) async fn is_held(&self, held: bool) {
        // The sender lives as long as this.
        let _ = self.held.subscribe().wait_for(|now| *now == held).await;
    }

    /// Waits until no events are wanted, for now or for good.
    pub(super) async fn is_over(&self) {
        tokio::select! {
            biased;
            () = self.closing.cancelled() => {}
            () = self.is_held(true) => {}
        }
    }
}
