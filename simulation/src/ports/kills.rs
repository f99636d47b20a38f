//! The kill bus: kills come late, in another order, twice, or, where listening was interrupted, not at all.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use daisi_ws_domain::session::Kill;
use daisi_ws_service::ports::{KillBus, KillListener, KillSignal, StoreError};
use tokio::time::{Instant, sleep_until};

use super::{broke, fate::Port, no_answer};

pub(super) struct Kills {
    inner: Arc<dyn KillBus>,
    port: Arc<Port>,
}

impl Kills {
    pub(super) fn new(inner: Arc<dyn KillBus>, port: Arc<Port>) -> Self {
        Self { inner, port }
    }
}

#[async_trait]
impl KillBus for Kills {
    async fn publish(&self, kill: &Kill) -> Result<(), StoreError> {
        let fate = self.port.next();
        fate.arrive().await;
        let outcome = if fate.refused { Err(broke()) } else { self.inner.publish(kill).await };
        self.port.record().count("kills");
        let victim = kill.victim.as_ref().map(ToString::to_string);
        self.port.note(format_args!("wants {victim:?} killed: {:?}", outcome.as_ref().map_err(ToString::to_string)));
        fate.come_back().await;
        if fate.unanswered { Err(no_answer()) } else { outcome }
    }

    async fn listen(&self) -> Box<dyn KillListener> {
        Box::new(Listener { inner: self.inner.listen().await, port: Arc::clone(&self.port), held: Vec::new() })
    }
}

struct Listener {
    inner: Box<dyn KillListener>,
    port: Arc<Port>,
    /// On their way, by when they arrive.
    held: Vec<(Instant, KillSignal)>,
}

impl Listener {
    fn hold(&mut self, signal: KillSignal) {
        let fate = self.port.next();
        let at = Instant::now() + fate.before;
        if fate.unanswered {
            // The connection broke, and this was lost with it.
            self.held.push((at + fate.late, KillSignal::Resubscribed));
            return;
        }
        if fate.doubled {
            self.held.push((at + fate.after.max(Duration::from_millis(1)), signal.clone()));
        }
        self.held.push((at, signal));
    }

    /// The place of what arrives next.
    fn first(&self) -> Option<usize> {
        (0..self.held.len()).min_by_key(|place| self.held[*place].0)
    }
}

#[async_trait]
impl KillListener for Listener {
    async fn next(&mut self) -> KillSignal {
        loop {
            let first = self.first();
            if let Some(place) = first.filter(|place| self.held[*place].0 <= Instant::now()) {
                let (_, signal) = self.held.remove(place);
                self.port.note(format_args!("hears {signal:?}"));
                return signal;
            }
            let due = first.map(|place| self.held[place].0);
            tokio::select! {
                biased;
                signal = self.inner.next() => self.hold(signal),
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
        }
    }
}
