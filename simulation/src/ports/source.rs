//! Events: pulls and settlements that fail, with what they did or without.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use daisi_ws_domain::gap::Gap;
use daisi_ws_service::ports::{AckToken, EventSource, RawEvent, Settlement, SourceError, SourceLag, SourceLimits};

use super::{
    Broke,
    fate::{Port, pause},
};

pub(super) struct Source {
    inner: Arc<dyn EventSource>,
    port: Arc<Port>,
    /// What a settlement may be late: the server does not ask which delivery is meant, so one that lay in a link for half an ack
    /// wait ends a later one.
    latest: Duration,
}

impl Source {
    pub(super) fn new(inner: Arc<dyn EventSource>, port: Arc<Port>, ack_wait: Duration) -> Self {
        Self { inner, port, latest: ack_wait / 20 }
    }

    fn note_pulled(&self, events: &[RawEvent]) {
        let record = self.port.record();
        let mut inner = record.open();
        for raw in events {
            if raw.delivery.count > 1 {
                inner.add("redeliveries", 1);
                if let Some(event) = inner.history.event_mut(raw.seq) {
                    event.redelivered = true;
                }
            }
        }
    }

    fn note_settled(&self, settlements: &[(AckToken, Settlement)]) {
        let record = self.port.record();
        let at = record.at();
        let mut inner = record.open();
        for (token, settlement) in settlements {
            let moment = inner.history.now(at);
            let Some(event) = seq_of(token).and_then(|seq| inner.history.event_mut(seq)) else { continue };
            match settlement {
                Settlement::Ack => {
                    if event.acked.is_none() {
                        (event.acked, event.acked_by) = (Some(moment), self.port.life());
                    }
                }
                Settlement::Terminate => {
                    (event.terminated, event.terminated_by) = (Some(moment), self.port.life());
                    inner.add("events abandoned", 1);
                }
                Settlement::Retry(_) => inner.add("retries", 1),
                Settlement::Extend => inner.add("extensions", 1),
            }
        }
    }
}

fn seq_of(token: &AckToken) -> Option<u64> {
    token.0.split('.').next()?.parse().ok()
}

fn cut() -> SourceError {
    SourceError::unreachable(Broke)
}

#[async_trait]
impl EventSource for Source {
    async fn pull(&self, max: usize) -> Result<Vec<RawEvent>, SourceError> {
        let fate = self.port.next();
        // Pulls hang for long, and what befalls them befalls what they bring.
        let pulled = if fate.refused { Err(cut()) } else { self.inner.pull(max).await };
        match &pulled {
            Ok(events) => {
                self.note_pulled(events);
                let tokens: Vec<&str> = events.iter().map(|event| event.ack_token.0.as_str()).collect();
                self.port.note(format_args!("pulls {tokens:?}, which arrive: {}", !fate.unanswered));
            }
            Err(error) => self.port.note(format_args!("pulls: {error}")),
        }
        pause(fate.before.min(self.latest)).await;
        if fate.unanswered { Err(cut()) } else { pulled }
    }

    async fn settle(&self, settlements: Vec<(AckToken, Settlement)>) -> Result<(), SourceError> {
        let fate = self.port.next();
        pause(fate.before.min(self.latest)).await;
        let settled = if fate.refused { Err(cut()) } else { self.inner.settle(settlements.clone()).await };
        if settled.is_ok() {
            if fate.doubled {
                self.inner.settle(settlements.clone()).await.ok();
            }
            self.note_settled(&settlements);
        }
        self.port.note(format_args!("settles {settlements:?}: {:?}", settled.as_ref().map_err(ToString::to_string)));
        if fate.unanswered { Err(cut()) } else { settled }
    }

    async fn close(&self) {
        self.inner.close().await;
    }

    fn hold(&self, hold: bool) {
        self.port.note(format_args!("holds: {hold}"));
        self.inner.hold(hold);
    }

    async fn lag(&self) -> Result<SourceLag, SourceError> {
        let fate = self.port.next();
        fate.arrive().await;
        let lag = if fate.refused { Err(cut()) } else { self.inner.lag().await };
        fate.come_back().await;
        if let Ok(lag) = &lag {
            self.port.note(format_args!("lags: {} pending, {} unsettled, {:?}", lag.pending, lag.ack_pending, lag.settled));
        }
        if fate.unanswered { Err(cut()) } else { lag }
    }

    fn take_missed(&self) -> Option<Gap> {
        self.inner.take_missed()
    }

    fn limits(&self) -> SourceLimits {
        self.inner.limits()
    }

    fn trouble(&self) -> Option<SourceError> {
        self.inner.trouble()
    }

    fn is_connected(&self) -> bool {
        self.inner.is_connected()
    }
}
