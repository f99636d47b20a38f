//! What sockets cost that only live: memory, and the CPU of pings and renewals.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::measured::{each, ratio, seconds};
use crate::{
    clock,
    report::{Figure, Size},
    stage::servers::Servers,
};

/// What was measured.
#[derive(Debug)]
pub(super) struct Idle {
    pub(super) kilobytes: f64,
    /// As `kilobytes`, when the sockets have been watched.
    kilobytes_at_the_end: f64,
    /// Per cent of one core.
    cpu: f64,
}

/// Watches the sockets that are open for a while. `empty` is what the servers held before they were opened.
///
/// # Errors
/// When a server is gone.
pub(super) async fn measure(servers: &Servers, empty: u64, sockets: u32, window: Duration) -> Result<Idle> {
    let kilobytes = || anyhow::Ok(ratio(servers.private_bytes()?.saturating_sub(empty), u64::from(sockets)) / 1024.0);
    let at_first = kilobytes()?;
    let (cpu, began) = (servers.cpu()?, clock::nanos());
    sleep(window).await;
    let passed = seconds(began, clock::nanos());
    let cpu = each((servers.cpu()? - cpu).micros() / 1e6, 1) / passed * 100.0;
    Ok(Idle { kilobytes: at_first, kilobytes_at_the_end: kilobytes()?, cpu })
}

/// The figures of the gateway beside those of the floor.
pub(super) fn figures(size: Size, gateway: &Idle, floor: Option<&Idle>) -> Vec<Figure> {
    vec![
        size.figure("idle", "memory per socket", "KB", gateway.kilobytes, floor.map(|floor| floor.kilobytes)),
        size.figure(
            "idle",
            "memory per socket at the end",
            "KB",
            gateway.kilobytes_at_the_end,
            floor.map(|floor| floor.kilobytes_at_the_end),
        ),
        size.figure("idle", "CPU", "% of a core", gateway.cpu, floor.map(|floor| floor.cpu)),
    ]
}
