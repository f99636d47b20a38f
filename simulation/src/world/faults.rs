//! What breaks, and mends itself. Faults of the same kind may overlap: a thing is whole again when the last of them has ended.

use std::{sync::Arc, time::Duration};

use daisi_ws_domain::ids::PodId;
use tokio::time::sleep;

use super::World;
use crate::{
    history::{Trouble, TroubleKind},
    plan::Action,
    tasks::spawn,
};

/// Snapshots of the store that are kept, one a second.
const SNAPSHOTS: usize = 10;

/// Something that is held broken.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Hold {
    /// A process is no more: it reaches nothing.
    Dead(PodId),
    /// A process stands still.
    Frozen(PodId),
    Store,
    StoreFrozen,
    StoreOf(PodId),
    Stream,
    StreamOf(PodId),
    Link(PodId, PodId),
    HalfOpen(PodId, PodId),
    Isolated(PodId),
    Slow(Duration),
}

impl World {
    /// Notes that something is broken from now on.
    pub(super) fn begin(&self, kind: TroubleKind, slot: Option<usize>) -> usize {
        let from = self.at();
        let troubles = &mut self.record.open().history.troubles;
        troubles.push(Trouble { kind, slot, from, until: None });
        troubles.len() - 1
    }

    /// Notes that it is whole again.
    pub(super) fn end(&self, trouble: usize) {
        let until = self.at();
        self.record.open().history.troubles[trouble].until = Some(until);
    }

    pub(super) fn hold(&self, hold: &Hold) {
        let first = {
            let mut state = self.lock();
            let holds = state.holds.entry(hold.clone()).or_default();
            *holds += 1;
            *holds == 1
        };
        if first {
            self.set(hold, true);
        }
    }

    pub(super) fn release(&self, hold: &Hold) {
        let last = {
            let mut state = self.lock();
            match state.holds.get_mut(hold) {
                Some(holds) if *holds > 0 => {
                    *holds -= 1;
                    *holds == 0
                }
                _ => false,
            }
        };
        if last {
            self.set(hold, false);
        }
    }

    /// Is any of these held broken?
    fn is_held(&self, holds: &[Hold]) -> bool {
        let state = self.lock();
        holds.iter().any(|hold| state.holds.get(hold).is_some_and(|count| *count > 0))
    }

    fn set(&self, hold: &Hold, broken: bool) {
        match hold {
            Hold::Dead(pod) | Hold::StoreOf(pod) | Hold::StreamOf(pod) => self.cut_off(pod),
            Hold::Frozen(pod) => {
                self.cut_off(pod);
                self.network.freeze(pod, broken);
            }
            Hold::Store => self.store.set_down(broken),
            Hold::StoreFrozen => self.store.set_frozen(broken),
            Hold::Stream => self.stream.set_down(broken),
            Hold::Link(a, b) => self.network.cut(a, b, broken),
            Hold::HalfOpen(a, b) => self.network.half_open(a, b, broken),
            Hold::Isolated(pod) => self.network.isolate(pod, broken),
            Hold::Slow(delay) => self.network.delay(if broken { *delay } else { Duration::ZERO }),
        }
    }

    /// Has a pod reach what nothing keeps from it.
    fn cut_off(&self, pod: &PodId) {
        let process = [Hold::Dead(pod.clone()), Hold::Frozen(pod.clone())];
        let from = |hold: Hold| self.is_held(&[process[0].clone(), process[1].clone(), hold]);
        self.store.cut(pod, from(Hold::StoreOf(pod.clone())));
        self.stream.cut(pod, from(Hold::StreamOf(pod.clone())));
    }

    /// Breaks something for a while.
    fn break_for(self: &Arc<Self>, hold: Hold, troubles: &[(TroubleKind, Option<usize>)], for_ms: u64) {
        let begun: Vec<usize> = troubles.iter().map(|(kind, slot)| self.begin(*kind, *slot)).collect();
        self.hold(&hold);
        let world = Arc::clone(self);
        spawn(async move {
            sleep(Duration::from_millis(for_ms)).await;
            world.record.note(format_args!("{hold:?} ends"));
            world.release(&hold);
            begun.into_iter().for_each(|trouble| world.end(trouble));
        });
    }

