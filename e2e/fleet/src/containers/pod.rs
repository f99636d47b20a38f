//! One pod: a container of the gateway's image.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use daisi_ws_testbed::{http, metrics, tokens, wait};
use testcontainers::{ContainerAsync, GenericImage, ImageExt as _, core::Mount, runners::AsyncRunner as _};

use super::docker::{self, LABEL, docker, publish_nothing};
use crate::{identity::Who, proxy::Proxy};

/// Where a pod serves browsers.
pub const HTTP_PORT: u16 = 8080;
/// Where a pod serves its peers.
pub(crate) const GRPC_PORT: u16 = 50051;
/// The browsers' API key in every cluster of the harness.
pub const API_KEY: &str = "browsers-hold-this-key";
/// The key of the token API in every cluster of the harness.
pub const MINT_KEY: &str = "only-the-back-end-holds-this-key";
/// Longest start of a pod, on a machine that has much else to do.
const START: Duration = Duration::from_secs(60);
/// Life of a token: longer than any suite.
const TOKEN_SECONDS: u32 = 3600;

/// An address that may change when a container starts again.
pub type SharedIp = Arc<Mutex<Option<IpAddr>>>;

/// The links of a pod, each through a proxy of its own.
pub(crate) struct Links {
    pub(crate) to_redis: Proxy,
    pub(crate) to_nats: Proxy,
    pub(crate) from_peers: Proxy,
}

/// What a pod is started with.
pub(crate) struct Recipe<'a> {
    pub(crate) id: String,
    /// The container's name.
    pub(crate) container: String,
    pub(crate) image: (&'a str, &'a str),
    pub(crate) network: &'a str,
    pub(crate) environment: &'a [(String, String)],
    /// A folder of this host, with a `config.yaml` in it.
    pub(crate) config: Option<&'a str>,
    pub(crate) links: Links,
    /// Where its address is noted.
    pub(crate) ip: SharedIp,
}

/// The id of the pod that was started as the `index`-th of a cluster.
#[must_use]
pub fn id(index: usize) -> String {
    format!("pod-{}", char::from(b'a' + u8::try_from(index).unwrap_or(u8::MAX - b'a')))
}

/// A pod of a cluster.
pub struct Pod {
    /// Its id in the fleet.
    pub id: String,
    /// Its container's name.
    pub container: String,
    /// Carries its connections to Redis.
    pub to_redis: Proxy,
    /// Carries its connection to NATS.
    pub to_nats: Proxy,
    /// Carries its peers' connections to it.
    pub from_peers: Proxy,
    network: String,
    ip: SharedIp,
    _container: ContainerAsync<GenericImage>,
}

impl Pod {
    /// Starts a pod; it may not be ready yet.
    pub(crate) async fn start(recipe: Recipe<'_>) -> Result<Self> {
        let Recipe { id, container, image, network, environment, config, links, ip } = recipe;
        let Links { to_redis, to_nats, from_peers } = links;
        let mut request = GenericImage::new(image.0, image.1)
            .with_container_name(&container)
            .with_network(network)
            .with_label(LABEL, std::process::id().to_string())
            .with_readonly_rootfs(true)
            .with_cap_drop("ALL")
            .with_host_config_modifier(publish_nothing)
            .with_env_var("DAISI_WS_SERVER_POD_ID", &id)
            .with_env_var("DAISI_WS_SERVER_GRPC_ADVERTISE_ADDRESS", from_peers.address.to_string())
            .with_env_var("DAISI_WS_NATS_URL", format!("nats://{}", to_nats.address))
            .with_env_var("DAISI_WS_REDIS_ADDRESS", to_redis.address.to_string())
            .with_env_var("DAISI_WS_AUTH_SECRET_TOKEN", API_KEY)
            .with_env_var("DAISI_WS_AUTH_TOKEN_GENERATION_ADMIN_KEY", MINT_KEY)
            .with_env_var("DAISI_WS_AUTH_TOKEN_AES_KEY", "1a".repeat(32))
            .with_env_var("DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY", "2b".repeat(32));
        for (name, value) in environment {
            request = request.with_env_var(name, value);
        }
        if let Some(folder) = config {
            request =
                request.with_env_var("DAISI_WS_CONFIG", "/config/config.yaml").with_mount(Mount::bind_mount(folder, "/config"));
        }
        let started = request.start().await.context("the pod does not start: has compose/image.sh made its image?")?;
        let network = network.to_owned();
        let pod = Self { id, container, to_redis, to_nats, from_peers, network, ip, _container: started };
        pod.find().await?;
        Ok(pod)
    }

