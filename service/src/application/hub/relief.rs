//! Brings the memory of the pod back within its budget, at the cost of the slowest sockets.
//!
//! A socket that has been behind for a while, and has had something waiting all that time, has what waits dropped with a gap in
//! its place, those first that take no byte, and of equal ones that with the most bytes for the longest time. If that is not
//! enough, or nothing may be dropped (`block`), they are closed with 1013, as are those whose message never gets whole. Anyone
//! who reads as fast as events come is never behind for long, and never meets this.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use daisi_ws_domain::close::CloseReason;
use tokio::{sync::watch, time::Instant};

use super::{
    mailbox::Standing,
    memory::{Kind, Memory},
    registry::Hub,
    session::Session,
};
use crate::{
    config::{Config, MemoryBudget},
    metrics::{
        Metrics,
        labels::{Dropped, Relief as Relieved},
    },
};

/// How often it is looked whether the budget is kept, if no event tells, and while it is not, the sockets are looked through.
const PERIOD: Duration = Duration::from_millis(250);
/// A socket that was written all it was to be written within this time is not slow.
const PATIENCE: Duration = Duration::from_secs(1);
/// A message that is not whole counts only from so many bytes on.
const MUCH_INBOUND: usize = 4 * 1024;
/// Sockets that are looked at, or relieved, before others have their turn.
const PORTION: usize = 256;

/// A socket that was closed has said its last word within this time, and what it held is back.
const GOODBYE: Duration = Duration::from_secs(3);
/// How often it is told that sockets had to give way.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// What relieving sockets needs.
#[derive(Clone)]
pub(crate) struct Relief {
    /// The sockets.
    pub hub: Arc<Hub>,
    /// What may be held.
    pub budget: MemoryBudget,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Shows it.
    pub metrics: Arc<Metrics>,
}

/// What sockets hold that were closed and are about to end.
#[derive(Debug, Default)]
struct Closing(VecDeque<(Instant, usize)>);

impl Closing {
    fn add(&mut self, now: Instant, bytes: usize) {
        self.0.push_back((now, bytes));
    }

    fn bytes(&mut self, now: Instant) -> usize {
        while self.0.front().is_some_and(|(since, _)| now.saturating_duration_since(*since) >= GOODBYE) {
            self.0.pop_front();
        }
        self.0.iter().map(|(_, bytes)| bytes).sum()
    }
}

/// What was done and not told yet.
#[derive(Debug, Default)]
struct Told {
    at: Option<Instant>,
    shed: usize,
    closed: usize,
}

impl Told {
    fn note(&mut self, memory: &Memory, shed: usize, closed: usize) {
        self.shed += shed;
        self.closed += closed;
        if self.at.is_some_and(|at| at.elapsed() < TELL_EVERY) {
            return;
        }
        tracing::warn!(
            memory.used = memory.used(),
            memory.budget = memory.budget(),
            sockets.shed = self.shed,
            sockets.closed = self.closed,
            "more memory was held than may be; the slowest sockets give way, and fewer events are taken until there is room"
        );
        *self = Self { at: Some(Instant::now()), shed: 0, closed: 0 };
    }
}

/// A socket that something can be had back from.
struct Slow {
    session: Arc<Session>,
    standing: Standing,
    inbound: usize,
    weight: u128,
}

impl Relief {
    /// Looks again and again, until cancelled.
    pub(crate) async fn run(&self) {
        let memory = Arc::clone(self.hub.memory());
        let (mut closing, mut told) = (Closing::default(), Told::default());
        loop {
            let budget = self.budget.bytes(self.config.borrow().app.memory_budget_bytes);
            let mut pressed = memory.look(budget);
            if pressed {
                let (shed, closed) = self.relieve(&memory, &mut closing).await;
                pressed = memory.look(budget);
                told.note(&memory, shed, closed);
            }
            self.show(&memory);
            if pressed {
                tokio::time::sleep(PERIOD).await;
            } else {
                let _ = tokio::time::timeout(PERIOD, memory.alarmed()).await;
            }
        }
    }

    fn show(&self, memory: &Memory) {
        let gauge = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        self.metrics.memory_budget_bytes.set(gauge(memory.budget()));
        for kind in Kind::ALL {
            self.metrics.memory_used_bytes.with_label_values(&[kind.as_str()]).set(gauge(memory.of(kind)));
        }
    }

