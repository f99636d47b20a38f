//! One attack from its beginning to its end, and what was measured meanwhile.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::AsyncWriteExt as _,
    process::Command,
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};

use crate::{
    audience::{self, Audience, Heard},
    catalogue::{Attack, Circumstance, Strangers},
    false_pod::FalsePod,
    perform::{Order, Pass},
    probe::{Answers, Probe, Question},
    stage::{API_KEY, Stage},
    store,
};

/// Sockets of the audience.
const AUDIENCE: usize = 50;
/// Users who open a session in turn; each seldom enough for any limit.
const VISITORS: usize = 40;
const EVENTS_PER_SECOND: u32 = 200;
/// After the start of everything, before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// Longest wait, after an attack, for events that were published during it.
const SETTLING: Duration = Duration::from_secs(10);
/// Strangers get this much longer to end by themselves.
const GRACE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(200);
/// The company of all sessions that strangers may open; each has the agent `agent-{index}`.
const CROWD: &str = "crowd";
/// A budget that the sockets of one attack exceed, as those of many would that of a large pod.
const BUDGET: (&str, &str) = ("DAISI_WS_APP_MEMORY_BUDGET_BYTES", "67108864");

/// How attacks are run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The gateway's program.
    pub binary: PathBuf,
    /// The program of the strangers.
    pub strangers: PathBuf,
    /// Pods of the fleet.
    pub pods: usize,
    /// How long before the attack is measured.
    pub before: Duration,
    /// How long the attack lasts.
    pub during: Duration,
    /// Variables of the pods.
    pub set: Vec<(String, String)>,
}

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

/// The probes of a pod.
struct Probes {
    health: Probe,
    metrics: Probe,
    front: Probe,
    grpc: Probe,
    sessions: Probe,
}

