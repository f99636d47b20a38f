//! Events into the stream, many in flight, each stamped when it is sent.

use std::{collections::VecDeque, future::IntoFuture, ops::Range};

use anyhow::{Context as _, Result};
use async_nats::jetstream::{self, context::PublishAckFuture};
use daisi_ws_service::runtime::clock as wall_clock;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{Duration, Instant, MissedTickBehavior, interval, timeout};

use crate::{
    client::{handshake::COMPANY, protocol::Desks},
    clock,
    samples::Samples,
    stage::nats::Nats,
    stamp::{self, Stamp},
};

/// Events whose storing is not confirmed yet.
const MAX_IN_FLIGHT: usize = 2000;
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at how many events are due: the finest that a timer of the runtime can be.
const TICK: Duration = Duration::from_millis(1);

/// An event whose storing is not confirmed yet.
struct Unconfirmed {
    /// When it was sent, by [`clock::nanos`].
    sent: u64,
    stored: <PublishAckFuture as IntoFuture>::IntoFuture,
}

/// Publishes events for desks, and numbers them.
pub(crate) struct Publisher {
    stream: jetstream::Context,
    unconfirmed: VecDeque<Unconfirmed>,
    confirmed_after: Samples,
    last: u64,
    padding: usize,
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("unconfirmed", &self.unconfirmed.len()).finish_non_exhaustive()
    }
}

impl Publisher {
    /// Connects.
    ///
    /// # Errors
    /// When NATS does not answer.
    pub(crate) async fn connect(nats: &Nats) -> Result<Self> {
        let client = async_nats::connect(nats.url()).await.context("NATS does not answer")?;
        Ok(Self {
            stream: jetstream::new(client),
            unconfirmed: VecDeque::new(),
            confirmed_after: Samples::new()?,
            last: 0,
            padding: 0,
        })
    }

    /// Makes events longer by so many bytes from now on.
    pub(crate) fn pad(&mut self, bytes: usize) {
        self.padding = bytes;
    }

    /// Publishes one event for a desk. Returns when it was stamped; that the stream has it is confirmed later.
    ///
    /// # Errors
    /// When NATS is gone, or did not store an earlier one.
    pub(crate) async fn publish(&mut self, desk: &str, number: u32) -> Result<u64> {
        let event_time = event_time()?;
        self.send(desk, number, &event_time).await
    }

    /// Publishes `rate` events a second for `length`: the next one always for the next of so many desks. Numbers begin at `first`
    /// events of the round. Returns how many it were.
    ///
    /// # Errors
    /// When NATS is gone, or did not store an earlier one.
    pub(crate) async fn spread(&mut self, first: u64, desks: u32, rate: u32, length: Duration) -> Result<u64> {
        let (began, mut sent) = (Instant::now(), 0);
        let mut ticks = interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => {}
                confirmed = self.confirm_oldest(), if !self.unconfirmed.is_empty() => {
                    confirmed?;
                    continue;
                }
            }
            let passed = began.elapsed().min(length);
            let due = u64::try_from(passed.as_micros() * u128::from(rate) / 1_000_000).unwrap_or(u64::MAX);
            let event_time = event_time()?;
            while sent < due {
                let (turn, number) = ((first + sent) % u64::from(desks), (first + sent) / u64::from(desks));
                let desk = Desks::Own.agent(u32::try_from(turn)?);
                self.send(&desk, u32::try_from(number)?, &event_time).await?;
                sent += 1;
            }
            if passed >= length {
                return Ok(sent);
            }
        }
    }

    /// Publishes the events with these numbers for each desk of so many sockets, as fast as the stream takes them, and waits until
    /// it has them. Returns the sequence of the last.
    ///
    /// # Errors
    /// When NATS is gone, or does not store one.
    pub(crate) async fn publish_to_each(&mut self, desks: Desks, sockets: u32, numbers: Range<u32>) -> Result<u64> {
        for number in numbers {
            let event_time = event_time()?;
            for index in 0..desks.count(sockets) {
                self.send(&desks.agent(index), number, &event_time).await?;
            }
        }
        self.confirmed().await?;
        Ok(self.last)
    }

    /// Waits until the stream has confirmed all of them.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) async fn confirmed(&mut self) -> Result<()> {
        while !self.unconfirmed.is_empty() {
            self.confirm_oldest().await?;
        }
        Ok(())
    }

    /// How long it took from an event to its confirmation, of those that were confirmed since this was asked last. In `spread` a
    /// confirmation is looked at as soon as it comes and nothing is due; elsewhere it may be later.
    ///
    /// # Errors
    /// Never; the bounds of samples are good ones.
    pub(crate) fn take_confirmed_after(&mut self) -> Result<Samples> {
        Ok(std::mem::replace(&mut self.confirmed_after, Samples::new()?))
    }

    async fn send(&mut self, desk: &str, number: u32, event_time: &str) -> Result<u64> {
        while self.unconfirmed.len() >= MAX_IN_FLIGHT {
            self.confirm_oldest().await?;
        }
        let stamp = Stamp { number, sent: clock::nanos() };
        let event = stamp::event(stamp, desk, event_time, self.padding);
        let stored = self.stream.publish(format!("wa.{COMPANY}.{desk}.chats"), event.into()).await;
        let stored = stored.context("an event can't be published")?.into_future();
        self.unconfirmed.push_back(Unconfirmed { sent: stamp.sent, stored });
        Ok(stamp.sent)
    }

    /// Cancel-safe.
    async fn confirm_oldest(&mut self) -> Result<()> {
        if let Some(oldest) = self.unconfirmed.front_mut() {
            let confirmed = timeout(CONFIRM_TIMEOUT, &mut oldest.stored).await;
            let stored = confirmed.context("the stream does not confirm an event")?.context("the stream refuses an event")?;
            self.last = self.last.max(stored.sequence);
            self.confirmed_after.record(clock::nanos().saturating_sub(oldest.sent));
            self.unconfirmed.pop_front();
        }
        Ok(())
    }
}

/// The wall clock, as publishers write it.
fn event_time() -> Result<String> {
    let now = i128::try_from(wall_clock::now().as_millis())? * 1_000_000;
    Ok(OffsetDateTime::from_unix_timestamp_nanos(now)?.format(&Rfc3339)?)
}
