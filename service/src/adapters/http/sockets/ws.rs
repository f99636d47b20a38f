//! The paths of sockets: each check in its order, and only then a session.

use std::sync::Arc;

use axum::{
    Router,
    extract::{Path, Request, State, rejection::PathRejection},
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use daisi_ws_domain::{
    claims::Claims,
    client_address::ClientAddress,
    close::ErrorCode,
    frame::ErrorBody,
    origin::{self, OriginPattern},
    session::SessionKind,
};
use futures_util::FutureExt as _;
use tokio::sync::watch;
use tracing::Instrument as _;

use super::{connecting::Connecting, upgrade::Handshake, wishes};
use crate::{
    adapters::http::{
        credentials,
        error::HttpError,
        listener::places::Place,
        request_id::{RequestId, client_address},
    },
    application::{
        admission::{
            connect::{Admission, ConnectError, Connector, Unavailable, Wishes},
            throttle::{FailedAt, Throttle},
        },
        auth::authenticator::{AuthError, Authenticator, Endpoint},
    },
    config::Config,
    metrics::Metrics,
    runtime::{lifecycle::Tasks, workers::Worker},
    telemetry::{
        Chain,
        audit::{Action, Actor, Audit, Refused, Subject},
        spans,
    },
};

/// Why a request was refused before it cost anything.
enum Denied {
    /// What it showed opens nothing.
    Auth(AuthError),
    Other(HttpError),
}

impl From<AuthError> for Denied {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

impl From<HttpError> for Denied {
    fn from(error: HttpError) -> Self {
        Self::Other(error)
    }
}

/// What the paths of sockets need.
#[derive(Clone)]
pub(crate) struct SocketsState {
    pub(crate) config: watch::Receiver<Arc<Config>>,
    pub(crate) auth: Arc<Authenticator>,
    pub(crate) connector: Arc<Connector>,
    pub(crate) throttle: Arc<Throttle>,
    pub(crate) connecting: Arc<Connecting>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) tasks: Tasks,
}

pub(crate) fn routes(state: SocketsState) -> Router {
    Router::new().route("/ws/admin", get(admin)).route("/ws/{company}/{agent}", get(user)).with_state(state)
}

async fn admin(State(state): State<SocketsState>, request: Request) -> Response {
    state.answer(SessionKind::Admin, Ok(Endpoint::Admin), request).await
}

async fn user(
    State(state): State<SocketsState>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Response {
    let endpoint = match &path {
        Ok(Path((company, agent))) => Ok(Endpoint::User { company, agent }),
        Err(_) => Err(HttpError::bad_request("the path is not valid UTF-8")),
    };
    state.answer(SessionKind::User, endpoint, request).await
}

impl SocketsState {
    async fn answer(&self, kind: SessionKind, endpoint: Result<Endpoint<'_>, HttpError>, mut request: Request) -> Response {
        let (id, client) = (RequestId::of(&request), client_address(&request));
        match self.open(kind, endpoint, &mut request, &id, client).await {
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
        endpoint: Result<Endpoint<'_>, HttpError>,
        request: &mut Request,
        id: &RequestId,
        client: ClientAddress,
    ) -> Result<Response, HttpError> {
        let checked = self.check(kind, endpoint, request).await;
        let (handshake, claims) = checked.map_err(|denied| self.slow_down(denied, client))?;
        let wishes = wishes::read(kind, request.uri())?;
        let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
        let traced = spans::connect(traceparent);
        let charge = self.throttle.connect(&claims, client)?;
        // From here on it waits for us.
        let held = request.extensions().get::<Arc<Place>>().map(Place::hold);
        let connect = self.connect(claims, wishes, id, handshake.worker());
        let outcome = if traced.is_none() { connect.await } else { connect.instrument(traced).await };
        drop(held);
        if outcome.as_ref().is_err_and(ConnectError::is_ours) {
            self.throttle.give_back(&charge);
        }
        let admission = outcome?;
        record(&admission, id, client);
        let serve = move |upgraded, agreement| admission.serve(upgraded, agreement).map(drop);
        let mode = self.connector.compression_mode(&self.config.borrow());
        Ok(handshake.upgrade(mode, &self.tasks, serve))
    }

    /// All that can be known of a request without asking a store.
    async fn check(
        &self,
        kind: SessionKind,
        endpoint: Result<Endpoint<'_>, HttpError>,
        request: &mut Request,
    ) -> Result<(Handshake, Claims), Denied> {
        self.auth.check_api_key(kind, credentials::api_key(request.headers(), request.uri()).as_deref())?;
        let config = Arc::clone(&self.config.borrow());
        check_origin(&config, request)?;
        let handshake = Handshake::read(request)?;
        let token = credentials::token(request.headers(), request.uri());
        Ok((handshake, self.auth.authenticate(endpoint?, token.as_deref()).await?))
    }

    /// What an address is told that has guessed too often: nothing, whatever it was that it sent. So nobody learns whether a key
    /// is right who has not all that opens a session, and anyone who has is let in, though a neighbour behind the same address
    /// guesses.
    fn slow_down(&self, denied: Denied, client: ClientAddress) -> HttpError {
        let slowed = self.throttle.check_failures(FailedAt::Connect, client);
        let refusal = match denied {
            Denied::Auth(error) => {
                if error.is_a_guess() {
                    self.throttle.failed(FailedAt::Connect, client);
                }
                error.into()
            }
            Denied::Other(refusal) => refusal,
        };
        slowed.map_or_else(
            |too_often| {
                self.throttle.note_slowed(FailedAt::Connect);
                too_often.into()
            },
            |()| refusal,
        )
    }

    async fn connect(
        &self,
        claims: Claims,
        wishes: Wishes,
        id: &RequestId,
        worker: &Arc<Worker>,
    ) -> Result<Admission, ConnectError> {
        let turn = self.connecting.turn().await?;
        let outcome = self.connector.connect(claims, wishes, id.as_str(), worker).await;
        turn.end(&outcome);
        outcome
    }

    fn note(&self, kind: SessionKind, refusal: &HttpError, id: &RequestId, client: ClientAddress) {
        let (code, message) = (refusal.code().as_str(), refusal.message());
        self.metrics.connections_refused_total.with_label_values(&[kind.as_str(), code]).inc();
        if refusal.is_ours() {
            let why = refusal.unavailable();
            tracing::warn!(
                request.id = %id, client.address = %client, session.kind = kind.as_str(), error.code = code,
                error.message = message,
                error.kind = why.map(Unavailable::as_str), error.cause = why.map(|why| tracing::field::display(Chain(why))),
                error.advice = why.map(Unavailable::advice),
                "could not serve a connect"
            );
        } else if matches!(refusal.code(), ErrorCode::InvalidAPIKey | ErrorCode::InvalidToken) {
            let refused = Some(Refused { code, message });
            Audit { refused, ..Audit::of(connect_action(kind), actor(id, &client)) }.log("refused a connect");
        } else {
            tracing::info!(
                request.id = %id, client.address = %client, session.kind = kind.as_str(), error.code = code,
                error.message = message,
                "refused a connect"
            );
        }
    }
}

fn connect_action(kind: SessionKind) -> Action {
    match kind {
        SessionKind::User => Action::ConnectUser,
        SessionKind::Admin => Action::ConnectAdmin,
    }
}

fn actor<'a>(id: &'a RequestId, client: &'a ClientAddress) -> Actor<'a> {
    Actor { address: Some(client), request: Some(id.as_str()), key: None }
}

/// Writes down that an administrator has come in, or that somebody has lost the session.
fn record(admission: &Admission, id: &RequestId, client: ClientAddress) {
    let session = admission.session();
    let subject = match session.claims() {
        Claims::User(user) => Subject {
            company: Some(user.company.as_str()),
            agent: Some(user.agent.as_str()),
            user: Some(user.user.as_str()),
            admin: None,
        },
        Claims::Admin(admin) => Subject { admin: Some(admin.admin.as_str()), ..Subject::default() },
    };
    let connection = session.connection();
    let audit = |action| Audit { subject, connection: Some(&connection), ..Audit::of(action, actor(id, &client)) };
    if session.kind() == SessionKind::Admin {
        audit(Action::ConnectAdmin).log("an administrator has a session");
    }
    if admission.took_over() {
        audit(Action::TakeOver).log("a session was taken over");
    }
}

/// A request without `Origin` may come in: no browser sends one, and anyone who is no browser could write any.
fn is_allowed(allowed: &[OriginPattern], headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    match (origins.next(), origins.next()) {
        (None, _) => true,
        (Some(origin), None) => origin::is_allowed(allowed, origin.to_str().unwrap_or_default()),
        // Refused before, and no answer to which of them counts.
        (Some(_), Some(_)) => false,
    }
}

/// A foreign origin is told `InvalidToken`, the one code for 403: its credentials, whatever they are, open nothing from there.
fn check_origin(config: &Config, request: &Request) -> Result<(), HttpError> {
    if is_allowed(&config.server.allowed_origins, request.headers()) {
        return Ok(());
    }
    let body = ErrorBody::new(ErrorCode::InvalidToken, "connections from this origin are not allowed");
    Err(HttpError::new(body).with_details("server.allowed_origins lists the origins that are"))
}
