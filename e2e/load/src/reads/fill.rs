//! A stream with many events on many subjects.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use async_nats::{
    Client,
    jetstream::{self, stream},
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::stream::STREAM;

/// Events on their way to the stream at a time: more, and a server drops some.
const WINDOW: u64 = 4096;
/// Bytes of an event: it is the number of events that costs.
const BYTES: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);

/// The subject of the event with this number, counted from 0.
pub(super) fn subject(number: u64, subjects: u64) -> String {
    let desk = number % subjects;
    format!("wa.company-{}.agent-{desk}.chats", desk % 1000)
}

/// Makes the stream and stores the events, each for the next subject.
///
/// # Errors
/// When the server does not confirm one in time.
pub(super) async fn fill(client: &Client, events: u64, subjects: u64) -> Result<()> {
    let config = stream::Config {
        name: STREAM.to_owned(),
        subjects: vec!["wa.>".to_owned()],
        storage: stream::StorageType::File,
        allow_direct: true,
        ..Default::default()
    };
    jetstream::new(client.clone()).create_stream(config).await.context("the stream can't be made")?;
    let inbox = client.new_inbox();
    let mut stored = client.subscribe(inbox.clone()).await?;
    let payload = Bytes::from(vec![b'x'; BYTES]);
    let (mut sent, mut confirmed) = (0, 0);
    while confirmed < events {
        while sent < events && sent - confirmed < WINDOW {
            client.publish_with_reply(subject(sent, subjects), inbox.clone(), payload.clone()).await?;
            sent += 1;
        }
        let answer = timeout(PATIENCE, stored.next()).await.context("the stream does not confirm an event")?;
        let answer = answer.context("the connection has ended")?;
        ensure!(!answer.payload.starts_with(b"{\"error"), "the stream refuses an event: {:?}", answer.payload);
        confirmed += 1;
    }
    Ok(())
}
