//! How a pod proves to another that a call, or an answer, is of the same fleet.
//!
//! A call's proof is of its method, of whom it is for (id and address, so that nobody can pass it on), of its body, of a time,
//! and of a number that is used once: it opens that one call, once, within [`TOLERANCE`]. The answer's proof is of the call's and
//! of all that the answer says. See docs/adr/0001-proofs-between-pods.md.
//!
//! The version before proved a time and nothing else; such a proof counts only while `server.grpc_accept_previous` is on.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use daisi_ws_domain::peer::PodRecord;
use sha2::{Digest as _, Sha256};
use tonic::codegen::http::HeaderMap;

use super::clocks::CLOCK_HEADER;
use crate::application::fleet::key::{FleetKey, Purpose, Signature};

/// The metadata key of a call's proof.
pub const PROOF_HEADER: &str = "x-dws-proof";

/// The metadata key of an answer's.
pub const ANSWER_HEADER: &str = "x-dws-answer";

/// The metadata key of a proof as the version before made it.
pub const PREVIOUS_PROOF_HEADER: &str = "x-dws-fleet-proof";

/// A proof is accepted this long before and after its time. Clocks that differ by more are learned ([`super::clocks`]).
pub(super) const TOLERANCE: Duration = Duration::from_secs(30);

/// The same for the version before, which learned nothing.
const PREVIOUS_TOLERANCE: Duration = Duration::from_secs(300);

/// Why a proof was not accepted. The texts may be told to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProofError {
    /// None was given.
    #[error("the call has no proof that its pod belongs to the fleet")]
    Missing,
    /// Only one of the version before, and those are not accepted.
    #[error("the proof is of the version before: for one rollout, set server.grpc_accept_previous")]
    Previous,
    /// Not of the form we write, or made with another key, or for another call.
    #[error("the proof is not of this fleet and call: do all pods have the same token keys?")]
    Wrong,
    /// For another pod, or for this one at another address.
    #[error("another pod is at this address")]
    OtherPod,
    /// Of this fleet, but from another time.
    #[error("the proof is from another time: do the clocks of the pods differ?")]
    Expired,
    /// It was used before.
    #[error("the proof was used before")]
    Replayed,
}

/// The numbers of one connection's calls: none is used twice, and no other connection has them.
#[derive(Debug)]
pub(crate) struct Numbers {
    series: u128,
    next: AtomicU64,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { series: rand::random(), next: AtomicU64::new(1) }
    }
}

/// What the head of a call says, signed: enough to refuse it before a byte of its body is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallProof {
    pub(super) seconds: u64,
    pub(super) series: u128,
    pub(super) number: u64,
    /// Of whom it is for; only to tell a pod at a wrong address from one of another fleet.
    target: u64,
    /// The body's SHA-256.
    pub(super) body: Signature,
    signature: Signature,
}

impl CallProof {
    /// Proves a call to the pod at the time `now`, since the Unix epoch.
    pub(super) fn make(key: &FleetKey, path: &str, to: &PodRecord, numbers: &Numbers, now: Duration, body: Signature) -> Self {
        let number = numbers.next.fetch_add(1, Ordering::Relaxed);
        let unsigned = Self {
            seconds: now.as_secs(),
            series: numbers.series,
            number,
            target: tag(to),
            body,
            signature: Signature::default(),
        };
        Self { signature: unsigned.sign(key, path, to), ..unsigned }
    }

    /// Reads a proof, as far as it can be one.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(text).ok()?.strip_prefix("v2.")?.split('.');
        let seconds = parts.next()?.parse().ok()?;
        let series = u128::from_str_radix(parts.next().filter(|text| text.len() == 32)?, 16).ok()?;
        let number = parts.next()?.parse().ok()?;
        let target = u64::from_str_radix(parts.next().filter(|text| text.len() == 16)?, 16).ok()?;
        let (body, signature) = (digest(parts.next()?)?, digest(parts.next()?)?);
        parts.next().is_none().then_some(Self { seconds, series, number, target, body, signature })
    }

    /// The value of [`PROOF_HEADER`].
    pub(super) fn header(&self) -> String {
        let Self { seconds, series, number, target, .. } = self;
        let mut text = String::with_capacity(256);
        let _ = write!(text, "v2.{seconds}.{series:032x}.{number}.{target:016x}.");
        text.push_str(&hex::encode(self.body));
        text.push('.');
        text.push_str(&hex::encode(self.signature));
        text
    }

    /// Is it of this fleet, for this call to this pod? Says nothing of its time.
    pub(super) fn verify(&self, key: &FleetKey, path: &str, me: &PodRecord) -> Result<(), ProofError> {
        if self.target != tag(me) {
            return Err(ProofError::OtherPod);
        }
        if key.is_signed(Purpose::Call, &self.parts(path, me, &self.times()), &self.signature) {
            Ok(())
        } else {
            Err(ProofError::Wrong)
        }
    }

    /// Is it of a time within the tolerance?
    pub(super) fn is_of(&self, now: Duration) -> bool {
        self.seconds.abs_diff(now.as_secs()) <= TOLERANCE.as_secs()
    }

    /// Proves an answer to this call.
    pub(super) fn answer(&self, key: &FleetKey, answer: &AnswerDigest) -> Signature {
        key.sign(Purpose::Answer, &answer.parts(self))
    }

    /// Is it the proof of that answer to this call?
    pub(super) fn is_answered(&self, key: &FleetKey, answer: &AnswerDigest, proof: &[u8]) -> bool {
        let proof = std::str::from_utf8(proof).ok().and_then(digest);
        proof.is_some_and(|proof| key.is_signed(Purpose::Answer, &answer.parts(self), &proof))
    }

    fn sign(&self, key: &FleetKey, path: &str, to: &PodRecord) -> Signature {
        key.sign(Purpose::Call, &self.parts(path, to, &self.times()))
    }

    fn times(&self) -> [u8; 32] {
        let mut times = [0; 32];
        times[..8].copy_from_slice(&self.seconds.to_be_bytes());
        times[8..24].copy_from_slice(&self.series.to_be_bytes());
        times[24..].copy_from_slice(&self.number.to_be_bytes());
        times
    }

    fn parts<'a>(&'a self, path: &'a str, pod: &'a PodRecord, times: &'a [u8; 32]) -> [&'a [u8]; 5] {
        [path.as_bytes(), pod.id.as_str().as_bytes(), pod.address.as_bytes(), times, &self.body]
    }
}

