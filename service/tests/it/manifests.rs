//! The manifests of `k8s/` against the code: environment, configuration, metrics, ports, paths, time to drain. What only shows in
//! a build (every overlay, every combination of components) is checked by `.ci/k8s`.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use daisi_ws_domain::ids::PodId;
use daisi_ws_service::{
    config::{Config, Secrets, Server, Sources, Yaml, advertise_address},
    metrics::SPECS,
};
use figment::{Figment, providers::Format as _};
use serde_json::Value;

/// What has to be left of the grace period after preStop and drain, to close servers and flush telemetry.
const MARGIN: Duration = Duration::from_secs(10);
/// How long the stream keeps events at least, at the load that it is sized for.
const WINDOW: Duration = Duration::from_secs(3600);
/// Bytes of an event in the stream; `docs/operations.md` has the sum.
const STORED_EVENT: u64 = 1024;

/// Every file below `k8s/` with one of these extensions.
fn files(extensions: &[&str]) -> Vec<(PathBuf, String)> {
    fn walk(folder: &Path, extensions: &[&str], found: &mut Vec<(PathBuf, String)>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, extensions, found);
            } else if path.extension().is_some_and(|e| extensions.iter().any(|wanted| e == *wanted)) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path, text));
            }
        }
    }
    let mut found = Vec::new();
    walk(&root(), extensions, &mut found);
    assert!(!found.is_empty());
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../k8s")
}

fn manifest(path: &str) -> Value {
    Figment::from(Yaml::file(root().join(path))).extract().unwrap()
}

/// The words in a text that start so and go on with letters of `more`, with what stands before and after each.
fn words<'a>(text: &'a str, start: &str, more: fn(char) -> bool) -> Vec<(Option<char>, &'a str, Option<char>)> {
    let found = text.match_indices(start).map(|(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c| !more(c)).unwrap_or(rest.len());
        (text[..at].chars().next_back(), &rest[..end], rest[end..].chars().next())
    });
    found.collect()
}

/// Good secrets, each in its own variable.
fn secrets() -> Vec<(String, String)> {
    let named = |key: &str, value: String| (format!("DAISI_WS_AUTH_{key}"), value);
    vec![
        named("SECRET_TOKEN", "browser-key-0123456789".into()),
        named("TOKEN_GENERATION_ADMIN_KEY", "minting-key-0123456789".into()),
        named("TOKEN_AES_KEY", "0f".repeat(32)),
        named("ADMIN_TOKEN_AES_KEY", "f0".repeat(32)),
    ]
}

fn load(file: Option<PathBuf>, more: &[(&str, &str)]) -> Result<Config, String> {
    let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let environment = secrets().into_iter().filter(|(name, _)| more.clone().all(|(other, _)| !other.starts_with(name)));
    let environment: Vec<(OsString, OsString)> =
        environment.chain(more.clone()).map(|(name, value)| (name.into(), value.into())).collect();
    Sources::new(file, environment).load(Secrets::Required).map_err(|error| format!("{error:?}"))
}

/// The configuration files, one an overlay.
fn configurations() -> Vec<PathBuf> {
    let found = files(&["yaml"]).into_iter().map(|(path, _)| path);
    let found: Vec<_> = found.filter(|path| path.file_name().is_some_and(|name| name == "config.yaml")).collect();
    assert!(found.len() >= 2, "{found:?}");
    found
}

/// Is the variable one that the gateway reads?
fn is_read(name: &str) -> bool {
    // A value that no number, switch or file takes: for a key the error names the variable, for what is none it says so, or
    // nothing at all.
    let probe = if name.ends_with("_FILE") { "/no/such/file" } else { "\u{7f} no value" };
    let refused = load(None, &[(name, probe)]).is_err_and(|error| error.contains(name) && !error.contains("is no key"));
    // Texts that take anything are known by being taken.
    refused || load(None, &[(name, "text")]).is_ok_and(|config| format!("{config:?}").contains("\"text\""))
}

#[test]
fn every_variable_in_the_manifests_is_one_that_the_gateway_reads() {
    let found: BTreeSet<String> = files(&["yaml", "sh", "md"])
        .iter()
        .flat_map(|(_, text)| words(text, "DAISI_WS_", |c| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit()))
        .map(|(_, name, _)| name.to_owned())
        // Templates in prose, and what Kubernetes would make for the Service of this name.
        .filter(|name| !name.ends_with('_') && !name.starts_with("DAISI_WS_SERVICE_"))
        .filter(|name| name != "DAISI_WS_CONFIG")
        .collect();
    assert!(found.len() > 8, "{found:?}");
    let unknown: Vec<_> = found.iter().filter(|name| !is_read(name)).collect();
    assert!(unknown.is_empty(), "no key of the gateway: {unknown:?}");
    for wrong in ["DAISI_WS_APP_PING_INTERVAL", "DAISI_WS_NO_SUCH_SECTION", "DAISI_WS_SERVER_POD_ID_FILE"] {
        assert!(!is_read(wrong), "the check would miss {wrong}");
    }
}

