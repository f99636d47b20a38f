//! What the console page asks: how the fleet is, and that something be broken or mended. For pages and scripts on this machine
//! alone.
//!
//! - `GET /dev/status?after=SEQ`: pods, backends, and who took the events after `SEQ`
//! - `POST /dev/pods/{id}/{start | drain | kill | freeze | thaw}`
//! - `POST /dev/store/{down | up | flush}`, `POST /dev/stream/{down | up}`: backends in memory only
//! - `POST /dev/tokens/{user | admin}`: the body is that of the token API

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, Query, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use daisi_ws_domain::{close::ErrorCode, frame::ErrorBody};
use serde::Deserialize;
use serde_json::json;

use super::{console, publish, running::Fleet, status};
use crate::{
    gateway::{StoreChoice, StreamChoice},
    telemetry::audit::{Action, Actor, Audit},
};

/// Everything that a dev pod serves beside what every pod does.
pub(super) fn routes(fleet: &Arc<Fleet>) -> Router {
    let control = Router::new()
        .route("/dev/status", get(status))
        .route("/dev/pods/{id}/{action}", post(change_pod))
        .route("/dev/store/{action}", post(change_store))
        .route("/dev/stream/{action}", post(change_stream))
        .route("/dev/tokens/{kind}", post(make_token))
        .with_state(Arc::clone(fleet))
        .merge(publish::routes(fleet.sink.clone()));
    let guarded = control.layer(middleware::from_fn_with_state(Arc::clone(fleet), only_our_pages));
    guarded.merge(console::routes())
}

/// Any page that a developer has open can reach loopback. So only the console's own pages get in, from whichever pod they came:
/// by their origin (or none: no browser), and under a name of loopback, which a foreign name that resolves to it is not.
async fn only_our_pages(State(fleet): State<Arc<Fleet>>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let host = text(header::HOST).unwrap_or_default();
    let origin = headers.get(header::ORIGIN).cloned();
    let ours = |origin: &HeaderValue| {
        let name = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        name.is_some_and(|name| fleet.slots.iter().any(|slot| is_at(name, slot.http.address())))
    };
    let is_local = host.rsplit_once(':').is_some_and(|(name, _)| name == "127.0.0.1" || name == "localhost");
    if !is_local || !origin.as_ref().is_none_or(ours) {
        let body = ErrorBody::new(ErrorCode::InvalidToken, "this is for the fleet's own console, on this machine");
        return (StatusCode::FORBIDDEN, Json(body)).into_response();
    }
    let mut response = next.run(request).await;
    if let Some(origin) = origin {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("Origin"));
    }
    response
}

fn is_at(name: &str, address: SocketAddr) -> bool {
    name == address.to_string() || name == format!("localhost:{}", address.port())
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn status(State(fleet): State<Arc<Fleet>>, Query(After { after }): Query<After>) -> Response {
    Json(status::of(&fleet, after)).into_response()
}

async fn change_pod(State(fleet): State<Arc<Fleet>>, Path((id, action)): Path<(String, String)>) -> Response {
    let Some(slot) = fleet.slots.iter().find(|slot| slot.id.as_str() == id) else {
        return refuse(StatusCode::NOT_FOUND, format!("there is no pod {id}"));
    };
    let changed = match action.as_str() {
        "start" => Box::pin(slot.start(routes(&fleet))).await,
        "drain" => slot.drain(),
        "kill" => slot.kill(),
        "freeze" => slot.freeze(true),
        "thaw" => slot.freeze(false),
        _ => return refuse(StatusCode::NOT_FOUND, "a pod takes start, drain, kill, freeze and thaw".into()),
    };
    match changed {
        Ok(()) => done(slot.tenant().phase),
        Err(why) => refuse(StatusCode::CONFLICT, why.to_string()),
    }
}

const REAL: &str = "this fleet is on a real server: stop that one instead";

async fn change_store(State(fleet): State<Arc<Fleet>>, Path(action): Path<String>) -> Response {
    let StoreChoice::Memory(store) = &fleet.store else { return refuse(StatusCode::CONFLICT, REAL.into()) };
    match action.as_str() {
        "down" => store.set_down(true),
        "up" => store.set_down(false),
        "flush" => store.flush(),
        _ => return refuse(StatusCode::NOT_FOUND, "the store takes down, up and flush".into()),
    }
    done(action)
}

async fn change_stream(State(fleet): State<Arc<Fleet>>, Path(action): Path<String>) -> Response {
    let StreamChoice::Memory(stream) = &fleet.stream else { return refuse(StatusCode::CONFLICT, REAL.into()) };
    match action.as_str() {
        "down" => stream.set_down(true),
        "up" => stream.set_down(false),
        _ => return refuse(StatusCode::NOT_FOUND, "the stream takes down and up".into()),
    }
    done(action)
}

async fn make_token(State(fleet): State<Arc<Fleet>>, Path(kind): Path<String>, body: Bytes) -> Response {
    // Not axum's Json: a page of another pod may only send plain text without asking first.
    fn read<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
        serde_json::from_slice(body).map_err(|error| error.to_string())
    }
    let limit = fleet.max_token_ttl;
    let made = match kind.as_str() {
        "user" => read(&body).and_then(|asked| fleet.minter.user(&asked, limit).map_err(|error| error.to_string())),
        "admin" => read(&body).and_then(|asked| fleet.minter.admin(&asked, limit).map_err(|error| error.to_string())),
        _ => return refuse(StatusCode::NOT_FOUND, "tokens are for a user or an admin".into()),
    };
    match made {
        Ok(token) => {
            let what = Some("by the console of a dev fleet");
            Audit { what, ..Audit::of(Action::MakeToken, Actor::default()) }.log("made a token");
            Json(json!({ "token": token })).into_response()
        }
        Err(why) => refuse(StatusCode::BAD_REQUEST, why),
    }
}

fn done(state: impl serde::Serialize) -> Response {
    Json(json!({ "state": state })).into_response()
}

fn refuse(status: StatusCode, why: String) -> Response {
    (status, Json(ErrorBody::new(ErrorCode::BadRequest, why))).into_response()
}
