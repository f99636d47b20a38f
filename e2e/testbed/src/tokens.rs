//! Tokens, from a pod's token API.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::http;

/// Asks for the token that `body` describes, at `path` of the pod.
///
/// # Errors
/// When it gives none.
pub async fn mint(pod: SocketAddr, path: &str, key: &str, body: &Value) -> Result<String> {
    let headers = [("x-api-key", key), ("content-type", "application/json")];
    let answer = http::ask(pod, "POST", path, &headers, &body.to_string()).await?;
    let answer: Value =
        serde_json::from_str(&answer.body).with_context(|| format!("status {}: {}", answer.status, answer.body))?;
    Ok(answer["token"].as_str().with_context(|| format!("no token in {answer}"))?.to_owned())
}
