//! Publishing an event, for the command line and for tests. The gateway itself publishes none.

use std::time::Duration;

use async_nats::{
    Client, HeaderMap, HeaderValue,
    jetstream::{Context, ContextBuilder, context::PublishErrorKind},
};
use daisi_ws_domain::publication::Publication;

use super::connect::{NAME, NatsStartError, Target};
use crate::config::Nats;

/// Longest wait until the stream confirms that it has stored an event.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

/// Why an event was not, or may not have been, stored.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// There is no connection to publish on.
    #[error(transparent)]
    Connect(#[from] NatsStartError),
    /// A header can't hold this request id.
    #[error("the request id has a character that a header can't hold")]
    RequestId,
    /// No stream stores this subject.
    #[error("no stream stores the subject {subject:?}: is the gateway running, and is nats.subject_prefix the same?")]
    NoStream {
        /// The subject that nobody stores.
        subject: String,
    },
    /// The server takes no event of this size.
    #[error("the event is larger than the server's max_payload")]
    TooLarge,
    /// Nothing came back in time, or the stream refused. It may have been stored.
    #[error("the event may not have been stored")]
    Unconfirmed(#[source] async_nats::jetstream::context::PublishError),
}

/// A connection to publish on.
pub struct Publisher {
    client: Client,
    js: Context,
}

impl Publisher {
    /// Connects at once, or not at all.
    ///
    /// # Errors
    /// When the configuration can't be right, or no server accepts us.
    pub async fn connect(nats: &Nats) -> Result<Self, NatsStartError> {
        let client = Target::read(nats).await?.connect(NAME, false, |_| {}).await?;
        let js = ContextBuilder::new().timeout(STORE_TIMEOUT).ack_timeout(STORE_TIMEOUT).build(client.clone());
        Ok(Self { client, js })
    }

    /// Publishes, waits until the stream has stored it, and returns its sequence there.
    ///
    /// # Errors
    /// When it was not stored, or nobody can tell.
    pub async fn publish(&self, event: &Publication, headers: &[(&str, &str)]) -> Result<u64, PublishError> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse::<HeaderValue>().map_err(|_| PublishError::RequestId)?);
        }
        let failed = |error: async_nats::jetstream::context::PublishError| match error.kind() {
            PublishErrorKind::StreamNotFound => PublishError::NoStream { subject: event.subject().to_owned() },
            PublishErrorKind::MaxPayloadExceeded => PublishError::TooLarge,
            _ => PublishError::Unconfirmed(error),
        };
        let stored =
            self.js.publish_with_headers(event.subject().to_owned(), map, event.payload().clone()).await.map_err(failed)?;
        Ok(stored.await.map_err(failed)?.sequence)
    }

    /// The connection, for what tests want to know of the server.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }
}

/// Connects, publishes one event with its request id, waits until the stream has stored it, and returns its sequence there.
///
/// # Errors
/// When there is no connection, or the event was not stored, or nobody can tell.
pub async fn publish(nats: &Nats, event: &Publication, request_id: Option<&str>) -> Result<u64, PublishError> {
    let publisher = Publisher::connect(nats).await?;
    let headers: Vec<_> = request_id.iter().map(|id| ("X-Request-ID", *id)).collect();
    publisher.publish(event, &headers).await
}
