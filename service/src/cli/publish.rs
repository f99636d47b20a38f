//! `publish`: puts one event on the stream.

use std::io::Read;

use super::CliError;
use crate::config::Config;

/// The longest event that is read from standard input, in bytes: more than a NATS server takes by default.
const MAX_EVENT_BYTES: u64 = 8 * 1024 * 1024;

/// Arguments of `publish`.
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

pub(super) async fn run(args: Args, config: &Config, input: impl Read) -> Result<(), CliError> {
    let event = event(args.event, input)?;
    let target = target(args.nats, args.url, config);
    publish_event(&target, &args.subject, &event, config).await
}

/// Publishes the event and waits until the stream has it. Log-in and TLS of the stream are the configuration's.
///
/// # Errors
/// When the target can't be reached or does not take the event.
pub async fn publish_event(_target: &Target, _subject: &str, _event: &[u8], _config: &Config) -> Result<(), CliError> {
    Err(CliError::failed("publish is not wired yet"))
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
