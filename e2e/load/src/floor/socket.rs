//! One socket of the floor: bytes out as far as the kernel takes them, the rest when it does; pings answered.

use std::{
    cell::{Cell, RefCell},
    io::ErrorKind,
};

use tokio::{net::TcpStream, sync::Notify};

use crate::wire;

/// Bytes that may wait for a client that takes none; then it is cut off.
const MAX_WAITING: usize = 8 * 1024 * 1024;

/// An open socket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    waiting: RefCell<Vec<u8>>,
    stalled: Notify,
    cut: Cell<bool>,
}

impl Socket {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, waiting: RefCell::default(), stalled: Notify::new(), cut: Cell::new(false) }
    }

    /// Writes, or keeps what the kernel does not take.
    pub(super) fn send(&self, bytes: &[u8]) {
        let mut waiting = self.waiting.borrow_mut();
        let written = if waiting.is_empty() { self.write(bytes) } else { 0 };
        let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) else { return };
        if waiting.len() + rest.len() > MAX_WAITING {
            self.cut.set(true);
        } else {
            waiting.extend_from_slice(rest);
        }
        self.stalled.notify_one();
    }

    fn write(&self, bytes: &[u8]) -> usize {
        match self.stream.try_write(bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(_) => {
                self.cut.set(true);
                0
            }
        }
    }

    /// Sends the answer to the handshake, then looks after the socket until it ends. `first` is what came behind the handshake.
    pub(super) async fn serve(&self, answer: &[u8], first: Vec<u8>) {
        self.send(answer);
        let mut bytes = first;
        while !self.cut.get() {
            tokio::select! {
                _ = self.stream.readable() => if !self.read(&mut bytes) { return },
                () = self.stalled.notified() => self.write_waiting().await,
            }
        }
    }

    async fn write_waiting(&self) {
        while !self.waiting.borrow().is_empty() && !self.cut.get() {
            if self.stream.writable().await.is_err() {
                self.cut.set(true);
                return;
            }
            let mut waiting = self.waiting.borrow_mut();
            let written = self.write(&waiting);
            waiting.drain(..written);
            if waiting.is_empty() {
                *waiting = Vec::new();
            }
        }
    }

    /// Reads what there is; false when the client has left, said goodbye or talks nonsense.
    fn read(&self, bytes: &mut Vec<u8>) -> bool {
        let mut buffer = [0; 1024];
        match self.stream.try_read(&mut buffer) {
            Ok(0) => return false,
            Ok(read) => bytes.extend_from_slice(buffer.get(..read).unwrap_or_default()),
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
        let mut used = 0;
        loop {
            match wire::parse(bytes.get(used..).unwrap_or_default()) {
                Ok(None) => break,
                Ok(Some(frame)) => {
                    used += frame.length;
                    match frame.opcode {
                        wire::PING => {
                            let mut pong = Vec::new();
                            wire::put_unmasked(&mut pong, wire::PONG, &wire::unmask(&frame));
                            self.send(&pong);
                        }
                        wire::CLOSE => return false,
                        _ => {}
                    }
                }
                Err(_) => return false,
            }
        }
        bytes.drain(..used);
        if bytes.is_empty() {
            *bytes = Vec::new();
        }
        true
    }
}
