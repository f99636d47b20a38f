//! What somebody writes to Redis who can.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// Members that are added at a time.
const STEP: usize = 10_000;

/// Writes a command, one item after another.
fn command<'a>(items: impl IntoIterator<Item = &'a [u8], IntoIter: ExactSizeIterator>) -> Vec<u8> {
    let items = items.into_iter();
    let mut text = format!("*{}\r\n", items.len()).into_bytes();
    for item in items {
        text.extend_from_slice(format!("${}\r\n", item.len()).as_bytes());
        text.extend_from_slice(item);
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// Sends commands on a connection of their own and reads a line of answer to each.
async fn send(to: SocketAddr, commands: Vec<Vec<u8>>) -> Result<()> {
    let mut socket = BufReader::new(TcpStream::connect(to).await?);
    for command in commands {
        socket.write_all(&command).await?;
        let mut answer = String::new();
        socket.read_line(&mut answer).await?;
        ensure!(!answer.starts_with('-'), "Redis says {answer}");
    }
    Ok(())
}

/// Puts so many made-up members into a set.
///
/// # Errors
/// When Redis does not take them.
pub(crate) async fn fill_set(to: SocketAddr, key: &str, members: usize) -> Result<()> {
    let mut commands = Vec::new();
    for first in (0..members).step_by(STEP) {
        let names: Vec<String> = (first..(first + STEP).min(members)).map(|n| format!("pod-of-nobody-{n}")).collect();
        let items: Vec<&[u8]> = [&b"SADD"[..], key.as_bytes()].into_iter().chain(names.iter().map(String::as_bytes)).collect();
        commands.push(command(items));
    }
    send(to, commands).await
}

/// Puts a string in the place of a key.
///
/// # Errors
/// When Redis does not take it.
pub(crate) async fn set(to: SocketAddr, key: &str, value: &[u8]) -> Result<()> {
    send(to, vec![command([&b"SET"[..], key.as_bytes(), value])]).await
}

/// Puts a string of so many bytes in the place of a key.
///
/// # Errors
/// When Redis does not take it.
pub(crate) async fn fill_string(to: SocketAddr, key: &str, bytes: usize) -> Result<()> {
    set(to, key, &vec![b'x'; bytes]).await
}

/// Puts a member into a set.
///
/// # Errors
/// When Redis does not take it.
pub(crate) async fn add_member(to: SocketAddr, key: &str, member: &str) -> Result<()> {
    send(to, vec![command([&b"SADD"[..], key.as_bytes(), member.as_bytes()])]).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_item_by_item() {
        assert_eq!(command([&b"GET"[..], b"a"]), b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n");
    }
}
