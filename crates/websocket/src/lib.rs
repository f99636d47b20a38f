//! The protocol of sockets: frames (RFC 6455) and their compression (RFC 7692), on any byte stream.
//!
//! tungstenite's own stream keeps a read buffer for every socket, writes each frame by itself, and knows no extension. Here an
//! idle socket has no buffer at all: bytes are read into one that all sockets of a thread share, and only what is left of a frame
//! that is not all there is kept. What is written is shared between sockets, and all that waits for one leaves in one vectored
//! write. Frame headers, op-codes and close codes are tungstenite's.
//!
//! - [`encode`]: a frame's bytes.
//! - [`decode`]: messages from bytes, however they are cut.
//! - [`error`]: what ends a socket by the client's doing.
//! - [`deflate`]: compression of one message; [`negotiate`]: what a client offers and what it gets.
//! - [`intake`]: what a client may send in a time.
//! - [`socket`]: both ends put together over a stream.

pub mod decode;
pub mod deflate;
pub mod encode;
pub mod error;
pub mod intake;
pub mod negotiate;
pub mod socket;

pub use decode::Message;
pub use error::ProtocolError;
pub use intake::Rates;
pub use negotiate::Agreement;
pub use socket::{SocketError, Upgraded, WebSocket};
