//! Connections: accepted within bounds, served until they end, have to leave or become sockets.

pub(crate) mod connection;
pub(crate) mod deferred_upgrade;
pub(super) mod intake;
mod limits;
pub(crate) mod places;
pub(crate) mod proxy_protocol;
pub(crate) mod refusal;
pub(crate) mod server;
