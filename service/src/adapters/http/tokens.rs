//! The token API: for anyone who holds its key, which no browser does.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::{Bytes, to_bytes},
    extract::{Request, State},
    response::{IntoResponse as _, Response},
    routing::post,
};
use daisi_ws_domain::{close::ErrorCode, session::SessionKind};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::watch, time::timeout};

use super::{
    credentials,
    error::HttpError,
    request_id::{RequestId, client_address},
};
use crate::{
    application::{
        admission::throttle::{FailedAt, Throttle},
        auth::{
            authenticator::Authenticator,
            mint::{AdminTokenRequest, Minter, UserTokenRequest},
        },
    },
    config::Config,
    telemetry::audit::{Action, Actor, Audit, Refused, Subject, TokenFacts},
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
    mint.answer(SessionKind::User, request, |wanted: &UserTokenRequest, limit| Ok(mint.minter.user(wanted, limit)?)).await
}

async fn admin(State(mint): State<Mint>, request: Request) -> Response {
    mint.answer(SessionKind::Admin, request, |wanted: &AdminTokenRequest, limit| Ok(mint.minter.admin(wanted, limit)?)).await
}

/// The longest id that is logged; a longer one is none.
const MAX_ID_BYTES: usize = 128;

/// What is asked for, as the audit line has it.
trait Wanted {
    fn subject(&self) -> Subject<'_>;
    fn life_seconds(&self) -> i64;
}

fn id(text: &str) -> Option<&str> {
    (!text.is_empty() && text.len() <= MAX_ID_BYTES).then_some(text)
}

impl Wanted for UserTokenRequest {
    fn subject(&self) -> Subject<'_> {
        Subject { company: id(&self.company_id), agent: id(&self.agent_id), user: id(&self.user_id), admin: None }
    }

    fn life_seconds(&self) -> i64 {
        self.expires_in_seconds
    }
}

/// With the company and agent that it is to see.
impl Wanted for AdminTokenRequest {
    fn subject(&self) -> Subject<'_> {
        let company = self.company_id_restriction.as_deref().or(self.subscribed_company_id.as_deref()).and_then(id);
        Subject { company, agent: self.subscribed_agent_id.as_deref().and_then(id), user: None, admin: id(&self.admin_id) }
    }

    fn life_seconds(&self) -> i64 {
        self.expires_in_seconds
    }
}

impl Mint {
    async fn answer<T: DeserializeOwned + Wanted>(
        &self,
        kind: SessionKind,
        request: Request,
        make: impl FnOnce(&T, Duration) -> Result<String, HttpError>,
    ) -> Response {
        let (id, client) = (RequestId::of(&request), client_address(&request));
        let mut wanted = None;
        let made = self.token(kind, request, &mut wanted, make).await;
        let key = self.auth.mint_key_fingerprint();
        let is_known =
            !matches!(&made, Err(refusal) if matches!(refusal.code(), ErrorCode::InvalidAPIKey | ErrorCode::RateLimitExceeded));
        let actor = Actor { address: Some(&client), request: Some(id.as_str()), key: key.as_deref().filter(|_| is_known) };
        let audit = Audit {
            subject: wanted.as_ref().map(Wanted::subject).unwrap_or_default(),
            token: TokenFacts { id: None, life_seconds: wanted.as_ref().map(Wanted::life_seconds) },
            ..Audit::of(Action::MakeToken, actor)
        };
        match made {
            Ok(token) => {
                audit.log("made a token");
                Json(Token { token }).into_response()
            }
            Err(refusal) => {
                let refused = Refused { code: refusal.code().as_str(), message: refusal.message() };
                Audit { refused: Some(refused), ..audit }.log("made no token");
                refusal.into_response()
            }
        }
    }

    /// `wanted` has what was asked for, as soon as it is known.
    async fn token<T: DeserializeOwned>(
        &self,
        kind: SessionKind,
        request: Request,
        wanted: &mut Option<T>,
        make: impl FnOnce(&T, Duration) -> Result<String, HttpError>,
    ) -> Result<String, HttpError> {
        self.check_key(kind, &request)?;
        let body = body(request).await?;
        let asked = serde_json::from_slice(&body).map_err(|error| {
            HttpError::bad_request("the body is not the JSON object that this path takes").with_details(error.to_string())
        })?;
        let limit = self.config.borrow().auth.max_token_ttl;
        make(wanted.insert(asked), limit)
    }
}

impl Mint {
    /// This key opens everything by itself, so an address that has guessed too often is not even compared. Who mints is a server:
    /// give it an address that nobody else has.
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
