//! Whether this pod was there all the time.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use daisi_ws_domain::ids::PodId;
use tokio::time::Instant;

/// When this pod was last known to be announced.
///
/// Redis alone can't say whether the pod was there all the time: an announcement that timed out here may have been carried out
/// there, after the key had lapsed, and then the next one finds the key. So a pod whose last *confirmed* announcement is older
/// than its TTL was not there.
#[derive(Debug, Default)]
pub(super) struct Presence(Mutex<Option<(PodId, Instant)>>);

impl Presence {
    /// Notes an announcement asked at `asked`; could the one before have lasted until then?
    pub(super) fn confirm(&self, pod: &PodId, asked: Instant, ttl: Duration) -> bool {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).replace((pod.clone(), asked));
        before.is_some_and(|(before, at)| before == *pod && asked.duration_since(at) < ttl)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pod_not_confirmed_within_its_ttl_was_not_there() {
        let (presence, pod, ttl) = (Presence::default(), PodId::parse("pod-a").unwrap(), Duration::from_secs(5));
        let start = Instant::now();
        assert!(!presence.confirm(&pod, start, ttl), "the first time");
        assert!(presence.confirm(&pod, start + ttl / 2, ttl));
        assert!(!presence.confirm(&pod, start + ttl * 2, ttl));
    }
}
