//! Who holds a connection. Unproved callers have a small share of their own; anyone who proves that it belongs to the fleet
//! leaves it, and then no stranger is in its way.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, AtomicU32, Ordering},
    },
};

use tokio_util::sync::CancellationToken;

use crate::metrics::{Metrics, labels::PodConnection};

/// Connections without a proved call. A pod proves itself with its first call, a probe asks and goes; past this an unproved
/// caller goes for each that comes.
pub(crate) const MAX_UNPROVED: usize = 128;

/// Connections with one. A fleet of hundreds of pods has one each way.
const MAX_PROVED: usize = 1024;

/// Calls of a connection before a proved one. A pod whose clock is off needs two, and a probe one; each costs as much as a proved
/// call, and bytes alone let thousands through.
const MAX_UNPROVED_CALLS: u32 = 16;

const NOT_PROVED: u8 = 0;
const TOLERATED: u8 = 1;
const PROVED: u8 = 2;

pub(crate) use crate::metrics::labels::ConnectionCut as Cut;

#[derive(Debug)]
struct Unproved {
    address: IpAddr,
    end: CancellationToken,
}

#[derive(Debug, Default)]
struct Table {
    /// By number, so the oldest is first.
    unproved: BTreeMap<u64, Unproved>,
    proved: usize,
    next: u64,
}

/// The places of one listener. Nothing awaits while its lock is held.
#[derive(Debug)]
pub(crate) struct Places {
    table: Mutex<Table>,
    metrics: Arc<Metrics>,
}