impl Probes {
    async fn start(stage: &Stage) -> Result<Self> {
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
struct Reading {
    at: Instant,
    lines: u64,
    cpu: Duration,
    redis: Option<u64>,
}

impl Reading {
    async fn take(stage: &Stage) -> Self {
        let pod = &stage.pods[0];
        let redis = timeout(Duration::from_secs(1), stage.redis_calls()).await.ok().and_then(Result::ok);
        Self { at: Instant::now(), lines: pod.log_lines(), cpu: pod.cpu().unwrap_or_default(), redis }
    }
}

fn span(audience: &Audience, probes: &Probes, since: &Reading, until: &Reading, memory: u64) -> Span {
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

/// Lets so much time pass, and returns the most memory that the pod had meanwhile.
async fn pass(stage: &Stage, time: Duration) -> u64 {
    let (until, mut most) = (Instant::now() + time, 0);
    while Instant::now() < until {
        most = most.max(stage.pods[0].memory().unwrap_or_default());
        sleep(LOOK).await;
    }
    most
}

/// Runs an attack on a stage of its own.
///
/// # Errors
/// When the stage can't be set, or the strangers can't be started.
pub async fn run(plan: &Plan, attack: &'static Attack) -> Result<Row> {
    let bounded = attack.circumstances.iter().any(|circumstance| matches!(circumstance, Circumstance::Events { .. }));
    let wished: &[_] = if bounded { &[BUDGET] } else { &[] };
    let stage = Stage::start(&plan.binary, plan.pods, &plan.set, wished).await?;
    let audience = Audience::start(&stage, AUDIENCE, EVENTS_PER_SECOND).await?;
    let probes = Probes::start(&stage).await?;
    let passes =
        passes(&stage, CROWD, attack.strangers.iter().map(|strangers| strangers.passes).max().unwrap_or_default()).await?;
    sleep(WARM_UP).await;

    let start = Reading::take(&stage).await;
    let memory_before = pass(&stage, plan.before).await;
    let begin = Reading::take(&stage).await;
    let mut remarks = Vec::new();
    let (mut meanwhile, false_pod) = (JoinSet::new(), FalsePod::start().await?);
    for circumstance in attack.circumstances {
        if *circumstance == Circumstance::FalsePod {
            false_pod.announce(stage.redis, audience::COMPANY, AUDIENCE).await?;
        } else {
            begin_circumstance(*circumstance, (&stage, passes.len()), &mut meanwhile, &mut remarks).await?;
        }
    }
    let mut working = JoinSet::new();
    for (at, strangers) in attack.strangers.iter().enumerate() {
        let order = order(plan, &stage, strangers, at, &passes);
        working.spawn(work(plan.strangers.clone(), order, strangers.name));
    }
    let memory_during = pass(&stage, plan.during).await;
    // What hangs goes on before it is asked how it was.
    let end = Reading { redis: None, at: Instant::now(), ..Reading::take_without_redis(&stage) };
    stage.freeze_redis(false)?;
    stage.pods[0].read_log(true);
    let redis = timeout(Duration::from_secs(2), stage.redis_calls()).await.ok().and_then(Result::ok);
    let end = Reading { redis, ..end };
    let mut counts = BTreeMap::new();
    while let Some(worked) = working.join_next().await {
        let (name, of_these) = worked??;
        counts.extend(
            of_these
                .into_iter()
                .map(|(what, count)| (if attack.strangers.len() > 1 { format!("{name}: {what}") } else { what }, count)),
        );
    }
    drop(meanwhile);
    audience.settled(end.at, SETTLING).await;
    if attack.circumstances.contains(&Circumstance::FalsePod) {
        remarks.push(false_pod.report());
    }
    let before = span(&audience, &probes, &start, &begin, memory_before);
    let during = span(&audience, &probes, &begin, &end, memory_during);
    let attempts = counts.get("attempts").filter(|attempts| **attempts > 0);
    let redis_tenths = attempts
        .zip(before.redis.zip(during.redis))
        .map(|(attempts, (usual, redis))| redis.saturating_sub(usual) * plan.during.as_secs() * 10 / attempts);
    if let Some(tenths) = redis_tenths {
        remarks.push(format!("{}.{} Redis commands an attempt", tenths / 10, tenths % 10));
    }
    let (closed, gaps) = audience.disturbed();
    let alive = stage.pods[0].memory().is_some();
    if !alive {
        remarks.push(format!("the pod has ended: {}", stage.pods[0].log_end()));
    }
    Ok(Row { attack, before, during, counts, closed, gaps, redis_tenths, alive, remarks })
}

impl Reading {
    fn take_without_redis(stage: &Stage) -> Self {
        let pod = &stage.pods[0];
        Self { at: Instant::now(), lines: pod.log_lines(), cpu: pod.cpu().unwrap_or_default(), redis: None }
    }
}

/// Tokens for so many users of a company, each of an agent of its own.
async fn passes(stage: &Stage, company: &str, count: usize) -> Result<Vec<Pass>> {
    let mut passes = Vec::new();
    for index in 0..count {
        let agent = format!("agent-{index}");
        let token = stage.pods[0].token(company, &agent, "stranger").await?;
        passes.push(Pass { path: format!("/ws/{company}/{agent}"), token });
    }
    Ok(passes)
}

fn order(plan: &Plan, stage: &Stage, strangers: &Strangers, at: usize, passes: &[Pass]) -> Order {
    let pod = &stage.pods[0];
    Order {
        name: strangers.name.to_owned(),
        http: pod.http,
        grpc: pod.grpc,
        probes: pod.probes,
        api_key: API_KEY.to_owned(),
        passes: passes[..strangers.passes].to_vec(),
        count: strangers.count,
        // Ten streets each, so that each kind has addresses of its own.
        street: 60 + 10 * u8::try_from(at).unwrap_or_default(),
        spread: strangers.spread,
        seconds: plan.during.as_secs(),
    }
}

/// Has a process of strangers do it, and returns what it counted.
async fn work(program: PathBuf, order: Order, name: &'static str) -> Result<(&'static str, BTreeMap<String, u64>)> {
    let mut command = Command::new(program);
    let command = command.arg("perform").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).kill_on_drop(true);
    let mut child = command.spawn().context("the strangers do not start")?;
    let mut stdin = child.stdin.take().context("it is piped")?;
    stdin.write_all(&serde_json::to_vec(&order)?).await?;
    drop(stdin);
    let output = timeout(Duration::from_secs(order.seconds) + GRACE, child.wait_with_output()).await;
    let Ok(output) = output else { return Ok((name, BTreeMap::from([("strangers that did not end".to_owned(), 1)]))) };
    let output = output?;
    ensure!(output.status.success(), "the strangers have failed");
    Ok((name, serde_json::from_slice(&output.stdout)?))
}

async fn begin_circumstance(
    circumstance: Circumstance,
    (stage, agents): (&Stage, usize),
    meanwhile: &mut JoinSet<()>,
    remarks: &mut Vec<String>,
) -> Result<()> {
    match circumstance {
        Circumstance::RedisFrozen => stage.freeze_redis(true),
        Circumstance::LogUnread => {
            stage.pods[0].read_log(false);
            Ok(())
        }
        Circumstance::Events { bytes, per_second } => {
            let nats = async_nats::connect(stage.nats.to_string()).await?;
            meanwhile.spawn(feed(nats, agents, (bytes, per_second)));
            Ok(())
        }
        Circumstance::WideRoute(members) => store::fill_set(stage.redis, "route:audience:agent-0:chats", members).await,
        Circumstance::HugeValues(bytes) => {
            store::fill_string(stage.redis, &format!("session:{CROWD}:agent-0:stranger"), bytes).await?;
            store::fill_string(stage.redis, "pod:pod-of-nobody", bytes).await?;
            store::fill_string(stage.redis, &format!("session:{CROWD}:agent-1:stranger:selected_chat"), bytes).await?;
            store::add_member(stage.redis, "pods", "pod-of-nobody").await
        }
        Circumstance::FalsePod => Ok(()),
        Circumstance::PublishedSubjects => {
            let created = stream_created(stage).await?;
            for subject in ["wa.acme", "wa.acme.agent.other", "wa.>", "other.acme.agent.chats", "$JS.API.STREAM.DELETE.wa_stream"]
            {
                let taken = publish(&stage.binary, stage.nats, subject).await?;
                remarks.push(format!("`{subject}` {}", if taken { "is published" } else { "is refused" }));
                if stream_created(stage).await.ok() != Some(created) {
                    remarks.push("the stream is gone".to_owned());
                    break;
                }
            }
            Ok(())
        }
    }
}

/// Tells the stream from another of its name.
async fn stream_created(stage: &Stage) -> Result<i128> {
    let nats = async_nats::connect(stage.nats.to_string()).await?;
    let stream = async_nats::jetstream::new(nats).get_stream("wa_stream").await?;
    Ok(stream.cached_info().created.unix_timestamp_nanos())
}

/// Events of so many bytes, so many a second, for the sessions of strangers in turn.
async fn feed(nats: async_nats::Client, agents: usize, (bytes, per_second): (usize, u32)) {
    // Made once: who measures has no time to write megabytes again and again.
    let row = "x".repeat(bytes);
    let event = serde_json::json!({"event_id": "feed", "company_id": CROWD, "row_data": {"text": row}}).to_string();
    let event = bytes::Bytes::from(event);
    let mut ticks = interval(Duration::from_secs(1) / per_second.max(1));
    for number in 0_usize.. {
        ticks.tick().await;
        let subject = format!("wa.{CROWD}.agent-{}.chats", number % agents.max(1));
        if nats.publish(subject, event.clone()).await.is_err() {
            return;
        }
    }
}

/// Calls `publish` of the gateway's program; does it say that it is done?
async fn publish(binary: &Path, nats: SocketAddr, subject: &str) -> Result<bool> {
    let mut command = Command::new(binary);
    command.args(["publish", subject, "{}"]).env_clear().env("DAISI_WS_NATS_URL", format!("nats://{nats}"));
    for (name, key) in [("SECRET_TOKEN", API_KEY), ("TOKEN_GENERATION_ADMIN_KEY", crate::stage::MINT_KEY)] {
        command.env(format!("DAISI_WS_AUTH_{name}"), key);
    }
    command.env("DAISI_WS_AUTH_TOKEN_AES_KEY", "1a".repeat(32)).env("DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY", "2b".repeat(32));
    let output = timeout(Duration::from_secs(10), command.stdin(Stdio::null()).output()).await;
    Ok(output.is_ok_and(|output| output.is_ok_and(|output| output.status.success())))
}
