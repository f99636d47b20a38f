//! The kill bus: a channel per session, one pattern subscription per listener, on a connection of its own.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use daisi_ws_domain::{
    ids::{ConnectionId, PodId},
    session::{Kill, KillClaim, LockOwner},
};
use futures_util::StreamExt as _;
use redis::{
    Msg,
    aio::{PubSubSink, PubSubStream},
};
use serde::{Deserialize, Serialize};
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{RedisStore, deaf::Deaf, dialer::Dialer, errors::store_error, keys, lineage::Lineage};
use crate::{
    application::admission::kill_inbox::{CAPACITY, KillInbox},
    metrics::labels::RedisCommand,
    ports::{KillBus, KillListener, KillSignal, StoreError},
    runtime::backoff::Backoff,
    telemetry::Chain,
};

/// The waits before subscribing again. While Redis is away it is tried once a second at least: a pod that can't hear kills must
/// not stay so after it is back.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
/// How often a subscription is asked whether it lives. A half-open or frozen connection says nothing, as does a quiet one.
const PING_EVERY: Duration = Duration::from_secs(1);

/// What travels, as old pods know it; they name neither socket nor victim.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    new_pod_id: PodId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    connection_id: Option<ConnectionId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    victim: Option<String>,
    /// The victim's client was asked to move, and this is its second socket.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    moving: bool,
}

pub(super) fn encode(kill: &Kill) -> Result<Vec<u8>, StoreError> {
    let order = Order {
        new_pod_id: kill.new_pod.clone(),
        connection_id: kill.connection.clone(),
        victim: kill.victim.as_ref().map(LockOwner::to_string),
        // Nobody answers here: who hears it does not wait for the lock to pass.
        moving: kill.claim != KillClaim::Newer,
    };
    serde_json::to_vec(&order).map_err(StoreError::refused)
}

/// The kill, or `None` for what is none. A victim that can't be read is not "no victim": that would close more than was meant.
pub(super) fn decode(channel: &str, payload: &[u8]) -> Option<Kill> {
    let key = keys::parse_kill_channel(channel)?;
    let order: Order = serde_json::from_slice(payload).ok()?;
    let victim = order.victim.as_deref().map(LockOwner::parse).transpose().ok()?;
    let claim = if order.moving { KillClaim::Moved } else { KillClaim::Newer };
    Some(Kill { key, new_pod: order.new_pod_id, connection: order.connection_id, victim, claim })
}

#[async_trait]
impl KillBus for RedisStore {
    async fn publish(&self, kill: &Kill) -> Result<(), StoreError> {
        let mut publish = redis::cmd("PUBLISH");
        publish.arg(keys::kill_channel(&kill.key)).arg(encode(kill)?);
        let publish = &publish;
        self.commands
            .run(RedisCommand::PublishKill, |mut connection| async move { publish.exec_async(&mut connection).await })
            .await
    }

    async fn listen(&self) -> Box<dyn KillListener> {
        let (inbox, stop) = (Arc::new(KillInbox::new(CAPACITY)), CancellationToken::new());
        let ear = Ear {
            dialer: Arc::clone(&self.dialer),
            lineage: Arc::clone(&self.lineage),
            deaf: Arc::clone(&self.deaf),
            inbox: Arc::clone(&inbox),
        };
        let task = stop.clone().run_until_cancelled_owned(async move { ear.listen_for_ever().await });
        self.tasks.spawn("redis kill listener", async move {
            task.await;
        });
        Box::new(Listener { inbox, _stop: stop.drop_guard() })
    }
}

/// Why a subscription is over that no error ended.
#[derive(Debug, Clone, Copy, thiserror::Error)]
enum Unsubscribed {
    #[error("the subscription ended")]
    Ended,
    #[error("another server has taken over")]
    Moved,
}

/// Hears what its task puts in the inbox; dropping it ends the task.
struct Listener {
    inbox: Arc<KillInbox>,
    _stop: DropGuard,
}

#[async_trait]
impl KillListener for Listener {
    async fn next(&mut self) -> KillSignal {
        self.inbox.next().await
    }
}

/// What hears kills.
struct Ear {
    dialer: Arc<Dialer>,
    lineage: Arc<Lineage>,
    deaf: Arc<watch::Sender<Option<Deaf>>>,
    inbox: Arc<KillInbox>,
}

/// A connection on which kills are heard.
struct Subscription {
    sink: PubSubSink,
    stream: PubSubStream,
}

