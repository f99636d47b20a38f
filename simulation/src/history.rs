//! What happened in a run, as data that the invariants look at: what was published, what each socket saw, what was broken when.
//!
//! Virtual time stands still while many things happen, so everything has a place in one order too.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::plan::Topic;

/// A moment: virtual time since the begin, and a place in the order of all that happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Virtual time.
    pub at: Duration,
    /// Everything has another; later is higher.
    pub order: u64,
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// How much has happened.
    pub order: u64,
    /// By sequence less one.
    pub published: Vec<Published>,
    /// Every socket that was admitted.
    pub sockets: Vec<Socket>,
    /// What was broken.
    pub troubles: Vec<Trouble>,
    /// Pods that drained.
    pub drains: Vec<Drain>,
    /// Each start and end of a pod.
    pub pods: Vec<PodLife>,
    /// Pods, by their place, that found their id to be another's, and when.
    pub gave_up_ids: Vec<(Duration, usize)>,
}

/// An event.
#[derive(Debug, Clone, Copy)]
pub struct Published {
    /// What it is about.
    pub topic: Topic,
    /// When it was stored.
    pub stored: Moment,
    /// When the stream was first told that every target has it.
    pub acked: Option<Moment>,
    /// Where it was when the stream was told so: which start of all pods.
    pub acked_by: usize,
    /// When the stream was told to deliver it no more.
    pub terminated: Option<Moment>,
    /// Where it was then: which start of all pods.
    pub terminated_by: usize,
    /// It was delivered more than once.
    pub redelivered: bool,
}

/// One socket of somebody, as its browser sees it.
#[derive(Debug, Clone, Default)]
pub struct Socket {
    /// Whose.
    pub person: usize,
    /// Where.
    pub slot: usize,
    /// Which start of all pods it is of.
    pub pod: usize,
    /// `pod/connection`, as in the lock.
    pub owner: String,
    /// It took the session from another.
    pub took_over: bool,
    /// When it was admitted.
    pub admitted: Moment,
    /// When `ready` was read.
    pub ready: Option<Moment>,
    /// Chats that were selected.
    pub chats: Vec<Selected>,
    /// Chats that were asked for; events of them may come.
    pub asked: BTreeSet<u8>,
    /// So many times it has asked for a chat and has no answer; answers keep the order of the questions.
    pub unanswered: usize,
    /// The stream's name, as it was told.
    pub stream: Option<String>,
    /// The place that it came back with.
    pub cursor: Option<u64>,
    /// How many events were to be replayed, if it was resumed.
    pub resumed: Option<usize>,
    /// Places in the stream up to which it was told to have everything, by when that was read.
    pub places: Vec<(Moment, u64)>,
    /// Events, by when they were read.
    pub events: Vec<(Moment, Seen)>,
    /// Gaps, by when they were read.
    pub gaps: Vec<(Moment, Gap)>,
    /// Frames that make no sense.
    pub nonsense: Vec<String>,
    /// From when until when nothing was read.
    pub stalls: Vec<(Moment, Option<Moment>)>,
    /// How it ended.
    pub ended: Option<(Moment, End)>,
}

/// A chat while it is selected, as its browser knows it.
#[derive(Debug, Clone, Copy)]
pub struct Selected {
    /// Which.
    pub chat: u8,
    /// Since it was told.
    pub from: Moment,
    /// Until it asked for another.
    pub until: Option<Moment>,
}

/// From when until when events are owed to a socket.
#[derive(Debug, Clone, Copy)]
pub struct Owed {
    /// From here on.
    pub since: Moment,
    /// Until it ended, or its chat was another, if it did.
    pub until: Option<Moment>,
}

/// An event as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// `seq` of its frame.
    pub seq: u64,
    /// Its publisher's number, which is the sequence that it got.
    pub number: u64,
    /// The [`Topic::code`] that its publisher wrote into it.
    pub topic: u64,
    /// It was read again from the stream.
    pub replayed: bool,
}

/// A gap as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// The first and last sequence, where they are known.
    pub range: Option<(u64, u64)>,
    /// How many, where that is known.
    pub dropped: Option<u64>,
    /// Why.
    pub reason: String,
}

/// How a socket ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The service closed it with this code.
    Closed(u16),
    /// It broke.
    Broken,
    /// The browser left.
    Left,
}

