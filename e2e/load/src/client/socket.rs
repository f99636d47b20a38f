//! One socket of a client: from the connect over the handshake to the frames.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use mio::net::TcpStream;
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use super::{
    cursor::{Cursor, Following, Return},
    ledger::Ledger,
    protocol::Arrival,
    set::Set,
};
use crate::{clock, stamp, wire};

const SWITCHED: &[u8] = b"HTTP/1.1 101";
const HEAD_END: &[u8] = b"\r\n\r\n";
const EVENT: &[u8] = br#"{"type":"event""#;
const READY: &[u8] = br#"{"type":"ready""#;
/// Asks where the socket stands; answered with the same and the place.
const ASK: &[u8] = br#"{"type":"ready"}"#;
const GAP: &[u8] = br#"{"type":"gap""#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Connecting,
    Upgrading,
    Open,
}

/// A socket that is not closed.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    state: State,
    /// The handshake; empty once it was sent.
    request: Vec<u8>,
    /// The beginning of a frame, or of the answer to the handshake.
    rest: Vec<u8>,
    ledger: Ledger,
    /// Of sockets that care where they are in the stream; most do not.
    following: Option<Box<Following>>,
    /// When the connect began.
    began: u64,
    pub(super) index: u32,
    pub(super) ready: bool,
    pub(super) paused: bool,
    /// It was paused once: how late its events are says nothing of the server.
    late: bool,
}

/// Why a socket is no more.
#[derive(Debug)]
pub(super) enum End {
    /// Before it was open: the HTTP status, or what else happened.
    Refused(String),
    /// After: the close code, or what else happened.
    Closed(String),
}

/// What reading has brought.
#[derive(Debug, Default)]
pub(super) struct Harvest {
    /// Events.
    pub(super) deliveries: u64,
    /// The first `ready` was among it.
    pub(super) ready: bool,
}

impl Socket {
    /// Begins to connect; from `source`, if the target is on the loopback network.
    pub(super) fn connect(
        target: SocketAddr,
        source: Ipv4Addr,
        index: u32,
        request: Vec<u8>,
        buffer: Option<u32>,
        now: u64,
    ) -> io::Result<Self> {
        let raw = RawSocket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        raw.set_nonblocking(true)?;
        raw.set_tcp_nodelay(true)?;
        if let Some(bytes) = buffer {
            raw.set_recv_buffer_size(bytes as usize)?;
        }
        if target.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
            raw.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match raw.connect(&target.into()) {
            Err(error) if !is_under_way(&error) => return Err(error),
            _ => {}
        }
        Ok(Self {
            stream: TcpStream::from_std(raw.into()),
            state: State::Connecting,
            request,
            rest: Vec::new(),
            ledger: Ledger::default(),
            following: None,
            began: now,
            index,
            ready: false,
            paused: false,
            late: false,
        })
    }

    /// Begins as one that brings this along.
    pub(super) fn arriving(mut self, arrival: Arrival) -> Self {
        self.ledger = Ledger::starting_at(arrival.first());
        self.following = match arrival {
            Arrival::New => None,
            Arrival::Following { .. } => Some(Box::new(Following::new(None))),
            Arrival::Returning { missed, .. } => Some(Box::new(Following::new(Some(missed)))),
        };
        self
    }

    pub(super) fn source(&mut self) -> &mut TcpStream {
        &mut self.stream
    }

    /// The socket's account, unless what it should have is unknown because it does not read.
    pub(super) fn ledger(&self) -> Option<&Ledger> {
        (self.ready && !self.paused && !self.late).then_some(&self.ledger)
    }

    /// Where it was last, if it cares.
    pub(super) fn cursor(&self) -> Option<&Cursor> {
        self.following.as_ref()?.cursor()
    }

    /// How it came back, if it cares.
    pub(super) fn verdict(&self) -> Option<Return> {
        Some(self.following.as_ref()?.verdict())
    }

    /// Asks where it stands, unless everything up to there is behind it. Did it ask?
    pub(super) fn locate(&mut self, sequence: u64) -> bool {
        let asks = self.following.as_ref().is_some_and(|following| !following.has(sequence));
        if asks {
            self.answer(wire::TEXT, ASK);
        }
        asks
    }

    pub(super) fn pause(&mut self) {
        (self.paused, self.late) = (true, true);
    }

