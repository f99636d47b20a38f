//! What sockets cost that only live: memory, and the CPU of pings and renewals.

use anyhow::Result;

use crate::{
    clock,
    conduct::figures::{each, ratio, seconds},
    proc::cpu::Cpu,
    report::{Figure, Size},
    stage::servers::Servers,
};

/// What was measured.
#[derive(Debug)]
pub(crate) struct Idle {
    pub(crate) kilobytes: f64,
    /// As `kilobytes`, when the sockets have been watched.
    kilobytes_at_the_end: f64,
    /// Per cent of one core.
    cpu: f64,
}

/// Sockets that are watched.
#[derive(Debug)]
pub(crate) struct Watch {
    /// What the servers held before the sockets were opened.
    empty: u64,
    sockets: u32,
    kilobytes: f64,
    cpu: Cpu,
    began: u64,
}

impl Watch {
    /// Watches so many sockets that are open from now on. `empty` is what the servers held before they were opened.
    ///
    /// # Errors
    /// When a server is gone.
    pub(crate) fn begin(servers: &Servers, empty: u64, sockets: u32) -> Result<Self> {
        let kilobytes = kilobytes(servers, empty, sockets)?;
        Ok(Self { empty, sockets, kilobytes, cpu: servers.cpu()?, began: clock::nanos() })
    }

    /// What the sockets cost until now.
    ///
    /// # Errors
    /// When a server is gone.
    pub(crate) fn end(self, servers: &Servers) -> Result<Idle> {
        let passed = seconds(self.began, clock::nanos());
        let cpu = each((servers.cpu()? - self.cpu).micros() / 1e6, 1) / passed * 100.0;
        Ok(Idle { kilobytes: self.kilobytes, kilobytes_at_the_end: kilobytes(servers, self.empty, self.sockets)?, cpu })
    }
}

fn kilobytes(servers: &Servers, empty: u64, sockets: u32) -> Result<f64> {
    Ok(ratio(servers.private_bytes()?.saturating_sub(empty), u64::from(sockets)) / 1024.0)
}

/// The figures of the gateway beside those of the floor.
pub(crate) fn figures(size: Size, gateway: &Idle, floor: Option<&Idle>) -> Vec<Figure> {
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
