//! HTTP: the paths of sockets, the token API, and what operators ask.
//!
//! [`router`] says what is answered, [`HttpServer`] how bytes come and go. What the HTTP parser refuses by itself (a head over
//! the limits, or no
//! HTTP at all) is answered in the same shape (`refusal`).

mod client;
mod credentials;
mod error;
mod forwarded;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod listener;
mod ops;
mod request_id;
mod sockets;
mod tokens;

use std::sync::Arc;

use axum::{Router, http::StatusCode, middleware};
use tokio::sync::watch;

use self::error::HttpError;
pub use self::listener::{intake::Intake, server::HttpServer};
use crate::{
    application::{
        admission::{connect::Connector, throttle::Throttle},
        auth::{authenticator::Authenticator, mint::Minter},
    },
    config::Config,
    metrics::Metrics,
    readiness::Readiness,
    runtime::lifecycle::Tasks,
};

/// What the routes are made of.
#[derive(Debug, Clone)]
pub struct HttpParts {
    /// Origins, limits and graces are read from it at each request.
    pub config: watch::Receiver<Arc<Config>>,
    /// Says who a request is from, or why nobody.
    pub auth: Arc<Authenticator>,
    /// Makes tokens.
    pub minter: Minter,
    /// Wins the session before the upgrade is answered.
    pub connector: Arc<Connector>,
    /// Refuses connects and guesses past their rates.
    pub throttle: Arc<Throttle>,
    /// What `/ready` says.
    pub readiness: Readiness,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// Own the sockets. From the soft shutdown on, `/ready` answers 503.
    pub tasks: Tasks,
}

/// Every route of a pod, and those of `extra` beside them.
///
/// Each answer carries `X-Request-ID`, and each error the one JSON shape, on the extra routes too.
pub fn router(parts: HttpParts, extra: Option<Router>) -> Router {
    let (ops, live) = (ops_routes(&parts), parts.config.clone());
    let HttpParts { config, auth, minter, connector, throttle, metrics, tasks, .. } = parts;
    let client = if config.borrow().server.serve_client { client::routes() } else { Router::new() };
    let mint = tokens::Mint { config: config.clone(), auth: Arc::clone(&auth), minter, throttle: Arc::clone(&throttle) };
    let state = sockets::ws::SocketsState { config, auth, connector, throttle, connecting: Arc::default(), metrics, tasks };
    sockets::ws::routes(state)
        .merge(tokens::routes(mint))
        .merge(ops)
        .merge(client)
        .merge(extra.unwrap_or_default())
        .fallback(nothing_here)
        .method_not_allowed_fallback(async || {
            HttpError::bad_request("this path does not take this method").with_status(StatusCode::METHOD_NOT_ALLOWED)
        })
        .layer(middleware::from_fn_with_state(live, request_id::tag))
}

/// What the listener for probes answers: `/health`, `/ready` and `/metrics`.
pub fn probe_router(parts: &HttpParts) -> Router {
    let tag = middleware::from_fn_with_state(parts.config.clone(), request_id::tag);
    ops_routes(parts).fallback(nothing_here).layer(tag)
}

fn ops_routes(parts: &HttpParts) -> Router {
    ops::routes(ops::Ops {
        config: parts.config.clone(),
        readiness: parts.readiness.clone(),
        metrics: Arc::clone(&parts.metrics),
        scrapes: Arc::default(),
        drain: parts.tasks.shutdown().soft.clone(),
    })
}

async fn nothing_here() -> HttpError {
    HttpError::bad_request("there is nothing at this path").with_status(StatusCode::NOT_FOUND)
}
