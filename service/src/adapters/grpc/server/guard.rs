//! The door of the listener: a call that needs a proof and has none is refused before a byte of its body is read.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use daisi_ws_domain::peer::PodRecord;
use daisi_ws_proto::dws_message_fwd::message_forwarding_service_server::MessageForwardingServiceServer;
use http_body_util::BodyExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
    service::Routes,
};

use super::{handler::Handler, places::Caller, replays::Replays};
use crate::{
    adapters::grpc::{
        clocks::CLOCK_HEADER,
        proof::{ANSWER_HEADER, AnswerDigest, CallProof, PREVIOUS_PROOF_HEADER, PROOF_HEADER, ProofError, verify_previous},
        whole::Whole,
    },
    application::fleet::key::FleetKey,
    metrics::{Metrics, labels::CallRefused},
};

/// The one call that pods without a proof may make, if at all.
const PUSH_EVENT: &str = "/dws_message_fwd.MessageForwardingService/PushEvent";

/// What anybody may ask, as probes do.
const HEALTH_CHECK: &str = "/grpc.health.v1.Health/Check";

/// Answers that go on for as long as the caller likes.
const HEALTH_WATCH: &str = "/grpc.health.v1.Health/Watch";

/// Services whose calls need a proof.
const GUARDED: [&str; 2] = ["/dws_message_fwd.MessageForwardingService/", "/grpc.health.v1.Health/"];

/// Where reflection is, by whatever version.
const REFLECTION: &str = "/grpc.reflection.";

/// Health watches at a time, over all connections. Pods have none.
const MAX_WATCHES: usize = 16;

/// Reflections at a time, over all connections: somebody looks at a pod by hand.
const MAX_REFLECTIONS: usize = 8;

type Answer = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// Lets calls through to the services inside.
#[derive(Clone)]
pub(crate) struct Guard {
    /// For the fleet, and for what anybody may ask.
    inner: Routes,
    /// For pods without a proof, with tighter limits; `None` refuses them.
    unproven: Option<MessageForwardingServiceServer<Handler>>,
    judge: Arc<Judge>,
    watches: Arc<Semaphore>,
    reflections: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

/// What calls are judged by.
pub(crate) struct Judge {
    pub(crate) me: PodRecord,
    pub(crate) key: FleetKey,
    /// Let proofs of the version before through.
    pub(crate) accept_previous: bool,
    /// A process remembers no calls of the one before it: what was proved before it began may have been one.
    pub(crate) since: Duration,
    pub(crate) replays: Replays,
}

/// What may happen to a call.
#[derive(Debug, Clone, Copy)]
enum Verdict {
    /// It is the fleet's; by the version before, if it has no proof of this one.
    Proved(Option<CallProof>),
    /// Anybody may make it.
    Open,
    /// Nobody has proved anything. `PushEvent` may be let in all the same.
    Unproved,
    /// The proof is the fleet's where there is one; then the refusal is proved as well.
    Refused(ProofError, Option<CallProof>),
}

impl Judge {
    fn judge<B>(&self, request: &http::Request<B>) -> Verdict {
        let (path, now) = (request.uri().path(), crate::runtime::clock::now());
        let proof = |header| request.headers().get(header).map(http::HeaderValue::as_bytes);
        // A proof that is there and wrong is never overlooked: it means two fleets, or clocks apart.
        if let Some(text) = proof(PROOF_HEADER) {
            let Some(proof) = CallProof::parse(text) else { return Verdict::Refused(ProofError::Wrong, None) };
            if let Err(refusal) = proof.verify(&self.key, path, &self.me) {
                return Verdict::Refused(refusal, None);
            }
            if !proof.is_of(now) || proof.seconds < self.since.as_secs() {
                return Verdict::Refused(ProofError::Expired, Some(proof));
            }
            if !self.replays.note(proof.series, proof.number, Instant::now()) {
                return Verdict::Refused(ProofError::Replayed, Some(proof));
            }
            return Verdict::Proved(Some(proof));
        }
        match proof(PREVIOUS_PROOF_HEADER) {
            Some(text) if self.accept_previous => match verify_previous(&self.key, text, now) {
                Ok(()) => Verdict::Proved(None),
                Err(refusal) => Verdict::Refused(refusal, None),
            },
            Some(_) => Verdict::Refused(ProofError::Previous, None),
            None if path == HEALTH_CHECK || !GUARDED.iter().any(|service| path.starts_with(service)) => Verdict::Open,
            None => Verdict::Unproved,
        }
    }