/// Something that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trouble {
    /// What.
    pub kind: TroubleKind,
    /// At which pod; none: at all.
    pub slot: Option<usize>,
    /// Since when.
    pub from: Duration,
    /// Until when, if it is over.
    pub until: Option<Duration>,
}

/// What can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// The pod does nothing that anybody sees.
    Frozen,
    /// The pod is gone.
    Down,
    /// It does not reach a peer, or is not reached.
    Links,
    /// It does not reach the store, or listens in vain.
    Store,
    /// The store has lost data.
    LostData,
    /// It does not reach the stream.
    Stream,
}

/// A pod's drain.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// The pod's id.
    pub pod: String,
    /// When it began.
    pub began: Duration,
    /// When it ended.
    pub ended: Option<Duration>,
    /// For how long its pod stood still meanwhile.
    pub frozen: Duration,
    /// Its pod was killed before it ended.
    pub killed: bool,
    /// Nothing was broken meanwhile, so that nothing may be left.
    pub undisturbed: bool,
    /// What was left in the store, in words.
    pub left: Vec<String>,
    /// Tasks that still ran.
    pub tasks: usize,
    /// Sockets that were still there.
    pub sockets: usize,
    /// Bytes that it still counted as held.
    pub bytes: usize,
}

/// A pod from its start to its end.
#[derive(Debug, Clone)]
pub struct PodLife {
    /// Its id.
    pub id: String,
    /// Its place.
    pub slot: usize,
    /// When it was started.
    pub from: Duration,
    /// When it was killed or had drained.
    pub until: Option<Duration>,
    /// It was killed.
    pub killed: bool,
}

impl History {
    /// The next moment.
    pub fn now(&mut self, at: Duration) -> Moment {
        self.order += 1;
        Moment { at, order: self.order }
    }

    /// The event of a sequence.
    #[must_use]
    pub fn event(&self, seq: u64) -> Option<&Published> {
        self.published.get(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    /// The same, to be changed.
    pub fn event_mut(&mut self, seq: u64) -> Option<&mut Published> {
        self.published.get_mut(usize::try_from(seq.checked_sub(1)?).ok()?)
    }

    /// Was anything of these kinds broken at the pod, or at all, within the time?
    #[must_use]
    pub fn was_broken(&self, kinds: &[TroubleKind], slot: usize, from: Duration, until: Duration) -> bool {
        self.troubles.iter().any(|trouble| {
            kinds.contains(&trouble.kind)
                && trouble.slot.is_none_or(|at| at == slot)
                && trouble.from <= until
                && trouble.until.is_none_or(|until| until >= from)
        })
    }

    /// For how long a pod stood still within the time.
    #[must_use]
    pub fn stood_still(&self, slot: usize, from: Duration, until: Duration) -> Duration {
        let frozen = self.troubles.iter().filter(|trouble| trouble.kind == TroubleKind::Frozen && trouble.slot == Some(slot));
        frozen.map(|trouble| trouble.until.unwrap_or(until).min(until).saturating_sub(trouble.from.max(from))).sum()
    }

    /// Sockets by person.
    #[must_use]
    pub fn by_person(&self) -> BTreeMap<usize, Vec<&Socket>> {
        let mut by_person: BTreeMap<usize, Vec<&Socket>> = BTreeMap::new();
        for socket in &self.sockets {
            by_person.entry(socket.person).or_default().push(socket);
        }
        by_person
    }
}

impl Socket {
    /// Is it open, as far as its browser knows?
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ready.is_some() && self.ended.is_none()
    }

    /// From when until when an event of a topic that is stored then is owed to it, if it is its person's.
    #[must_use]
    pub fn owed(&self, topic: Topic, stored: Moment) -> Option<Owed> {
        let ended = self.ended.map(|(at, _)| at);
        let owed = match topic {
            Topic::Messages { chat, .. } => {
                let selected = self
                    .chats
                    .iter()
                    .find(|span| span.chat == chat && span.from < stored && span.until.is_none_or(|until| stored < until));
                selected.map(|span| Owed { since: span.from, until: span.until.or(ended) })
            }
            Topic::Chats { .. } | Topic::Agents { .. } => self.ready.map(|since| Owed { since, until: ended }),
        };
        owed.filter(|owed| owed.since < stored && owed.until.is_none_or(|until| stored < until))
    }

    /// Did it read nothing at any time since then?
    #[must_use]
    pub fn stalled_since(&self, since: Duration) -> bool {
        self.stalls.iter().any(|(_, until)| until.is_none_or(|until| until.at >= since))
    }
}
