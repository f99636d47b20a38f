//! The conductor of a run: what is wanted of it, and what servers there are for a scenario.

use std::{
    fmt,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::{
    options::{Run, Scenario, Sizes},
    proc::conntrack,
    report::setting::Setting,
    stage::{
        floor::Floor,
        keys::Keys,
        nats::Nats,
        pod::{Pod, Recipe},
        redis::Redis,
        servers::Servers,
    },
};

/// A run.
#[derive(Debug)]
pub(crate) struct Conductor {
    options: Run,
    pub(crate) sizes: Sizes,
    service: PathBuf,
}

/// The servers beside those that are measured.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Floors need none.
    pub(crate) redis: Option<Redis>,
    pub(crate) nats: Nats,
    pub(crate) keys: Keys,
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
        if let Some(beside) = &options.beside {
            ensure!(beside.exists(), "there is no gateway at {}", beside.display());
        }
        Ok(Self { sizes: options.sizes(), service, options })
    }

    /// Where and with what it is made.
    pub(crate) fn setting(&self) -> Setting {
        Setting::of(&self.service, self.sizes)
    }

    /// Is it a rehearsal?
    pub(crate) fn is_quick(&self) -> bool {
        self.options.quick
    }

    pub(crate) fn wants(&self, scenario: Scenario) -> bool {
        self.options.wants(scenario)
    }

    /// Is growth to be measured, too?
    pub(crate) fn wants_growth(&self) -> bool {
        self.options.wants_growth()
    }

    /// Are there no pods yet to measure?
    pub(crate) fn starts_pods(&self) -> bool {
        self.options.existing_pods.is_empty()
    }

    /// Waits until the kernel has room for so many connections.
    ///
    /// # Errors
    /// When it never has.
    pub(crate) async fn room_for(&self, connections: u32) -> Result<()> {
        let wait = || progress(format_args!("waiting for the kernel to forget connections that have ended"));
        conntrack::room_for(connections, wait).await
    }

    /// Threads for all sockets together: one a core.
    pub(crate) fn client_threads(&self) -> usize {
        thread::available_parallelism().map_or(1, usize::from)
    }

    /// Fresh servers, or those that are there.
    pub(crate) async fn stage(&self) -> Result<Stage> {
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
    pub(crate) async fn floors_stage(&self) -> Result<Stage> {
        let folder = self.folder()?;
        Ok(Stage { redis: None, nats: Nats::start(folder.path()).await?, keys: Keys::random(), folder })
    }

    fn folder(&self) -> Result<TempDir> {
        let parent = self.options.folder.clone().unwrap_or_else(std::env::temp_dir);
        tempfile::tempdir_in(&parent).with_context(|| format!("no folder can be made in {}", parent.display()))
    }

    /// Is another program to be compared with the first?
    pub(crate) fn beside(&self) -> Option<&Path> {
        self.options.beside.as_deref()
    }

    /// The program that is measured.
    pub(crate) fn service(&self) -> &Path {
        &self.service
    }

    /// Are pods to be compared with floors?
    pub(crate) fn wants_floor(&self) -> bool {
        !self.options.no_floor
    }

    /// So many floors; `durable`: they take events from a durable consumer.
    pub(crate) async fn floors(&self, stage: &Stage, count: u32, durable: bool) -> Result<Servers> {
        let mut floors = Vec::new();
        for nth in 0..count {
            floors.push(Floor::start(&format!("floor-{nth}"), &stage.nats, durable, stage.folder.path()).await?);
        }
        Ok(Servers::Floors(floors))
    }

    /// A pod of this program for each of these lists of variables: fresh ones, or those that are there, whatever program and
    /// variables they have.
    pub(crate) async fn pods(&self, service: &Path, stage: &Stage, environments: &[&[(&str, &str)]]) -> Result<Servers> {
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
            let recipe = Recipe { service, keys, nats, redis, environment: &environment };
            pods.push(Pod::start(&format!("pod-{nth}"), recipe, folder.path()).await?);
        }
        Ok(Servers::Pods(pods))
    }
}

impl Stage {
    /// Ends what the run has started.
    pub(crate) async fn end(self) -> Result<()> {
        if let Some(redis) = self.redis {
            redis.end().await?;
        }
        self.nats.end().await
    }
}

/// Tells the user what is going on.
pub(crate) fn progress(what: fmt::Arguments<'_>) {
    eprintln!("... {what}");
}
