//! What load is put on: one kind of servers, with sockets, events and a stage of its own, so that two of them can be measured in
//! turns without one having a part in what the other costs.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::Result;
use tokio::time::sleep;

use super::conductor::{Conductor, Stage};
use crate::{
    client::{
        fleet::{Clients, Wish},
        protocol::{Arrival, Desks, SetId},
    },
    publisher::Publisher,
    report::Size,
    stage::{nats::Nats, redis::Redis, servers::Servers},
};

/// Handshakes under way when sockets are opened at leisure: enough to keep a pod busy, too few to make them wait for each other.
pub(crate) const AT_LEISURE: u32 = 50;
/// A rehearsal is so many times as fast with what only makes figures exact.
const HURRY: u32 = 5;

/// Servers, and those who use them.
#[derive(Debug)]
pub(crate) struct Side {
    stage: Stage,
    pub(crate) servers: Servers,
    pub(crate) clients: Clients,
    pub(crate) publisher: Publisher,
    /// It is a rehearsal.
    hurries: bool,
    /// Where sockets are opened: at all servers, unless it was narrowed.
    targets: Vec<SocketAddr>,
}

/// Sockets of a side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Group {
    /// The set that they join.
    pub(crate) set: SetId,
    /// How many, over all targets.
    pub(crate) count: u32,
    /// On which desks.
    pub(crate) desks: Desks,
    /// Handshakes that may be under way at once.
    pub(crate) in_flight: u32,
    /// What they bring along.
    pub(crate) arrival: Arrival,
}

impl Side {
    /// As many floors as there would be pods, unless none is wanted.
    ///
    /// # Errors
    /// When something does not start.
    pub(crate) async fn floors(conductor: &Conductor, size: Size) -> Result<Option<Self>> {
        Self::floors_on(conductor, size, false).await
    }

    /// A floor that takes events from a durable consumer and acknowledges them, unless none is wanted.
    ///
    /// # Errors
    /// When something does not start.
    pub(crate) async fn floor_on_durable(conductor: &Conductor, size: Size) -> Result<Option<Self>> {
        Self::floors_on(conductor, size, true).await
    }

    async fn floors_on(conductor: &Conductor, size: Size, durable: bool) -> Result<Option<Self>> {
        if !conductor.wants_floor() {
            return Ok(None);
        }
        let stage = conductor.floors_stage().await?;
        let servers = conductor.floors(&stage, size.pods, durable).await?;
        Self::of(conductor, stage, servers, size).await.map(Some)
    }

    /// A pod for each of these lists of variables.
    ///
    /// # Errors
    /// When something does not start.
    pub(crate) async fn pods(conductor: &Conductor, size: Size, environments: &[&[(&str, &str)]]) -> Result<Self> {
        Self::pods_of(conductor, conductor.service(), size, environments).await
    }

    /// Pods of the program that is compared with the first, with their defaults, if there is one.
    ///
    /// # Errors
    /// When something does not start.
    pub(crate) async fn beside(conductor: &Conductor, size: Size) -> Result<Option<Self>> {
        let Some(service) = conductor.beside() else { return Ok(None) };
        let environments = vec![[].as_slice(); size.pods as usize];
        Self::pods_of(conductor, service, size, &environments).await.map(Some)
    }

    async fn pods_of(conductor: &Conductor, service: &Path, size: Size, environments: &[&[(&str, &str)]]) -> Result<Self> {
        let stage = conductor.stage().await?;
        let servers = conductor.pods(service, &stage, environments).await?;
        Self::of(conductor, stage, servers, size).await
    }

    async fn of(conductor: &Conductor, stage: Stage, servers: Servers, size: Size) -> Result<Self> {
        let clients = Clients::for_sockets(size.sockets * size.pods, conductor.client_threads())?;
        let publisher = Publisher::connect(&stage.nats).await?;
        Ok(Self { hurries: conductor.is_quick(), targets: servers.addresses(), stage, servers, clients, publisher })
    }

    /// Sockets are opened at this server only from now on.
    pub(crate) fn only_at(&mut self, target: SocketAddr) {
        self.targets = vec![target];
    }

    /// So long, or a part of it in a rehearsal: what only makes figures exact need not take its time there.
    pub(crate) fn unless_hurried(&self, length: Duration) -> Duration {
        if self.hurries { length / HURRY } else { length }
    }

    /// Waits so long, or a part of it in a rehearsal, until what sockets leave to do is done.
    pub(crate) async fn settle(&self, length: Duration) {
        sleep(self.unless_hurried(length)).await;
    }

    /// The Redis of its servers; floors have none.
    pub(crate) fn redis(&self) -> Option<&Redis> {
        self.stage.redis.as_ref()
    }

    /// The NATS of its servers.
    pub(crate) fn nats(&self) -> &Nats {
        &self.stage.nats
    }

    /// Opens sockets, and waits until each is ready or has failed. Returns when the last was.
    ///
    /// # Errors
    /// When a client process is broken.
    pub(crate) async fn open(&mut self, group: Group) -> Result<u64> {
        let Group { set, count, desks, in_flight, arrival } = group;
        let (targets, keys) = (self.targets.as_slice(), &self.stage.keys);
        let wish = Wish { set, targets, count, desks, in_flight, keys, receive_buffer: None, arrival };
        self.clients.open(&wish).await
    }

    /// Ends what was started for it.
    ///
    /// # Errors
    /// When something does not end.
    pub(crate) async fn end(self) -> Result<()> {
        self.clients.end().await?;
        self.servers.end().await?;
        self.stage.end().await
    }
}
