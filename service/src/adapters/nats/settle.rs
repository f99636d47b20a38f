//! Settlements on their way to the server.

use std::time::Duration;

use async_nats::{Client, Subject};
use tokio::time::timeout;

use super::wire;
use crate::ports::{AckToken, Settlement, SourceError};

/// Longest wait until a batch of settlements is on the wire.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(2);

/// The settlements wait in the client, which has no connection.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the settlements could not be sent in time")]
struct NotSent;

/// Sends settlements in order and flushes once. Within a short time-out.
pub(super) async fn publish_settlements(client: &Client, settlements: Vec<(AckToken, Settlement)>) -> Result<(), SourceError> {
    let all = async {
        for (ack_token, settlement) in settlements {
            if !ack_token.0.starts_with(wire::ACK_PREFIX) {
                tracing::warn!("a token of another source can't be settled here");
                continue;
            }
            client.publish(Subject::from(ack_token.0), wire::settlement(settlement)).await.map_err(SourceError::unreachable)?;
        }
        client.flush().await.map_err(SourceError::unreachable)
    };
    timeout(SETTLE_TIMEOUT, all).await.unwrap_or_else(|_| Err(SourceError::unreachable(NotSent)))
}