    /// The kernel takes bytes: sends the handshake if that was not done yet.
    pub(super) fn on_writable(&mut self) -> Result<(), End> {
        if self.state != State::Connecting {
            return Ok(());
        }
        if let Ok(Some(error)) | Err(error) = self.stream.take_error() {
            return Err(End::Refused(error.kind().to_string()));
        }
        match self.stream.write(&self.request) {
            Ok(sent) if sent == self.request.len() => {
                self.request = Vec::new();
                self.state = State::Upgrading;
                Ok(())
            }
            // Not connected yet.
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => Ok(()),
            Ok(_) => Err(End::Refused("the handshake did not fit into the kernel's buffer".to_owned())),
            Err(error) => Err(End::Refused(error.kind().to_string())),
        }
    }

    /// Reads what there is, with `buffer` to read into, and counts it in `set`. `to_the_end`: the kernel may have said all that
    /// it will say, so that only a look tells whether there is more.
    pub(super) fn on_readable(&mut self, buffer: &mut [u8], set: &mut Set, to_the_end: bool) -> Result<Harvest, End> {
        let mut harvest = Harvest::default();
        while !self.paused && self.state != State::Connecting {
            let kept = self.rest.len();
            let Some((head, tail)) = buffer.split_at_mut_checked(kept) else { return Err(self.end("a frame is too long")) };
            head.copy_from_slice(&self.rest);
            let room = tail.len();
            let read = match self.stream.read(tail) {
                Ok(0) => return Err(self.end(if room == 0 { "a frame is too long" } else { "end of stream" })),
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(self.end(&error.kind().to_string())),
            };
            self.rest.clear();
            let now = clock::nanos();
            let bytes = buffer.get(..kept + read).unwrap_or_default();
            let used = self.take(bytes, set, now, &mut harvest)?;
            self.rest.extend_from_slice(bytes.get(used..).unwrap_or_default());
            // Less than there was room for: the kernel has no more, and tells when it has.
            if read < room && !to_the_end {
                break;
            }
        }
        Ok(harvest)
    }

    /// Works through the bytes and says how many of them it is done with.
    fn take(&mut self, bytes: &[u8], set: &mut Set, now: u64, harvest: &mut Harvest) -> Result<usize, End> {
        let mut used = 0;
        if self.state == State::Upgrading {
            let Some(end) = memchr::memmem::find(bytes, HEAD_END) else { return Ok(0) };
            if !bytes.starts_with(SWITCHED) {
                let status = bytes.get(9..12).map(String::from_utf8_lossy).unwrap_or_default();
                return Err(End::Refused(format!("HTTP {status}")));
            }
            self.state = State::Open;
            used = end + HEAD_END.len();
        }
        while let Some(frame) =
            wire::parse(bytes.get(used..).unwrap_or_default()).map_err(|error| self.end(&error.to_string()))?
        {
            used += frame.length;
            match frame.opcode {
                wire::TEXT => self.on_text(frame.payload, set, now, harvest),
                wire::PING => self.answer(wire::PONG, frame.payload),
                wire::CLOSE => {
                    self.answer(wire::CLOSE, frame.payload);
                    let code = wire::close_code(frame.payload).map_or("without a code".to_owned(), |code| code.to_string());
                    return Err(self.end(&code));
                }
                _ => {}
            }
        }
        Ok(used)
    }

    fn on_text(&mut self, text: &[u8], set: &mut Set, now: u64, harvest: &mut Harvest) {
        if text.starts_with(EVENT) {
            if let Some(stamp) = stamp::find(text) {
                harvest.deliveries += 1;
                self.ledger.note(stamp.number);
                if let Some(following) = &mut self.following {
                    following.on_event(text);
                }
                set.delivered((!self.late).then(|| now.saturating_sub(stamp.sent)));
            }
        } else if text.starts_with(READY) {
            if let Some(following) = &mut self.following {
                following.on_ready(text);
            }
            if !self.ready {
                (self.ready, harvest.ready) = (true, true);
                set.became_ready(now.saturating_sub(self.began));
            }
        } else if text.starts_with(GAP) {
            set.gap();
        }
    }

    /// A few bytes. If the kernel does not take them, the server has stopped reading, and will say so by closing.
    fn answer(&mut self, opcode: u8, payload: &[u8]) {
        let mut bytes = Vec::with_capacity(payload.len() + 8);
        wire::put_masked(&mut bytes, opcode, payload);
        let _ = self.stream.write(&bytes);
    }

    fn end(&self, what: &str) -> End {
        if self.ready { End::Closed(what.to_owned()) } else { End::Refused(what.to_owned()) }
    }
}

fn is_under_way(error: &io::Error) -> bool {
    error.kind() == ErrorKind::WouldBlock || error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error())
}
