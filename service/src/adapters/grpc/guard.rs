//! The door of the forwarding service: a call without a proof is refused before a byte of its body is read.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
};

use super::proof::{FleetKey, PROOF_HEADER, ProofError};
use crate::metrics::Metrics;

/// The one call that pods without a proof may make, if at all.
const PUSH_EVENT: &str = "/dws_message_fwd.MessageForwardingService/PushEvent";

/// Lets calls of the fleet through to the service inside.
#[derive(Clone)]
pub(super) struct Guard<S> {
    pub(super) inner: S,
    pub(super) key: FleetKey,
    pub(super) allow_unauthenticated: bool,
    pub(super) metrics: Arc<Metrics>,
}

impl<S> Guard<S> {
    fn admit<B>(&self, request: &http::Request<B>) -> Result<(), ProofError> {
        let proof = request.headers().get(PROOF_HEADER).map(http::HeaderValue::as_bytes);
        match self.key.verify(proof, crate::clock::now()) {
            // A proof that is there and wrong is never overlooked: it means two fleets, or clocks apart.
            Err(ProofError::Missing) if self.allow_unauthenticated && request.uri().path() == PUSH_EVENT => Ok(()),
            verdict => verdict,
        }
    }
}

impl<S> Service<http::Request<Body>> for Guard<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.admit(&request) {
            Ok(()) => Box::pin(self.inner.call(request)),
            Err(refusal) => {
                self.metrics.grpc_calls_refused_total.with_label_values(&["unauthenticated"]).inc();
                tracing::debug!(reason = %refusal, "refused a call of a peer");
                let answer = Status::unauthenticated(refusal.to_string()).into_http();
                Box::pin(std::future::ready(Ok(answer)))
            }
        }
    }
}

impl<S: NamedService> NamedService for Guard<S> {
    const NAME: &'static str = S::NAME;
}
