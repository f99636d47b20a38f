//! What stands in a pod's liveness key, and the proof that a pod of the fleet wrote it.
//!
//! Anyone who can write to Redis could else name an address of its own. A record that is not proved is none: it names nobody, and
//! its pod is as good as without a key. A record of the past, written again, names an address at which nobody can prove to be
//! that pod.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use daisi_ws_domain::{ids::PodId, peer::PodRecord};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::keys;
use crate::{
    application::fleet::key::{FleetKey, Purpose, Signature},
    metrics::Metrics,
    ports::StoreError,
};

/// Records that are not proved are logged no more often than this: anyone who writes them decides how many there are.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// A longer record was written by no pod: an address has 259 bytes.
const MAX_BYTES: usize = 1024;

/// Value of a liveness key.
#[derive(Serialize, Deserialize)]
struct Record {
    address: String,
    started_at_ms: u64,
    /// Absent in a record of the version before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proof: Option<String>,
}

/// Writes and reads records.
pub(super) struct Records {
    /// `None`: records carry no proof, and need none.
    key: Option<FleetKey>,
    /// Take records of the version before, which have none (`server.grpc_accept_previous`).
    accept_previous: bool,
    metrics: Arc<Metrics>,
    logged: Mutex<Option<Instant>>,
}

impl Records {
    /// Records without a proof.
    pub(super) fn unproved(metrics: Arc<Metrics>) -> Self {
        Self { key: None, accept_previous: false, metrics, logged: Mutex::default() }
    }

    /// Records that are proved.
    pub(super) fn proved(key: FleetKey, accept_previous: bool, metrics: Arc<Metrics>) -> Self {
        Self { key: Some(key), accept_previous, metrics, logged: Mutex::default() }
    }

    /// The pod's record; always the same for one process.
    pub(super) fn write(&self, pod: &PodRecord) -> Result<String, StoreError> {
        let started_at_ms = u64::try_from(pod.started_at.as_millis()).unwrap_or(u64::MAX);
        let proof = self.key.as_ref().map(|key| {
            let key_name = keys::pod(&pod.id);
            hex::encode(key.sign(Purpose::Record, &parts(&key_name, &pod.id, &pod.address, &started_at_ms.to_be_bytes())))
        });
        let record = Record { address: pod.address.clone(), started_at_ms, proof };
        serde_json::to_string(&record).map_err(StoreError::refused)
    }

    /// The pod of a record that stands under its key. One that is not proved is counted.
    pub(super) fn read(&self, id: &PodId, record: &[u8]) -> Option<PodRecord> {
        let parsed = self.parse(id, record);
        if parsed.is_none() {
            self.count(id);
        }
        parsed
    }

    fn parse(&self, id: &PodId, record: &[u8]) -> Option<PodRecord> {
        let record: Record = serde_json::from_slice(record.get(..).filter(|record| record.len() <= MAX_BYTES)?).ok()?;
        let is_proved = match (&self.key, &record.proof) {
            (None, _) => true,
            (Some(_), None) => self.accept_previous,
            (Some(key), Some(proof)) => {
                let mut given = Signature::default();
                hex::decode_to_slice(proof, &mut given).ok()?;
                let key_name = keys::pod(id);
                key.is_signed(
                    Purpose::Record,
                    &parts(&key_name, id, &record.address, &record.started_at_ms.to_be_bytes()),
                    &given,
                )
            }
        };
        let started_at = Duration::from_millis(record.started_at_ms);
        is_proved.then_some(PodRecord { id: id.clone(), address: record.address, started_at })
    }

    fn count(&self, id: &PodId) {
        self.metrics.pod_records_unproved_total.inc();
        let now = Instant::now();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if logged.is_none_or(|at| now.duration_since(at) >= LOG_EVERY) {
            *logged = Some(now);
            tracing::warn!(
                peer.id = %id,
                "a pod's record in the session store is not of this fleet, and is passed over: somebody else writes there, or \
                pods have different keys or versions"
            );
        }
    }
}

fn parts<'a>(key_name: &'a str, id: &'a PodId, address: &'a str, started_at_ms: &'a [u8; 8]) -> [&'a [u8]; 4] {
    [key_name.as_bytes(), id.as_str().as_bytes(), address.as_bytes(), started_at_ms]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn of_fleet(key: &str, accept_previous: bool) -> Records {
        let metrics = Arc::new(Metrics::new().unwrap());
        Records::proved(FleetKey::derive(&Secret::new(key), &Secret::new("bb")), accept_previous, metrics)
    }

    fn pod(id: &str) -> PodRecord {
        PodRecord { id: PodId::parse(id).unwrap(), address: "10.0.0.1:50051".into(), started_at: Duration::from_millis(1500) }
    }

    #[test]
    fn a_record_is_of_one_fleet_one_pod_one_address_and_one_start() {
        let records = of_fleet("aa", false);
        let text = records.write(&pod("a")).unwrap();
        assert_eq!(records.read(&pod("a").id, text.as_bytes()), Some(pod("a")));
        assert_eq!(text, records.write(&pod("a")).unwrap());
        let later = text.replace("}", ",\"later\":true}");
        assert_eq!(records.read(&pod("a").id, later.as_bytes()), Some(pod("a")), "a newer version may say more");
        assert_eq!(records.read(&pod("b").id, text.as_bytes()), None, "copied under another id");
        for forged in
            [text.replace("10.0.0.1", "10.6.6.6"), text.replace("1500", "1501"), text.replace("\"proof\":\"", "\"proof\":\"0")]
        {
            assert_eq!(records.read(&pod("a").id, forged.as_bytes()), None, "{forged}");
        }
        assert_eq!(of_fleet("cc", true).read(&pod("a").id, text.as_bytes()), None, "of another fleet");
        assert_eq!(records.metrics.pod_records_unproved_total.get(), 4);
    }

    #[test]
    fn a_record_without_a_proof_counts_only_for_a_rollout() {
        let before = br#"{"address":"10.0.0.1:50051","started_at_ms":1500}"#;
        assert_eq!(of_fleet("aa", false).read(&pod("a").id, before), None);
        assert_eq!(of_fleet("aa", true).read(&pod("a").id, before), Some(pod("a")));
        let metrics = Arc::new(Metrics::new().unwrap());
        assert_eq!(Records::unproved(metrics).write(&pod("a")).unwrap().as_bytes(), before);
    }

    #[test]
    fn what_is_no_record_is_none_however_long() {
        let records = of_fleet("aa", true);
        let long = format!(r#"{{"address":"{}","started_at_ms":1}}"#, "x".repeat(MAX_BYTES));
        for bad in ["", "{}", "x", r#"{"address":1,"started_at_ms":1}"#, &long] {
            assert_eq!(records.read(&pod("a").id, bad.as_bytes()), None);
        }
    }
}
