//! The conductor of a run: what servers there are for a scenario, and which scenarios there are.

use std::{fmt, path::PathBuf, thread};

use anyhow::{Context as _, Result, ensure};
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
    pub(super) redis: Redis,
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
            results.add(own::measure(self).await?);
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
    pub(super) async fn room_for(&self, connections: u32) {
        let wait = || progress(format_args!("waiting for the kernel to forget connections that have ended"));
        conntrack::room_for(connections, wait).await;
    }

    /// Threads for all sockets together: one a core.
    pub(super) fn client_threads(&self) -> usize {
        thread::available_parallelism().map_or(1, usize::from)
    }

    /// Fresh servers, or those that are there.
    pub(super) async fn stage(&self) -> Result<Stage> {
        let folder = tempfile::tempdir()?;
        let (redis, nats) = match (self.options.redis, self.options.nats) {
            (Some(redis), Some(nats)) => (Redis::existing(redis), Nats::existing(nats)),
            (Some(redis), None) => (Redis::existing(redis), Nats::start(folder.path()).await?),
            (None, Some(nats)) => (Redis::start(folder.path()).await?, Nats::existing(nats)),
            (None, None) => (Redis::start(folder.path()).await?, Nats::start(folder.path()).await?),
        };
        let keys = match (&self.options.api_key, &self.options.token_key) {
            (Some(api), Some(token)) => Keys::known(api.clone(), token.clone()),
            _ => Keys::random(),
        };
        Ok(Stage { redis, nats, keys, folder })
    }

    /// So many floors, unless none is wanted.
    pub(super) async fn floors(&self, stage: &Stage, count: u32) -> Result<Option<Servers>> {
        self.floors_on(stage, count, false).await
    }

    /// A floor that takes events from a durable consumer, unless none is wanted.
    pub(super) async fn floor_on_durable(&self, stage: &Stage) -> Result<Option<Servers>> {
        self.floors_on(stage, 1, true).await
    }

    async fn floors_on(&self, stage: &Stage, count: u32, durable: bool) -> Result<Option<Servers>> {
        if self.options.no_floor {
            return Ok(None);
        }
        let mut floors = Vec::new();
        for nth in 0..count {
            floors.push(Floor::start(&format!("floor-{nth}"), &stage.nats, durable, stage.folder.path()).await?);
        }
        Ok(Some(Servers::Floors(floors)))
    }

    /// A pod for each of these lists of variables: fresh ones, or those that are there, whatever variables they have.
    pub(super) async fn pods(&self, stage: &Stage, environments: &[&[(&str, &str)]]) -> Result<Servers> {
        let existing = &self.options.existing_pods;
        if !existing.is_empty() {
            let pods = existing.get(..environments.len()).with_context(|| format!("this needs {} pods", environments.len()))?;
            return Ok(Servers::Pods(pods.iter().copied().map(Pod::existing).collect()));
        }
        let Stage { redis, nats, keys, folder } = stage;
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
        self.redis.end().await?;
        self.nats.end().await
    }
}

/// Tells whoever waits what is going on.
pub(super) fn progress(what: fmt::Arguments<'_>) {
    eprintln!("... {what}");
}