impl Ear {
    async fn listen_for_ever(&self) {
        let (mut backoff, mut reported) = (BACKOFF, false);
        loop {
            // From before it is made: a connection to a server that is not the one any more is noticed.
            let moves = self.lineage.follow_moves();
            let failure = match self.subscribe().await {
                Ok(subscription) => {
                    tracing::info!("listening for session kills");
                    (backoff, reported) = (BACKOFF, false);
                    self.deaf.send_replace(None);
                    self.inbox.resubscribed();
                    self.hear(moves, subscription).await
                }
                Err(failure) => failure,
            };
            if !reported {
                tracing::warn!(
                    error = %Chain(&failure), error.kind = failure.as_str(), error.advice = failure.advice(),
                    "no longer hearing session kills; subscribing again until it works"
                );
                reported = true;
            }
            self.deaf.send_replace(Some(Deaf::Since(failure)));
            sleep(backoff.pause()).await;
        }
    }

    async fn subscribe(&self) -> Result<Subscription, StoreError> {
        let within = self.dialer.timeout();
        let (mut sink, stream) = self.dialer.connect_pubsub().await?.split();
        match timeout(within, sink.psubscribe(keys::KILL_PATTERN)).await {
            Ok(Ok(())) => Ok(Subscription { sink, stream }),
            Ok(Err(error)) => Err(store_error(error)),
            Err(_) => Err(StoreError::TimedOut(within)),
        }
    }

    /// Hears kills until the subscription ends, and says why it did.
    async fn hear(&self, mut moves: watch::Receiver<u64>, subscription: Subscription) -> StoreError {
        let Subscription { mut sink, mut stream } = subscription;
        let within = self.dialer.timeout();
        let mut pings = interval(PING_EVERY);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = stream.next() => match message {
                    Some(message) => receive(&message, &self.inbox),
                    None => return StoreError::unreachable(Unsubscribed::Ended),
                },
                // What was its server goes on answering pings, and hears no kill any more.
                Ok(()) = moves.changed() => return StoreError::unreachable(Unsubscribed::Moved),
                _ = pings.tick() => match timeout(within, sink.ping::<redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return store_error(error),
                    Err(_) => return StoreError::TimedOut(within),
                },
            }
        }
    }
}

fn receive(message: &Msg, inbox: &KillInbox) {
    match decode(message.get_channel_name(), message.get_payload_bytes()) {
        Some(kill) => inbox.kill(kill),
        None => tracing::debug!("ignored a message on a kill channel that is no kill"),
    }
}

#[cfg(test)]
mod tests {
    use daisi_ws_domain::{ids::AdminId, session::SessionKey};

    use super::*;

    const CHANNEL: &str = "session_kill:admin:root";

    #[test]
    fn a_kill_survives_the_round_trip() {
        let kill = Kill {
            key: SessionKey::Admin { admin: AdminId::parse("root").unwrap() },
            new_pod: PodId::parse("pod-b").unwrap(),
            connection: Some(ConnectionId::parse("c2").unwrap()),
            victim: Some(LockOwner::parse("pod-a/c1").unwrap()),
            claim: KillClaim::Newer,
        };
        let payload = encode(&kill).unwrap();
        assert_eq!(payload, br#"{"new_pod_id":"pod-b","connection_id":"c2","victim":"pod-a/c1"}"#);
        assert_eq!(decode(CHANNEL, &payload), Some(kill.clone()));
        // Nobody answers on a channel: a second socket's order is to be obeyed as it stands.
        for claim in [KillClaim::Second, KillClaim::Moved] {
            let payload = encode(&Kill { claim, ..kill.clone() }).unwrap();
            assert_eq!(decode(CHANNEL, &payload), Some(Kill { claim: KillClaim::Moved, ..kill.clone() }));
        }
    }

    #[test]
    fn an_old_pod_names_no_victim() {
        let kill = decode(CHANNEL, br#"{"new_pod_id":"old-pod"}"#).unwrap();
        assert_eq!((kill.new_pod.as_str(), kill.connection, kill.victim), ("old-pod", None, None));
    }

    #[test]
    fn what_is_no_kill_is_ignored() {
        for payload in [
            "",
            "null",
            "[]",
            "{}",
            r#"{"victim":"pod-a/c1"}"#,
            r#"{"new_pod_id":null}"#,
            r#"{"new_pod_id":""}"#,
            r#"{"new_pod_id":"pod/b"}"#,
            r#"{"new_pod_id":"pod-b","victim":"a/b/c"}"#,
            r#"{"new_pod_id":"pod-b","victim":""}"#,
        ] {
            assert_eq!(decode(CHANNEL, payload.as_bytes()), None, "{payload}");
        }
        assert_eq!(decode("session_kill:a", br#"{"new_pod_id":"pod-b"}"#), None);
    }
}
