//! What is attacked: NATS, Redis and pods, as processes on free ports of the loopback network.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use daisi_ws_testbed::{http, wait};
use tempfile::TempDir;
use tokio::{net::TcpStream, time::sleep};

use crate::store;

/// The browsers' key.
pub const API_KEY: &str = "browsers-hold-this-key-of-the-stage";
/// The key of the token API.
pub const MINT_KEY: &str = "only-the-back-end-holds-this-key-of-the-stage";
const START: Duration = Duration::from_secs(40);
const START_ATTEMPTS: usize = 3;
const LOOK: Duration = Duration::from_millis(20);
/// Life of a token: longer than any run.
const TOKEN_SECONDS: u32 = 3600;
/// Last lines of a pod's log that are kept, to be shown when it fails.
const KEPT_LINES: usize = 40;

/// A process that ends with this value.
#[derive(Debug)]
pub struct Process(Child);

impl Process {
    fn quiet(mut command: Command) -> Result<Self> {
        let program = command.get_program().to_owned();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Ok(Self(child.with_context(|| format!("can't start {}", program.display()))?))
    }

    /// Sends a signal, as in `STOP`.
    ///
    /// # Errors
    /// When the process has ended.
    pub fn signal(&self, name: &str) -> Result<()> {
        let sent = Command::new("kill").args(["-s", name, &self.0.id().to_string()]).status()?;
        ensure!(sent.success(), "kill -s {name} failed");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a pod says, read by a thread that can be stopped, as a log collector can.
#[derive(Debug, Default)]
struct Log {
    lines: AtomicU64,
    bytes: AtomicU64,
    last: Mutex<std::collections::VecDeque<String>>,
    stopped: Mutex<bool>,
    resumed: Condvar,
}

impl Log {
    fn read(&self, from: ChildStderr) {
        let mut reader = BufReader::new(from);
        loop {
            {
                let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
                while *stopped {
                    stopped = self.resumed.wait(stopped).unwrap_or_else(PoisonError::into_inner);
                }
            }
            let mut line = String::new();
            // A line that never ends is no line of a log; it is read in pieces.
            match reader.by_ref().take(1 << 20).read_line(&mut line) {
                Ok(0) | Err(_) => return,
                Ok(bytes) => {
                    self.lines.fetch_add(1, Ordering::Relaxed);
                    self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
                    let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
                    last.push_back(line);
                    if last.len() > KEPT_LINES {
                        last.pop_front();
                    }
                }
            }
        }
    }

    fn text(&self) -> String {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).iter().map(String::as_str).collect()
    }
}

/// A running pod.
#[derive(Debug)]
pub struct Pod {
    /// Where browsers connect.
    pub http: SocketAddr,
    /// Where pods connect.
    pub grpc: SocketAddr,
    /// Where orchestrators and scrapers ask: the listener of their own if the pod has one, else that of browsers.
    pub probes: SocketAddr,
    process: Process,
    log: Arc<Log>,
}

impl Pod {
    fn spawn(binary: &Path, environment: &[(String, String)], grpc: SocketAddr, probes: Option<SocketAddr>) -> Result<Self> {
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
        Ok(Self { http, grpc, probes: probes.unwrap_or(http), process: Process(child), log })
    }

    async fn ready(&mut self) -> Result<()> {
        let deadline = tokio::time::Instant::now() + START;
        loop {
            if http::get(self.probes, "/ready").await.is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            let ended = self.process.0.try_wait()?;
            if ended.is_some() || tokio::time::Instant::now() > deadline {
                sleep(LOOK).await;
                bail!("the pod {}; it says:\n{}", if ended.is_some() { "has ended" } else { "is not ready" }, self.log.text());
            }
            sleep(LOOK).await;
        }
    }

    /// The lines of its log so far.
    #[must_use]
    pub fn log_lines(&self) -> u64 {
        self.log.lines.load(Ordering::Relaxed)
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_end(&self) -> String {
        self.log.text()
    }

    /// Has nobody read its log any more, or again.
    pub fn read_log(&self, read: bool) {
        *self.log.stopped.lock().unwrap_or_else(PoisonError::into_inner) = !read;
        self.log.resumed.notify_all();
    }

    /// Resident memory, in bytes; none once it has ended.
    #[must_use]
    pub fn memory(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.process.0.id())).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    }

