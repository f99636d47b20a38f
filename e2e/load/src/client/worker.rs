//! A thread that owns a part of a client process' sockets: one poll, one buffer, no runtime.

use std::{
    collections::HashMap,
    io::ErrorKind,
    sync::{
        Arc,
        mpsc::{Receiver, Sender},
    },
};

use anyhow::{Context as _, Result};
use mio::{Events, Interest, Poll, Token, Waker};

use super::{
    cursor::{Cursor, Return},
    handshake::Handshakes,
    protocol::{Arrival, Opening, Published, Report, SetId},
    set::Set,
    shared::Shared,
    socket::{End, Socket},
    sources::Sources,
};
use crate::clock;

/// Bytes that one read may bring: a burst of some hundred events.
const BUFFER: usize = 256 * 1024;
const EVENTS_PER_POLL: usize = 1024;
/// The token of the waker; sockets have their place as token.
const WAKE: Token = Token(usize::MAX);

/// What the control thread asks of a worker.
pub(super) enum Command {
    /// Open sockets, and send when each is ready or has failed.
    Open(Opening, Sender<()>),
    Reset,
    Report(SetId, Published, Sender<Report>),
    Drop(SetId, Sender<()>),
    Pause(SetId, u32),
    Unpause(SetId),
    /// Ask those who are not beyond this sequence where they stand; send how many that are.
    Locate(SetId, u64, Sender<u64>),
    ClosedCount(SetId, Sender<u64>),
}

/// The control thread's end.
pub(super) struct Handle {
    pub(super) commands: Sender<Command>,
    pub(super) waker: Waker,
}

/// A socket and the set that it belongs to.
struct Member {
    set: usize,
    socket: Socket,
}

/// Sockets that are being opened.
struct Underway {
    opening: Opening,
    handshakes: Handshakes,
    next: u32,
    unresolved: u32,
    done: Sender<()>,
}

pub(super) struct Worker {
    poll: Poll,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    members: Vec<Option<Member>>,
    sets: Vec<Set>,
    underway: Option<Underway>,
    /// Where sockets were when they were dropped, by their index.
    cursors: HashMap<u32, Cursor>,
    sources: Sources,
    buffer: Vec<u8>,
}

impl Worker {
    /// A worker, and the handle that reaches it.
    pub(super) fn new(shared: Arc<Shared>) -> Result<(Self, Handle)> {
        let poll = Poll::new().context("no poll")?;
        let waker = Waker::new(poll.registry(), WAKE)?;
        let (commands, receiver) = std::sync::mpsc::channel();
        let worker = Self {
            poll,
            commands: receiver,
            shared,
            members: Vec::new(),
            sets: Vec::new(),
            underway: None,
            cursors: HashMap::new(),
            sources: Sources::new(),
            buffer: vec![0; BUFFER],
        };
        Ok((worker, Handle { commands, waker }))
    }

