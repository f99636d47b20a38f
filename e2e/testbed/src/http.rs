//! Plain HTTP/1.1 requests, one a connection.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

/// Longest wait for an answer; a frozen pod gives none.
const PATIENCE: Duration = Duration::from_secs(3);

/// Status and body of an answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// Sends a request and reads the whole answer.
///
/// # Errors
/// When there is no answer in time, or it is not HTTP.
pub async fn ask(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
    within(PATIENCE, exchange(to, method, path, headers, body)).await.with_context(|| format!("{method} {path}"))
}

/// A GET without headers.
///
/// # Errors
/// As [`ask`].
pub async fn get(from: SocketAddr, path: &str) -> Result<Answer> {
    get_within(PATIENCE, from, path).await
}

/// The same with another patience.
///
/// # Errors
/// As [`ask`].
pub async fn get_within(patience: Duration, from: SocketAddr, path: &str) -> Result<Answer> {
    within(patience, exchange(from, "GET", path, &[], "")).await.with_context(|| format!("GET {path}"))
}

async fn within(patience: Duration, exchange: impl Future<Output = Result<Answer>>) -> Result<Answer> {
    timeout(patience, exchange).await.context("no answer in time")?
}

async fn exchange(to: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Result<Answer> {
    let mut socket = TcpStream::connect(to).await?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: pod\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    request.push_str(body);
    socket.write_all(request.as_bytes()).await?;
    let mut text = String::new();
    socket.read_to_string(&mut text).await?;
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status in the answer")?;
    Ok(Answer { status, body: body.to_owned() })
}