/// All that an answer says to its caller.
#[derive(Debug, Default)]
pub(super) struct AnswerDigest {
    status: Vec<u8>,
    message: Vec<u8>,
    clock: Vec<u8>,
    body: Signature,
}

impl AnswerDigest {
    /// Of an answer with these headers, a body of this hash, and these trailers.
    pub(super) fn of(headers: &HeaderMap, body: Signature, trailers: Option<&HeaderMap>) -> Self {
        let get =
            |key| headers.get(key).or_else(|| trailers?.get(key)).map(|value| value.as_bytes().to_vec()).unwrap_or_default();
        Self { status: get("grpc-status"), message: get("grpc-message"), clock: get(CLOCK_HEADER), body }
    }

    /// Does it say that the call was not carried out?
    pub(super) fn is_refusal(&self) -> bool {
        !self.status.is_empty() && self.status != b"0"
    }

    fn parts<'a>(&'a self, call: &'a CallProof) -> [&'a [u8]; 5] {
        [&call.signature, &self.status, &self.message, &self.clock, &self.body]
    }
}

/// The proof of one call with this body, for a caller who does without [`super::ProvingChannel`]: the value of [`PROOF_HEADER`].
#[must_use]
pub fn prove_call(key: &FleetKey, path: &str, to: &PodRecord, body: &[u8], now: Duration) -> String {
    CallProof::make(key, path, to, &Numbers::default(), now, sha256([body])).header()
}

/// A proof as the version before makes and takes it: the value of [`PREVIOUS_PROOF_HEADER`].
#[must_use]
pub fn previous_proof(key: &FleetKey, now: Duration) -> String {
    let seconds = now.as_secs();
    format!("v1.{seconds}.{}", hex::encode(key.sign(Purpose::PreviousCall, &[&seconds.to_be_bytes()])))
}

/// Checks a proof as the version before makes it.
pub(super) fn verify_previous(key: &FleetKey, proof: &[u8], now: Duration) -> Result<(), ProofError> {
    let proof = std::str::from_utf8(proof).map_err(|_| ProofError::Wrong)?;
    let (seconds, signature) = proof.strip_prefix("v1.").and_then(|rest| rest.split_once('.')).ok_or(ProofError::Wrong)?;
    let seconds: u64 = seconds.parse().map_err(|_| ProofError::Wrong)?;
    let signature = digest(signature).ok_or(ProofError::Wrong)?;
    if !key.is_signed(Purpose::PreviousCall, &[&seconds.to_be_bytes()], &signature) {
        return Err(ProofError::Wrong);
    }
    if seconds.abs_diff(now.as_secs()) > PREVIOUS_TOLERANCE.as_secs() {
        return Err(ProofError::Expired);
    }
    Ok(())
}

/// The SHA-256 of bytes.
pub(super) fn sha256<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Signature {
    let mut hash = Sha256::new();
    chunks.into_iter().for_each(|chunk| hash.update(chunk));
    hash.finalize().into()
}

fn digest(text: &str) -> Option<Signature> {
    let mut digest = Signature::default();
    hex::decode_to_slice(text, &mut digest).ok()?;
    Some(digest)
}

fn tag(pod: &PodRecord) -> u64 {
    let hash = sha256([pod.id.as_str().as_bytes(), b"\0", pod.address.as_bytes()]);
    u64::from_be_bytes(std::array::from_fn(|n| hash[n]))
}

/// What a caller of this fleet shares with its answers.
pub(super) type SharedNumbers = Arc<Numbers>;

#[cfg(test)]
mod tests {
    use daisi_ws_domain::ids::PodId;

    use super::*;
    use crate::config::Secret;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn key(user: &str) -> FleetKey {
        FleetKey::derive(&Secret::new(user), &Secret::new("bb"))
    }

