//! What happens to what the pod stands on during an attack.

use std::{net::SocketAddr, path::Path, process::Stdio, time::Duration};

use anyhow::Result;
use tokio::{
    process::Command,
    task::JoinSet,
    time::{interval, timeout},
};

use super::sessions::CROWD;
use crate::{
    catalogue::Circumstance,
    intruder::redis,
    stage::{
        pod::{API_KEY, MINT_KEY},
        servers::Stage,
    },
};

/// Begins it; what goes on by itself becomes a task of `meanwhile`.
pub(super) async fn begin(
    circumstance: Circumstance,
    stage: &Stage,
    agents: usize,
    meanwhile: &mut JoinSet<()>,
    remarks: &mut Vec<String>,
) -> Result<()> {
    match circumstance {
        Circumstance::RedisFrozen => stage.freeze_redis(true),
        Circumstance::LogUnread => {
            stage.pods[0].read_log(false);
            Ok(())
        }
        Circumstance::Events { bytes, per_second } => {
            let nats = async_nats::connect(stage.nats.to_string()).await?;
            meanwhile.spawn(feed(nats, agents, bytes, per_second));
            Ok(())
        }
        Circumstance::WideRoute(members) => redis::fill_set(stage.redis, "route:audience:agent-0:chats", members).await,
        Circumstance::HugeValues(bytes) => {
            redis::fill_string(stage.redis, &format!("session:{CROWD}:agent-0:stranger"), bytes).await?;
            redis::fill_string(stage.redis, "pod:pod-of-nobody", bytes).await?;
            redis::fill_string(stage.redis, &format!("session:{CROWD}:agent-1:stranger:selected_chat"), bytes).await?;
            redis::add_member(stage.redis, "pods", "pod-of-nobody").await
        }
        Circumstance::FalsePod => Ok(()),
        Circumstance::PublishedSubjects => {
            let created = stream_created(stage).await?;
            for subject in ["wa.acme", "wa.acme.agent.other", "wa.>", "other.acme.agent.chats", "$JS.API.STREAM.DELETE.wa_stream"]
            {
                let taken = publish(&stage.binary, stage.nats, subject).await?;
                remarks.push(format!("`{subject}` {}", if taken { "is published" } else { "is refused" }));
                if stream_created(stage).await.ok() != Some(created) {
                    remarks.push("the stream is gone".to_owned());
                    break;
                }
            }
            Ok(())
        }
    }
}

/// Tells the stream from another of its name.
async fn stream_created(stage: &Stage) -> Result<i128> {
    let nats = async_nats::connect(stage.nats.to_string()).await?;
    let stream = async_nats::jetstream::new(nats).get_stream("wa_stream").await?;
    Ok(stream.cached_info().created.unix_timestamp_nanos())
}

/// Events of so many bytes, so many a second, for the sessions of strangers in turn.
async fn feed(nats: async_nats::Client, agents: usize, bytes: usize, per_second: u32) {
    // Made once: who measures has no time to write megabytes again and again.
    let row = "x".repeat(bytes);
    let event = serde_json::json!({"event_id": "feed", "company_id": CROWD, "row_data": {"text": row}}).to_string();
    let event = bytes::Bytes::from(event);
    let mut ticks = interval(Duration::from_secs(1) / per_second.max(1));
    for number in 0_usize.. {
        ticks.tick().await;
        let subject = format!("wa.{CROWD}.agent-{}.chats", number % agents.max(1));
        if nats.publish(subject, event.clone()).await.is_err() {
            return;
        }
    }
}

/// Calls `publish` of the gateway's program; does it say that it is done?
async fn publish(binary: &Path, nats: SocketAddr, subject: &str) -> Result<bool> {
    let mut command = Command::new(binary);
    command.args(["publish", subject, "{}"]).env_clear().env("DAISI_WS_NATS_URL", format!("nats://{nats}"));
    for (name, key) in [("SECRET_TOKEN", API_KEY), ("TOKEN_GENERATION_ADMIN_KEY", MINT_KEY)] {
        command.env(format!("DAISI_WS_AUTH_{name}"), key);
    }
    command.env("DAISI_WS_AUTH_TOKEN_AES_KEY", "1a".repeat(32)).env("DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY", "2b".repeat(32));
    let output = timeout(Duration::from_secs(10), command.stdin(Stdio::null()).output()).await;
    Ok(output.is_ok_and(|output| output.is_ok_and(|output| output.status.success())))
}