    /// CPU time so far; none once it has ended.
    #[must_use]
    pub fn cpu(&self) -> Option<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.process.0.id())).ok()?;
        let mut fields = text.rsplit_once(") ")?.1.split(' ').skip(11);
        let (user, system) = (fields.next()?.parse::<u64>().ok()?, fields.next()?.parse::<u64>().ok()?);
        // The kernel counts in hundredths of a second for every program.
        Some(Duration::from_millis((user + system) * 10))
    }

    /// A token of this user, from the pod's token API.
    ///
    /// # Errors
    /// When it gives none.
    pub async fn token(&self, company: &str, agent: &str, user: &str) -> Result<String> {
        let body =
            serde_json::json!({"company_id": company, "agent_id": agent, "user_id": user, "expires_in_seconds": TOKEN_SECONDS});
        let headers = [("x-api-key", MINT_KEY), ("content-type", "application/json")];
        let answer = http::ask(self.http, "POST", "/generate-token", &headers, &body.to_string()).await?;
        let answer: serde_json::Value =
            serde_json::from_str(&answer.body).with_context(|| format!("status {}: {}", answer.status, answer.body))?;
        Ok(answer["token"].as_str().with_context(|| format!("no token in {answer}"))?.to_owned())
    }
}

/// Everything that a run is about.
#[derive(Debug)]
pub struct Stage {
    /// The pods; the first is attacked.
    pub pods: Vec<Pod>,
    /// Where NATS listens.
    pub nats: SocketAddr,
    /// Where Redis listens.
    pub redis: SocketAddr,
    /// The gateway's program.
    pub binary: PathBuf,
    redis_process: Process,
    _nats_process: Process,
    _folder: TempDir,
}

impl Stage {
    /// Starts NATS, Redis and so many pods with these variables beside the necessary ones; those in `wished` are left out where the gateway
    /// does not know them.
    ///
    /// # Errors
    /// When one of them does not get ready.
    pub async fn start(binary: &Path, pods: usize, set: &[(String, String)], wished: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (nats, nats_process) = start_nats(folder.path()).await?;
        let (redis, redis_process) = start_redis(folder.path()).await?;
        let mut stage = Self {
            pods: Vec::new(),
            nats,
            redis,
            binary: binary.to_owned(),
            redis_process,
            _nats_process: nats_process,
            _folder: folder,
        };
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
    pub fn freeze_redis(&self, frozen: bool) -> Result<()> {
        self.redis_process.signal(if frozen { "STOP" } else { "CONT" })
    }

    /// Calls of Redis commands so far, those within scripts included.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn redis_calls(&self) -> Result<u64> {
        Ok(store::calls(self.redis).await?.values().sum())
    }
}

/// Does this text name the key that the variable sets, as in `app.memory_budget_bytes`?
fn names_key(text: &str, variable: &str) -> bool {
    let key = variable.trim_start_matches("DAISI_WS_").to_lowercase();
    key.split_once('_').is_some_and(|(_, key)| text.contains(key))
}

async fn start_nats(folder: &Path) -> Result<(SocketAddr, Process)> {
    let address = free_address()?;
    let config = folder.join("nats.conf");
    let store = folder.join("store");
    std::fs::write(&config, format!("listen: \"{address}\"\njetstream {{ store_dir: {store:?}, max_file_store: 2G }}\n"))?;
    let fetched = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/bin/nats-server");
    let program = match std::env::var_os("NATS_SERVER") {
        Some(program) => PathBuf::from(program),
        None if fetched.exists() => fetched,
        None => "nats-server".into(),
    };
    let mut command = Command::new(program);
    command.arg("-c").arg(config);
    let process = Process::quiet(command).context(".ci/tools.sh brings it")?;
    listens(address).await?;
    Ok((address, process))
}

async fn start_redis(folder: &Path) -> Result<(SocketAddr, Process)> {
    let address = free_address()?;
    let mut command = Command::new(std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into()));
    command.args(["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--port", &address.port().to_string()]);
    command.arg("--dir").arg(folder);
    let process = Process::quiet(command).context(".ci/tools.sh brings it")?;
    listens(address).await?;
    Ok((address, process))
}

async fn listens(address: SocketAddr) -> Result<()> {
    wait::until("the server listens", START, || async { TcpStream::connect(address).await.is_ok() }).await
}

/// An address of the loopback network that nobody listens at.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
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
