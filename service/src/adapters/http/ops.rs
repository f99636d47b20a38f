//! What operators and their tools ask: does it live, should it get traffic, how is it.

use std::sync::{Arc, Mutex, PoisonError};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use daisi_ws_domain::{close::ErrorCode, frame::ErrorBody, rate::TokenBucket};
use serde::Serialize;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::error::HttpError;
use crate::{
    config::Config,
    metrics::Metrics,
    readiness::{Readiness, ReadinessReport},
    telemetry::Chain,
};

/// The Prometheus text format.
const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Seconds after which a client that was told 503 may come back: a drain or a blip is over by then, or another pod was found.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// Times a second that the metrics are written anew, and in a burst. Writing them takes about a millisecond, which who asks for
/// them in a loop must not have for nothing.
const SCRAPES: (u32, u32) = (20, 40);

/// What the answers are made of.
#[derive(Clone)]
pub(super) struct Ops {
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) readiness: Readiness,
    pub(super) metrics: Arc<Metrics>,
    pub(super) scrapes: Arc<Scrapes>,
    /// From its cancellation on, the pod is not ready.
    pub(super) drain: CancellationToken,
}

/// The metrics as they were written last, and how often that may be. One a listener: what pending connections ask for at one must
/// not age what is answered at the other.
#[derive(Debug)]
pub(super) struct Scrapes(Mutex<(TokenBucket, Bytes)>);

impl Default for Scrapes {
    fn default() -> Self {
        let (rate, burst) = SCRAPES;
        Self(Mutex::new((TokenBucket::new(rate, burst, Instant::now().into_std()), Bytes::new())))
    }
}

impl Scrapes {
    /// The metrics: of now, or, when they are asked for too often, of a twentieth of a second ago.
    fn text(&self, metrics: &Metrics) -> prometheus::Result<Bytes> {
        let now = Instant::now().into_std();
        {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !last.0.take(now) && !last.1.is_empty() {
                return Ok(last.1.clone());
            }
        }
        let text = Bytes::from(metrics.encode()?);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1 = text.clone();
        Ok(text)
    }
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    dependencies: Dependencies,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    draining: bool,
    /// What a dependency refuses although it is needed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    problems: Vec<String>,
    /// It has all the sockets it may have. Unready for that only while another pod has room.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    full: bool,
}

#[derive(Serialize)]
struct Dependencies {
    nats: &'static str,
    redis: &'static str,
    grpc: &'static str,
}

pub(super) fn routes(ops: Ops) -> Router {
    let probes = Router::new().route("/health", get(health)).route("/ready", get(ready)).route("/metrics", get(metrics));
    probes.route("/ws/ready", get(ready_for_sockets)).with_state(ops)
}

/// Alive as long as it can answer: never depends on others, or their outage would become a restart of the fleet.
async fn health() -> Json<Health> {
    Json(Health { status: "OK" })
}

async fn ready(State(ops): State<Ops>) -> Response {
    let grace = ops.config.borrow().server.ready_grace;
    let report = ops.readiness.report(grace);
    let draining = report.draining || ops.drain.is_cancelled();
    let ready = report.ready && !draining;
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = Ready {
        status: if ready { "READY" } else { "NOT_READY" },
        dependencies: dependencies(&report),
        draining,
        problems: ops.readiness.problems(),
        full: report.full,
    };
    // For the browser client, which can't see why a handshake was refused: any page may ask, and may read how long to stay away.
    let mut response = (status, [(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")], Json(body)).into_response();
    if !ready {
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_name(header::RETRY_AFTER));
    }
    response
}

/// As [`ready`], among the sockets: whatever leads a browser to those leads it here, and an Ingress routes nothing else. What the
/// pod depends on is nobody's business there.
async fn ready_for_sockets(ops: State<Ops>) -> Response {
    let (mut head, _) = ready(ops).await.into_parts();
    head.headers.remove(header::CONTENT_TYPE);
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::empty())
}

fn dependencies(report: &ReadinessReport) -> Dependencies {
    let connected = |up| if up { "connected" } else { "disconnected" };
    Dependencies {
        nats: connected(report.nats),
        redis: connected(report.redis),
        grpc: if report.grpc { "serving" } else { "not_serving" },
    }
}

async fn metrics(State(ops): State<Ops>) -> Response {
    match ops.scrapes.text(&ops.metrics) {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(error = %Chain(&error), "the metrics could not be written");
            HttpError::new(ErrorBody::new(ErrorCode::InternalServerError, "the metrics could not be written")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn metrics_that_are_asked_for_in_a_loop_are_written_at_their_rate_alone() {
        let (metrics, scrapes) = (Metrics::new().unwrap(), Scrapes::default());
        let fresh = || {
            let seen = metrics.config_reloads_total.with_label_values(&["applied"]);
            seen.inc();
            let text = String::from_utf8(scrapes.text(&metrics).unwrap().to_vec()).unwrap();
            text.contains(&format!("dws_config_reloads_total{{outcome=\"applied\"}} {}\n", seen.get()))
        };
        assert_eq!((0..1000).filter(|_| fresh()).count(), 40);
        tokio::time::advance(std::time::Duration::from_millis(51)).await;
        assert!(fresh() && !fresh(), "and again a moment later");
    }
}
