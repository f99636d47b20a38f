//! A pod where there is only IPv6: its listeners, what it announces, and how it checks itself.

use std::{process::Stdio, sync::Arc, time::Duration};

use daisi_ws_domain::ids::PodId;
use daisi_ws_service::{
    adapters::{
        grpc::{GrpcPeers, PeersSettings},
        memory::{
            store::Store,
            stream::{Stream, StreamOptions},
        },
    },
    application::fleet::key::FleetKey,
    config::ConfigWatch,
    gateway::{BackendChoice, Gateway, StoreChoice, StreamChoice},
    metrics::Metrics,
    ports::Peers as _,
    runtime::{
        lifecycle::{Shutdown, Tasks},
        workers::PodWorkers,
    },
};
use tokio::process::Command;

use crate::support::{fixture, http::get};

#[tokio::test]
async fn a_pod_bound_to_ipv6_alone_is_reached_by_browsers_peers_and_its_own_health_check() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let mut config = fixture::config();
    config.server.bind_address = "::1".parse().unwrap();
    config.server.pod_id = "pod-six".to_owned();
    let key = FleetKey::derive(&config.auth.token_aes_key, &config.auth.admin_token_aes_key);
    let watch = ConfigWatch::fixed(config, Arc::clone(&metrics));
    let stream = Stream::new(StreamOptions::default());
    let backends = BackendChoice { store: StoreChoice::Memory(Store::new()), stream: StreamChoice::Memory(stream) };
    let shutdown = Shutdown::default();
    let gateway = Box::pin(Gateway::bind(&watch, backends, shutdown.clone(), &metrics, None)).await.unwrap();
    let (http, record) = (gateway.http_addr(), gateway.record().clone());
    assert_eq!(record.address, format!("[::1]:{}", gateway.grpc_addr().port()));
    let tasks = Tasks::new(Shutdown::default(), Arc::clone(&metrics), tracing::Span::none());
    let workers = PodWorkers::start().unwrap();
    let teams = workers.teams();
    tasks.spawn("gateway", async move { gateway.run(teams).await.unwrap() });

    assert_eq!(get(http, "/health", "").await.status, 200);
    let settings = PeersSettings {
        me: PodId::parse("another").unwrap(),
        key,
        accept_previous: false,
        tls: None,
        idle_timeout: Duration::from_secs(60),
        health_check_interval: Duration::from_secs(60),
    };
    GrpcPeers::new(settings, Arc::clone(&metrics), &tasks).probe(&record).await.unwrap();
    let port = http.port().to_string();
    let mut check = Command::new(env!("CARGO_BIN_EXE_daisi-ws-service"));
    check.arg("healthcheck").env("DAISI_WS_SERVER_BIND_ADDRESS", "::1").env("DAISI_WS_SERVER_HTTP_PORT", port);
    assert!(check.stdout(Stdio::null()).status().await.unwrap().success());
    shutdown.hard.cancel();
}
