//! Values as Redis has them.

use std::time::Duration;

use daisi_ws_domain::ids::PodId;

use crate::ports::Epoch;

/// A time to live as Redis takes it; it refuses 0.
pub(super) fn milliseconds(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX >> 1).max(1)
}

/// A time that a pod wrote as [`milliseconds`].
pub(super) fn time_of(text: &[u8]) -> Option<Duration> {
    std::str::from_utf8(text).ok()?.parse().ok().map(Duration::from_millis)
}

/// The pod that a member of a set names; somebody may have put anything there.
pub(super) fn pod_id(member: &[u8]) -> Option<PodId> {
    PodId::parse(std::str::from_utf8(member).ok()?).ok()
}

/// Whatever bytes it is, it stays the same for as long as the data does.
pub(super) fn epoch_of(bytes: &[u8]) -> Epoch {
    Epoch(String::from_utf8_lossy(bytes).into_owned())
}
