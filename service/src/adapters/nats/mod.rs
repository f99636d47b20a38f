//! NATS JetStream: the event stream that all pods share through one durable pull consumer.
//!
//! [`NatsSource`] is the event source of a pod. `connect` makes the connection, `bind` finds or makes the stream and the consumer, one task
//! (`puller`) asks for events and puts them in a small buffer (`buffer`), from which `pull` takes them. `wire` knows how JetStream writes
//! all that. [`publish()`] is for the command line and for tests.

mod bind;
mod buffer;
mod connect;
mod publish;
mod puller;
mod source;
mod wire;

pub use bind::ConsumerDefaults;
pub use connect::NatsStartError;
pub use publish::{PublishError, Publisher, publish};
pub use source::NatsSource;
