//! `publish`: puts one event on the stream.

use std::{
    io::{Read, Write},
    time::Duration,
};

use axum::http::Uri;
use daisi_ws_domain::publication::Publication;

use super::{error::CliError, plain_http};
use crate::{
    adapters::nats,
    config::{Config, Nats},
    dev,
};

/// The longest wait for a dev fleet to take an event.
const DEV_FLEET_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest event that is read from standard input, in bytes: more than a NATS server takes by default.
const MAX_EVENT_BYTES: u64 = 8 * 1024 * 1024;

/// Arguments of `publish`, which stores one event.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Subject, as in wa.acme.agent-1.chats.
    pub subject: String,
    /// The event, a JSON object; from standard input without it or with "-".
    #[arg(value_name = "JSON")]
    pub event: Option<String>,
    /// NATS to publish to; else the configured one.
    #[arg(long, value_name = "URL", conflicts_with = "url")]
    pub nats: Option<String>,
    /// A pod of a dev fleet to publish through, as in http://127.0.0.1:8080.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

/// Where an event is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The stream, through this server.
    Nats(String),
    /// A dev fleet, through one of its pods.
    DevFleet(String),
}

pub(super) async fn run(args: Args, config: &Config, input: impl Read, out: &mut dyn Write) -> Result<(), CliError> {
    let event = event(args.event, input)?;
    let target = target(args.nats, args.url, config);
    let sequence = publish_event(&target, &args.subject, &event, config).await?;
    Ok(writeln!(out, "stored as event {sequence}")?)
}

/// Publishes the event, waits until the stream has it, and returns its sequence there. Log-in and TLS of the stream are the
/// configuration's.
///
/// # Errors
/// When it is no event (a dev fleet says so itself, by its own prefix), or the target can't be reached or does not take it.
pub async fn publish_event(target: &Target, subject: &str, event: &[u8], config: &Config) -> Result<u64, CliError> {
    match target {
        Target::Nats(url) => {
            let nats = Nats { url: url.clone(), ..config.nats.clone() };
            let event = bytes::Bytes::copy_from_slice(event);
            let event = Publication::parse(&nats.subject_prefix, subject, &event).map_err(CliError::failed)?;
            nats::publish(&nats, &event, None).await.map_err(CliError::failed)
        }
        Target::DevFleet(url) => publish_to_dev_fleet(url, subject, event).await,
    }
}

async fn publish_to_dev_fleet(url: &str, subject: &str, event: &[u8]) -> Result<u64, CliError> {
    let url: Uri = format!("{}{}", url.trim_end_matches('/'), dev::publish_path(subject)).parse().map_err(CliError::failed)?;
    let asked = tokio::time::timeout(DEV_FLEET_TIMEOUT, plain_http::ask("POST", &url, event)).await;
    let answer = asked
        .unwrap_or_else(|_| Err(CliError::failed(format!("{url} did not answer in time"))))
        .map_err(|error| CliError::failed(format!("{error}; is a fleet running there? `daisi-ws-service dev` starts one")))?;
    let sequence = serde_json::from_str::<serde_json::Value>(&answer.body).ok().and_then(|body| body["seq"].as_u64());
    match (answer.status, sequence) {
        (200, Some(sequence)) => Ok(sequence),
        (404, _) => Err(CliError::failed(format!("{url}: this is no dev fleet; use --nats for a real one"))),
        (status, _) => Err(CliError::failed(format!("{url} answered {status}: {}", answer.body))),
    }
}

fn target(nats: Option<String>, url: Option<String>, config: &Config) -> Target {
    match (nats, url) {
        (_, Some(url)) => Target::DevFleet(url),
        (Some(nats), None) => Target::Nats(nats),
        (None, None) => Target::Nats(config.nats.url.clone()),
    }
}

/// The event's bytes as they are given: the gateway passes a publisher's bytes on unchanged.
fn event(given: Option<String>, input: impl Read) -> Result<Vec<u8>, CliError> {
    let bytes = match given {
        Some(text) if text != "-" => text.into_bytes(),
        _ => {
            let mut bytes = Vec::new();
            input.take(MAX_EVENT_BYTES).read_to_end(&mut bytes)?;
            bytes
        }
    };
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(CliError::failed(format!("the event is no JSON object: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    #[test]
    fn the_event_comes_from_the_argument_or_from_standard_input() {
        let input = br#"{"from":  "input"}"#;
        assert_eq!(event(Some(r#"{"n": 9007199254740993}"#.into()), &input[..]).unwrap(), br#"{"n": 9007199254740993}"#);
        assert_eq!(event(Some("-".into()), &input[..]).unwrap(), input);
        assert_eq!(event(None, &input[..]).unwrap(), input);
        for bad in ["", "[]", "{", "7"] {
            assert!(event(Some(bad.into()), &input[..]).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_target_is_the_named_one_else_the_configured_stream() {
        let config = testing::config();
        assert_eq!(target(None, None, &config), Target::Nats("nats://nats:4222".into()));
        assert_eq!(target(Some("nats://other:4222".into()), None, &config), Target::Nats("nats://other:4222".into()));
        assert_eq!(target(None, Some("http://127.0.0.1:8080".into()), &config), Target::DevFleet("http://127.0.0.1:8080".into()));
    }
}
