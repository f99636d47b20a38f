//! The configuration in force, and how a new one takes its place.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::FutureExt as _;
use serde_json::Value;
use tokio::sync::{Notify, watch};

use super::{Config, ConfigError, Problem, Secrets, Sources, file_watch::FileWatch, keys, redact, validate};
use crate::{
    metrics::{Metrics, labels::Reloaded},
    runtime::lifecycle::Tasks,
    telemetry::{
        Chain,
        audit::{Action, Actor, Audit, Refused},
    },
};

/// How long a change is left to settle: an editor's save and Kubernetes' swap are several events each, a few milliseconds apart.
const SETTLE: Duration = Duration::from_millis(300);

/// What came of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// Nothing is different; nobody is told.
    Unchanged,
    /// What a reload can apply is in force.
    Applied {
        /// The keys that are in force with another value than before.
        changed: Vec<String>,
        /// The keys with another value than the one in force, which stays until the next start.
        need_restart: Vec<String>,
    },
    /// The old configuration stays whole; this says why.
    Refused(ConfigError),
}

/// Holds the configuration in force. Clones share it.
///
/// Subscribers see whole, valid snapshots only, in the order in which they came into force.
#[derive(Debug, Clone)]
pub struct ConfigWatch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    current: watch::Sender<Arc<Config>>,
    sources: Option<Sources>,
    metrics: Arc<Metrics>,
    /// Rings when a reload is wanted; rings that come while one runs are one more.
    wanted: Arc<Notify>,
    /// What was read last, keys that wait for a restart included. Held while reloading: one at a time, or an older file could
    /// win.
    read: Mutex<Arc<Config>>,
}

impl ConfigWatch {
    /// Starts from a configuration that was loaded from `sources`.
    #[must_use]
    pub fn new(config: Config, sources: Sources, metrics: Arc<Metrics>) -> Self {
        Self::with(config, Some(sources), metrics)
    }

    /// Holds a configuration that was put together by hand; reloads leave it as it is.
    #[must_use]
    pub fn fixed(config: Config, metrics: Arc<Metrics>) -> Self {
        Self::with(config, None, metrics)
    }

    fn with(config: Config, sources: Option<Sources>, metrics: Arc<Metrics>) -> Self {
        let config = Arc::new(config);
        let (current, read) = (watch::channel(Arc::clone(&config)).0, Mutex::new(config));
        Self { shared: Arc::new(Shared { current, sources, metrics, wanted: Arc::default(), read }) }
    }

    /// The snapshot in force now.
    #[must_use]
    pub fn current(&self) -> Arc<Config> {
        Arc::clone(&self.shared.current.borrow())
    }

