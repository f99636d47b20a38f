//! A fleet of the shipped code on memory backends, the people who use it, and what breaks.

mod client;
mod faults;
mod frames;
mod pods;
mod sockets;
mod tabs;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use daisi_ws_domain::maps::Map;
use daisi_ws_service::{
    adapters::memory::{
        network::Network,
        store::{Snapshot, Store},
        stream::{Headers, Stream},
    },
    config::Config,
    runtime::workers::Workers,
};
use tokio::time::sleep;

pub(crate) use self::{client::Order, pods::Running};
use self::{faults::Hold, tabs::Desk};
use crate::{
    draw::Draw,
    history::Published,
    plan::{Action, Plan, Publisher, Topic},
    record::Record,
    tasks::spawn,
};

/// Everything of a run.
pub(crate) struct World {
    pub(crate) plan: Arc<Plan>,
    pub(crate) record: Arc<Record>,
    pub(crate) store: Store,
    pub(crate) stream: Stream,
    network: Network,
    workers: Workers,
    config: Config,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    slots: Vec<Slot>,
    /// Pods that were ever started.
    launched: u64,
    people: Vec<Desk>,
    /// How many faults hold what broken.
    holds: Map<Hold, u32>,
    /// What the store held, each second.
    snapshots: Vec<(Duration, Snapshot)>,
    stopped_publishing: bool,
}

/// A place for a pod.
#[derive(Default)]
struct Slot {
    pod: Option<Arc<Running>>,
    /// The name of the last pod here.
    id: String,
}

impl World {
    /// Nobody is there yet.
    pub(crate) fn new(plan: &Arc<Plan>, record: &Arc<Record>) -> anyhow::Result<Arc<Self>> {
        let slot = |slot| Slot { pod: None, id: format!("pod-{slot}") };
        let state = State {
            slots: (0..plan.slots).map(slot).collect(),
            people: plan.people.iter().map(|_| Desk::default()).collect(),
            ..State::default()
        };
        Ok(Arc::new(Self {
            plan: Arc::clone(plan),
            record: Arc::clone(record),
            store: Store::new(),
            stream: Stream::new(plan.settings.stream()),
            network: Network::new(),
            workers: Workers::of_the_runtime(),
            config: plan.settings.config()?,
            state: Mutex::new(state),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Virtual time since the begin.
    pub(crate) fn at(&self) -> Duration {
        self.record.at()
    }

    /// Stores an event.
    pub(crate) fn publish(&self, topic: Topic) {
        let number = self.stream.last_seq() + 1;
        let payload = client::payload(number, topic.code());
        if self.stream.append(&topic.subject(), payload, Headers::default()).is_err() {
            self.record.count("publishing refused");
            return;
        }
        let stored = self.record.moment();
        self.record.note(format_args!("event {number} is stored: {topic:?}"));
        let mut inner = self.record.open();
        inner.add("events", 1);
        let event = Published { topic, stored, acked: None, acked_by: 0, terminated: None, terminated_by: 0, redelivered: false };
        inner.history.published.push(event);
    }

    /// Publishes all that the plan says until [`World::stop_publishing`].
    pub(crate) fn start_publishing(self: &Arc<Self>) {
        for (number, Publisher { topic, every }) in self.plan.publishers.iter().copied().enumerate() {
            let world = Arc::clone(self);
            let first = Draw::of(&[self.plan.seed, 2, number as u64]).below(every);
            spawn(async move {
                sleep(Duration::from_millis(first)).await;
                while !world.lock().stopped_publishing {
                    world.publish(topic);
                    sleep(Duration::from_millis(every)).await;
                }
            });
        }
    }

    /// Publishes nothing more.
    pub(crate) fn stop_publishing(&self) {
        self.lock().stopped_publishing = true;
    }

    /// Does what a step says; what takes time goes on by itself.
    pub(crate) fn act(self: &Arc<Self>, action: &Action) {
        self.record.note(format_args!("{action:?}"));
        self.record.count(action.name());
        match *action {
            Action::Connect { person, slot } => self.open_tab(person, slot, None),
            Action::GiveUp { person, slot, after } => self.open_tab(person, slot, Some(Duration::from_millis(after))),
            Action::Leave { person, politely } => self.leave(person, politely),
            Action::Select { person, chat } => self.order(person, Order::Select(chat)),
            Action::Stall { person, for_ms } => self.stall(person, Duration::from_millis(for_ms)),
            Action::Burst { topic, events } => (0..events).for_each(|_| self.publish(topic)),
            ref fault => self.break_something(fault),
        }
    }
}
