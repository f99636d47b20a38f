//! Reading the stream again by subject.

use async_trait::async_trait;

use super::{connect::NatsStartError, trouble::Away};
use crate::{
    config::Nats,
    ports::{ReadRequest, Replay, ReplayError, StreamBounds, Stretch},
};

/// JetStream as a buffer that is read by subject, over a connection of its own.
#[derive(Debug)]
pub struct NatsReplay;

impl NatsReplay {
    /// Connects when it can.
    ///
    /// # Errors
    /// When the configuration can't be right.
    pub async fn connect(_nats: &Nats) -> Result<Self, NatsStartError> {
        Ok(Self)
    }
}

#[async_trait]
impl Replay for NatsReplay {
    async fn bounds(&self) -> Result<StreamBounds, ReplayError> {
        Err(ReplayError::unreachable(Away::NoConnection))
    }

    async fn read(&self, _request: &ReadRequest) -> Result<Stretch, ReplayError> {
        Err(ReplayError::unreachable(Away::NoConnection))
    }
}
