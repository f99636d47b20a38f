//! One suite a port, run on the memory backend and on the real one: both must keep the same promises.

mod event_source;
mod fleet;
mod forged_records;
mod kill_bus;
mod locks;
mod nats_faults;
mod nats_fitness;
mod nats_replay;
mod nats_rights;
mod nats_source;
mod outages;
mod peers;
mod poison;
mod redis_identity;
mod redis_rights;
mod redis_wire;
mod replay;
mod routes;
mod token_cache;

/// Runs each of the named tests on both backends.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test] async fn $name() { super::$name(crate::contracts::fleet::Fleet::memory()).await; })*
        }
        mod redis {
            $(#[tokio::test] async fn $name() { super::$name(crate::contracts::fleet::Fleet::redis().await).await; })*
        }
    };
}
use on_both;
