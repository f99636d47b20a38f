//! The conductor of a run: what servers there are for a scenario, and which scenarios there are.

use std::{fmt, path::PathBuf, thread};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::{growth, own, shared, slow, take_over};
use crate::{
    options::{Run, Scenario, Sizes},
    proc::{conntrack, machine::Machine},
    report::{Results, setting::Setting},
    stage::{
        floor::Floor,
        keys::Keys,
        nats::Nats,
        pod::{Pod, Recipe},
        redis::Redis,
        servers::Servers,
    },
};

/// The scenarios of one set of sockets.
const SHARED: [Scenario; 5] = [Scenario::Connect, Scenario::Idle, Scenario::FanOut, Scenario::Burst, Scenario::Storm];

/// The share of the cores that others may use before the reader is told.
const NOTEWORTHY: f64 = 0.05;

/// A run.
#[derive(Debug)]
pub(crate) struct Conductor {
    options: Run,
    pub(super) sizes: Sizes,
    service: PathBuf,
}

/// The servers beside those that are measured.
#[derive(Debug)]
pub(super) struct Stage {
    /// Floors need none.
    pub(super) redis: Option<Redis>,
    pub(super) nats: Nats,
    pub(super) keys: Keys,
    folder: TempDir,
}

impl Conductor {
    /// A run by these options.
    ///
    /// # Errors
    /// When there is no gateway to measure.
    pub(crate) fn new(options: Run) -> Result<Self> {
        let service = match &options.service {
            Some(path) => path.clone(),
            None => std::env::current_exe()?.with_file_name("daisi-ws-service"),
        };
        ensure!(
            service.exists() || !options.existing_pods.is_empty(),
            "there is no gateway at {}: build it, or name it with --service",
            service.display()
        );
        Ok(Self { sizes: options.sizes(), service, options })
    }

    /// Measures everything that is wanted.
    ///
    /// # Errors
    /// When a server fails, or does not deliver.
    pub(crate) async fn run(&self) -> Result<Results> {
        let mut results = Results::default();
        let before = Machine::now()?;
        if SHARED.iter().any(|scenario| self.wants(*scenario)) {
            results.add(shared::measure(self).await?);
        }
        if self.wants(Scenario::Spread) || self.wants(Scenario::Forwarded) {
            results.add(Box::pin(own::measure(self)).await?);
        }
        if self.wants(Scenario::TakeOver) {
            results.add(take_over::measure(self).await?);
        }
        if self.wants(Scenario::Slow) {
            results.add(slow::measure(self).await?);
        }
        if self.options.wants_growth() {
            results.add(growth::measure(self).await?);
        }
        let cores = u32::try_from(self.client_threads()).unwrap_or(1);
        results.others = Machine::now()?.others_since(&before, cores);
        // Servers that were there before are others, too.
        if self.options.existing_pods.is_empty() && results.others > NOTEWORTHY {
            results.notes.push(format!(
                "Other programs used {:.0} % of the cores meanwhile: costs are higher for it, and latencies much.",
                results.others * 100.0
            ));
        }
        Ok(results)
    }

    /// Where and with what it is made.
    pub(crate) fn setting(&self) -> Setting {
        Setting::of(&self.service, self.sizes)
    }

    /// Is it a rehearsal?
    pub(super) fn is_quick(&self) -> bool {
        self.options.quick
    }

    pub(super) fn wants(&self, scenario: Scenario) -> bool {
        self.options.wants(scenario)
    }

    /// Waits until the kernel has room for so many connections.
    ///
    /// # Errors
    /// When it never has.
    pub(super) async fn room_for(&self, connections: u32) -> Result<()> {
        let wait = || progress(format_args!("waiting for the kernel to forget connections that have ended"));
        conntrack::room_for(connections, wait).await
    }

    /// Threads for all sockets together: one a core.
    pub(super) fn client_threads(&self) -> usize {
        thread::available_parallelism().map_or(1, usize::from)
    }

    /// Fresh servers, or those that are there.
    pub(super) async fn stage(&self) -> Result<Stage> {
        let folder = self.folder()?;
        let redis = match self.options.redis {
            Some(redis) => Redis::existing(redis),
            None => Redis::start(folder.path()).await?,
        };
        let nats = match self.options.nats {
            Some(nats) => Nats::existing(nats),
            None => Nats::start(folder.path()).await?,
        };
        let keys = match (&self.options.api_key, &self.options.token_key) {
            (Some(api), Some(token)) => Keys::known(api.clone(), token.clone()),
            _ => Keys::random(),
        };
        Ok(Stage { redis: Some(redis), nats, keys, folder })
    }

    /// What floors need: always fresh, as they would deliver what is published for pods too.
    pub(super) async fn floors_stage(&self) -> Result<Stage> {
        let folder = self.folder()?;
        Ok(Stage { redis: None, nats: Nats::start(folder.path()).await?, keys: Keys::random(), folder })
    }

    fn folder(&self) -> Result<TempDir> {
        let parent = self.options.folder.clone().unwrap_or_else(std::env::temp_dir);
        tempfile::tempdir_in(&parent).with_context(|| format!("no folder can be made in {}", parent.display()))
    }

    /// Are pods to be compared with floors?
    pub(super) fn wants_floor(&self) -> bool {
        !self.options.no_floor
    }

    /// So many floors; `durable`: they take events from a durable consumer.
    pub(super) async fn floors(&self, stage: &Stage, count: u32, durable: bool) -> Result<Servers> {
        let mut floors = Vec::new();
        for nth in 0..count {
            floors.push(Floor::start(&format!("floor-{nth}"), &stage.nats, durable, stage.folder.path()).await?);
        }
        Ok(Servers::Floors(floors))
    }

    /// A pod for each of these lists of variables: fresh ones, or those that are there, whatever variables they have.
    pub(super) async fn pods(&self, stage: &Stage, environments: &[&[(&str, &str)]]) -> Result<Servers> {
        let existing = &self.options.existing_pods;
        if !existing.is_empty() {
            let pods = existing.get(..environments.len()).with_context(|| format!("this needs {} pods", environments.len()))?;
            return Ok(Servers::Pods(pods.iter().copied().map(Pod::existing).collect()));
        }
        let Stage { redis: Some(redis), nats, keys, folder } = stage else { bail!("pods need a Redis") };
        let mut pods = Vec::new();
        for (nth, environment) in environments.iter().enumerate() {
            let own = environment.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            let environment: Vec<_> = own.chain(self.options.pod_env.iter().cloned()).collect();
            let recipe = Recipe { service: &self.service, keys, nats, redis, environment: &environment };
            pods.push(Pod::start(&format!("pod-{nth}"), recipe, folder.path()).await?);
        }
        Ok(Servers::Pods(pods))
    }
}

impl Stage {
    /// Ends what the run has started.
    pub(super) async fn end(self) -> Result<()> {
        if let Some(redis) = self.redis {
            redis.end().await?;
        }
        self.nats.end().await
    }
}

/// Tells whoever waits what is going on.
pub(super) fn progress(what: fmt::Arguments<'_>) {
    eprintln!("... {what}");
}
