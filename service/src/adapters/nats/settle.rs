//! Settlements on their way to the server.

use std::time::Duration;

use async_nats::{Client, Subject};
use tokio::time::timeout;

use super::wire;
use crate::{
    ports::{AckToken, Settlement, SourceError},
    telemetry::Chain,
};

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

/// Gives events back, for any pod to have at once. What does not get there comes again after the ack wait.
pub(super) async fn give_back(client: &Client, ack_tokens: Vec<AckToken>) {
    if ack_tokens.is_empty() {
        return;
    }
    let events = ack_tokens.len();
    let naks = ack_tokens.into_iter().map(|ack_token| (ack_token, Settlement::Retry(Duration::ZERO))).collect();
    if let Err(error) = publish_settlements(client, naks).await {
        tracing::warn!(error = %Chain(&error), events, "events could not be given back and come again after the ack wait");
    }
}
