//! Evens out the sockets of the fleet: a pod that has clearly more than the average asks clients to move, and load balancers
//! bring them to pods that have fewer. Nobody coordinates it: each pod asks the others what they have, and decides for itself.
//!
//! It is slow on purpose, and does nothing while the fleet changes or anything is in doubt: see [`Steady`], and [`rule`].

mod rule;
mod steady;

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::{moving::MoveReason, peer::PodRecord, words};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::{
    sync::watch,
    task::yield_now,
    time::{Instant, sleep, sleep_until},
};

use self::{
    rule::{Average, Step},
    steady::Steady,
};
use super::{
    admission::{
        asked::{Asked, MOVE_WITHIN},
        evict::Evictor,
    },
    fleet::directory::Directory,
    hub::{registry::Hub, session::Session},
    wellness::Wellness,
};
use crate::{
    config::Config,
    metrics::Metrics,
    ports::{EventSource, PeerError, Peers},
    runtime::chance,
    telemetry::Chain,
};

/// How often this pod looks, and in what time it asks as many clients as it may.
const TICK: Duration = Duration::from_secs(1);
/// Peers are asked no more often than this.
const LOADS_EVERY: Duration = Duration::from_secs(5);
/// Peers asked at a time.
const ASKED_AT_ONCE: usize = 16;
/// With fewer clients that can move, nobody is asked anything.
const FEWEST_MOVERS: usize = 20;
/// Clients that are asked in one go.
const BATCH: usize = 20;
/// A round asks so many times as many clients as should do; a balancer brings some back to the pod that they left.
const ENOUGH_ASKED: usize = 2;
/// Where that was in vain, as balancers have their own idea of who belongs where, nobody is asked for so long.
const VAIN_REST: Duration = Duration::from_mins(10);
/// Sessions that are looked at in one go.
const PORTION: usize = 1024;

/// What a pod needs to even out the sockets.
#[derive(Clone)]
pub(crate) struct Rebalance {
    /// The sockets.
    pub hub: Arc<Hub>,
    /// Who else is there.
    pub directory: Arc<Directory>,
    /// How this pod is.
    pub wellness: Arc<Wellness>,
    /// Asked what they have.
    pub peers: Arc<dyn Peers>,
    /// Where those who come read what they missed.
    pub source: Arc<dyn EventSource>,
    /// Asks clients to move.
    pub evictor: Evictor,
    /// Settings in force.
    pub config: watch::Receiver<Arc<Config>>,
    /// Shows what was reckoned.
    pub metrics: Arc<Metrics>,
}

impl Rebalance {
    /// Looks again and again, until cancelled.
    pub(crate) async fn run(&self) {
        let mut state = State::default();
        loop {
            state.asked.end_overdue(&self.evictor);
            match self.next_step(&mut state).await {
                Ok(step) if step.now > 0 => self.ask(&mut state, step).await,
                Ok(_) => sleep(TICK).await,
                Err(why) => {
                    self.end(&mut state, why);
                    sleep(TICK).await;
                }
            }
        }
    }

    /// What is to be done now; or why nothing is.
    async fn next_step(&self, state: &mut State) -> Result<Step, Rest> {
        self.is_calm(state)?;
        if state.loads_asked.is_none_or(|at| at.elapsed() >= LOADS_EVERY) {
            state.average = self.ask_loads(state.steady.members()).await;
            state.loads_asked = Some(Instant::now());
            // That may have taken a while.
            self.is_calm(state)?;
        }
        let average = state.average.ok_or(Rest::Unknown)?;
        let asked = state.asked.still_here(&self.hub);
        let step = average.step(self.hub.len(), asked, state.round.is_some()).ok_or(Rest::Even)?;
        if step.now > 0 && state.round.as_ref().is_some_and(|round| round.asked >= round.most) {
            state.rests_until = Some(Instant::now() + VAIN_REST);
            return Err(Rest::InVain);
        }
        Ok(step)
    }

    /// May clients be asked to move at all?
    fn is_calm(&self, state: &mut State) -> Result<(), Rest> {
        let now = Instant::now();
        let is_steady = state.steady.look(self.directory.undoubted(), now);
        if !self.config.borrow().rebalance.enabled {
            return Err(Rest::Off);
        }
        if self.hub.load().draining {
            return Err(Rest::Draining);
        }
        if self.hub.movers() < FEWEST_MOVERS {
            return Err(Rest::Few);
        }
        if !(self.wellness.is_well() && self.source.is_connected()) {
            return Err(Rest::Unwell);
        }
        if state.rests_until.is_some_and(|until| now < until) {
            return Err(Rest::InVain);
        }
        if is_steady { Ok(()) } else { Err(Rest::Changing) }
    }