    /// The answer with its proof.
    async fn sign(&self, answer: http::Response<Body>, call: &CallProof) -> http::Response<Body> {
        let (mut head, body) = answer.into_parts();
        let whole = match Whole::read(body).await {
            Ok(whole) => whole,
            Err(status) => return status.into_http(),
        };
        let said = AnswerDigest::of(&head.headers, whole.hash(), whole.trailers());
        if let Ok(proof) = http::HeaderValue::try_from(hex::encode(call.answer(&self.key, &said))) {
            head.headers.insert(ANSWER_HEADER, proof);
        }
        http::Response::from_parts(head, whole.into_body())
    }
}

impl Guard {
    pub(crate) fn new(
        inner: Routes,
        unproven: Option<MessageForwardingServiceServer<Handler>>,
        judge: Judge,
        metrics: Arc<Metrics>,
    ) -> Self {
        let permits = |count| Arc::new(Semaphore::new(count));
        let (watches, reflections) = (permits(MAX_WATCHES), permits(MAX_REFLECTIONS));
        Self { inner, unproven, judge: Arc::new(judge), watches, reflections, metrics }
    }

    /// Reads the body, has the call carried out if that is the body that was proved, and proves the answer.
    fn answer_proved(&mut self, request: http::Request<Body>, proof: CallProof) -> Answer {
        let (mut inner, judge, metrics) = (self.inner.clone(), Arc::clone(&self.judge), Arc::clone(&self.metrics));
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let answer = match Whole::read(body).await {
                Ok(whole) if whole.hash() == proof.body => inner.call(http::Request::from_parts(head, whole.into_body())).await?,
                Ok(_) => {
                    metrics.grpc_calls_refused_total.with_label_values(&[CallRefused::Unauthenticated.as_str()]).inc();
                    Status::unauthenticated("the body is not the one that was proved").into_http()
                }
                Err(status) => status.into_http(),
            };
            Ok(judge.sign(answer, &proof).await)
        })
    }

    /// The answer of the services inside; one that may go on for ever holds one of few permits as long as it does.
    fn answer(&mut self, request: http::Request<Body>) -> Answer {
        let permits = match request.uri().path() {
            HEALTH_WATCH => Some(&self.watches),
            path if path.starts_with(REFLECTION) => Some(&self.reflections),
            _ => None,
        };
        let permit = permits.map(|permits| Arc::clone(permits).try_acquire_owned());
        match permit {
            None => Box::pin(self.inner.call(request)),
            Some(Ok(permit)) => Box::pin(held(self.inner.call(request), permit)),
            Some(Err(_)) => {
                self.metrics.grpc_calls_refused_total.with_label_values(&[CallRefused::TooMany.as_str()]).inc();
                now(&Status::resource_exhausted("too many such calls are open"))
            }
        }
    }

    fn refuse(&self, refusal: ProofError, proof: Option<CallProof>) -> Answer {
        let reason = match refusal {
            ProofError::OtherPod => CallRefused::OtherPod,
            ProofError::Replayed => CallRefused::Replayed,
            _ => CallRefused::Unauthenticated,
        };
        self.metrics.grpc_calls_refused_total.with_label_values(&[reason.as_str()]).inc();
        tracing::debug!(reason = %refusal, "refused a call of a peer");
        let mut status = match refusal {
            // Its sessions may live elsewhere: to say anything else would settle events that somebody waits for.
            ProofError::OtherPod => Status::not_found(refusal.to_string()),
            _ => Status::unauthenticated(refusal.to_string()),
        };
        if refusal == ProofError::Expired {
            status.metadata_mut().insert(CLOCK_HEADER, crate::runtime::clock::now().as_secs().into());
        }
        let judge = Arc::clone(&self.judge);
        match proof {
            Some(proof) => Box::pin(async move { Ok(judge.sign(status.into_http(), &proof).await) }),
            None => now(&status),
        }
    }
}

fn now(status: &Status) -> Answer {
    Box::pin(std::future::ready(Ok(status.clone().into_http())))
}

/// The answer, which gives the permit back when its body is dropped.
async fn held(
    answer: impl Future<Output = Result<http::Response<Body>, Infallible>>,
    permit: OwnedSemaphorePermit,
) -> Result<http::Response<Body>, Infallible> {
    let answer = answer.await?;
    Ok(answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _held = &permit;
            frame
        }))
    }))
}

