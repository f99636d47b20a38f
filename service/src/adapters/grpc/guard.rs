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

use super::{
    clocks::CLOCK_HEADER,
    proof::{FleetKey, PROOF_HEADER, ProofError},
};
use crate::metrics::Metrics;

/// The one call that pods without a proof may make, if at all.
const PUSH_EVENT: &str = "/dws_message_fwd.MessageForwardingService/PushEvent";

/// Lets calls of the fleet through to the service inside.
#[derive(Clone)]
pub(super) struct Guard<S> {
    /// For the fleet.
    pub(super) inner: S,
    /// For pods without a proof, with tighter limits; `None` refuses them.
    pub(super) unproven: Option<S>,
    pub(super) key: FleetKey,
    pub(super) metrics: Arc<Metrics>,
}

impl<S> Guard<S> {
    /// The service that the call may reach.
    fn admit<B>(&mut self, request: &http::Request<B>) -> Result<&mut S, ProofError> {
        let proof = request.headers().get(PROOF_HEADER).map(http::HeaderValue::as_bytes);
        match (self.key.verify(proof, crate::clock::now()), self.unproven.as_mut()) {
            (Ok(()), _) => Ok(&mut self.inner),
            // A proof that is there and wrong is never overlooked: it means two fleets, or clocks apart.
            (Err(ProofError::Missing), Some(unproven)) if request.uri().path() == PUSH_EVENT => Ok(unproven),
            (Err(refusal), _) => Err(refusal),
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
        // Generated servers are always ready, so asking one of the two is enough.
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self.admit(&request) {
            Ok(service) => Box::pin(service.call(request)),
            Err(refusal) => {
                self.metrics.grpc_calls_refused_total.with_label_values(&["unauthenticated"]).inc();
                tracing::debug!(reason = %refusal, "refused a call of a peer");
                let mut status = Status::unauthenticated(refusal.to_string());
                if refusal == ProofError::Expired {
                    status.metadata_mut().insert(CLOCK_HEADER, crate::clock::now().as_secs().into());
                }
                let answer = status.into_http();
                Box::pin(std::future::ready(Ok(answer)))
            }
        }
    }
}

impl<S: NamedService> NamedService for Guard<S> {
    const NAME: &'static str = S::NAME;
}
