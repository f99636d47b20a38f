//! A pod that is attacked: a process of the gateway's program.

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use daisi_ws_testbed::{http, loopback::free_address, tokens};
use tokio::time::{Instant, sleep};

use super::log::Log;

/// The browsers' key.
pub(crate) const API_KEY: &str = "browsers-hold-this-key-of-the-stage";
/// The key of the token API.
pub(crate) const MINT_KEY: &str = "only-the-back-end-holds-this-key-of-the-stage";
/// Longest start of a pod.
pub(super) const START: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(20);
/// Life of a token: longer than any run.
const TOKEN_SECONDS: u32 = 3600;

/// A running pod.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Where browsers connect.
    pub(crate) http: SocketAddr,
    /// Where pods connect.
    pub(crate) grpc: SocketAddr,
    /// Where orchestrators and scrapers ask: the listener of their own if the pod has one, else that of browsers.
    pub(crate) probes: SocketAddr,
    process: Child,
    log: Arc<Log>,
}

impl Pod {
    /// Starts one, which is not ready yet.
    pub(super) fn spawn(
        binary: &Path,
        environment: &[(String, String)],
        grpc: SocketAddr,
        probes: Option<SocketAddr>,
    ) -> Result<Self> {
        let http = free_address()?;
        let mut command = Command::new(binary);
        command.arg("serve").env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        command.env("DAISI_WS_SERVER_HTTP_PORT", http.port().to_string());
        command.env("DAISI_WS_SERVER_GRPC_PORT", grpc.port().to_string());
        if let Some(probes) = probes {
            command.env("DAISI_WS_SERVER_PROBE_PORT", probes.port().to_string());
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut child = child.with_context(|| format!("can't start {}", binary.display()))?;
        let (stderr, log) = (child.stderr.take().context("the log is piped")?, Arc::new(Log::default()));
        let reading = Arc::clone(&log);
        thread::spawn(move || reading.read(stderr));
        Ok(Self { http, grpc, probes: probes.unwrap_or(http), process: child, log })
    }

    /// Waits until it is ready.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START;
        loop {
            if http::get(self.probes, "/ready").await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            let ended = self.process.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                sleep(LOOK).await;
                bail!("the pod {}; it says:\n{}", if ended.is_some() { "has ended" } else { "is not ready" }, self.log.text());
            }
            sleep(LOOK).await;
        }
    }

    /// The lines of its log so far.
    #[must_use]
    pub(crate) fn log_lines(&self) -> u64 {
        self.log.lines.load(Ordering::Relaxed)
    }

    /// The last lines of its log.
    #[must_use]
    pub(crate) fn log_end(&self) -> String {
        self.log.text()
    }

    /// Has nobody read its log any more, or again.
    pub(crate) fn read_log(&self, read: bool) {
        self.log.resume(read);
    }

    /// Resident memory, in bytes; none once it has ended.
    #[must_use]
    pub(crate) fn memory(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    }

    /// CPU time so far; none once it has ended.
    #[must_use]
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id())).ok()?;
        let mut fields = text.rsplit_once(") ")?.1.split(' ').skip(11);
        let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
        // The kernel counts in hundredths of a second for every program.
        Some(Duration::from_millis((user + system) * 10))
    }

    /// A token of this user, from the pod's token API.
    ///
    /// # Errors
    /// When it gives none.
    pub(crate) async fn token(&self, company: &str, agent: &str, user: &str) -> Result<String> {
        let body =
            serde_json::json!({"company_id": company, "agent_id": agent, "user_id": user, "expires_in_seconds": TOKEN_SECONDS});
        tokens::mint(self.http, "/generate-token", MINT_KEY, &body).await
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
