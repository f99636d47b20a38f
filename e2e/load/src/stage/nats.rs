//! The NATS of a run, with its stream.

use std::{net::SocketAddr, path::Path, time::Duration};

use anyhow::{Context as _, Result};
use async_nats::jetstream::{self, consumer, stream};
use daisi_ws_testbed::{nats, server::Server};
use tokio::time::{sleep, timeout};

use crate::{
    proc::{
        cpu::{self, Cpu},
        owner,
    },
    stream::{FLOORS_DURABLE, PODS_DURABLE, STREAM},
};

/// What the store may take of the disk.
const STORE: &str = "4G";
/// Enough for the longest run; the oldest events go then.
const STREAM_BYTES: i64 = 1 << 30;
/// The default of `app.nats_max_ack_pending`.
const MAX_ACK_PENDING: i64 = 5000;
/// Between two looks at what is not settled.
const LOOK: Duration = Duration::from_millis(50);
const SETTLED_TIMEOUT: Duration = Duration::from_secs(60);

/// A NATS server, started by the run or there before.
#[derive(Debug)]
pub(crate) struct Nats {
    pub(crate) address: SocketAddr,
    pid: Option<u32>,
    server: Option<Server>,
}

impl Nats {
    /// Starts one with JetStream on files, as in production, and makes the stream.
    ///
    /// # Errors
    /// When it does not start.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let (address, server) = nats::start(folder, STORE).await?;
        let nats = Self { address, pid: Some(server.pid()?), server: Some(server) };
        nats.make_stream().await?;
        Ok(nats)
    }

    /// One that is there, with its stream.
    pub(crate) fn existing(address: SocketAddr) -> Self {
        Self { address, pid: owner::of(address), server: None }
    }

    /// CPU time so far; none if it runs elsewhere.
    pub(crate) fn cpu(&self) -> Option<Cpu> {
        cpu::of(self.pid?).ok()
    }

    /// Waits until pods have settled every event.
    ///
    /// # Errors
    /// When they do not.
    pub(crate) async fn settled(&self) -> Result<()> {
        let client = async_nats::connect(self.url()).await.context("NATS does not answer")?;
        let stream = jetstream::new(client).get_stream_no_info(STREAM).await.context("the stream is not there")?;
        let settled = async {
            loop {
                let info = stream.consumer_info(PODS_DURABLE).await.context("the pods' consumer is not there")?;
                if info.num_pending == 0 && info.num_ack_pending == 0 {
                    return Ok(());
                }
                sleep(LOOK).await;
            }
        };
        timeout(SETTLED_TIMEOUT, settled).await.context("pods do not settle what was published")?
    }

    /// For clients.
    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// The stream must be there for events that are published before a pod is.
    async fn make_stream(&self) -> Result<()> {
        let client = async_nats::connect(self.url()).await.context("NATS does not answer")?;
        let config = stream::Config {
            name: STREAM.to_owned(),
            subjects: vec!["wa.>".to_owned()],
            storage: stream::StorageType::File,
            max_bytes: STREAM_BYTES,
            allow_direct: true,
            ..Default::default()
        };
        jetstream::new(client).get_or_create_stream(config).await.context("the stream can't be made")?;
        Ok(())
    }

    /// Makes the floor's durable, as a pod would make its own.
    ///
    /// # Errors
    /// When NATS does not take it.
    pub(super) async fn make_durable(&self) -> Result<()> {
        let client = async_nats::connect(self.url()).await.context("NATS does not answer")?;
        let config = consumer::pull::Config {
            durable_name: Some(FLOORS_DURABLE.to_owned()),
            deliver_policy: consumer::DeliverPolicy::New,
            ack_policy: consumer::AckPolicy::Explicit,
            max_ack_pending: MAX_ACK_PENDING,
            ..Default::default()
        };
        jetstream::new(client).create_consumer_on_stream(config, STREAM).await.context("the floor's durable can't be made")?;
        Ok(())
    }

    /// Ends it, if the run has started it.
    ///
    /// # Errors
    /// When it can't be ended.
    pub(crate) async fn end(self) -> Result<()> {
        match self.server {
            Some(server) => server.end().await,
            None => Ok(()),
        }
    }
}
