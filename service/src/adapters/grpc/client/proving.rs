//! A channel whose calls are proved, and whose answers count only if they are.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use daisi_ws_domain::peer::PodRecord;
use tonic::{
    Status,
    body::Body,
    codegen::{
        Service, StdError,
        http::{HeaderValue, Request, Response},
    },
    transport::Channel,
};

use crate::{
    adapters::grpc::{
        clocks::{CLOCK_HEADER, Clocks},
        proof::{ANSWER_HEADER, AnswerDigest, CallProof, PREVIOUS_PROOF_HEADER, PROOF_HEADER, SharedNumbers, previous_proof},
        whole::Whole,
    },
    application::fleet::key::FleetKey,
};

/// What is said of an answer that is none.
pub(crate) const UNPROVED: &str = "the answer is not proved: what is at its address does not belong to the fleet";

/// What a caller proves its calls with.
#[derive(Debug, Clone)]
pub(crate) struct Prover {
    pub(crate) key: FleetKey,
    pub(crate) clocks: Arc<Clocks>,
    /// Prove calls as the version before does, too, and take answers without a proof (`server.grpc_accept_previous`).
    pub(crate) accept_previous: bool,
}

/// A channel to one pod, over one connection.
#[derive(Debug, Clone)]
pub struct ProvingChannel {
    channel: Channel,
    prover: Prover,
    to: Arc<PodRecord>,
    numbers: SharedNumbers,
}

impl ProvingChannel {
    /// Proves the calls on a channel to a pod.
    #[must_use]
    pub fn new(channel: Channel, key: FleetKey, to: PodRecord) -> Self {
        let prover = Prover { key, clocks: Arc::default(), accept_previous: false };
        Self::over(channel, prover, to, SharedNumbers::default())
    }

    pub(crate) fn over(channel: Channel, prover: Prover, to: PodRecord, numbers: SharedNumbers) -> Self {
        Self { channel, prover, to: Arc::new(to), numbers }
    }

    /// Puts the proof into the head of a call.
    fn prove(&self, request: &mut Request<Body>, whole: &Whole) -> CallProof {
        let Prover { key, clocks, accept_previous } = &self.prover;
        let now = clocks.time_at(&self.to.id, crate::runtime::clock::now());
        let proof = CallProof::make(key, request.uri().path(), &self.to, &self.numbers, now, whole.hash());
        let previous = accept_previous.then(|| previous_proof(key, now));
        for (name, text) in [(PROOF_HEADER, Some(proof.header())), (PREVIOUS_PROOF_HEADER, previous)] {
            if let Some(value) = text.and_then(|text| HeaderValue::try_from(text).ok()) {
                request.headers_mut().insert(name, value);
            }
        }
        proof
    }

    async fn carry_out(mut self, mut request: Request<Body>) -> Result<Response<Body>, StdError> {
        let whole = Whole::read(std::mem::take(request.body_mut())).await?;
        let proof = self.prove(&mut request, &whole);
        *request.body_mut() = whole.into_body();
        std::future::poll_fn(|cx| self.channel.poll_ready(cx)).await?;
        let answer = self.channel.call(request).await?;
        let (head, body) = answer.into_parts();
        let whole = Whole::read(body).await?;
        let mut answer = Response::from_parts(head, Body::empty());
        let said = AnswerDigest::of(answer.headers(), whole.hash(), whole.trailers());
        let is_proved =
            answer.headers().get(ANSWER_HEADER).is_some_and(|mac| proof.is_answered(&self.prover.key, &said, mac.as_bytes()));
        if !is_proved && !self.prover.accept_previous {
            // Anyone who refuses a call may say so unproved: nothing follows but that it is not carried out.
            answer.headers_mut().remove(CLOCK_HEADER);
            if !said.is_refusal() {
                return Err(Status::unavailable(UNPROVED).into());
            }
        }
        *answer.body_mut() = whole.into_body();
        Ok(answer)
    }
}

impl Service<Request<Body>> for ProvingChannel {
    type Response = Response<Body>;
    type Error = StdError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, StdError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        // The channel is asked when the call's body is there.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().carry_out(request))
    }
}