    /// Relieves sockets until what is held is low enough, or nobody is slow. How many lost what waited, and how many were closed.
    async fn relieve(&self, memory: &Memory, closing: &mut Closing) -> (usize, usize) {
        let slow = self.slowest_first().await;
        let (mut shed, mut closed) = (0, 0);
        // What is being written, or was not read whole, comes back when its socket has gone.
        let mut coming_back = closing.bytes(Instant::now());
        for (place, slow) in slow.iter().enumerate() {
            if fits(memory, memory.low(), coming_back) {
                break;
            }
            shed += usize::from(self.shed(&slow.session));
            if place % PORTION == PORTION - 1 {
                tokio::task::yield_now().await;
            }
        }
        for (place, slow) in slow.iter().enumerate() {
            // Who could be helped without that is closed only if the budget is not kept otherwise.
            let limit = if slow.is_shed() { memory.budget() } else { memory.low() };
            let is_enough = fits(memory, limit, coming_back);
            if is_enough {
                continue;
            }
            coming_back += slow.comes_back();
            closing.add(Instant::now(), slow.comes_back());
            self.close(&slow.session);
            closed += 1;
            if place % PORTION == PORTION - 1 {
                tokio::task::yield_now().await;
            }
        }
        (shed, closed)
    }

    /// Drops what waits, if that is allowed and there is something. The socket is told of it in its place.
    fn shed(&self, session: &Session) -> bool {
        let Some(events) = session.mailbox().shed().filter(|events| *events > 0) else { return false };
        self.count(Relieved::Gap, session, events);
        session.stir();
        true
    }

    fn close(&self, session: &Session) {
        session.close(CloseReason::MemoryPressure);
        // Nothing more is put there, and what waits is let go at once.
        session.mailbox().close();
        let events = session.mailbox().take(usize::MAX).items.iter().filter(|item| item.is_event()).count();
        self.count(Relieved::Closed, session, events);
    }

    fn count(&self, how: Relieved, session: &Session, events: usize) {
        self.metrics.memory_relieved_sockets_total.with_label_values(&[how.as_str()]).inc();
        let kind = session.kind().as_str();
        self.metrics.websocket_messages_dropped_total.with_label_values(&[Dropped::Memory.as_str(), kind]).inc_by(events as u64);
    }

    async fn slowest_first(&self) -> Vec<Slow> {
        let sessions = self.hub.sessions();
        let mut slow = Vec::new();
        for portion in sessions.chunks(PORTION) {
            let now = Instant::now();
            slow.extend(portion.iter().filter_map(|session| Slow::of(session, now)));
            tokio::task::yield_now().await;
        }
        slow.sort_by_key(|slow| std::cmp::Reverse((slow.standing.stalled, slow.weight)));
        slow
    }
}

/// Is no more held than the limit, less what is about to come back? What no socket holds can't be had from one: of that alone, no
/// socket is relieved of its part of an eighth of the budget.
fn fits(memory: &Memory, limit: usize, coming_back: usize) -> bool {
    let sockets = [Kind::Events, Kind::Mailboxes, Kind::Inbound].into_iter().map(|kind| memory.of(kind)).sum::<usize>();
    let others = memory.used().saturating_sub(sockets);
    sockets.saturating_sub(coming_back) <= limit.saturating_sub(others).max(memory.budget() / 8)
}

impl Slow {
    fn of(session: &Arc<Session>, now: Instant) -> Option<Self> {
        if session.close_reason().is_some() {
            return None;
        }
        let is_long = |since: Instant| now.saturating_duration_since(since) >= PATIENCE;
        let standing = session.mailbox().standing();
        let behind = standing.behind_since.filter(|since| is_long(*since));
        let unfinished = session.inbound().filter(|(bytes, since)| *bytes >= MUCH_INBOUND && is_long(*since));
        let since = behind.into_iter().chain(unfinished.map(|(_, since)| since)).min()?;
        // One that is only slow to speak has nothing to lose but its socket.
        let standing = if behind.is_some() { standing } else { Standing { waiting: 0, writing: 0, ..standing } };
        let inbound = unfinished.map_or(0, |(bytes, _)| bytes);
        let bytes = standing.waiting + standing.writing + inbound;
        let weight = bytes as u128 * now.saturating_duration_since(since).as_millis();
        Some(Self { session: Arc::clone(session), standing, inbound, weight })
    }

    /// Has all been done for it, short of closing it?
    fn is_shed(&self) -> bool {
        self.standing.may_shed && self.inbound == 0
    }

    /// Bytes that come back once it is closed: at once what waits and may not be dropped, and the rest with its task.
    fn comes_back(&self) -> usize {
        let waiting = if self.standing.may_shed { 0 } else { self.standing.waiting };
        self.standing.writing + self.inbound + waiting
    }
}
