//! A run: the fleet starts, is used and broken, is left alone until it must be well, and drains.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use daisi_ws_domain::maps::fix_hash_keys;
use daisi_ws_service::runtime::{chance::Seeded, clock::Virtual};
use futures_util::future::join_all;
use tokio::{
    runtime::Builder,
    time::{sleep_until, timeout},
};

use crate::{
    history::History,
    invariants::{self, Bounds, Breach, Doubled, Ghost, Ghosts, Here, Judgement, Load, Open},
    plan::{Plan, Step},
    record::Record,
    trace::Trace,
    world::{Running, World},
};

/// The wall clock at the begin of every run.
const BEGIN: Duration = Duration::from_secs(1_700_000_000);
/// The keys of all hashes, in every run.
const HASH_KEYS: u64 = 7;
/// How often everything is looked at.
const TICK: Duration = Duration::from_millis(250);
/// From one snapshot of the store to the next, in ticks.
const SNAPSHOT_TICKS: u32 = 4;
/// For so long after the fleet must be well, events are published whose way is looked at.
const WATCHED: Duration = Duration::from_secs(3);
/// After the last event, everything has come and is settled within this time.
const SETTLED: Duration = Duration::from_secs(4);

/// What a run came to.
#[derive(Debug)]
pub struct Outcome {
    /// Its seed.
    pub seed: u64,
    /// What does not hold; the run ended with the first look that saw any.
    pub breaches: Vec<Breach>,
    /// Hash of the trace.
    pub hash: u64,
    /// Lines of the trace.
    pub lines: u64,
    /// The trace in words, if it was asked for.
    pub text: Vec<String>,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
    /// What happened.
    pub history: History,
    /// How long it took, in virtual time.
    pub took: Duration,
}

/// Fixes what a run depends on beside its plan. Must come before anything else of the process that uses the service.
pub fn prepare() {
    // A second call changes nothing.
    let _ = fix_hash_keys(HASH_KEYS);
}

/// Runs a plan on this thread.
///
/// # Errors
/// When there can be no fleet at all.
pub fn run(plan: &Plan, readable: bool) -> anyhow::Result<Outcome> {
    prepare();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().context("no runtime")?;
    runtime.block_on(async {
        let (_clock, _chance) = (Virtual::begin(BEGIN), Seeded::begin(plan.seed));
        let trace = if readable { Trace::readable() } else { Trace::default() };
        let record = Arc::new(Record::new(trace));
        let world = World::new(&Arc::new(plan.clone()), &record)?;
        let mut run = Run::new(world);
        run.conduct().await?;
        let took = record.at();
        let mut inner = record.open();
        Ok(Outcome {
            seed: plan.seed,
            breaches: std::mem::take(&mut inner.breaches),
            hash: inner.trace.hash(),
            lines: inner.trace.len(),
            text: inner.trace.text().to_vec(),
            counts: std::mem::take(&mut inner.counts),
            history: std::mem::take(&mut inner.history),
            took,
        })
    })
}

struct Run {
    world: Arc<World>,
    doubled: Doubled,
    ghosts: Ghosts,
    ticks: u32,
}

impl Run {
    fn new(world: Arc<World>) -> Self {
        let Bounds { loser, ghost, settling } = Bounds::of(&world.plan.rates, &world.plan.settings);
        Self { doubled: Doubled::new(loser, settling), ghosts: Ghosts::new(ghost, settling), world, ticks: 0 }
    }

    async fn conduct(&mut self) -> anyhow::Result<()> {
        let world = Arc::clone(&self.world);
        let plan = Arc::clone(&world.plan);
        (0..plan.slots).try_for_each(|slot| world.start(slot, false))?;
        world.start_publishing();
        for Step { at, action } in &plan.steps {
            self.watch_until(Duration::from_millis(*at)).await;
            if self.is_broken() {
                return Ok(());
            }
            world.act(action);
        }
        let faults_end = Duration::from_millis(plan.faults_end);
        let well_at = faults_end + recovery(&plan);
        let sound = (well_at, well_at + WATCHED);
        self.watch_until(well_at).await;
        self.everybody_is_there();
        self.watch_until(sound.1).await;
        world.stop_publishing();
        self.watch_until(sound.1 + SETTLED).await;
        if self.is_broken() {
            return Ok(());
        }
        self.everything_is_settled();
        self.judge(sound);
        if self.is_broken() {
            return Ok(());
        }
        self.drain_all().await;
        self.nothing_is_left();
        Ok(())
    }

    fn is_broken(&self) -> bool {
        !self.world.record.open().breaches.is_empty()
    }