#[test]
fn every_configuration_in_the_manifests_is_valid() {
    for path in configurations() {
        load(Some(path.clone()), &[]).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

#[test]
fn the_grace_period_fits_pre_stop_and_drain() {
    let deployment = manifest("base/deployment.yaml");
    let pod = &deployment["spec"]["template"]["spec"];
    let seconds = |value: &Value| Duration::from_secs(value.as_u64().unwrap());
    let grace = seconds(&pod["terminationGracePeriodSeconds"]);
    let pre_stop = seconds(&pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]);
    for path in configurations() {
        let drain = load(Some(path.clone()), &[]).unwrap().app.shutdown_timeout;
        assert!(grace >= pre_stop + drain + MARGIN, "{}: {grace:?} for {pre_stop:?} + {drain:?} + {MARGIN:?}", path.display());
    }
    let stray = files(&["yaml"]).into_iter().filter(|(path, text)| {
        text.contains("terminationGracePeriodSeconds")
            && text.contains("name: daisi-ws-service")
            && !path.ends_with("base/deployment.yaml")
    });
    assert_eq!(stray.map(|(path, _)| path).collect::<Vec<_>>(), [] as [PathBuf; 0], "only the base may set it");
}

#[test]
fn the_stream_keeps_an_hour_of_what_it_is_sized_for() {
    let patch = manifest("components/nats-cluster/gateway.yaml");
    let environment = patch["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap().iter();
    let name = "DAISI_WS_NATS_STREAM_MAX_BYTES";
    let bytes = environment.clone().find(|v| v["name"] == name).unwrap()["value"].as_str().unwrap().to_owned();
    for (more, events_per_second) in [(&[][..], 250), (&[(name, bytes.as_str())], 4500)] {
        let nats = load(None, more).unwrap().nats;
        assert!(nats.stream_max_age >= WINDOW);
        let wanted = events_per_second * STORED_EVENT * WINDOW.as_secs();
        assert!(nats.stream_max_bytes >= wanted, "{} of {wanted} bytes", nats.stream_max_bytes);
    }
    let servers = fs::read_to_string(root().join("components/nats-cluster/nats.conf")).unwrap();
    let (_, store) = servers.split_once("max_file_store: ").unwrap();
    let gigabytes: u64 = store.split_once('G').unwrap().0.parse().unwrap();
    assert!(bytes.parse::<u64>().unwrap() < gigabytes * 1_000_000_000, "the servers would refuse the stream");
}

#[test]
fn ports_are_those_that_the_gateway_listens_on() {
    let server = load(Some(root().join("base/config.yaml")), &[]).unwrap().server;
    let (http, grpc, probe) = (u64::from(server.http_port), u64::from(server.grpc_port), u64::from(server.probe_port));
    let deployment = manifest("base/deployment.yaml");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    let ports = container["ports"].as_array().unwrap().iter();
    let ports: Vec<_> = ports.map(|p| (p["name"].as_str().unwrap(), p["containerPort"].as_u64().unwrap())).collect();
    assert_eq!(ports, [("http", http), ("grpc", grpc), ("probe", probe)]);
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "probe", "{probe}: clients must not be able to hold it up");
    }
    let service = manifest("base/service.yaml");
    let ports = service["spec"]["ports"].as_array().unwrap().iter();
    let ports: Vec<_> =
        ports.map(|p| (p["name"].as_str().unwrap(), p["port"].as_u64().unwrap(), p["targetPort"].as_u64().unwrap())).collect();
    assert_eq!(ports, [("http", http, http), ("grpc", grpc, grpc), ("probe", probe, probe)]);
    let monitor = manifest("components/monitoring/servicemonitor.yaml");
    assert_eq!(monitor["spec"]["endpoints"][0]["port"], "probe");
    let policy = manifest("components/monitoring/networkpolicy.yaml");
    assert_eq!(policy["spec"]["ingress"][0]["ports"][0]["port"], "probe");
    let advertised = container["env"].as_array().unwrap().iter();
    let value = |name: &str| advertised.clone().find(|v| v["name"] == name).unwrap()["value"].as_str().unwrap().to_owned();
    // With no port and no bracket around it, either would be wrong in one of the two families.
    let advertised = value("DAISI_WS_SERVER_GRPC_ADVERTISE_ADDRESS");
    for (ip, dialled) in [("10.9.8.7", format!("10.9.8.7:{grpc}")), ("fd00::7", format!("[fd00::7]:{grpc}"))] {
        let server = Server { grpc_advertise_address: advertised.replace("$(POD_IP)", ip), ..server.clone() };
        let pod = PodId::parse("a-pod").unwrap();
        assert_eq!(advertise_address(&server, &pod, server.grpc_port, || unreachable!()), dialled);
    }
    let bound: std::net::IpAddr = value("DAISI_WS_SERVER_BIND_ADDRESS").parse().unwrap();
    assert!(bound.is_ipv6() && bound.is_unspecified(), "IPv4 and IPv6 clusters have to reach it: {bound}");
}