    /// Follows the snapshots: the present one at once, and each that is taken over.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Config>> {
        self.shared.current.subscribe()
    }

    /// Asks the task of [`ConfigWatch::start`] for a reload and returns at once. For SIGHUP.
    pub(crate) fn request_reload(&self) {
        self.shared.wanted.notify_one();
    }

    /// Reads the sources anew; swaps the snapshot whole, or on any error keeps the old one. Logs and counts what came of it.
    ///
    /// Blocks on small files: from a task, use [`ConfigWatch::request_reload`].
    pub fn reload(&self) -> Reload {
        let Some(sources) = &self.shared.sources else { return Reload::Unchanged };
        let mut last_read = self.shared.read.lock().unwrap_or_else(PoisonError::into_inner);
        let outcome = match sources.load(Secrets::Required) {
            Ok(read) if read == **last_read => Reload::Unchanged,
            Ok(read) => match self.swap(&read) {
                Ok(applied) => {
                    *last_read = Arc::new(read);
                    applied
                }
                Err(error) => Reload::Refused(error),
            },
            Err(error) => Reload::Refused(error),
        };
        self.report(&outcome);
        outcome
    }

    /// Puts what a reload applies in force, if it goes with all that stays.
    fn swap(&self, read: &Config) -> Result<Reload, ConfigError> {
        let running = self.current();
        let merged = keys::in_force(&running, read);
        let (changed, need_restart) = (changed_keys(&running, &merged), changed_keys(&merged, read));
        check(&merged, &need_restart)?;
        if !changed.is_empty() {
            self.shared.current.send_replace(Arc::new(merged));
        }
        self.shared.metrics.config_keys_waiting.set(i64::try_from(need_restart.len()).unwrap_or(i64::MAX));
        Ok(Reload::Applied { changed, need_restart })
    }

    fn report(&self, outcome: &Reload) {
        let audit = Audit::of(Action::ReloadConfig, Actor::default());
        let count = |outcome: Reloaded| self.shared.metrics.config_reloads_total.with_label_values(&[outcome.as_str()]).inc();
        match outcome {
            Reload::Unchanged => tracing::debug!("the configuration was read again and is the same"),
            Reload::Applied { changed, need_restart } if need_restart.is_empty() => {
                count(Reloaded::Applied);
                Audit { what: Some(&changed.join(", ")), ..audit }.log("the configuration was reloaded");
            }
            Reload::Applied { changed, need_restart } => {
                count(Reloaded::Applied);
                Audit { what: Some(&changed.join(", ")), ..audit }.log("the configuration was reloaded");
                tracing::warn!(
                    config.need_restart = need_restart.join(", "),
                    "some keys of the configuration stay as they are until the next start"
                );
            }
            Reload::Refused(error) => {
                count(Reloaded::Refused);
                // The reason may quote a value, and is in the line below, which shows no secret.
                let refused = Refused { code: "InvalidConfiguration", message: "the configuration is not valid" };
                Audit { refused: Some(refused), ..audit }.log("the configuration was not reloaded");
                tracing::error!(error = %Chain(error), "the configuration was not reloaded: the old one stays in force");
            }
        }
    }

    /// Reloads when the file changes or [`ConfigWatch::request_reload`] asks for it, until the drain begins.
    pub fn start(&self, tasks: &Tasks) {
        let (this, soft) = (self.clone(), tasks.shutdown().soft.clone());
        tasks.supervise("config-reload", move || {
            let (this, soft) = (this.clone(), soft.clone());
            async move { soft.run_until_cancelled_owned(this.follow()).await.unwrap_or(()) }
        });
    }

    /// Never ends. Dropping it stops the watching.
    async fn follow(self) {
        let wanted = Arc::clone(&self.shared.wanted);
        let _watch = self.watch_file();
        loop {
            wanted.notified().await;
            tokio::time::sleep(SETTLE).await;
            // What rang while it settled is read below as well.
            let _ = wanted.notified().now_or_never();
            let this = self.clone();
            if tokio::task::spawn_blocking(move || this.reload()).await.is_err() {
                // The panic hook has logged why; a reload that panics changes nothing.
                self.shared.metrics.config_reloads_total.with_label_values(&[Reloaded::Refused.as_str()]).inc();
            }
        }
    }

    fn watch_file(&self) -> Option<FileWatch> {
        let file = self.shared.sources.as_ref()?.file()?;
        match FileWatch::start(file, Arc::clone(&self.shared.wanted)) {
            Ok(watch) => Some(watch),
            Err(error) => {
                tracing::warn!(
                    error = %Chain(&error), config.file = %file.display(),
                    "the configuration file can't be watched: only SIGHUP reloads it"
                );
                None
            }
        }
    }
}

/// Checks what will be in force; what was read is good by itself, but a part of it waits.
fn check(merged: &Config, waiting: &[String]) -> Result<(), ConfigError> {
    let problem = |(key, reason): validate::Breach| {
        let waits = waiting.iter().any(|waiting| *waiting == key);
        Problem::new(key, reason, waits.then_some("the last start; the new value waits for the next"))
    };
    let mut problems: Vec<_> = validate::validate(merged, Secrets::Required).into_iter().map(problem).collect();
    if problems.is_empty() {
        return Ok(());
    }
    problems.sort_by(|a, b| a.key.cmp(&b.key));
    Err(ConfigError { problems })
}

/// The keys whose values differ, in alphabetical order.
fn changed_keys(old: &Config, new: &Config) -> Vec<String> {
    let mut changed = Vec::new();
    compare(&redact::plain_tree(old), &redact::plain_tree(new), "", &mut changed);
    // In a tree every secret looks the same.
    for ((key, old), (_, new)) in old.secrets().into_iter().zip(new.secrets()) {
        if old != new && !changed.iter().any(|known| known == key) {
            changed.push(key.to_owned());
        }
    }
    changed.sort_unstable();
    changed
}

fn compare(old: &Value, new: &Value, key: &str, changed: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in old {
                let below = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                compare(value, new.get(name).unwrap_or(&Value::Null), &below, changed);
            }
        }
        (old, new) if old != new => changed.push(key.to_owned()),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
