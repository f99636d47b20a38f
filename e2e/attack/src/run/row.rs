//! What came of an attack.

use std::collections::BTreeMap;

use crate::{
    catalogue::Attack,
    impact::{audience::Heard, probe::Answers},
};

/// What was measured before an attack or during it.
#[derive(Debug, Clone, Default)]
pub struct Span {
    /// What came of events.
    pub heard: Heard,
    /// `/health`, where orchestrators ask.
    pub health: Answers,
    /// `/metrics`, where scrapers ask.
    pub metrics: Answers,
    /// `/health` at the port of browsers.
    pub front: Answers,
    /// New connections of pods.
    pub grpc: Answers,
    /// New sessions of another user.
    pub sessions: Answers,
    /// The most resident memory, in bytes.
    pub memory: u64,
    /// CPU time of the pod as a share of the time that passed, in percent of a core.
    pub cpu: u64,
    /// Lines of log a second.
    pub lines: u64,
    /// Redis commands a second.
    pub redis: Option<u64>,
}

/// What came of an attack.
#[derive(Debug, Clone)]
pub struct Row {
    /// Which it was.
    pub attack: &'static Attack,
    /// Before.
    pub before: Span,
    /// While it lasted.
    pub during: Span,
    /// What the strangers counted.
    pub counts: BTreeMap<String, u64>,
    /// Sockets of the audience that were closed, by code.
    pub closed: BTreeMap<u16, usize>,
    /// Gaps that the audience was told of.
    pub gaps: usize,
    /// Redis commands for each attempt of the strangers, in tenths; none where they count no attempts.
    pub redis_tenths: Option<u64>,
    /// Does the pod live still?
    pub alive: bool,
    /// What else is worth a word.
    pub remarks: Vec<String>,
}
