//! `autobahn-echo --listen ADDRESS [--compression MODE]`: sends every message back, so that `.ci/autobahn` can hold the socket against RFC 6455.
//!
//! It prints the address that it listens on, for `--listen 127.0.0.1:0`, and runs until it is ended.

use std::env;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::tungstenite::Error;

#[expect(clippy::print_stdout, reason = "the address is the output that callers read")]
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let listener = TcpListener::bind(listen_address(env::args().skip(1))?).await?;
    println!("{}", listener.local_addr()?);
    let mut sockets = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                stream.set_nodelay(true)?;
                sockets.spawn(echo(stream));
            }
            // What the fuzzing client does to a socket is its report's business; a task that panicked ends the server and so fails the run.
            Some(ended) = sockets.join_next() => drop(ended?),
        }
    }
}

async fn echo(stream: TcpStream) -> Result<(), Error> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

fn listen_address(mut arguments: impl Iterator<Item = String>) -> Result<String> {
    let mut listen = None;
    while let Some(name) = arguments.next() {
        let value = arguments.next().with_context(|| format!("{name} wants a value"))?;
        match name.as_str() {
            "--listen" => listen = Some(value),
            "--compression" => ensure!(value == "disabled", "this socket has no compression yet"),
            _ => bail!("unknown option {name}"),
        }
    }
    listen.context("--listen is missing")
}