    /// What pods have on average, if each says what it has. Who is too old to know the question does not.
    async fn ask_loads(&self, members: &[Arc<PodRecord>]) -> Option<Average> {
        let ask = |peer: Arc<PodRecord>| async move {
            self.peers.load(&peer).await.inspect_err(|error| {
                tracing::debug!(peer.id = %peer.id, error = %Chain(error), "a pod does not say how many sockets it has");
            })
        };
        let answers = stream::iter(members.iter().cloned()).map(ask).buffer_unordered(ASKED_AT_ONCE);
        let answers: Result<Vec<_>, PeerError> = answers.try_collect().await;
        let own = self.hub.len();
        let average = answers.ok().map(|loads| Average::of(own, &loads));
        self.metrics.sockets_ratio.set(average.map_or(0.0, |average| average.ratio(own)));
        average
    }

    /// Asks as many clients as the step says, spread over a tick.
    async fn ask(&self, state: &mut State, step: Step) {
        let end = Instant::now() + TICK;
        if state.candidates.len() < step.now {
            state.candidates = self.choose(step.in_all).await;
        }
        let chosen = state.candidates.split_off(state.candidates.len().saturating_sub(step.now));
        if chosen.is_empty() && state.asked.still_here(&self.hub) == 0 {
            self.end(state, Rest::Nobody);
            // Not before long will there be others.
            state.steady.begin_anew();
        }
        let batches = u32::try_from(chosen.len().div_ceil(BATCH)).unwrap_or(u32::MAX).max(1);
        for batch in chosen.chunks(BATCH) {
            let here = batch.iter().filter(|session| self.hub.contains(session.connection()));
            let asked =
                here.filter(|session| state.asked.ask(session, MoveReason::Rebalance, MOVE_WITHIN, &self.evictor)).count();
            if asked > 0 {
                self.begin(state, step).asked += asked;
            }
            sleep(TICK / batches).await;
        }
        sleep_until(end).await;
    }

    /// Some of those who may be asked, by chance, so many at most.
    async fn choose(&self, most: usize) -> Vec<Arc<Session>> {
        let mut sessions = self.hub.sessions();
        chance::shuffle(&mut sessions);
        let mut chosen = Vec::new();
        for portion in sessions.chunks(PORTION) {
            let fit = portion.iter().filter(|session| session.may_move());
            chosen.extend(fit.take(most - chosen.len()).cloned());
            if chosen.len() >= most {
                break;
            }
            yield_now().await;
        }
        chosen
    }

    fn begin<'a>(&self, state: &'a mut State, step: Step) -> &'a mut Round {
        state.round.get_or_insert_with(|| {
            if let Some(average) = state.average {
                tracing::info!(
                    sockets = self.hub.len(),
                    sockets.average = average.sockets(),
                    members = average.pods(),
                    "the pod has more sockets than others: clients are asked to move"
                );
            }
            Round { asked: 0, most: step.in_all.saturating_mul(ENOUGH_ASKED), began: Instant::now() }
        })
    }

    fn end(&self, state: &mut State, why: Rest) {
        state.candidates.clear();
        if !matches!(why, Rest::Even | Rest::Nobody) {
            self.metrics.sockets_ratio.set(0.0);
        }
        if let Some(Round { asked, began, .. }) = state.round.take() {
            tracing::info!(
                reason = why.as_str(),
                sockets = self.hub.len(),
                asked,
                took = ?began.elapsed(),
                "no more clients are asked to move"
            );
        }
    }
}

/// Between two looks.
#[derive(Debug, Default)]
struct State {
    steady: Steady,
    /// When the others were asked last what they have, and what came of it.
    loads_asked: Option<Instant>,
    average: Option<Average>,
    /// Who was asked to move and still may.
    asked: Asked,
    /// Nobody is asked before then.
    rests_until: Option<Instant>,
    /// Clients are being asked since a while ago.
    round: Option<Round>,
    /// Who is to be asked next.
    candidates: Vec<Arc<Session>>,
}

/// Clients are asked to move until the pod is even with others.
#[derive(Debug)]
struct Round {
    asked: usize,
    /// More would be in vain.
    most: usize,
    began: Instant,
}

words! {
    /// Why nobody is asked to move.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Rest {
        /// It is switched off.
        Off = "switched off",
        /// This pod goes.
        Draining = "draining",
        /// It would not be worth it.
        Few = "few clients can move",
        /// This pod does not bring events where they belong.
        Unwell = "unwell",
        /// Members came, went, or are in doubt.
        Changing = "the fleet changes",
        /// Some pod did not say how many sockets it has.
        Unknown = "a pod does not say what it has",
        /// This pod has not clearly more than others.
        Even = "even",
        /// So many were asked that it should have been enough, and it was not.
        InVain = "in vain: clients come back to this pod",
        /// All that can move were asked, or came here by a move.
        Nobody = "nobody is left who can move",
    }
}
