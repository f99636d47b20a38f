use std::time::Duration;

use super::*;
use crate::config::{TokenCacheKind, testing};

fn sources(file: Option<&str>, variables: &[(&str, &str)]) -> (Sources, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let named = file.map(|text| {
        let path = directory.path().join("gateway.yaml");
        std::fs::write(&path, text).unwrap();
        path
    });
    (Sources::with_default_file(named, testing::environment(variables), Path::new("/no/such/file")), directory)
}

fn problems(file: Option<&str>, variables: &[(&str, &str)]) -> Vec<String> {
    let (sources, directory) = sources(file, variables);
    let shown = directory.path().display().to_string();
    let error = sources.load(Secrets::Required).unwrap_err();
    error.problems.iter().map(|problem| problem.to_string().replace(&shown, "")).collect()
}

#[test]
fn the_defaults_with_secrets_are_a_valid_configuration() {
    let (sources, _directory) = sources(None, testing::SECRETS);
    let config = sources.load(Secrets::Required).unwrap();
    assert_eq!(config.server.http_port, 8080);
    assert_eq!(config.app.pod_ttl, Duration::from_secs(5));
}

#[test]
fn an_origin_that_could_never_match_is_named_with_its_reason() {
    let file = "server: {allowed_origins: ['https://desk.example.com', '*.example.com', '*']}";
    let (good, _directory) = sources(Some(file), testing::SECRETS);
    assert_eq!(good.load(Secrets::Required).unwrap().server.allowed_origins.len(), 3);
    let told = problems(Some("server: {allowed_origins: ['https://desk.example.com/']}"), testing::SECRETS);
    assert_eq!(told.len(), 1);
    assert!(told[0].starts_with("server.allowed_origins can't be read: \"https://desk.example.com/\" is no origin"), "{told:?}");
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_the_defaults() {
    let mut variables = testing::SECRETS.to_vec();
    variables.push(("DAISI_WS_SERVER_HTTP_PORT", "9001"));
    variables.push(("DAISI_WS_ADAPTIVE_TTL_MESSAGE_ROUTE_MIN_TTL_SECONDS", "120"));
    let file = "server: {http_port: 9000, grpc_port: 9100}\nauth:\n  token_cache: memory\napp:\n";
    let (sources, _directory) = sources(Some(file), &variables);
    let config = sources.load(Secrets::Required).unwrap();
    assert_eq!((config.server.http_port, config.server.grpc_port), (9001, 9100));
    assert_eq!(config.adaptive_ttl.message_route.min_ttl, Duration::from_secs(120));
    assert_eq!(config.adaptive_ttl.message_route.max_ttl, Duration::from_secs(900));
    assert_eq!(config.auth.token_cache, TokenCacheKind::Memory);
}

#[test]
fn everything_that_is_wrong_is_listed_at_once() {
    let mut variables = testing::SECRETS.to_vec();
    variables.retain(|(name, _)| *name != "DAISI_WS_AUTH_SECRET_TOKEN");
    variables.push(("DAISI_WS_APP_PING_INTERVAL_SECONDS", "ten"));
    variables.push(("DAISI_WS_SERVER_HTTP_PORT", "70000"));
    variables.push(("DAISI_WS_SERVER_BIND_ADDRESS", "localhost"));
    let file =
        "app: {max_connections: 0, websocket_backpressure_drop_policy: newest, bogus: 1}\nserver: {pod_id: 7}\nextra: {}\n";
    assert_eq!(
        problems(Some(file), &variables),
        [
            "app.bogus is no key (set by file /gateway.yaml)",
            "app.max_connections must be at least 1 (set by file /gateway.yaml)",
            "app.ping_interval_seconds must be a whole number, 0 or more (set by environment variable \
             DAISI_WS_APP_PING_INTERVAL_SECONDS)",
            "app.websocket_backpressure_drop_policy must be one of drop_oldest, block (set by file /gateway.yaml)",
            "auth.secret_token is missing: set it with DAISI_WS_AUTH_SECRET_TOKEN",
            "extra is no section (set by file /gateway.yaml)",
            "server.bind_address can't be read: invalid IP address syntax \
             (set by environment variable DAISI_WS_SERVER_BIND_ADDRESS)",
            "server.http_port is out of range: it must fit in u16 (set by environment variable DAISI_WS_SERVER_HTTP_PORT)",
            "server.pod_id must be a text (in YAML, put quotes around one that looks like a number) (set by file /gateway.yaml)",
        ]
    );
}

#[test]
fn values_of_the_wrong_kind_in_a_file_are_named() {
    for (file, expected) in [
        ("app: 5", "app is a section"),
        ("app: {ping_interval_seconds: {a: 1}}", "app.ping_interval_seconds must be a whole number, 0 or more"),
        ("app: {ping_interval_seconds: -5}", "app.ping_interval_seconds must be a whole number, 0 or more"),
        ("app: {ping_interval_seconds: null}", "app.ping_interval_seconds must be a whole number, 0 or more"),
        ("app: {close_on_token_expiry: 'yes'}", "app.close_on_token_expiry must be true or false"),
        (
            "server: {allowed_origins: [1]}",
            "server.allowed_origins must be a list of texts (in the environment, separated by commas)",
        ),
        ("nats: {ca_file: 4}", "nats.ca_file must be a path or null"),
    ] {
        assert_eq!(problems(Some(file), testing::SECRETS), [format!("{expected} (set by file /gateway.yaml)")]);
    }
}

#[test]
fn a_file_that_is_named_must_be_there_and_be_yaml() {
    let error = Sources::new(Some("/no/such/gateway.yaml".into()), []).load(Secrets::Only(&[])).unwrap_err();
    assert!(error.to_string().contains("/no/such/gateway.yaml can't be read"), "{error}");
    assert!(problems(Some("app: ["), testing::SECRETS)[0].starts_with("/gateway.yaml is no valid YAML: "));
    assert_eq!(problems(Some("just text"), testing::SECRETS), ["/gateway.yaml must be a map of sections"]);
    let (empty, _directory) = sources(Some("# nothing yet\n"), testing::SECRETS);
    assert!(empty.load(Secrets::Required).is_ok());
}

#[test]
fn the_file_is_the_named_one_else_the_variables_else_the_usual_one_if_it_exists() {
    let directory = tempfile::tempdir().unwrap();
    let usual = directory.path().join("config.yaml");
    let variable = testing::environment(&[("DAISI_WS_CONFIG", "/from/variable.yaml")]);
    let file = |named: Option<&str>, environment: Vec<(OsString, OsString)>| {
        Sources::with_default_file(named.map(PathBuf::from), environment, &usual).file
    };
    assert_eq!(file(None, Vec::new()), None);
    std::fs::write(&usual, "").unwrap();
    assert_eq!(file(None, Vec::new()), Some(usual.clone()));
    assert_eq!(file(None, testing::environment(&[("DAISI_WS_CONFIG", "")])), Some(usual.clone()));
    assert_eq!(file(None, variable.clone()), Some("/from/variable.yaml".into()));
    assert_eq!(file(Some("/named.yaml"), variable), Some("/named.yaml".into()));
}

#[test]
fn a_command_may_need_few_secrets_or_make_them() {
    let (bare, _directory) = sources(None, &[]);
    assert!(bare.load(Secrets::Only(&[])).is_ok());
    assert_eq!(bare.load(Secrets::Only(&["auth.token_aes_key"])).unwrap_err().problems.len(), 1);
    assert_eq!(bare.load(Secrets::Required).unwrap_err().problems.len(), 4);
    let made = bare.load(Secrets::Made).unwrap();
    assert_ne!(made.auth.secret_token, made.auth.token_generation_admin_key);
}

#[test]
fn no_secret_is_in_an_error_or_in_debug() {
    let variables: Vec<(&str, &str)> = vec![
        ("DAISI_WS_AUTH_SECRET_TOKEN", "hush hush"),
        ("DAISI_WS_AUTH_TOKEN_AES_KEY", "hushhush"),
        ("DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY", "hushhush"),
        ("DAISI_WS_AUTH_TOKEN_GENERATION_ADMIN_KEY", "changeme-hushhush"),
        ("DAISI_WS_AUTH_SECRET", "hushhush"),
        ("DAISI_WS_NATS_URL", "http://joe:hushhush@nats"),
        ("DAISI_WS_REDIS_ADDRESS", "redis://:hushhush@redis"),
        ("DAISI_WS_REDIS_PASSWORD", "hush hush"),
        ("DAISI_WS_TELEMETRY_OTLP_ENDPOINT", "ftp://joe:hushhush@collector"),
    ];
    let file = "auth: {secret_token: [hushhush], token_aes_key: {hush: hush}}\n\
                redis: {password: 12}\nnats: {token: hushhush, user: a}\n";
    let (sources, _directory) = sources(Some(file), &variables);
    let error = sources.load(Secrets::Required).unwrap_err();
    assert!(error.problems.len() >= 8, "{error}");
    let shown = format!("{error} {error:?} {sources:?}");
    assert!(!shown.contains("hush"), "{shown}");
}