impl Service<http::Request<Body>> for Guard {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Generated servers are always ready, so asking one of the two is enough.
        Service::<http::Request<Body>>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Answer {
        let verdict = self.judge.judge(&request);
        let caller = request.extensions().get::<Caller>();
        let path = request.uri().path();
        if let Some(caller) = caller.filter(|_| !matches!(verdict, Verdict::Proved(_))) {
            caller.call_unproved();
        }
        match (verdict, &mut self.unproven) {
            (Verdict::Refused(refusal, proof), _) => self.refuse(refusal, proof),
            (Verdict::Unproved, Some(unproven)) if path == PUSH_EVENT => {
                caller.inspect(|caller| caller.tolerate());
                Box::pin(unproven.call(request))
            }
            (Verdict::Unproved, _) => self.refuse(ProofError::Missing, None),
            (Verdict::Open, _) => self.answer(request),
            (Verdict::Proved(proof), _) => {
                caller.inspect(|caller| caller.prove());
                match proof {
                    // A watch has no end to be proved.
                    Some(proof) if path != HEALTH_WATCH => self.answer_proved(request, proof),
                    _ => self.answer(request),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use daisi_ws_domain::ids::PodId;

    use super::*;
    use crate::{
        adapters::grpc::proof::{Numbers, previous_proof, sha256},
        config::Secret,
    };

    fn key() -> FleetKey {
        FleetKey::derive(&Secret::new("aa"), &Secret::new("bb"))
    }

    fn me() -> PodRecord {
        PodRecord { id: PodId::parse("b").unwrap(), address: "b:1".into(), started_at: Duration::ZERO }
    }

    fn judge(accept_previous: bool, since: Duration) -> Judge {
        Judge { me: me(), key: key(), accept_previous, since, replays: Replays::default() }
    }

    fn call(path: &str, header: Option<(&'static str, String)>) -> http::Request<()> {
        let request = http::Request::builder().uri(format!("http://b:1{path}"));
        header.into_iter().fold(request, |request, (name, value)| request.header(name, value)).body(()).unwrap()
    }

    fn refusal(verdict: Verdict) -> Option<(ProofError, bool)> {
        match verdict {
            Verdict::Refused(refusal, proof) => Some((refusal, proof.is_some())),
            _ => None,
        }
    }

    fn proof_at(now: Duration) -> Option<(&'static str, String)> {
        let proof = CallProof::make(&key(), PUSH_EVENT, &me(), &Numbers::default(), now, sha256([b"".as_slice()]));
        Some((PROOF_HEADER, proof.header()))
    }

    #[test]
    fn a_proof_opens_its_call_once_within_half_a_minute() {
        let (now, second) = (crate::runtime::clock::now(), Duration::from_secs(1));
        let door = judge(false, Duration::ZERO);
        let good = proof_at(now);
        assert!(matches!(door.judge(&call(PUSH_EVENT, good.clone())), Verdict::Proved(Some(_))));
        assert_eq!(refusal(door.judge(&call(PUSH_EVENT, good.clone()))), Some((ProofError::Replayed, true)));
        assert_eq!(refusal(door.judge(&call(HEALTH_CHECK, good))), Some((ProofError::Wrong, false)), "of another method");
        for wrong in [now - 33 * second, now + 33 * second] {
            assert_eq!(refusal(door.judge(&call(PUSH_EVENT, proof_at(wrong)))), Some((ProofError::Expired, true)));
        }
        for right in [now - 28 * second, now + 28 * second] {
            assert!(matches!(door.judge(&call(PUSH_EVENT, proof_at(right))), Verdict::Proved(Some(_))));
        }
    }

    #[test]
    fn what_was_proved_to_the_process_before_opens_nothing() {
        let now = crate::runtime::clock::now();
        let door = judge(false, now);
        assert_eq!(
            refusal(door.judge(&call(PUSH_EVENT, proof_at(now - Duration::from_secs(2))))),
            Some((ProofError::Expired, true))
        );
        assert!(matches!(door.judge(&call(PUSH_EVENT, proof_at(now))), Verdict::Proved(Some(_))));
    }

    #[test]
    fn a_proof_of_the_version_before_counts_only_for_a_rollout() {
        let previous = Some((PREVIOUS_PROOF_HEADER, previous_proof(&key(), crate::runtime::clock::now())));
        let open = judge(true, Duration::ZERO);
        assert!(matches!(open.judge(&call(PUSH_EVENT, previous.clone())), Verdict::Proved(None)));
        let shut = judge(false, Duration::ZERO);
        assert_eq!(refusal(shut.judge(&call(PUSH_EVENT, previous))), Some((ProofError::Previous, false)));
        let forged = Some((PREVIOUS_PROOF_HEADER, "v1.1800000000.00".to_owned()));
        assert_eq!(refusal(open.judge(&call(PUSH_EVENT, forged))), Some((ProofError::Wrong, false)));
    }

    #[test]
    fn anybody_may_ask_for_health_and_nothing_else() {
        let door = judge(true, Duration::ZERO);
        for (path, is_open) in [(HEALTH_CHECK, true), ("/unknown/M", true), (HEALTH_WATCH, false), (PUSH_EVENT, false)] {
            let verdict = door.judge(&call(path, None));
            assert_eq!((matches!(verdict, Verdict::Open), matches!(verdict, Verdict::Unproved)), (is_open, !is_open), "{path}");
        }
        assert_eq!(
            refusal(door.judge(&call(HEALTH_CHECK, Some((PROOF_HEADER, "v2.nonsense".into()))))),
            Some((ProofError::Wrong, false))
        );
    }
}
