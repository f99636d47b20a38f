//! Which attacks strangers know, and how one is begun.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use tokio::time::timeout;

use super::{grpc, http, order::Order, sockets, tally::Tally};

/// Does what was ordered until the time is over.
///
/// # Errors
/// When there is no such attack.
pub async fn perform(order: Order) -> Result<BTreeMap<String, u64>> {
    let (tally, time) = (Tally::default(), Duration::from_secs(order.seconds));
    let Some((_, begin)) = ATTACKS.iter().find(|(name, _)| *name == order.name) else {
        bail!("there is no attack {}", order.name)
    };
    let _ = timeout(time, begin(Arc::new(order), tally.clone())).await;
    Ok(tally.counts())
}

type Work = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
type Begin = fn(Arc<Order>, Tally) -> Work;

macro_rules! attacks {
    ($($name:literal => $begin:path,)*) => {
        const ATTACKS: &[(&str, Begin)] = &[$(($name, |order, tally| Box::pin($begin(order, tally)))),*];
    };
}

attacks! {
    "idle" => http::idle,
    "idle-probes" => http::idle_probes,
    "pipeline" => http::pipeline,
    "slow-headers" => http::slow_headers,
    "slow-body" => http::slow_body,
    "many-headers" => http::many_headers,
    "http2-preface" => http::http2_preface,
    "refused" => http::refused,
    "key-guessing" => http::key_guessing,
    "made-up-tokens" => http::made_up_tokens,
    "long-request-ids" => http::long_request_ids,
    "connects" => sockets::connects,
    "connects-of-many" => sockets::connects_of_many,
    "select-chats" => sockets::select_chats,
    "storm" => sockets::storm,
    "pongs" => sockets::pongs,
    "pings" => sockets::pings,
    "pings-unread" => sockets::pings_unread,
    "binary" => sockets::binary,
    "continuations" => sockets::continuations,
    "unread-sockets" => sockets::unread,
    "unread-upgrades" => sockets::unread_upgrades,
    "grpc-idle" => grpc::idle,
    "grpc-settings-unread" => grpc::settings_unread,
    "grpc-calls-unread" => grpc::calls_unread,
    "grpc-pings" => grpc::pings,
    "grpc-ping-flood" => grpc::ping_flood,
    "grpc-watches" => grpc::watches,
    "grpc-resets" => grpc::resets,
    "grpc-continuations" => grpc::continuations,
    "grpc-metadata" => grpc::metadata,
    "grpc-settings" => grpc::settings,
    "grpc-bombs" => grpc::bombs,
    "grpc-bodies" => grpc::bodies,
}

/// What [`perform`] can do.
pub fn names() -> impl Iterator<Item = &'static str> {
    ATTACKS.iter().map(|(name, _)| *name)
}
