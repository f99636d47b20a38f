//! `autobahn-echo --listen ADDRESS [--compression MODE]`: sends every message back through the gateway's own framing and
//! compression, so that `.ci/autobahn` can hold them against RFC 6455 and RFC 7692. MODE is one of
//! `app.websocket_compression_mode`.
//!
//! It prints the address that it listens on, for `--listen 127.0.0.1:0`, and runs until it is ended.

use std::{env, future::poll_fn, io, time::Duration};

use anyhow::{Context as _, Result, bail};
use daisi_ws_websocket::{
    Agreement, Message, SocketError, WebSocket,
    deflate::{self, Deflater},
    encode,
    negotiate::CompressionMode,
};
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::tungstenite::{
    self,
    handshake::server::{Request, Response},
    http::header::{HeaderValue, SEC_WEBSOCKET_EXTENSIONS},
};

/// The longest message that the fuzzing client sends.
const LIMIT: usize = 16 << 20;
/// How long the client may take to go after the close frames.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

#[expect(clippy::print_stdout, reason = "the address is the output that callers read")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (listen, mode) = arguments(env::args().skip(1))?;
    let listener = TcpListener::bind(listen).await?;
    println!("{}", listener.local_addr()?);
    let mut sockets = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                sockets.spawn(serve(stream, mode));
            }
            // What the fuzzing client does to a socket is its report's business; a task that panicked ends the server and so
            // fails the run.
            Some(ended) = sockets.join_next() => drop(ended?),
        }
    }
}

async fn serve(mut stream: TcpStream, mode: CompressionMode) -> Result<()> {
    let agreement = shake_hands(&mut stream, mode).await?;
    let mut socket = WebSocket::new((&mut stream).into(), LIMIT, Agreement::inflater(agreement.as_ref()));
    let code = echo(&mut socket, Compressor::of(agreement)).await?;
    socket.queue(encode::close(code, ""));
    flush(&mut socket).await?;
    poll_fn(|cx| socket.poll_shutdown(cx)).await?;
    // What the client has still sent is read: unread, it would make the kernel reset the connection, and the close frame might be
    // lost.
    let _ = timeout(CLOSE_TIMEOUT, async {
        while stream.read(&mut [0; 4096]).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
    Ok(())
}

/// The opening handshake; the gateway's own is a part of its HTTP server.
async fn shake_hands(stream: &mut TcpStream, mode: CompressionMode) -> Result<Option<Agreement>, tungstenite::Error> {
    let mut agreement = None;
    #[expect(clippy::result_large_err, reason = "tungstenite's callbacks are like that")]
    let answer = |request: &Request, mut response: Response| {
        let offers = request.headers().get_all(SEC_WEBSOCKET_EXTENSIONS).iter().filter_map(|offers| offers.to_str().ok());
        agreement = Agreement::reach(mode, offers);
        if let Some(value) = agreement.and_then(|agreement| HeaderValue::from_str(&agreement.header()).ok()) {
            response.headers_mut().insert(SEC_WEBSOCKET_EXTENSIONS, value);
        }
        Ok(response)
    };
    // It refuses a client that sends more before it has the answer, so no byte is lost with its buffer.
    tokio_tungstenite::accept_hdr_async(stream, answer).await?;
    Ok(agreement)
}

/// Sends back what comes, until the client leaves or breaks a rule; returns the close code that it is told.
async fn echo(socket: &mut WebSocket<&mut TcpStream>, mut compressor: Compressor) -> io::Result<Option<u16>> {
    loop {
        let frame = match poll_fn(|cx| socket.poll_receive(cx)).await {
            Ok(Message::Text(text)) => compressor.frame(text.as_bytes(), true),
            Ok(Message::Binary(bytes)) => compressor.frame(&bytes, false),
            Ok(Message::Ping(payload)) => encode::pong(&payload),
            Ok(Message::Pong(_)) => continue,
            Ok(Message::Close(code)) => return Ok(code),
            Err(SocketError::Protocol(error)) => return Ok(Some(error.code())),
            Err(SocketError::Lost(error)) => return Err(error),
        };
        socket.queue(frame);
        flush(socket).await?;
    }
}

async fn flush(socket: &mut WebSocket<&mut TcpStream>) -> io::Result<()> {
    poll_fn(|cx| socket.poll_flush(cx)).await
}

/// Compresses as agreed on.
enum Compressor {
    Off,
    Shared(u8),
    Own(Deflater),
}

impl Compressor {
    fn of(agreement: Option<Agreement>) -> Self {
        match agreement {
            None => Self::Off,
            Some(agreed) if agreed.server_no_context_takeover => Self::Shared(agreed.server_window_bits),
            Some(agreed) => Self::Own(Deflater::new(agreed.server_window_bits)),
        }
    }

    fn frame(&mut self, payload: &[u8], is_text: bool) -> bytes::Bytes {
        let compressed = match self {
            Self::Off if is_text => return encode::text(payload),
            Self::Off => return encode::binary(payload, false),
            Self::Shared(window_bits) => deflate::shared(payload, *window_bits),
            Self::Own(deflater) => deflater.deflate(payload),
        };
        if is_text { encode::compressed_text(&compressed) } else { encode::binary(&compressed, true) }
    }
}

fn arguments(mut arguments: impl Iterator<Item = String>) -> Result<(String, CompressionMode)> {
    let (mut listen, mut mode) = (None, CompressionMode::Disabled);
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--listen" => listen = Some(value),
            "--compression" => mode = serde_json::from_value(value.into())?,
            _ => bail!("unknown option {name}"),
        }
    }
    Ok((listen.context("--listen is missing")?, mode))
}
