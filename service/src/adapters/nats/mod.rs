//! NATS JetStream: the event stream that all pods share through one durable pull consumer.
//!
//! [`NatsSource`] is the event source of a pod. `connect` makes the connection, as whom `identity` says, `bind` finds or makes
//! the stream and the consumer, `fitness`
//! says whether they can be used, `trouble` knows what the server holds against us, one task (`puller`) asks for events and puts
//! them in a small buffer (`buffer`), with when they can have been sent (`arrival`), from which `pull` takes them. `progress`
//! knows how far the consumer is and what it passed over, `server_time` what time it is there, `wire` how JetStream writes all
//! that. [`NatsReplay`] reads the stream again by subject, on a connection of its own. [`publish()`] is for the command line and
//! for tests.

mod advisories;
mod arrival;
mod bind;
mod buffer;
mod connect;
mod fitness;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod identity;
mod progress;
mod publish;
mod puller;
mod replay;
mod server_time;
mod settle;
mod shared;
mod source;
mod subjects;
mod trouble;
mod wire;

pub use bind::ConsumerDefaults;
pub use connect::NatsStartError;
pub use publish::{PublishError, Publisher, publish};
pub use replay::NatsReplay;
pub use source::NatsSource;
