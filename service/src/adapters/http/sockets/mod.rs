//! The paths of sockets: each check in its order, the handshake, and then a session.

pub(crate) mod connecting;
pub(crate) mod upgrade;
mod wishes;
pub(crate) mod ws;