    /// Notes the address under which the pod can be reached now.
    ///
    /// # Errors
    /// When it has none.
    pub async fn find(&self) -> Result<()> {
        let found = docker::address(&self.container, &self.network).await?;
        *self.ip.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        Ok(())
    }

    /// The address of the pod in the cluster's network.
    ///
    /// # Errors
    /// When it has none yet.
    pub(crate) fn ip(&self) -> Result<IpAddr> {
        self.ip.lock().unwrap_or_else(PoisonError::into_inner).context("the pod has no address")
    }

    /// The address, shared with clients.
    #[must_use]
    pub fn shared_ip(&self) -> SharedIp {
        Arc::clone(&self.ip)
    }

    /// Where browsers connect.
    ///
    /// # Errors
    /// When the pod has no address yet.
    pub fn http(&self) -> Result<SocketAddr> {
        Ok(SocketAddr::new(self.ip()?, HTTP_PORT))
    }

    /// The status of a GET, or none if the pod does not answer.
    pub async fn status(&self, path: &str) -> Option<u16> {
        http::get(self.http().ok()?, path).await.ok().map(|answer| answer.status)
    }

    /// The sum of a metric over its labels that contain `labels`; none if the pod does not answer.
    pub async fn metric(&self, name: &str, labels: &str) -> Option<f64> {
        let text = http::get(self.http().ok()?, "/metrics").await.ok()?.body;
        Some(metrics::sum(&text, name, labels))
    }

    /// Waits until the pod says that it is ready.
    ///
    /// # Errors
    /// When it takes too long.
    pub async fn ready(&self) -> Result<()> {
        wait::until(&format!("{} is ready", self.id), START, || async { self.status("/ready").await == Some(200) }).await
    }

    /// A token for this session, from the pod's token API.
    ///
    /// # Errors
    /// When it gives none.
    pub async fn token(&self, who: &Who) -> Result<String> {
        let (path, mut body) = match who {
            Who::User { company, agent, user, .. } => {
                ("/generate-token", serde_json::json!({"company_id": company, "agent_id": agent, "user_id": user}))
            }
            Who::Admin { admin, company } => {
                ("/admin/generate-token", serde_json::json!({"admin_id": admin, "company_id_restriction": company}))
            }
        };
        body["expires_in_seconds"] = TOKEN_SECONDS.into();
        tokens::mint(self.http()?, path, MINT_KEY, &body).await
    }

    /// Sends a signal, as in `TERM`.
    ///
    /// # Errors
    /// When the container does not run.
    pub async fn signal(&self, name: &str) -> Result<()> {
        docker(&["kill", "--signal", name, &self.container]).await.map(drop)
    }

    /// Forgets the address: nobody tries to reach the pod any more.
    pub(crate) fn forget(&self) {
        *self.ip.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The exit code, once the container has stopped.
    ///
    /// # Errors
    /// When it can't be asked.
    pub async fn exit_code(&self) -> Result<i64> {
        Ok(docker(&["wait", &self.container]).await?.parse()?)
    }

    /// The log so far.
    ///
    /// # Errors
    /// When it can't be had.
    pub async fn log(&self) -> Result<String> {
        // Pods log to stderr, which `docker logs` keeps apart.
        let output = tokio::process::Command::new("docker").args(["logs", &self.container]).output().await?;
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
