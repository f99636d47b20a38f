//! The pods of a running fleet and what they share.

use std::{sync::Arc, time::Duration};

use super::{
    publish::Sink,
    slot::{Phase, Slot},
};
use crate::{
    application::auth::mint::Minter,
    gateway::{StoreChoice, StreamChoice},
};

/// The fleet, as its console sees it.
#[derive(Debug)]
pub(super) struct Fleet {
    pub(super) slots: Vec<Arc<Slot>>,
    pub(super) store: StoreChoice,
    pub(super) stream: StreamChoice,
    pub(super) minter: Minter,
    pub(super) max_token_ttl: Duration,
    pub(super) api_key: String,
    pub(super) sink: Sink,
}

/// Is a pod there that could answer?
pub(super) fn is_up(phase: Phase) -> bool {
    matches!(phase, Phase::Running | Phase::Draining)
}