    fn pod(id: &str, address: &str) -> PodRecord {
        PodRecord { id: PodId::parse(id).unwrap(), address: address.into(), started_at: Duration::ZERO }
    }

    fn proof() -> CallProof {
        CallProof::make(&key("aa"), "/s/M", &pod("b", "b:1"), &Numbers::default(), NOW, sha256([b"body".as_slice()]))
    }

    #[test]
    fn a_proof_opens_one_method_of_one_pod_at_one_address() {
        let proof = CallProof::parse(proof().header().as_bytes()).unwrap();
        assert_eq!(proof.verify(&key("AA"), "/s/M", &pod("b", "b:1")), Ok(()));
        assert_eq!(proof.verify(&key("aa"), "/s/N", &pod("b", "b:1")), Err(ProofError::Wrong));
        assert_eq!(proof.verify(&key("cc"), "/s/M", &pod("b", "b:1")), Err(ProofError::Wrong));
        for other in [pod("c", "b:1"), pod("b", "c:1")] {
            assert_eq!(proof.verify(&key("aa"), "/s/M", &other), Err(ProofError::OtherPod));
        }
        // A made-up target does not help.
        for other in [pod("c", "b:1"), pod("b", "c:1")] {
            let forged = CallProof { target: tag(&other), ..proof };
            assert_eq!(forged.verify(&key("aa"), "/s/M", &other), Err(ProofError::Wrong));
        }
    }

    #[test]
    fn a_proof_is_of_its_body_time_and_number() {
        let good = proof();
        let forged = [
            CallProof { body: sha256([b"other".as_slice()]), ..good },
            CallProof { seconds: good.seconds + 1, ..good },
            CallProof { number: good.number + 1, ..good },
            CallProof { series: good.series ^ 1, ..good },
        ];
        for forged in forged {
            assert_eq!(forged.verify(&key("aa"), "/s/M", &pod("b", "b:1")), Err(ProofError::Wrong));
        }
        for (at, expected) in [(NOW, true), (NOW + TOLERANCE, true), (NOW - TOLERANCE, true), (NOW + TOLERANCE * 2, false)] {
            assert_eq!(good.is_of(at), expected);
        }
        assert!(!good.is_of(NOW + TOLERANCE + Duration::from_secs(1)) && !good.is_of(NOW - TOLERANCE - Duration::from_secs(1)));
    }

    #[test]
    fn an_answer_is_proved_for_one_call_and_for_all_that_it_says() {
        let key = key("aa");
        let (call, other) = (proof(), proof());
        let headers = |status: &'static str, clock: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", status.parse().unwrap());
            headers.insert(CLOCK_HEADER, clock.parse().unwrap());
            headers
        };
        let of = |status, clock, body: &[u8]| AnswerDigest::of(&HeaderMap::new(), sha256([body]), Some(&headers(status, clock)));
        let answer = hex::encode(call.answer(&key, &of("0", "1", b"x")));
        assert!(call.is_answered(&key, &of("0", "1", b"x"), answer.as_bytes()));
        assert!(!other.is_answered(&key, &of("0", "1", b"x"), answer.as_bytes()), "another call");
        for said in [of("5", "1", b"x"), of("0", "2", b"x"), of("0", "1", b"y")] {
            assert!(!call.is_answered(&key, &said, answer.as_bytes()), "{said:?}");
        }
        // The call's own proof, which anybody has who was called, is none of an answer.
        assert!(!call.is_answered(&key, &of("0", "1", b"x"), hex::encode(call.signature).as_bytes()));
        assert!(!call.is_answered(&key, &of("0", "1", b"x"), b"\xff"));
    }

    #[test]
    fn what_is_no_proof_is_refused_and_never_panics() {
        let good = proof().header();
        assert!(CallProof::parse(good.as_bytes()).is_some());
        let longer = format!("{good}.00");
        for bad in ["", "v2", "v2.", "v2.1.2.3.4.5.6", &good[..good.len() - 2], &longer, &good.replacen("v2", "v1", 1), "\u{e9}"]
        {
            assert_eq!(CallProof::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(CallProof::parse(&[0xff, 0xfe]), None);
    }

    #[test]
    fn a_proof_of_the_version_before_is_of_a_time_and_of_this_fleet() {
        let proof = previous_proof(&key("aa"), NOW);
        let verify = |at| verify_previous(&key("AA"), proof.as_bytes(), at);
        assert_eq!(verify(NOW + PREVIOUS_TOLERANCE), Ok(()));
        assert_eq!(verify(NOW - PREVIOUS_TOLERANCE - Duration::from_secs(1)), Err(ProofError::Expired));
        assert_eq!(verify_previous(&key("cc"), proof.as_bytes(), NOW), Err(ProofError::Wrong));
        for bad in ["", "v1", "v1.", "v1.x.00", "v1.1800000000.", "v2.1.00", &proof[..proof.len() - 2], "\u{e9}"] {
            assert_eq!(verify_previous(&key("aa"), bad.as_bytes(), NOW), Err(ProofError::Wrong), "{bad}");
        }
    }
}
