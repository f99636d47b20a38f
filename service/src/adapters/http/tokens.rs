//! The token API: for whoever holds its key, which no browser does.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Bytes, to_bytes},
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::watch, time::timeout};

use super::{
    credentials,
    error::HttpError,
    request_id::{RequestId, client_address},
};
use crate::{
    application::{
        auth::Authenticator,
        mint::{AdminTokenRequest, Minter, UserTokenRequest},
        throttle::{FailedAt, Throttle},
    },
    config::Config,
    domain::session::SessionKind,
};

/// Largest body: ids are at most 128 bytes each, so this leaves room for whatever else a caller sends along.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// Longest time for a body to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What the token API needs.
#[derive(Clone)]
pub(super) struct Mint {
    pub(super) config: watch::Receiver<Arc<Config>>,
    pub(super) auth: Arc<Authenticator>,
    pub(super) minter: Minter,
    pub(super) throttle: Arc<Throttle>,
}

#[derive(Serialize)]
struct Token {
    token: String,
}

pub(super) fn routes(mint: Mint) -> Router {
    Router::new().route("/generate-token", post(user)).route("/admin/generate-token", post(admin)).with_state(mint)
}

async fn user(State(mint): State<Mint>, request: Request) -> Response {
    mint.answer(SessionKind::User, request, |wanted: UserTokenRequest, limit| Ok(mint.minter.user(&wanted, limit)?)).await
}

async fn admin(State(mint): State<Mint>, request: Request) -> Response {
    mint.answer(SessionKind::Admin, request, |wanted: AdminTokenRequest, limit| Ok(mint.minter.admin(&wanted, limit)?)).await
}

impl Mint {
    async fn answer<T: DeserializeOwned>(
        &self,
        kind: SessionKind,
        request: Request,
        make: impl FnOnce(T, Duration) -> Result<String, HttpError>,
    ) -> Response {
        let id = RequestId::of(&request);
        match self.token(kind, request, make).await {
            Ok(token) => {
                tracing::info!(request.id = %id, session.kind = kind.as_str(), "made a token");
                Json(Token { token }).into_response()
            }
            Err(refusal) => {
                let (code, message) = (refusal.code().as_str(), refusal.message());
                tracing::info!(request.id = %id, session.kind = kind.as_str(), error.code = code, error.message = message, "made no token");
                refusal.into_response()
            }
        }
    }

    async fn token<T: DeserializeOwned>(
        &self,
        kind: SessionKind,
        request: Request,
        make: impl FnOnce(T, Duration) -> Result<String, HttpError>,
    ) -> Result<String, HttpError> {
        self.check_key(kind, &request)?;
        let body = body(request).await?;
        let wanted = serde_json::from_slice(&body).map_err(|error| {
            HttpError::bad_request("the body is not the JSON object that this path takes").with_details(error.to_string())
        })?;
        let limit = self.config.borrow().auth.max_token_ttl;
        make(wanted, limit)
    }
}

impl Mint {
    /// This key opens everything by itself, so an address that has guessed too often is not even compared. Who mints is a server: give it an address that nobody else has.
    fn check_key(&self, kind: SessionKind, request: &Request) -> Result<(), HttpError> {
        let client = client_address(request);
        if let Err(too_often) = self.throttle.check_failures(FailedAt::Mint, client) {
            self.throttle.note_slowed(FailedAt::Mint);
            return Err(too_often.into());
        }
        let checked = self.auth.check_mint_key(kind, credentials::header_key(request.headers()).as_deref());
        checked.inspect_err(|_| self.throttle.failed(FailedAt::Mint, client)).map_err(HttpError::from)
    }
}

async fn body(request: Request) -> Result<Bytes, HttpError> {
    match timeout(BODY_TIMEOUT, to_bytes(request.into_body(), MAX_BODY_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(HttpError::bad_request(format!("the body broke off, or is over {MAX_BODY_BYTES} bytes"))),
        Err(_) => Err(HttpError::bad_request("the body did not arrive in time")),
    }
}
