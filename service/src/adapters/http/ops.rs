//! What operators and their tools ask: does it live, should it get traffic, how is it.

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::HttpError;
use crate::{
    application::readiness::{Readiness, ReadinessReport},
    config::Config,
    domain::{close::ErrorCode, frame::ErrorBody},
    metrics::Metrics,
};

/// The Prometheus text format.
const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Seconds after which a client that was told 503 may come back: a drain or a blip is over by then, or another pod was found.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("2");

/// What the answers are made of.
#[derive(Clone)]
pub(super) struct Ops {
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) readiness: Readiness,
    pub(super) metrics: Arc<Metrics>,
    /// From its cancellation on, the pod is not ready.
    pub(super) drain: CancellationToken,
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
    Router::new().route("/health", get(health)).route("/ready", get(ready)).route("/metrics", get(metrics)).with_state(ops)
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

fn dependencies(report: &ReadinessReport) -> Dependencies {
    let connected = |up| if up { "connected" } else { "disconnected" };
    Dependencies {
        nats: connected(report.nats),
        redis: connected(report.redis),
        grpc: if report.grpc { "serving" } else { "not_serving" },
    }
}

async fn metrics(State(ops): State<Ops>) -> Response {
    match ops.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(error = %error, "the metrics could not be written");
            HttpError::new(ErrorBody::new(ErrorCode::InternalServerError, "the metrics could not be written")).into_response()
        }
    }
}
