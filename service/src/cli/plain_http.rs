//! One HTTP/1.1 request over a connection of its own: all that the commands need, on loopback mostly.

use axum::http::Uri;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::error::CliError;

/// Bytes of an answer that are read; ours are far shorter.
const MAX_ANSWER: usize = 64 * 1024;

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: String,
}

/// Sends a request and reads the answer to its end. Bounded in size, not in time: the caller bounds that.
pub(super) async fn ask(method: &str, url: &Uri, body: &[u8]) -> Result<Answer, CliError> {
    let (Some("http"), Some(authority)) = (url.scheme_str(), url.authority()) else {
        return Err(CliError::failed(format!("{url} is no http URL")));
    };
    let failed = |error: std::io::Error| CliError::failed(format!("{url} can't be asked: {error}"));
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let mut socket = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await.map_err(failed)?;
    let path = url.path_and_query().map_or("/", |path| path.as_str());
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: daisi-ws-service\r\nContent-Length: \
        {length}\r\nConnection: close\r\n\r\n"
    );
    socket.write_all(&[head.as_bytes(), body].concat()).await.map_err(failed)?;
    let mut answer = Vec::new();
    socket.take(MAX_ANSWER as u64).read_to_end(&mut answer).await.map_err(failed)?;
    parse(&answer).ok_or_else(|| CliError::failed(format!("{url} did not answer in HTTP")))
}

fn parse(answer: &[u8]) -> Option<Answer> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let line = head.lines().next()?;
    let status = line.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.trim().parse().ok()?;
    Some(Answer { status, body: body.to_owned() })
}