impl Places {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), metrics })
    }

    /// Gives a new connection a place among unproved callers; where all are taken, the oldest of the address that has most of
    /// them goes for it: so nobody's many connections cost another address its one. `end` breaks the connection.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr, end: CancellationToken) -> Caller {
        let mut table = self.lock();
        if table.unproved.len() >= MAX_UNPROVED
            && let Some(last) = most_crowded(&table.unproved).and_then(|number| table.unproved.remove(&number))
        {
            last.end.cancel();
            self.count(Cut::Crowded);
        }
        let number = table.next;
        table.next += 1;
        table.unproved.insert(number, Unproved { address: address.to_canonical(), end: end.clone() });
        self.show(&table);
        drop(table);
        Caller(Arc::new(Place {
            places: Arc::clone(self),
            number,
            standing: AtomicU8::new(NOT_PROVED),
            calls: AtomicU32::new(0),
            end,
        }))
    }

    pub(crate) fn count(&self, cut: Cut) {
        self.metrics.grpc_connections_cut_total.with_label_values(&[cut.as_str()]).inc();
    }

    fn show(&self, table: &Table) {
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        self.metrics.grpc_connections.with_label_values(&[PodConnection::Unproved.as_str()]).set(count(table.unproved.len()));
        self.metrics.grpc_connections.with_label_values(&[PodConnection::Proved.as_str()]).set(count(table.proved));
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The oldest connection of the address that has most.
fn most_crowded(unproved: &BTreeMap<u64, Unproved>) -> Option<u64> {
    let mut of_address: HashMap<IpAddr, (usize, u64)> = HashMap::new();
    for (number, unproved) in unproved {
        of_address.entry(unproved.address).or_insert((0, *number)).0 += 1;
    }
    of_address.into_values().max_by_key(|(count, oldest)| (*count, u64::MAX - *oldest)).map(|(_, oldest)| oldest)
}

#[derive(Debug)]
struct Place {
    places: Arc<Places>,
    number: u64,
    standing: AtomicU8,
    /// That were not proved, while it is an unproved caller.
    calls: AtomicU32,
    end: CancellationToken,
}

/// One connection's place, as its calls see it.
#[derive(Debug, Clone)]
pub(crate) struct Caller(Arc<Place>);

impl Caller {
    /// A call of it was proved: it leaves the unproved. Where too many have, the connection is broken.
    pub(crate) fn prove(&self) {
        if self.0.standing.load(Ordering::Acquire) == PROVED {
            return;
        }
        let mut table = self.0.places.lock();
        // Else it has been cut, or another call of it was faster.
        if table.unproved.remove(&self.0.number).is_none() {
            return;
        }
        if table.proved >= MAX_PROVED {
            self.0.places.count(Cut::Crowded);
            self.0.end.cancel();
        } else {
            table.proved += 1;
            self.0.standing.store(PROVED, Ordering::Release);
        }
        self.0.places.show(&table);
    }

    /// It may stay without a proof, as the predecessor's pods may where that is switched on. It stays among the unproved.
    pub(crate) fn tolerate(&self) {
        let _ = self.0.standing.compare_exchange(NOT_PROVED, TOLERATED, Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Has it neither proved itself nor been let in without?
    pub(crate) fn is_unproved(&self) -> bool {
        self.0.standing.load(Ordering::Acquire) == NOT_PROVED
    }

    /// A call of it was not proved: an unproved caller has few, and its connection is broken after them. The call itself is
    /// answered if the answer is faster.
    pub(crate) fn call_unproved(&self) {
        if self.is_unproved() && self.0.calls.fetch_add(1, Ordering::Relaxed) == MAX_UNPROVED_CALLS {
            self.0.places.count(Cut::TooOften);
            self.0.end.cancel();
        }
    }

    pub(crate) fn count(&self, cut: Cut) {
        self.0.places.count(cut);
    }

    /// The connection is gone.
    pub(crate) fn leave(&self) {
        let mut table = self.0.places.lock();
        let was_proved = self.0.standing.load(Ordering::Acquire) == PROVED;
        if table.unproved.remove(&self.0.number).is_none() && was_proved {
            table.proved = table.proved.saturating_sub(1);
        }
        self.0.places.show(&table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> (Arc<Metrics>, Arc<Places>) {
        let metrics = Arc::new(Metrics::new().unwrap());
        (Arc::clone(&metrics), Places::new(metrics))
    }

    fn comes(places: &Arc<Places>, address: &str) -> (Caller, CancellationToken) {
        let end = CancellationToken::new();
        (places.admit(address.parse().unwrap(), end.clone()), end)
    }

    fn open(metrics: &Metrics, standing: &str) -> i64 {
        metrics.grpc_connections.with_label_values(&[standing]).get()
    }

    #[test]
    fn unproved_callers_are_bounded_and_the_oldest_goes() {
        let (metrics, places) = places();
        let crowd: Vec<_> = (0..MAX_UNPROVED + 5).map(|_| comes(&places, "10.0.0.1")).collect();
        let cut: Vec<usize> = (0..crowd.len()).filter(|n| crowd[*n].1.is_cancelled()).collect();
        assert_eq!(cut, [0, 1, 2, 3, 4]);
        assert_eq!(open(&metrics, "stranger"), MAX_UNPROVED as i64);
        assert_eq!(metrics.grpc_connections_cut_total.with_label_values(&["crowded"]).get(), 5);
    }

    #[test]
    fn the_many_connections_of_one_address_cost_no_other_its_one() {
        let (_, places) = places();
        let (_peer, end) = comes(&places, "10.0.0.2");
        let crowd: Vec<_> = (0..10 * MAX_UNPROVED).map(|_| comes(&places, "::ffff:10.0.0.1")).collect();
        assert!(!end.is_cancelled());
        assert_eq!(crowd.iter().filter(|(_, end)| !end.is_cancelled()).count(), MAX_UNPROVED - 1);
    }

    #[test]
    fn who_has_proved_itself_is_in_no_unproved_callers_way() {
        let (metrics, places) = places();
        let peers: Vec<_> = (0..MAX_PROVED).map(|_| comes(&places, "10.0.0.1")).collect();
        peers.iter().skip(MAX_PROVED - MAX_UNPROVED).for_each(|(peer, _)| peer.prove());
        let crowd: Vec<_> = (0..2 * MAX_UNPROVED).map(|_| comes(&places, "10.0.0.1")).collect();
        assert!(peers.iter().skip(MAX_PROVED - MAX_UNPROVED).all(|(peer, end)| !peer.is_unproved() && !end.is_cancelled()));
        assert_eq!((open(&metrics, "proved"), open(&metrics, "stranger")), (MAX_UNPROVED as i64, MAX_UNPROVED as i64));
        peers.iter().chain(&crowd).for_each(|(caller, _)| caller.leave());
        assert_eq!((open(&metrics, "proved"), open(&metrics, "stranger")), (0, 0));
    }

    #[test]
    fn those_that_proved_themselves_are_bounded_too() {
        let (metrics, places) = places();
        let peers: Vec<_> = (0..=MAX_PROVED)
            .map(|_| {
                let (peer, end) = comes(&places, "10.0.0.1");
                peer.prove();
                peer.prove();
                (peer, end)
            })
            .collect();
        assert_eq!(open(&metrics, "proved"), MAX_PROVED as i64);
        assert!(peers[MAX_PROVED].1.is_cancelled() && !peers[0].1.is_cancelled());
    }

    #[test]
    fn an_unproved_caller_has_few_calls_and_who_proved_itself_or_is_let_in_as_many_as_it_likes() {
        let (metrics, places) = places();
        let (unproved, cut) = comes(&places, "10.0.0.1");
        for _ in 0..MAX_UNPROVED_CALLS {
            unproved.call_unproved();
        }
        assert!(!cut.is_cancelled());
        // Those that were under way count no second time.
        for _ in 0..500 {
            unproved.call_unproved();
        }
        assert!(cut.is_cancelled());
        assert_eq!(metrics.grpc_connections_cut_total.with_label_values(&["too_often"]).get(), 1);
        let (peer, peers) = comes(&places, "10.0.0.2");
        let (old, olds) = comes(&places, "10.0.0.3");
        peer.prove();
        old.tolerate();
        for _ in 0..500 {
            peer.call_unproved();
            old.call_unproved();
        }
        assert!(!peers.is_cancelled() && !olds.is_cancelled());
    }

    #[test]
    fn who_was_cut_proves_nothing_any_more() {
        let (metrics, places) = places();
        let (first, end) = comes(&places, "10.0.0.1");
        let _crowd: Vec<_> = (0..MAX_UNPROVED).map(|_| comes(&places, "10.0.0.1")).collect();
        assert!(end.is_cancelled());
        first.prove();
        first.leave();
        assert_eq!(open(&metrics, "proved"), 0);
    }
}
