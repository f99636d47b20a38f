//! What happens in a run: plain data, which follows from its seed, can be written down and cut smaller.

mod cast;
mod from_seed;
mod settings;
mod themes;

use serde::{Deserialize, Serialize};

pub use self::{
    cast::{Person, Publisher, Topic, Who},
    settings::Settings,
};

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Where it follows from, and what is drawn during the run too.
    pub seed: u64,
    /// Places for pods. In each there is one, or none for a while.
    pub slots: usize,
    /// How pods are configured.
    pub settings: Settings,
    /// What befalls calls of ports while faults are on.
    pub rates: Rates,
    /// Who has sessions.
    pub people: Vec<Person>,
    /// What is published all the time.
    pub publishers: Vec<Publisher>,
    /// What is done, in order of time.
    pub steps: Vec<Step>,
    /// From when on nothing is broken any more, in milliseconds.
    pub faults_end: u64,
    /// Pods drain one by one in the end, and not all at once.
    pub one_by_one: bool,
}

/// Something that is done at a time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When, in milliseconds.
    pub at: u64,
    /// What.
    pub action: Action,
}

/// What is done. A fault ends by itself, after `for_ms`, so that it can be taken out of a plan as a whole.
#[expect(missing_docs, reason = "a variant's line says what its fields are; times are milliseconds")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Somebody opens a tab whose socket goes to a pod. Another tab of theirs stays until it is told to go.
    Connect { person: usize, slot: usize },
    /// The same, and the tab is closed after so long if it is not open by then.
    GiveUp { person: usize, slot: usize, after: u64 },
    /// The last tab is closed, with a goodbye or without.
    Leave { person: usize, politely: bool },
    /// The last tab selects a chat.
    Select { person: usize, chat: u8 },
    /// The last tab reads nothing.
    Stall { person: usize, for_ms: u64 },
    /// So many events at once.
    Burst { topic: Topic, events: u64 },
    /// As SIGKILL; the pod is started again after so long, under its name or another.
    Kill { slot: usize, down_ms: u64, renamed: bool },
    /// As SIGTERM; the same.
    Drain { slot: usize, down_ms: u64, renamed: bool },
    /// As SIGSTOP and SIGCONT.
    Freeze { slot: usize, for_ms: u64 },
    /// The store is away.
    StoreDown { for_ms: u64 },
    /// The store stands still.
    StoreFrozen { for_ms: u64 },
    /// The store is away for one pod.
    StoreCut { slot: usize, for_ms: u64 },
    /// The store loses all data.
    Flush,
    /// The store goes back to what it was this long ago.
    GoBack { by: u64 },
    /// The store throws a route away.
    Evict { topic: Topic },
    /// Who listens to kills is interrupted, and may have missed some.
    Interrupt,
    /// The stream is away.
    StreamDown { for_ms: u64 },
    /// The stream is away for one pod.
    StreamCut { slot: usize, for_ms: u64 },
    /// Two pods do not reach each other.
    LinkCut { a: usize, b: usize, for_ms: u64 },
    /// The same, and nobody tells them.
    LinkHalfOpen { a: usize, b: usize, for_ms: u64 },
    /// A pod reaches no other.
    Isolate { slot: usize, for_ms: u64 },
    /// Calls between pods take so much longer.
    LinksSlow { delay: u64, for_ms: u64 },
}

impl Action {
    /// In one word.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Connect { .. } => "connect",
            Self::GiveUp { .. } => "give up",
            Self::Leave { .. } => "leave",
            Self::Select { .. } => "select",
            Self::Stall { .. } => "stall",
            Self::Burst { .. } => "burst",
            Self::Kill { .. } => "kill",
            Self::Drain { .. } => "drain",
            Self::Freeze { .. } => "freeze",
            Self::StoreDown { .. } => "store down",
            Self::StoreFrozen { .. } => "store frozen",
            Self::StoreCut { .. } => "store cut",
            Self::Flush => "flush",
            Self::GoBack { .. } => "go back",
            Self::Evict { .. } => "evict",
            Self::Interrupt => "interrupt",
            Self::StreamDown { .. } => "stream down",
            Self::StreamCut { .. } => "stream cut",
            Self::LinkCut { .. } => "link cut",
            Self::LinkHalfOpen { .. } => "link half-open",
            Self::Isolate { .. } => "isolate",
            Self::LinksSlow { .. } => "links slow",
        }
    }

    /// Is it a fault, rather than what clients and publishers do?
    #[must_use]
    pub fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::Connect { .. }
                | Self::GiveUp { .. }
                | Self::Leave { .. }
                | Self::Select { .. }
                | Self::Stall { .. }
                | Self::Burst { .. }
        )
    }
}

/// What befalls calls of each port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Session locks.
    pub locks: Rate,
    /// Routes and membership.
    pub routes: Rate,
    /// Kills.
    pub kills: Rate,
    /// Events.
    pub source: Rate,
    /// Other pods.
    pub peers: Rate,
}

/// Shares of the calls of a port, from 0 to 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// They take longer; those that come together end in another order.
    pub delayed: f64,
    /// By so many milliseconds at most.
    pub delay: u64,
    /// They fail, and nothing has happened.
    pub refused: f64,
    /// They fail, and have been carried out, or are a moment later.
    pub unanswered: f64,
    /// They are carried out twice, where the transport could do that.
    pub doubled: f64,
}

impl Rate {
    /// Does nothing befall anybody?
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.delayed + self.refused + self.unanswered + self.doubled == 0.0
    }
}

impl Plan {
    /// Does nothing but clients and publishers happen?
    #[must_use]
    pub fn is_calm(&self) -> bool {
        let Rates { locks, routes, kills, source, peers } = &self.rates;
        [locks, routes, kills, source, peers].iter().all(|rate| rate.is_zero())
            && !self.steps.iter().any(|step| step.action.is_fault())
    }
}
