//! What the sockets are opened at: floors, or pods.

use std::net::SocketAddr;

use anyhow::Result;

use super::{floor::Floor, pod::Pod};
use crate::proc::cpu::Cpu;

/// The servers that a measurement is about.
#[derive(Debug)]
pub(crate) enum Servers {
    /// The floor, as many times as there would be pods.
    Floors(Vec<Floor>),
    /// Pods of one fleet.
    Pods(Vec<Pod>),
}

impl Servers {
    /// What reports call pods.
    pub(crate) const GATEWAY: &str = "gateway";
    /// And floors.
    pub(crate) const FLOOR: &str = "floor";

    /// As reports name them.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Floors(_) => Self::FLOOR,
            Self::Pods(_) => Self::GATEWAY,
        }
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        match self {
            Self::Floors(floors) => floors.iter().map(|floor| floor.address).collect(),
            Self::Pods(pods) => pods.iter().map(|pod| pod.address).collect(),
        }
    }

    /// CPU time of all of them so far.
    ///
    /// # Errors
    /// When one has ended, or runs elsewhere.
    pub(crate) fn cpu(&self) -> Result<Cpu> {
        match self {
            Self::Floors(floors) => floors.iter().map(Floor::cpu).sum(),
            Self::Pods(pods) => pods.iter().map(Pod::cpu).sum(),
        }
    }

    /// Memory of all of them.
    ///
    /// # Errors
    /// When one has ended, or runs elsewhere.
    pub(crate) fn private_bytes(&self) -> Result<u64> {
        match self {
            Self::Floors(floors) => floors.iter().map(Floor::private_bytes).sum(),
            Self::Pods(pods) => pods.iter().map(Pod::private_bytes).sum(),
        }
    }

    /// The sum of a metric's series whose labels contain `label`, over all pods; floors have none.
    ///
    /// # Errors
    /// When one does not answer.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Result<f64> {
        let Self::Pods(pods) = self else { return Ok(0.0) };
        let mut sum = 0.0;
        for pod in pods {
            sum += pod.metric(name, label).await?;
        }
        Ok(sum)
    }

    /// Ends those that the run has started.
    ///
    /// # Errors
    /// When one can't be ended.
    pub(crate) async fn end(self) -> Result<()> {
        match self {
            Self::Floors(floors) => {
                for floor in floors {
                    floor.end().await?;
                }
                Ok(())
            }
            Self::Pods(pods) => {
                for pod in pods {
                    pod.end().await?;
                }
                Ok(())
            }
        }
    }
}
