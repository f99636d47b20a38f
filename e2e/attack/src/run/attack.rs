//! One attack from its beginning to its end.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, Result, ensure};
use tokio::{
    io::AsyncWriteExt as _,
    process::Command,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use super::{
    circumstance,
    plan::Plan,
    reading::{Probes, Reading, span},
    row::Row,
    sessions::{CROWD, passes},
};
use crate::{
    catalogue::{Attack, Circumstance, Strangers},
    impact::audience::{self, Audience},
    intruder::false_pod::FalsePod,
    stage::{pod::API_KEY, servers::Stage},
    strangers::order::{Order, Pass},
};

/// Sockets of the audience.
const AUDIENCE: usize = 50;
const EVENTS_PER_SECOND: u32 = 200;
/// After the start of everything, before anything is measured.
const WARM_UP: Duration = Duration::from_secs(1);
/// Longest wait, after an attack, for events that were published during it.
const SETTLING: Duration = Duration::from_secs(10);
/// Strangers get this much longer to end by themselves.
const GRACE: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(200);
/// A budget that the sockets of one attack exceed, as those of many would that of a large pod.
const BUDGET: (&str, &str) = ("DAISI_WS_APP_MEMORY_BUDGET_BYTES", "67108864");

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
            circumstance::begin(*circumstance, &stage, passes.len(), &mut meanwhile, &mut remarks).await?;
        }
    }
    let mut working = JoinSet::new();
    for (at, strangers) in attack.strangers.iter().enumerate() {
        let order = order(plan, &stage, strangers, at, &passes);
        working.spawn(work(plan.strangers.clone(), order, strangers.name));
    }
    let memory_during = pass(&stage, plan.during).await;
    // What hangs goes on before it is asked how it was.
    let mut end = Reading::take_without_redis(&stage);
    stage.freeze_redis(false)?;
    stage.pods[0].read_log(true);
    end.redis = timeout(Duration::from_secs(2), stage.redis_calls()).await.ok().and_then(Result::ok);
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
    stage.end().await?;
    Ok(Row { attack, before, during, counts, closed, gaps, redis_tenths, alive, remarks })
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
