//! What stands in Redis, for `service/fuzz`: read as the store reads it, whoever wrote it.

use std::{fmt, sync::Arc};

use daisi_ws_domain::{ids::PodId, peer::PodRecord, route::RouteKey, session::Kill, session::SessionKey};

use super::{dialer, keys, kills, pods, values, writer};
use crate::{application::fleet::key::FleetKey, metrics::Metrics};

/// The kill of a message on a channel.
#[must_use]
pub fn kill(channel: &str, payload: &[u8]) -> Option<Kill> {
    kills::decode(channel, payload)
}

/// The channel and the message of a kill.
#[must_use]
pub fn kill_message(kill: &Kill) -> Option<(String, Vec<u8>)> {
    Some((keys::kill_channel(&kill.key), kills::encode(kill).ok()?))
}

/// All keys that a session has.
#[must_use]
pub fn session_keys(key: &SessionKey) -> [String; 2] {
    [keys::lock(key), keys::selected_chat(key)]
}

/// The key of a route.
#[must_use]
pub fn route_key(route: &RouteKey) -> String {
    keys::route(route)
}

/// The pods that members of a set name.
#[must_use]
pub fn pods(members: &[Vec<u8>]) -> Vec<PodId> {
    pods::pod_ids(members)
}

/// The text of an epoch, whatever bytes it is.
#[must_use]
pub fn epoch(bytes: &[u8]) -> String {
    values::epoch_of(bytes).0
}

/// Id and address in an answer to `CLIENT INFO`.
#[must_use]
pub fn connection(info: &str) -> Option<(String, String)> {
    writer::parse_identity(info).map(|identity| (identity.id, identity.address))
}

/// Host and port of `redis.address`.
#[must_use]
pub fn address(text: &str) -> Option<(String, u16)> {
    dialer::split_address(text)
}

/// Reads and writes the records of pods.
pub struct Records(super::Records);

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Records")
    }
}

impl Records {
    /// Records that are proved by this key.
    #[must_use]
    pub fn proved(key: FleetKey, accept_previous: bool, metrics: Arc<Metrics>) -> Self {
        Self(super::Records::proved(key, accept_previous, metrics))
    }

    /// The pod of a record.
    #[must_use]
    pub fn read(&self, id: &PodId, record: &[u8]) -> Option<PodRecord> {
        self.0.read(id, record)
    }

    /// The record of a pod.
    #[must_use]
    pub fn write(&self, pod: &PodRecord) -> Option<String> {
        self.0.write(pod).ok()
    }
}
