//! The doors of sockets: each check in its order, and only then a session.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tracing::Instrument as _;

use super::{
    credentials,
    error::HttpError,
    request_id::{RequestId, client_address},
    upgrade::Handshake,
};
use crate::{
    application::{
        auth::{Authenticator, Door},
        connect::Connector,
    },
    config::Config,
    domain::{
        client_address::ClientAddress,
        close::ErrorCode,
        frame::ErrorBody,
        origin::{self, OriginPattern},
        session::SessionKind,
    },
    lifecycle::Tasks,
    metrics::Metrics,
    telemetry::spans,
};

/// What the doors need.
#[derive(Clone)]
pub(super) struct Doors {
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) auth: Arc<Authenticator>,
    pub(super) connector: Arc<Connector>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: Tasks,
}

pub(super) fn routes(doors: Doors) -> Router {
    Router::new().route("/ws/admin", get(admin)).route("/ws/{company}/{agent}", get(user)).with_state(doors)
}

async fn admin(State(doors): State<Doors>, request: Request) -> Response {
    doors.answer(SessionKind::Admin, Ok(Door::Admin), request).await
}

async fn user(State(doors): State<Doors>, path: Result<Path<(String, String)>, PathRejection>, request: Request) -> Response {
    let door = match &path {
        Ok(Path((company, agent))) => Ok(Door::User { company, agent }),
        Err(_) => Err(HttpError::bad_request("the path is not valid UTF-8")),
    };
    doors.answer(SessionKind::User, door, request).await
}

impl Doors {
    async fn answer(&self, kind: SessionKind, door: Result<Door<'_>, HttpError>, mut request: Request) -> Response {
        let (id, client) = (RequestId::of(&request), client_address(&request));
        match self.open(kind, door, &mut request, &id).await {
            Ok(response) => response,
            Err(refusal) => {
                self.note(kind, &refusal, &id, client);
                refusal.into_response()
            }
        }
    }

    /// The order matters: nothing is locked, and nobody's session ended, before the request is known to be good in every way.
    async fn open(
        &self,
        kind: SessionKind,
        door: Result<Door<'_>, HttpError>,
        request: &mut Request,
        id: &RequestId,
    ) -> Result<Response, HttpError> {
        self.auth.check_api_key(kind, credentials::api_key(request.headers(), request.uri()).as_deref())?;
        let config = Arc::clone(&self.config.borrow());
        check_origin(&config, request)?;
        let handshake = Handshake::read(request)?;
        let token = credentials::token(request.headers(), request.uri());
        let claims = self.auth.authenticate(door?, token.as_deref()).await?;
        let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
        let traced = spans::connect(traceparent);
        let connect = self.connector.connect(claims, id.as_str());
        let admission = if traced.is_none() { connect.await } else { connect.instrument(traced).await }?;
        let serve = move |upgraded, agreement| admission.serve(upgraded, agreement).map(drop);
        Ok(handshake.switch(config.app.websocket_compression_mode, &self.tasks, serve))
    }

    fn note(&self, kind: SessionKind, refusal: &HttpError, id: &RequestId, client: ClientAddress) {
        let (code, message) = (refusal.code().as_str(), refusal.message());
        self.metrics.connections_refused_total.with_label_values(&[kind.as_str(), code]).inc();
        if refusal.is_ours() {
            tracing::warn!(request.id = %id, client.address = %client, session.kind = kind.as_str(), error.code = code, error.message = message, "could not serve a connect");
        } else {
            tracing::info!(request.id = %id, client.address = %client, session.kind = kind.as_str(), error.code = code, error.message = message, "refused a connect");
        }
    }
}

/// A request without `Origin` may come in: no browser sends one, and whoever is no browser could write any.
fn is_allowed(allowed: &[OriginPattern], headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => origin::is_allowed(allowed, origin.to_str().unwrap_or_default()),
        (Some(_), Some(_)) => allowed.is_empty(),
    }
}

/// A foreign origin is told `InvalidToken`, the contract's code for 403: its credentials, whatever they are, open nothing from there.
fn check_origin(config: &Config, request: &Request) -> Result<(), HttpError> {
    if is_allowed(&config.server.allowed_origins, request.headers()) {
        return Ok(());
    }
    let body = ErrorBody::new(ErrorCode::InvalidToken, "connections from this origin are not allowed");
    Err(HttpError::new(body).with_details("server.allowed_origins lists the origins that are"))
}
