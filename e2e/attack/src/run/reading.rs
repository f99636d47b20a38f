//! Probes and counters of the pod that is attacked, and what they say of a span of time.

use std::time::Duration;

use anyhow::Result;
use tokio::time::{Instant, timeout};

use super::{row::Span, sessions::passes};
use crate::{
    impact::{
        audience::Audience,
        probe::{Probe, Question},
    },
    stage::servers::Stage,
};

/// Users who open a session in turn; each seldom enough for any limit.
const VISITORS: usize = 40;

/// The probes of a pod.
pub(super) struct Probes {
    health: Probe,
    metrics: Probe,
    front: Probe,
    grpc: Probe,
    sessions: Probe,
}

impl Probes {
    /// Starts to ask.
    pub(super) async fn start(stage: &Stage) -> Result<Self> {
        let pod = &stage.pods[0];
        let visitors = passes(stage, "visitors", VISITORS).await?;
        Ok(Self {
            health: Probe::start(Question::Http(pod.probes, "/health")),
            metrics: Probe::start(Question::Http(pod.probes, "/metrics")),
            front: Probe::start(Question::Http(pod.http, "/health")),
            grpc: Probe::start(Question::Grpc(pod.grpc)),
            sessions: Probe::start(Question::Session(pod.http, visitors)),
        })
    }
}

/// Readings of counters at a moment.
pub(super) struct Reading {
    pub(super) at: Instant,
    lines: u64,
    cpu: Duration,
    pub(super) redis: Option<u64>,
}

impl Reading {
    /// Reads them.
    pub(super) async fn take(stage: &Stage) -> Self {
        let pod = &stage.pods[0];
        let redis = timeout(Duration::from_secs(1), stage.redis_calls()).await.ok().and_then(Result::ok);
        Self { at: Instant::now(), lines: pod.log_lines(), cpu: pod.cpu().unwrap_or_default(), redis }
    }

    /// Reads those that Redis need not be asked for.
    pub(super) fn take_without_redis(stage: &Stage) -> Self {
        let pod = &stage.pods[0];
        Self { at: Instant::now(), lines: pod.log_lines(), cpu: pod.cpu().unwrap_or_default(), redis: None }
    }
}

/// What was measured between two readings, with the most memory of that time.
pub(super) fn span(audience: &Audience, probes: &Probes, since: &Reading, until: &Reading, memory: u64) -> Span {
    let (from, to) = (since.at, until.at);
    let milliseconds = u64::try_from((to - from).as_millis()).unwrap_or(u64::MAX).max(1);
    let a_second = |count: u64| count * 1000 / milliseconds;
    let cpu = u64::try_from(until.cpu.saturating_sub(since.cpu).as_millis()).unwrap_or(u64::MAX);
    Span {
        heard: audience.heard(from, to),
        health: probes.health.answers(from, to),
        metrics: probes.metrics.answers(from, to),
        front: probes.front.answers(from, to),
        grpc: probes.grpc.answers(from, to),
        sessions: probes.sessions.answers(from, to),
        memory,
        cpu: cpu * 100 / milliseconds,
        lines: a_second(until.lines.saturating_sub(since.lines)),
        redis: until.redis.zip(since.redis).map(|(after, before)| a_second(after.saturating_sub(before))),
    }
}
