//! A network with NATS, Redis and pods in it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, Result};
use daisi_ws_testbed::wait;
use testcontainers::{ContainerAsync, GenericImage, core::WaitFor};

use super::{
    docker::Network,
    pod::{self, GRPC_PORT, Links, Pod, Recipe, SharedIp},
    redis::{self, Replica},
    server,
};
use crate::{
    artifacts,
    proxy::{Lookup, Proxy},
};

/// The image of NATS, as the compose files name it; `e2e/images/ensure.sh` sees that it is there.
const NATS: (&str, &str) = ("nats", "2.15-alpine");
/// The gateway's image, unless `DAISI_WS_IMAGE` names another.
const GATEWAY: &str = "daisi-ws-service:local";
/// Port of NATS.
const NATS_PORT: u16 = 4222;
/// Longest wait until pods know each other.
const MEET: Duration = Duration::from_secs(30);

/// How a cluster shall be.
pub struct Options {
    /// Number of pods.
    pub pods: usize,
    /// Environment of every pod beside what the harness sets.
    pub environment: Vec<(String, String)>,
    /// A folder of this host with a `config.yaml`, which every pod mounts.
    pub config: Option<PathBuf>,
    /// Redis is started again, with its last snapshot, the moment that it ends, and is ended by nothing but its own death.
    pub redis_comes_back: bool,
}

impl Options {
    /// So many pods with the shipped defaults.
    #[must_use]
    pub fn pods(pods: usize) -> Self {
        Self { pods, environment: Vec::new(), config: None, redis_comes_back: false }
    }

    /// The same with a Redis that is started again the moment that it ends.
    #[must_use]
    pub fn with_a_redis_that_comes_back(mut self) -> Self {
        self.redis_comes_back = true;
        self
    }

    /// The same with one more variable.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// A running cluster. When it is dropped while a test panics, the logs of all its containers are kept.
pub struct Cluster {
    /// The pods.
    pub pods: Vec<Pod>,
    /// Those that left for good.
    pub left: Vec<Pod>,
    /// Name of the container of NATS.
    pub nats: String,
    /// Name of the container of Redis.
    pub redis: String,
    /// A replica of Redis, if one was made.
    pub replica: Option<Replica>,
    /// Carries the publishers' connections to NATS, as its address may change when it starts again.
    pub to_nats: Proxy,
    pub(crate) find_redis: Lookup,
    find_nats: Lookup,
    name: String,
    options: Options,
    pub(crate) servers: Vec<ContainerAsync<GenericImage>>,
    // Last, as a network can be removed only when nobody is in it.
    pub(crate) network: Network,
}

/// Where a pod was found last.
fn pod_lookup(ip: &SharedIp) -> Lookup {
    let ip = Arc::clone(ip);
    Arc::new(move || {
        let found = *ip.lock().unwrap_or_else(PoisonError::into_inner);
        Box::pin(std::future::ready(found.map(|ip| SocketAddr::new(ip, GRPC_PORT))))
    })
}

impl Cluster {
    /// Starts all and waits until every pod is ready and knows every other.
    ///
    /// # Errors
    /// When anything does not come up in time.
    pub async fn start(options: Options) -> Result<Self> {
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let name = format!("daisi-e2e-{}-{}", std::process::id(), CLUSTERS.fetch_add(1, Ordering::Relaxed));
        let network = Network::create(&name).await?;
        let (nats, redis) = (format!("{name}-nats"), format!("{name}-redis"));
        let jetstream = ["nats-server", "--jetstream", "--store_dir", "/data", "--http_port", "8222"];
        let redis_command = if options.redis_comes_back { &redis::COMES_BACK[..] } else { &redis::NO_DISK[..] };
        let servers = tokio::try_join!(
            server::start(NATS, &nats, &name, &jetstream, WaitFor::message_on_stderr("Server is ready")),
            redis::start(&redis, &name, redis_command),
        )?;
        let find_nats = server::lookup(&nats, &name, NATS_PORT);
        let to_nats = Proxy::start(network.gateway, Arc::clone(&find_nats)).await?;
        let find_redis = redis::lookup(&redis, &name);
        let mut cluster = Self {
            find_redis,
            find_nats,
            pods: Vec::new(),
            left: Vec::new(),
            nats,
            redis,
            replica: None,
            to_nats,
            name,
            options,
            servers: vec![servers.0, servers.1],
            network,
        };
        for _ in 0..cluster.options.pods {
            cluster.add_pod().await?;
        }
        cluster.ready().await?;
        Ok(cluster)
    }

