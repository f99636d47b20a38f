//! What the sockets are opened at: the floor, or pods.

use std::net::SocketAddr;

use anyhow::Result;

use super::{floor::Floor, pod::Pod};
use crate::proc::cpu::Cpu;

/// The servers that a measurement is about.
#[derive(Debug)]
pub(crate) enum Servers {
    /// The floor.
    Floor(Box<Floor>),
    /// Pods of one fleet.
    Pods(Vec<Pod>),
}

impl Servers {
    /// What reports call pods.
    pub(crate) const GATEWAY: &str = "gateway";

    /// As reports name them.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Floor(_) => "floor",
            Self::Pods(_) => Self::GATEWAY,
        }
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Floor(floor) => vec![floor.address],
            Self::Pods(pods) => pods.iter().map(|pod| pod.address).collect(),
        }
    }

    /// CPU time of all of them so far.
    ///
    /// # Errors
    /// When one has ended, or runs elsewhere.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        match self {
            Self::Floor(floor) => floor.cpu(),
            Self::Pods(pods) => pods.iter().map(Pod::cpu).sum(),
        }
    }

    /// Memory of all of them.
    ///
    /// # Errors
    /// When one has ended, or runs elsewhere.
    pub(crate) fn private_bytes(&self) -> Result<u64> {
        match self {
            Self::Floor(floor) => floor.private_bytes(),
            Self::Pods(pods) => pods.iter().map(Pod::private_bytes).sum(),
        }
    }

    /// Ends those that the run has started.
    ///
    /// # Errors
    /// When one can't be ended.
    pub(crate) async fn end(self) -> Result<()> {
        match self {
            Self::Floor(floor) => floor.end().await,
            Self::Pods(pods) => {
                for pod in pods {
                    pod.end().await?;
                }
                Ok(())
            }
        }
    }
}
