//! The servers of a run: the fleet, and the NATS and the Redis that it stands on.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::{Result, ensure};
use daisi_ws_testbed::{http, loopback::free_address, nats, redis, server::Server, wait};
use tempfile::TempDir;

use super::pod::{API_KEY, MINT_KEY, Pod, START};

const START_ATTEMPTS: usize = 3;
/// What NATS may take of the disk.
const STORE: &str = "2G";

/// Everything that a run is about.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The pods; the first is attacked.
    pub(crate) pods: Vec<Pod>,
    /// Where NATS listens.
    pub(crate) nats: SocketAddr,
    /// Where Redis listens.
    pub(crate) redis: SocketAddr,
    /// The gateway's program.
    pub(crate) binary: PathBuf,
    redis_process: Server,
    nats_process: Server,
    _folder: TempDir,
}

impl Stage {
    /// Starts NATS, Redis and so many pods with these variables beside the necessary ones; those in `wished` are left out where
    /// the gateway does not know them.
    ///
    /// # Errors
    /// When one of them does not get ready.
    pub(crate) async fn start(binary: &Path, pods: usize, set: &[(String, String)], wished: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (nats, nats_process) = nats::start(folder.path(), STORE).await?;
        let (redis, redis_process) = redis::start(folder.path()).await?;
        let mut stage =
            Self { pods: Vec::new(), nats, redis, binary: binary.to_owned(), redis_process, nats_process, _folder: folder };
        let (mut wished, mut own_probes, mut failures) = (wished.to_vec(), true, 0);
        while stage.pods.len() < pods {
            let grpc = free_address()?;
            let mut environment = stage.environment(stage.pods.len(), grpc);
            environment.extend(wished.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            environment.extend_from_slice(set);
            let mut pod = Pod::spawn(binary, &environment, grpc, own_probes.then(free_address).transpose()?)?;
            match pod.ready().await {
                Ok(()) => stage.pods.push(pod),
                // A gateway of before may know fewer keys; it ends with the name of the one that it does not know.
                Err(error) if own_probes && error.to_string().contains("probe_port") => own_probes = false,
                Err(error) => {
                    let (known, said) = (wished.len(), error.to_string().to_lowercase());
                    wished.retain(|(name, _)| !names_key(&said, name));
                    // A port that was free when it was looked for may have been taken since.
                    failures += usize::from(wished.len() == known);
                    ensure!(failures < START_ATTEMPTS, "{error}");
                }
            }
        }
        stage.acquainted().await?;
        Ok(stage)
    }

    fn environment(&self, index: usize, grpc: SocketAddr) -> Vec<(String, String)> {
        let pairs = [
            ("SERVER_POD_ID", format!("pod-{index}")),
            ("SERVER_BIND_ADDRESS", "127.0.0.1".to_owned()),
            ("SERVER_GRPC_ADVERTISE_ADDRESS", grpc.to_string()),
            ("NATS_URL", format!("nats://{}", self.nats)),
            ("NATS_STREAM_MAX_BYTES", (512_u64 << 20).to_string()),
            ("REDIS_ADDRESS", self.redis.to_string()),
            ("AUTH_SECRET_TOKEN", API_KEY.to_owned()),
            ("AUTH_TOKEN_GENERATION_ADMIN_KEY", MINT_KEY.to_owned()),
            ("AUTH_TOKEN_AES_KEY", "1a".repeat(32)),
            ("AUTH_ADMIN_TOKEN_AES_KEY", "2b".repeat(32)),
        ];
        pairs.into_iter().map(|(name, value)| (format!("DAISI_WS_{name}"), value)).collect()
    }

    /// Waits until each pod knows the others.
    async fn acquainted(&self) -> Result<()> {
        let wanted = format!("dws_peers{{state=\"alive\"}} {}", self.pods.len() - 1);
        for pod in &self.pods {
            wait::until("the pods know each other", START, || async {
                http::get(pod.probes, "/metrics").await.is_ok_and(|answer| answer.body.contains(&wanted))
            })
            .await?;
        }
        Ok(())
    }

    /// Stops Redis where it is, as a host that hangs does: connections stay and nobody answers. Or lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn freeze_redis(&self, frozen: bool) -> Result<()> {
        self.redis_process.signal(if frozen { "STOP" } else { "CONT" })
    }

    /// Ends all of it, and waits until it has ended.
    ///
    /// # Errors
    /// When one can't be ended.
    pub(crate) async fn end(self) -> Result<()> {
        let Self { pods, redis_process, nats_process, .. } = self;
        drop(pods);
        redis_process.end().await?;
        nats_process.end().await
    }

    /// Calls of Redis commands so far, those within scripts included.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub(crate) async fn redis_calls(&self) -> Result<u64> {
        Ok(redis::calls(self.redis).await?.values().sum())
    }
}

/// Does this text name the key that the variable sets, as in `app.memory_budget_bytes`?
fn names_key(text: &str, variable: &str) -> bool {
    let key = variable.trim_start_matches("DAISI_WS_").to_lowercase();
    key.split_once('_').is_some_and(|(_, key)| text.contains(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_found_in_the_error_that_names_it() {
        assert!(names_key("unknown key app.memory_budget_bytes", "DAISI_WS_APP_MEMORY_BUDGET_BYTES"));
        assert!(!names_key("unknown key app.other", "DAISI_WS_APP_MEMORY_BUDGET_BYTES"));
    }
}
