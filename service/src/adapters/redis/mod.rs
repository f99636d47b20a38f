//! The session store on Redis: locks, routes, kill bus and token cache.
//!
//! Commands go through a small pool with short time-outs (`connection`, `dialer`); the route writer and the kill listener each
//! have a connection of their own, so that neither order nor hearing depends on who else is busy. Keys and channels are named in
//! `keys` and nowhere else.

mod claims;
mod connection;
mod deaf;
mod dialer;
mod errors;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod keys;
mod kills;
mod lineage;
mod lock_scripts;
mod locks;
mod pods;
mod presence;
mod records;
mod refusals;
mod routes;
mod script;
mod token_cache;
mod values;
mod watch;
mod writer;

use std::{fmt, sync::Arc};

use claims::Claims;
use connection::Commands;
use deaf::Deaf;
pub(crate) use dialer::ConfigError;
use dialer::Dialer;
use lineage::Lineage;
use lock_scripts::{CLAIM, RELEASE};
use presence::Presence;
use records::Records;
use refusals::Refusals;
use writer::Writer;

use tokio::sync::watch::Sender;
use watch::ServerWatch;

use crate::{
    application::fleet::key::FleetKey,
    config,
    metrics::labels::RedisCommand,
    ports::StoreError,
    readiness::{Dependency, Readiness},
    runtime::lifecycle::Tasks,
};

/// The session store of one pod on Redis; implements `SessionLocks`, `Routes`, `KillBus` and `TokenCache`.
///
/// Every call ends within twice `redis.command_timeout_ms`, most within once; only renewing locks whose values are no owner (see
/// `locks`) may take longer. No outage, of whatever length, needs a new store.
pub struct RedisStore {
    dialer: Arc<Dialer>,
    lineage: Arc<Lineage>,
    /// Why kills are not heard; `None` while they are.
    deaf: Arc<Sender<Option<Deaf>>>,
    commands: Arc<Commands>,
    claims: Claims,
    writer: Writer,
    presence: Presence,
    records: Records,
    refusals: Refusals,
    tasks: Tasks,
}

impl RedisStore {
    /// Makes the store without connecting: Redis may be down. Kill listeners and claims run on `tasks`. Needs a Tokio runtime.
    ///
    /// # Errors
    /// When the section can't be meant: a malformed address, an unreadable CA file.
    pub fn new(config: &config::Redis, tasks: Tasks) -> Result<Self, ConfigError> {
        let metrics = tasks.metrics();
        let lineage = Arc::new(Lineage::new(Arc::clone(metrics)));
        let dialer = Arc::new(Dialer::new(config, Arc::clone(&lineage))?);
        let pool = Commands::new(Arc::clone(&dialer), Arc::clone(&lineage), config.pool_size, Arc::clone(metrics));
        let commands = Arc::new(pool);
        Ok(Self {
            writer: Writer::new(Arc::clone(&dialer), Arc::clone(&lineage), Arc::clone(metrics)),
            dialer,
            lineage,
            deaf: Arc::new(Sender::new(Some(Deaf::NotYet))),
            claims: Claims::start(&CLAIM, &RELEASE, &commands, &tasks),
            commands,
            presence: Presence::default(),
            records: Records::unproved(Arc::clone(tasks.metrics())),
            refusals: Refusals::new(Arc::clone(tasks.metrics())),
            tasks,
        })
    }

    /// Has pods prove their records with the fleet's key, and takes none that is not proved; but for those of the version before,
    /// if they are accepted.
    #[must_use]
    pub fn with_fleet_key(self, key: FleetKey, accept_previous: bool) -> Self {
        let records = Records::proved(key, accept_previous, Arc::clone(self.tasks.metrics()));
        Self { records, ..self }
    }

    /// Watches, as one of its tasks, whether Redis gives what a session needs (rights, and a subscription to kills) and whether
    /// it evicts keys, and tells `readiness`. Until that is known, the pod is not ready.
    pub fn watch(&self, readiness: Readiness) {
        readiness.doubt(Dependency::Redis);
        let watch = Arc::new(ServerWatch {
            commands: Arc::clone(&self.commands),
            lineage: Arc::clone(&self.lineage),
            deaf: self.deaf.subscribe(),
            readiness,
            metrics: Arc::clone(self.tasks.metrics()),
        });
        self.tasks.supervise("watch redis", move || {
            let watch = Arc::clone(&watch);
            async move { watch.run().await }
        });
    }

    /// Asks Redis whether it answers; one small command.
    ///
    /// # Errors
    /// When it does not, within the time-out.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.commands
            .run(RedisCommand::Ping, |mut connection| async move { redis::cmd("PING").exec_async(&mut connection).await })
            .await
    }
}

impl fmt::Debug for RedisStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStore").field("dialer", &self.dialer).finish_non_exhaustive()
    }
}