    /// Works until the handle is gone.
    pub(super) fn run(mut self) -> Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_POLL);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            let mut received = 0;
            for event in &events {
                if event.token() == WAKE {
                    if !self.obey()? {
                        return Ok(());
                    }
                } else {
                    let to_the_end = event.is_read_closed() || event.is_error();
                    received += self.serve(event.token().0, event.is_writable(), to_the_end);
                }
            }
            if received > 0 {
                self.shared.received(received, clock::nanos());
            }
            self.open_more()?;
        }
    }

    /// Something happened to a socket. Returns how many events came in.
    fn serve(&mut self, place: usize, writable: bool, to_the_end: bool) -> u64 {
        let Self { members, sets, buffer, underway, .. } = self;
        let Some(slot) = members.get_mut(place) else { return 0 };
        let Some(Member { set: at, socket }) = slot else { return 0 };
        let Some(set) = sets.get_mut(*at) else { return 0 };
        let sent = if writable { socket.on_writable() } else { Ok(()) };
        match sent.and_then(|()| socket.on_readable(buffer, set, to_the_end)) {
            Ok(harvest) => {
                if harvest.ready {
                    resolve(underway);
                }
                harvest.deliveries
            }
            Err(end) => {
                match end {
                    End::Refused(why) => {
                        set.refused(why);
                        resolve(underway);
                    }
                    End::Closed(why) => set.closed(why),
                }
                *slot = None;
                0
            }
        }
    }

    /// Keeps as many handshakes under way as may be.
    fn open_more(&mut self) -> Result<()> {
        let Some(underway) = &mut self.underway else { return Ok(()) };
        let Opening { set, target, first, count, in_flight, receive_buffer, arrival, .. } = underway.opening;
        while underway.next < count && underway.unresolved < in_flight {
            let index = first + underway.next;
            underway.next += 1;
            let returns = matches!(arrival, Arrival::Returning { .. });
            let cursor = if returns { self.cursors.remove(&index) } else { None };
            let request = underway.handshakes.request(index, cursor.as_ref())?;
            let at = set as usize;
            let source = self.sources.next();
            let connecting = Socket::connect(target, source, index, request, receive_buffer, clock::nanos());
            let connected = connecting.and_then(|socket| {
                let mut socket = socket.arriving(arrival);
                let place = self.members.len();
                self.poll.registry().register(socket.source(), Token(place), Interest::READABLE | Interest::WRITABLE)?;
                Ok(socket)
            });
            match connected {
                Ok(socket) => {
                    self.members.push(Some(Member { set: at, socket }));
                    underway.unresolved += 1;
                }
                Err(error) => {
                    if let Some(set) = self.sets.get_mut(at) {
                        set.refused(error.kind().to_string());
                    }
                }
            }
        }
        if underway.next == count && underway.unresolved == 0 {
            // A waiter has left only if the process ends.
            let _ = underway.done.send(());
            self.underway = None;
        }
        Ok(())
    }

    /// Does what was asked; false if nobody can ask any more.
    fn obey(&mut self) -> Result<bool> {
        loop {
            let command = match self.commands.try_recv() {
                Ok(command) => command,
                Err(std::sync::mpsc::TryRecvError::Empty) => return Ok(true),
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return Ok(false),
            };
            self.carry_out(command)?;
        }
    }

    fn carry_out(&mut self, command: Command) -> Result<()> {
        match command {
            Command::Open(opening, done) => {
                while self.sets.len() <= opening.set as usize {
                    self.sets.push(Set::new()?);
                }
                let handshakes = Handshakes::new(&opening)?;
                self.underway = Some(Underway { handshakes, opening, next: 0, unresolved: 0, done });
            }
            Command::Reset => self.sets.iter_mut().for_each(Set::reset),
            Command::Report(set, published, reply) => {
                let _ = reply.send(self.report(set, published));
            }
            Command::Drop(set, done) => {
                for member in self.members.iter_mut().filter(|member| belongs(member, set)) {
                    let dropped = member.take();
                    let place = dropped.and_then(|Member { socket, .. }| Some((socket.index, socket.cursor()?.clone())));
                    self.cursors.extend(place);
                }
                // Places may be used again only when no socket is left that events could be about.
                if self.members.iter().all(Option::is_none) {
                    self.members.clear();
                }
                let _ = done.send(());
            }
            Command::Pause(set, before) => {
                self.of(set).filter(|socket| socket.index < before).for_each(Socket::pause);
            }
            Command::Unpause(set) => self.unpause(set),
            Command::Locate(set, sequence, reply) => {
                let asking = self.of(set).filter_map(|socket| socket.locate(sequence).then_some(())).count();
                let _ = reply.send(asking as u64);
            }
            Command::ClosedCount(set, reply) => {
                let _ = reply.send(self.sets.get(set as usize).map_or(0, Set::closed_count));
            }
        }
        Ok(())
    }

    fn of(&mut self, set: SetId) -> impl Iterator<Item = &mut Socket> {
        self.members.iter_mut().flatten().filter(move |member| member.set == set as usize).map(|member| &mut member.socket)
    }

    /// The kernel told of the bytes when they came and does not tell again, so each is looked at.
    fn unpause(&mut self, set: SetId) {
        let mut received = 0;
        for place in 0..self.members.len() {
            let Some(Some(member)) = self.members.get_mut(place) else { continue };
            if member.set == set as usize && member.socket.paused {
                member.socket.paused = false;
                received += self.serve(place, false, true);
            }
        }
        self.shared.received(received, clock::nanos());
    }

    fn report(&self, set: SetId, published: Published) -> Report {
        let mut report = self.sets.get(set as usize).map(Set::report).unwrap_or_default();
        for Member { socket, .. } in self.members.iter().filter(|member| belongs(member, set)).flatten() {
            report.open += u64::from(socket.ready);
            match socket.verdict() {
                Some(Return::Told(reason)) => *report.unresumed.entry(reason).or_default() += 1,
                Some(Return::Wrong(what)) => *report.misled.entry(what).or_default() += 1,
                Some(Return::Whole) | None => {}
            }
            if let Some(ledger) = socket.ledger() {
                report.faults += ledger.faults(published.of(socket.index));
            }
        }
        report
    }
}

fn belongs(member: &Option<Member>, set: SetId) -> bool {
    member.as_ref().is_some_and(|member| member.set == set as usize)
}

fn resolve(underway: &mut Option<Underway>) {
    if let Some(underway) = underway {
        underway.unresolved = underway.unresolved.saturating_sub(1);
    }
}
