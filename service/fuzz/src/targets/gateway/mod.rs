//! Targets of the gateway's own parsers. They need its crate, with its feature `fuzzing`.

mod configuration;
mod grpc_message;
mod grpc_proof;
mod http_head;
mod nats_message;
mod nats_progress;
mod nats_replay;
mod proxy_protocol;
mod redis_value;
mod token;
mod traceparent;

use std::{sync::LazyLock, time::Duration};

use daisi_ws_domain::{ids::PodId, peer::PodRecord};
use daisi_ws_service::{application::fleet::key::FleetKey, config::Secret};

use super::SMALL;
use crate::{Bound, Target, must};

/// What peers say to each other.
pub static GRPC_MESSAGE: Target = Target::new("grpc_message", Bound { fixed: 64 << 10, each: 1024 }, grpc_message::check);
/// Proofs of calls between pods.
pub static GRPC_PROOF: Target = Target::new("grpc_proof", SMALL, grpc_proof::check).preparing(grpc_proof::prepare);
/// What stands in Redis.
pub static REDIS_VALUE: Target =
    Target::new("redis_value", Bound { fixed: 64 << 10, each: 64 }, redis_value::check).preparing(redis_value::prepare);
/// What NATS sends, and what names its servers.
pub static NATS_MESSAGE: Target = Target::new("nats_message", Bound { fixed: 64 << 10, each: 256 }, nats_message::check);
/// What NATS says of the consumer.
pub static NATS_PROGRESS: Target = Target::new("nats_progress", Bound { fixed: 16 << 10, each: 64 }, nats_progress::check);
/// What NATS answers to who reads the stream again.
pub static NATS_REPLAY: Target = Target::new("nats_replay", Bound { fixed: 64 << 10, each: 256 }, nats_replay::check);
/// Heads of requests: id, client, key, token, handshake.
pub static HTTP_HEAD: Target = Target::new("http_head", Bound { fixed: 64 << 10, each: 256 }, http_head::check);
/// The PROXY protocol.
pub static PROXY_PROTOCOL: Target = Target::new("proxy_protocol", Bound { fixed: 32 << 10, each: 32 }, proxy_protocol::check);
/// W3C trace contexts.
pub static TRACEPARENT: Target = Target::new("traceparent", SMALL, traceparent::check);
/// Sealed tokens, and what they are asked for with.
pub static TOKEN: Target = Target::new("token", Bound { fixed: 64 << 10, each: 128 }, token::check).preparing(token::prepare);
/// Configuration: a file and the environment.
pub static CONFIGURATION: Target = Target::new("configuration", Bound { fixed: 4 << 20, each: 4096 }, configuration::check);

/// 2023.
const NOW: Duration = Duration::from_secs(1_700_000_000);

const USER_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const ADMIN_KEY: &str = "202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f";

/// Good secrets, as variables of the environment.
const SECRETS: [(&str, &str); 4] = [
    ("DAISI_WS_AUTH_SECRET_TOKEN", "browser-api-key-for-tests"),
    ("DAISI_WS_AUTH_TOKEN_AES_KEY", USER_KEY),
    ("DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY", ADMIN_KEY),
    ("DAISI_WS_AUTH_TOKEN_GENERATION_ADMIN_KEY", "minting-api-key-for-tests"),
];

static FLEET: LazyLock<FleetKey> = LazyLock::new(|| FleetKey::derive(&Secret::new(USER_KEY), &Secret::new(ADMIN_KEY)));

/// Has signed nothing: libFuzzer finds again what a comparison has seen.
static UNUSED: LazyLock<FleetKey> = LazyLock::new(|| FleetKey::derive(&Secret::new("f0".repeat(32)), &Secret::new(ADMIN_KEY)));

static ME: LazyLock<PodRecord> = LazyLock::new(|| PodRecord {
    id: must(PodId::parse("pod-a"), "an id"),
    address: "10.0.0.1:50051".to_owned(),
    started_at: NOW,
});