    fn breach(&self, wrong: Option<(&'static str, String)>) {
        if let Some((invariant, what)) = wrong {
            self.world.record.breach(invariant, what);
        }
    }

    /// Lets time pass, and looks at everything again and again.
    async fn watch_until(&mut self, at: Duration) {
        loop {
            let next = (TICK * (self.ticks + 1)).min(at);
            sleep_until(self.world.record.instant(next)).await;
            if next < TICK * (self.ticks + 1) || self.is_broken() {
                return;
            }
            self.ticks += 1;
            if self.ticks.is_multiple_of(SNAPSHOT_TICKS) {
                self.world.keep_snapshot();
            }
            self.look();
        }
    }

    /// What must hold at any time.
    fn look(&mut self) {
        let world = &self.world;
        let (pods, now) = (world.pods(), world.at());
        let here = here(&pods);
        let owners: Vec<String> = world.store.holdings().locks.iter().map(|(_, owner)| owner.to_string()).collect();
        let wrong = {
            let history = &world.record.open().history;
            let doubled = self.doubled.look(&Open::all(history, &here), history, now);
            let ghosts = self.ghosts.look(&Ghost::all(&owners, &here), history, now);
            [doubled, ghosts, invariants::gave_up_its_id(history)]
        };
        wrong.into_iter().for_each(|wrong| self.breach(wrong));
        for pod in &pods {
            let hub = pod.pod.hub();
            let load = Load {
                pod: pod.id.to_string(),
                mailboxes: hub.sessions().iter().map(|session| session.mailbox().len()).collect(),
                bytes: hub.memory().used(),
                budget: hub.memory().budget(),
                tasks: pod.tasks.running(),
                peers: pods.len(),
            };
            self.breach(invariants::too_much(&load, &world.plan.settings));
            self.breach(invariants::panicked(&load.pod, pod.metrics.task_panics_total.get()));
        }
    }

    fn everybody_is_there(&self) {
        let world = &self.world;
        let presence = world.presence();
        for (person, there) in presence.iter().enumerate() {
            self.breach(invariants::nobody_has_it(person, there.tabs, there.alive, there.left));
        }
        if world.plan.settings.max_connections < world.plan.people.len() {
            return;
        }
        let wants: Vec<u64> = presence.iter().map(|there| there.alive).collect();
        let wrong = invariants::kept_out(&wants, &world.record.open().history);
        self.breach(wrong);
    }

    fn everything_is_settled(&self) {
        let stream = &self.world.stream;
        self.breach(invariants::unsettled(stream.pending(), stream.ack_pending(), SETTLED));
    }

    fn judge(&self, sound: (Duration, Duration)) {
        let world = &self.world;
        let settings = &world.plan.settings;
        let (wrong, totals) = {
            let record = world.record.open();
            let judgement = Judgement {
                people: &world.plan.people,
                now: world.at(),
                sound,
                memory: Duration::from_secs(settings.max_age + 2 * settings.ack_wait + 10),
                calm: world.plan.is_calm(),
            };
            let (mut wrong, totals) = invariants::account(&record.history, &judgement);
            wrong.extend(invariants::places(&record.history, &world.plan.people));
            (wrong, totals)
        };
        {
            let mut record = world.record.open();
            totals.into_iter().for_each(|(what, times)| record.add(what, times));
        }
        wrong.into_iter().for_each(|wrong| self.breach(Some(wrong)));
    }

    async fn drain_all(&mut self) {
        let world = Arc::clone(&self.world);
        let slots: Vec<usize> = world.pods().iter().map(|pod| pod.slot).collect();
        let patience = Duration::from_secs(world.plan.settings.shutdown) * 2;
        let rounds: Vec<Vec<usize>> =
            if world.plan.one_by_one { slots.chunks(1).map(<[usize]>::to_vec).collect() } else { vec![slots] };
        for round in rounds {
            let drained = join_all(round.iter().map(|slot| world.drain(*slot)));
            if timeout(patience, drained).await.is_err() {
                let wrong = invariants::endless(&world.record.open().history.drains, patience, world.at());
                self.breach(wrong);
                return;
            }
        }
    }

    fn nothing_is_left(&self) {
        let world = &self.world;
        let within = Duration::from_secs(world.plan.settings.shutdown);
        let drains = world.record.open().history.drains.clone();
        drains.iter().for_each(|drain| self.breach(invariants::leftovers(drain, within)));
        let held = world.store.holdings();
        let mut left: Vec<String> = held.locks.iter().map(|(key, owner)| format!("a lock of {key:?} for {owner}")).collect();
        left.extend(held.members.iter().map(|pod| format!("the member {pod}")));
        left.extend(held.records.iter().map(|pod| format!("a liveness key of {pod}")));
        self.breach(invariants::left_in_the_end(&left));
    }
}

/// Who is here now.
fn here(pods: &[Arc<Running>]) -> Here {
    let sockets = pods.iter().flat_map(|pod| pod.pod.hub().sessions());
    Here {
        pods: pods.iter().map(|pod| (pod.id.to_string(), pod.slot)).collect(),
        sockets: sockets.map(|session| session.owner().to_string()).collect(),
    }
}

/// The fleet must be well so long after the last fault: locks that nobody renews have run out, routes are written again, what was
/// parked has been delivered again.
fn recovery(plan: &Plan) -> Duration {
    Duration::from_secs(plan.settings.session_ttl + 10) + plan.settings.refresh()
}