    pub(super) fn break_something(self: &Arc<Self>, fault: &Action) {
        let id = |slot: usize| self.running(slot).map(|pod| pod.id.clone());
        match *fault {
            Action::Kill { slot, down_ms, renamed } => self.kill(slot, Duration::from_millis(down_ms), renamed),
            Action::Drain { slot, down_ms, renamed } => self.drain_and_restart(slot, Duration::from_millis(down_ms), renamed),
            Action::Freeze { slot, for_ms } => self.freeze(slot, for_ms),
            Action::StoreDown { for_ms } => self.break_for(Hold::Store, &[(TroubleKind::Store, None)], for_ms),
            Action::StoreFrozen { for_ms } => self.break_for(Hold::StoreFrozen, &[(TroubleKind::Store, None)], for_ms),
            Action::StoreCut { slot, for_ms } => {
                if let Some(pod) = id(slot) {
                    self.break_for(Hold::StoreOf(pod), &[(TroubleKind::Store, Some(slot))], for_ms);
                }
            }
            Action::Flush => {
                self.lose_data();
                self.store.flush();
            }
            Action::GoBack { by } => self.go_back(Duration::from_millis(by)),
            Action::Evict { topic } => {
                if let Ok(route) = topic.route() {
                    self.note_loss();
                    self.store.evict(&route);
                }
            }
            Action::Interrupt => self.store.interrupt_listeners(),
            Action::StreamDown { for_ms } => self.break_for(Hold::Stream, &[(TroubleKind::Stream, None)], for_ms),
            Action::StreamCut { slot, for_ms } => {
                if let Some(pod) = id(slot) {
                    self.break_for(Hold::StreamOf(pod), &[(TroubleKind::Stream, Some(slot))], for_ms);
                }
            }
            Action::LinkCut { a, b, for_ms } => self.break_link(Hold::Link, (a, b), for_ms),
            Action::LinkHalfOpen { a, b, for_ms } => self.break_link(Hold::HalfOpen, (a, b), for_ms),
            Action::Isolate { slot, for_ms } => {
                if let Some(pod) = id(slot) {
                    self.break_for(Hold::Isolated(pod), &[(TroubleKind::Links, None)], for_ms);
                }
            }
            Action::LinksSlow { delay, for_ms } => self.break_for(Hold::Slow(Duration::from_millis(delay)), &[], for_ms),
            _ => {}
        }
    }

    fn break_link(self: &Arc<Self>, how: fn(PodId, PodId) -> Hold, (a, b): (usize, usize), for_ms: u64) {
        let pods = (self.running(a).map(|pod| pod.id.clone()), self.running(b).map(|pod| pod.id.clone()));
        if let (Some(one), Some(other)) = pods {
            let troubles = [(TroubleKind::Links, Some(a)), (TroubleKind::Links, Some(b))];
            self.break_for(how(one, other), &troubles, for_ms);
        }
    }

    fn freeze(self: &Arc<Self>, slot: usize, for_ms: u64) {
        let Some(pod) = self.running(slot) else { return };
        let trouble = self.begin(TroubleKind::Frozen, Some(slot));
        let hold = Hold::Frozen(pod.id.clone());
        pod.gate.hold();
        self.hold(&hold);
        let world = Arc::clone(self);
        spawn(async move {
            sleep(Duration::from_millis(for_ms)).await;
            world.record.note(format_args!("{} thaws", pod.id));
            world.release(&hold);
            pod.gate.release();
            world.end(trouble);
        });
    }

    /// Notes that the store loses something now.
    fn note_loss(&self) {
        let trouble = self.begin(TroubleKind::LostData, None);
        self.end(trouble);
    }

    fn lose_data(&self) {
        self.note_loss();
        self.record.open().holders.forget();
    }

    /// Keeps what the store holds now.
    pub(crate) fn keep_snapshot(&self) {
        let snapshot = (self.at(), self.store.snapshot());
        let mut state = self.lock();
        state.snapshots.push(snapshot);
        if state.snapshots.len() > SNAPSHOTS {
            state.snapshots.remove(0);
        }
    }

    fn go_back(&self, by: Duration) {
        let to = self.at().saturating_sub(by);
        let snapshot = {
            let state = self.lock();
            state.snapshots.iter().rev().find(|(at, _)| *at <= to).or(state.snapshots.first()).map(|(_, held)| held.clone())
        };
        if let Some(snapshot) = snapshot {
            self.lose_data();
            self.store.restore(&snapshot);
        }
    }
}