    /// Starts one more pod; it may not be ready yet.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn add_pod(&mut self) -> Result<()> {
        let id = pod::id(self.pods.len() + self.left.len());
        let image = std::env::var("DAISI_WS_IMAGE").unwrap_or_else(|_| GATEWAY.to_owned());
        let ip = SharedIp::default();
        let here = self.network.gateway;
        let links = Links {
            to_redis: Proxy::start(here, Arc::clone(&self.find_redis)).await?,
            to_nats: Proxy::start(here, Arc::clone(&self.find_nats)).await?,
            from_peers: Proxy::start(here, pod_lookup(&ip)).await?,
        };
        let recipe = Recipe {
            container: format!("{}-{id}", self.name),
            id,
            image: image.split_once(':').context("DAISI_WS_IMAGE has no tag")?,
            network: &self.name,
            environment: &self.options.environment,
            config: self.options.config.as_deref().and_then(|path| path.to_str()),
            links,
            ip,
        };
        self.pods.push(Pod::start(recipe).await?);
        Ok(())
    }

    /// Tells a pod to go, and waits until it has gone; it does not come back. Its exit code.
    ///
    /// # Errors
    /// When it does not run.
    pub async fn leave(&mut self, index: usize) -> Result<i64> {
        self.pods[index].signal("TERM").await?;
        let code = self.pods[index].exit_code().await?;
        let pod = self.pods.remove(index);
        pod.forget();
        self.left.push(pod);
        Ok(code)
    }

    /// Waits until every pod is ready and knows every other.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn ready(&self) -> Result<()> {
        for pod in &self.pods {
            pod.ready().await?;
        }
        #[expect(clippy::cast_precision_loss, reason = "a handful of pods")]
        let others = (self.pods.len() - 1) as f64;
        for pod in &self.pods {
            wait::until(&format!("{} knows the others", pod.id), MEET, || async {
                pod.metric("dws_peers", "state=\"alive\"").await == Some(others)
            })
            .await?;
        }
        Ok(())
    }

    /// Where publishers connect.
    #[must_use]
    pub fn nats_url(&self) -> String {
        format!("nats://{}", self.to_nats.address)
    }

    /// Asks Redis by its own command line.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn redis_cli(&self, arguments: &[&str]) -> Result<String> {
        redis::ask(&self.redis, arguments).await
    }

    /// The name of the cluster's network.
    #[must_use]
    pub(crate) fn network(&self) -> &str {
        &self.name
    }

    /// Keeps the logs of all containers, and says where.
    pub(crate) fn keep_logs(&self) {
        let folder = artifacts::folder("logs").join(&self.name);
        if std::fs::create_dir_all(&folder).is_err() {
            return;
        }
        let pods = self.pods.iter().chain(&self.left).map(|pod| &pod.container);
        for container in pods.chain([&self.nats, &self.redis]).chain(self.replica.as_ref().map(|replica| &replica.container)) {
            let Ok(file) = std::fs::File::create(folder.join(format!("{container}.log"))) else { continue };
            let Ok(also) = file.try_clone() else { continue };
            let mut logs = std::process::Command::new("docker");
            logs.args(["logs", "--timestamps", container]).stdin(Stdio::null()).stdout(file).stderr(also);
            let _ = logs.status();
        }
        eprintln!("the logs of all containers are in {}", folder.display());
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() || std::env::var_os("E2E_KEEP_LOGS").is_some() {
            self.keep_logs();
        }
    }
}
