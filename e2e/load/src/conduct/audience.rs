//! Sockets that one event is for.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::{
    client::{
        fleet::Clients,
        protocol::{Desks, Published, SetId},
    },
    publisher::Publisher,
};

/// The sockets that an event is for, and how many events they got so far.
#[derive(Debug)]
pub(crate) struct Audience {
    /// Their set.
    pub(crate) set: SetId,
    /// How many they are, over all servers.
    pub(crate) sockets: u32,
    /// Servers that they are spread over.
    pub(crate) servers: usize,
    /// Events so far.
    pub(crate) published: u32,
}

impl Audience {
    /// Publishes so many events for all of them at once. Returns when the first was sent.
    ///
    /// # Errors
    /// When NATS is gone.
    pub(crate) async fn publish(&mut self, clients: &mut Clients, publisher: &mut Publisher, events: u32) -> Result<u64> {
        let desk = Desks::Shared.agent(0);
        let mut first = 0;
        for event in 0..events {
            let sent = publisher.publish(&desk, self.published).await?;
            first = if event == 0 { sent } else { first };
            self.published += 1;
        }
        let (before, now) = (Published::Each(self.published - events), Published::Each(self.published));
        clients.expect(self.sockets, self.servers, before, now);
        Ok(first)
    }

    /// Waits until all have what was published. Returns when the last of it was read.
    ///
    /// # Errors
    /// When some of it does not come.
    pub(crate) async fn received(&self, clients: &mut Clients, at_most: Duration) -> Result<u64> {
        let received = clients.received(at_most).await?;
        ensure!(received.missing == 0, "{} deliveries are missing after {} s", received.missing, at_most.as_secs());
        Ok(received.last)
    }
}