#[test]
fn every_metric_in_the_manifests_exists() {
    let mut found = BTreeSet::new();
    for (path, text) in files(&["yaml", "md"]) {
        for (before, name, after) in words(&text, "dws_", |c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit()) {
            // Names with colons are recorded by rules; the package of the protocol is no metric.
            if before == Some(':') || after == Some(':') || name.starts_with("dws_message_fwd") || name.ends_with('_') {
                continue;
            }
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
            let known = |name: &str| SPECS.iter().any(|spec| spec.name == name);
            assert!(known(name) || known(base), "{}: {name} is no metric", path.display());
            found.insert(name.to_owned());
        }
    }
    assert!(found.contains("dws_active_connections"), "the autoscalers go by it: {found:?}");
}

#[test]
fn browsers_reach_sockets_and_nothing_else() {
    for path in ["components/ingress/ingress.yaml", "overlays/production/ingress.yaml"] {
        let ingress = manifest(path);
        assert!(ingress["spec"].get("defaultBackend").is_none());
        for rule in ingress["spec"]["rules"].as_array().unwrap() {
            let paths: Vec<_> = rule["http"]["paths"].as_array().unwrap().iter().map(|p| (&p["path"], &p["pathType"])).collect();
            assert_eq!(paths, [(&Value::from("/ws/"), &Value::from("Prefix"))], "{path}");
        }
    }
    // Every route that the gateway has is either a socket's, or must not start like one: but for the one that tells browsers, which
    // can't see why they were refused, how long to stay away.
    let http = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/adapters/http");
    let mut routes = BTreeSet::new();
    for file in ["ops.rs", "tokens.rs", "sockets/ws.rs"] {
        let text = fs::read_to_string(http.join(file)).unwrap();
        for part in text.split(".route(\"").skip(1) {
            let route = part.split('"').next().unwrap();
            let for_browsers = file == "sockets/ws.rs" || route == "/ws/ready";
            assert_eq!(route.starts_with("/ws"), for_browsers, "{route} of {file}");
            routes.insert(route.to_owned());
        }
    }
    let inside = ["/health", "/ready", "/metrics", "/generate-token", "/admin/generate-token"];
    assert!(inside.iter().all(|route| routes.contains(*route)), "{routes:?}");
}

/// nginx names the whole URL at every level but the highest, and in an access log whose format asks for it.
#[test]
fn the_edge_of_the_cluster_logs_no_query() {
    let ingress = manifest("components/ingress/ingress.yaml");
    assert_eq!(ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/enable-access-log"], "false");
    let controller = manifest("components/ingress/controller.yaml");
    assert_eq!(controller["data"]["error-log-level"], "emerg");
    let format = controller["data"]["log-format-upstream"].as_str().unwrap();
    for variable in format.split('$').skip(1) {
        let name: String = variable.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
        assert!(
            !["request", "request_uri", "args", "query_string", "http_referer"].contains(&&*name),
            "${name} may hold a token"
        );
    }
    assert!(format.contains("$uri") && format.contains("$status"));
}

/// The same of the load balancer in the compose files, which lets browsers have what is theirs and nothing else.
#[test]
fn the_edge_of_the_compose_files_logs_no_query_and_passes_on_what_browsers_need() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../compose/haproxy.cfg");
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).collect();
    let of = |name: &str| lines.iter().filter(|line| line.starts_with(name)).copied().collect::<Vec<_>>();
    let [format] = of("log-format")[..] else { panic!("one format, and one that is named: {text}") };
    for field in ["%r", "%HU", "%HQ", "%{+Q}r", "%hr", "%hs", "%HP "] {
        assert!(!format.split(' ').any(|there| there.trim_matches('"') == field.trim()), "{field} may hold a token");
    }
    assert!(of("option httplog").is_empty() && of("option tcplog").is_empty() && of("capture").is_empty());
    let [patience] = of("timeout http-request")[..] else { panic!("a head may take for ever: {text}") };
    assert_eq!(patience, "timeout http-request 10s");
    assert_eq!(of("http-request deny"), ["http-request deny deny_status 404 unless for_browsers"]);
    let allowed: Vec<&str> = of("acl for_browsers").iter().flat_map(|line| line.split(' ').skip(3)).collect();
    assert_eq!(allowed, ["/ws/", "/sse/", "/client.js", "/health", "/ready"]);
}
