//! `healthcheck`: for container runtimes, whose images have no curl.

use std::{net::IpAddr, time::Duration};

use axum::http::Uri;

use super::{
    error::CliError,
    plain_http::{self, Answer},
    runtime::block_on,
};
use crate::config::{Secrets, Server, Sources, probe_bind_ip};

/// The longest wait for the whole answer: container runtimes ask every few seconds.
const TIMEOUT: Duration = Duration::from_secs(3);

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// What to ask; else /health at the configured port, that for probes if there is one. /ready asks whether the pod takes
    /// traffic.
    #[arg(long, value_name = "URL")]
    url: Option<Uri>,
}

/// Succeeds if the pod answers with a 2xx. Every failure, a wrong configuration too, is exit code 1: runtimes know no other.
pub(super) fn run(args: &Args, sources: &Sources) -> Result<(), CliError> {
    let urls = match &args.url {
        Some(url) => vec![url.clone()],
        None => own_urls(&sources.load(Secrets::Only(&[])).map_err(CliError::failed)?.server),
    };
    block_on(check_any(&urls))?
}

/// Where the pod may answer: bound to every address, it does so on loopback, in whichever family the host has.
fn own_urls(server: &Server) -> Vec<Uri> {
    let (address, port) = match server.probe_port {
        0 => (server.bind_address, server.http_port),
        port => (probe_bind_ip(server), port),
    };
    let hosts = match address {
        IpAddr::V4(address) if address.is_unspecified() => vec!["127.0.0.1".to_owned()],
        IpAddr::V4(address) => vec![address.to_string()],
        IpAddr::V6(address) if address.is_unspecified() => vec!["[::1]".to_owned(), "127.0.0.1".to_owned()],
        IpAddr::V6(address) => vec![format!("[{address}]")],
    };
    let url = |host| format!("http://{host}:{port}/health").parse().ok();
    if port == 0 { Vec::new() } else { hosts.into_iter().filter_map(url).collect() }
}

/// Succeeds with the first that is well.
async fn check_any(urls: &[Uri]) -> Result<(), CliError> {
    let mut failed = CliError::failed("server.http_port is 0, so --url must say where to ask");
    for url in urls {
        match check(url).await {
            Ok(()) => return Ok(()),
            Err(error) => failed = error,
        }
    }
    Err(failed)
}

async fn check(url: &Uri) -> Result<(), CliError> {
    match tokio::time::timeout(TIMEOUT, plain_http::ask("GET", url, b"")).await {
        Ok(Ok(Answer { status: 200..=299, .. })) => Ok(()),
        Ok(Ok(Answer { status, .. })) => Err(CliError::failed(format!("{url} answered {status}"))),
        Ok(Err(error)) => Err(error),
        Err(_) => Err(CliError::failed(format!("{url} did not answer within {} s", TIMEOUT.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::config::testing;

    /// Answers one request with the given bytes; the request comes back.
    async fn asked(answer: &'static [u8]) -> (Result<(), CliError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}/ready", listener.local_addr().unwrap()).parse().unwrap();
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 1024];
            let read = socket.read(&mut request).await.unwrap();
            socket.write_all(answer).await.unwrap();
            String::from_utf8(request[..read].to_vec()).unwrap()
        };
        tokio::join!(check(&url), server)
    }

    #[tokio::test]
    async fn a_pod_is_well_if_it_answers_with_success() {
        let (result, request) = asked(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        assert!(result.is_ok(), "{result:?}");
        assert!(request.starts_with("GET /ready HTTP/1.1\r\nHost: 127.0.0.1:"), "{request}");
    }

    #[tokio::test]
    async fn a_pod_is_not_well_if_it_says_so_or_talks_nonsense() {
        let (result, _) = asked(b"HTTP/1.1 503 Service Unavailable\r\n\r\n").await;
        assert!(result.unwrap_err().to_string().ends_with("answered 503"));
        for answer in [&b"SSH-2.0\r\n"[..], b"", b"HTTP/1.1"] {
            assert!(asked(answer).await.0.is_err());
        }
    }

    #[tokio::test]
    async fn nobody_there_is_not_well() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(check(&format!("http://{free}/health").parse().unwrap()).await.is_err());
        assert!(check(&"https://127.0.0.1/health".parse().unwrap()).await.is_err());
        assert!(check(&"/health".parse().unwrap()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_does_not_answer_in_time_is_not_well() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Uri = format!("http://{}/health", listener.local_addr().unwrap()).parse().unwrap();
        assert!(check(&url).await.unwrap_err().to_string().ends_with("did not answer within 3 s"));
    }

    #[test]
    fn by_default_the_configured_port_is_asked() {
        let mut server = testing::config().server;
        assert_eq!(own_urls(&server), ["http://127.0.0.1:8080/health"]);
        server.bind_address = "::".parse().unwrap();
        assert_eq!(own_urls(&server), ["http://[::1]:8080/health", "http://127.0.0.1:8080/health"]);
        server.bind_address = "fd00::1".parse().unwrap();
        assert_eq!(own_urls(&server), ["http://[fd00::1]:8080/health"]);
        server.probe_port = 8081;
        assert_eq!(own_urls(&server), ["http://[fd00::1]:8081/health"]);
        server.probe_bind_address = "127.0.0.1".into();
        assert_eq!(own_urls(&server), ["http://127.0.0.1:8081/health"]);
        (server.http_port, server.probe_port) = (0, 0);
        assert_eq!(own_urls(&server), [] as [Uri; 0]);
    }

    #[tokio::test]
    async fn a_pod_on_a_host_without_ipv6_is_found_on_the_other_loopback() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let urls = ["[::1]", "127.0.0.1"].map(|host| format!("http://{host}:{port}/health").parse().unwrap());
        let server = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 1024]).await.unwrap();
            socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        };
        let (well, ()) = tokio::join!(check_any(&urls), server);
        assert!(well.is_ok(), "{well:?}");
        assert!(check_any(&[]).await.is_err());
    }

    #[test]
    fn a_wrong_configuration_is_exit_code_1_here() {
        let sources = Sources::new(None, testing::environment(&[("DAISI_WS_APP_BOGUS", "1")]));
        assert_eq!(run(&Args { url: None }, &sources).unwrap_err().exit_code(), 1);
    }
}
