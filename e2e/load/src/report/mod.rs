//! What a run has measured, and what is made of it.

pub(crate) mod budget;
pub(crate) mod json;
pub(crate) mod plot;
pub(crate) mod ranges;
pub(crate) mod setting;
pub(crate) mod table;

/// One measured number.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Figure {
    /// The scenario that measured it.
    pub(crate) scenario: &'static str,
    /// What it is.
    pub(crate) name: &'static str,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// The gateway's.
    pub(crate) value: f64,
    /// The floor's, under the same load in the same run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) floor: Option<f64>,
    /// That of the other program, likewise, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) beside: Option<f64>,
    /// Sockets a pod.
    pub(crate) sockets: u32,
    /// Pods.
    pub(crate) pods: u32,
}

/// What a scenario's figures have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    /// Sockets a pod.
    pub(crate) sockets: u32,
    /// Pods.
    pub(crate) pods: u32,
}

impl Size {
    /// Makes a figure of this size.
    pub(crate) fn figure(
        self,
        scenario: &'static str,
        name: &'static str,
        unit: &'static str,
        value: f64,
        floor: Option<f64>,
    ) -> Figure {
        Figure { scenario, name, unit, value, floor, beside: None, sockets: self.sockets, pods: self.pods }
    }
}

/// Puts the other program's figures beside the first's. `others` are figures of the first again, with those of the other program
/// where those of the floor are else.
pub(crate) fn set_beside(figures: &mut [Figure], others: &[Figure]) {
    for figure in figures {
        let twin = others.iter().find(|other| (other.scenario, other.name) == (figure.scenario, figure.name));
        figure.beside = twin.and_then(|twin| twin.floor);
    }
}

/// A latency's percentiles, for the plot.
#[derive(Debug, Clone, serde::Serialize)]
pub(crate) struct Curve {
    /// The scenario that measured it.
    pub(crate) scenario: &'static str,
    /// `gateway` or `floor`.
    pub(crate) server: &'static str,
    /// Percentile and milliseconds.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Everything that a run has measured.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub(crate) struct Results {
    /// The numbers.
    pub(crate) figures: Vec<Figure>,
    /// The latencies.
    pub(crate) curves: Vec<Curve>,
    /// What a reader should know beside the numbers.
    pub(crate) notes: Vec<String>,
    /// The share of all cores, from 0 to 1, that other programs used meanwhile.
    pub(crate) others: f64,
}

impl Results {
    /// Adds others.
    pub(crate) fn add(&mut self, other: Self) {
        self.figures.extend(other.figures);
        self.curves.extend(other.curves);
        self.notes.extend(other.notes);
    }
}
