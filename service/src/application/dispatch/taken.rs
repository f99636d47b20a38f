//! An event between its taking and its settlement.

use std::sync::Arc;

use daisi_ws_domain::event::Event;
use tracing::Span;

use crate::{
    application::{forward::in_flight::Permit, hub::registry::Delivered},
    ports::{AckToken, Delivery},
};

/// An event that was brought to this pod's sockets, and what is needed for the rest of its way.
pub(super) struct Taken {
    pub(super) event: Arc<Event>,
    /// How it came.
    pub(super) delivery: Delivery,
    pub(super) ack_token: AckToken,
    /// It is in flight.
    pub(super) permit: Permit,
    /// Open until it is settled, if it is traced.
    pub(super) span: Option<Span>,
    /// What became of it here.
    pub(super) here: Delivered,
}
