//! A server as a process of this machine, and the wait until it is there.

use std::{
    fs::{self, File},
    future::Future,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::{
    process::{Child, Command},
    time::{Instant, sleep},
};

/// Longest wait until a server is there: it takes a second, but on a busy machine who knows.
const START_TIMEOUT: Duration = Duration::from_secs(40);
const LOOK: Duration = Duration::from_millis(10);
/// Bytes of a log that are shown when a server fails.
const SHOWN_LOG: usize = 4000;

/// A process that ends with this value, and what it says.
#[derive(Debug)]
pub struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts `command`, with its output in a file of `folder`.
    ///
    /// # Errors
    /// When it can't be started.
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let file = File::create(&log)?;
        let program = command.as_std().get_program().to_owned();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("can't start {name} ({})", program.display()))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// Its process id.
    ///
    /// # Errors
    /// When it has ended.
    pub fn pid(&self) -> Result<u32> {
        self.child.id().with_context(|| format!("{} has ended", self.name))
    }

    /// Sends a signal, as in `STOP`.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: &str) -> Result<()> {
        let sent = std::process::Command::new("kill").args(["-s", signal, &self.pid()?.to_string()]).status()?;
        ensure!(sent.success(), "kill -s {signal} failed");
        Ok(())
    }

    /// What it has said so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Waits until `there` gives something.
    ///
    /// # Errors
    /// When the server ends, or takes too long; shows what it said.
    pub async fn until<T, F: Future<Output = Option<T>>>(&mut self, there: impl Fn(String) -> F) -> Result<T> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(found) = there(self.log()).await {
                return Ok(found);
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() > deadline {
                let log = self.log();
                let shown = log.get(log.len().saturating_sub(SHOWN_LOG)..).unwrap_or(&log);
                bail!("{} {}; it says:\n{shown}", self.name, if ended.is_some() { "has ended" } else { "is not there yet" });
            }
            sleep(LOOK).await;
        }
    }

    /// Ends it, and waits until it has ended.
    ///
    /// # Errors
    /// When it can't be ended.
    pub async fn end(mut self) -> Result<()> {
        self.child.kill().await.with_context(|| format!("{} does not end", self.name))
    }
}
