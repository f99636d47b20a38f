//! What the server says of events that it delivers no more: a consumer with a limit passes over them, no matter who had them
//! last.

use std::time::Duration;

use async_nats::{Client, Subscriber};
use daisi_ws_domain::gap::{Gap, GapCause};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::wire;
use crate::config::Nats;

/// A subscription, where there is reason for one.
#[derive(Debug, Default)]
pub(super) struct Advisories(Option<Subscriber>);

impl Advisories {
    /// Listens, or does not any more. What can't be had within the time is wanted again with the next call.
    pub(super) async fn listen(&mut self, client: &Client, nats: &Nats, wanted: bool, within: Duration) {
        if wanted == self.0.is_some() {
            return;
        }
        self.0 = None;
        if wanted {
            self.0 = timeout(within, client.subscribe(wire::advisories(nats))).await.ok().and_then(Result::ok);
        }
    }

    /// Waits for the next event that is passed over; for ever, without a subscription. Cancel-safe.
    pub(super) async fn next(&mut self) -> Gap {
        while let Some(subscriber) = &mut self.0 {
            match subscriber.next().await {
                Some(advisory) => {
                    if let Some(seq) = wire::delivered_too_often(&advisory) {
                        return Gap { dropped: None, ..Gap::of(seq, GapCause::GivenUp) };
                    }
                }
                None => self.0 = None,
            }
        }
        std::future::pending().await
    }
}
