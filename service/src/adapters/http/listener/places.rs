//! Places of connections that are no sockets yet, and who has to leave when there are none.
//!
//! A pending connection is a connection whose request is not known yet, or that does not read its answer. There is always room
//! for one more: the stranger that has waited the longest leaves for it; where one address has its share, that address's own. In
//! a crowd the youngest are left alone for a moment, to ask. So anyone who asks at once is always served, be it a probe among a
//! thousand connections that say nothing. While a request waits for us ([`Place::hold`]) it is no pending connection's; those are
//! bounded where they wait (`Connecting`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use daisi_ws_domain::client_address::ClientShare;
use tokio::{
    sync::Notify,
    time::{Duration, Instant},
};

use crate::metrics::{
    Metrics,
    labels::{Listener, PendingEnded},
};

/// How many pending connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) all: usize,
    /// Of one address; 0: no share.
    pub(crate) of_one: usize,
    /// How long one is left alone, whatever the two say: in a storm of reconnects thousands come at once, and each needs a moment
    /// to send its request.
    pub(crate) grace: Duration,
    /// How many there may be in any case.
    pub(crate) crowd: usize,
}

/// The pending connections of one listener.
#[derive(Debug)]
pub(crate) struct Places {
    table: Mutex<Table>,
    metrics: Arc<Metrics>,
    listener: Listener,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    /// By how long they have waited.
    waiting: BTreeMap<u64, Pending>,
    shares: HashMap<ClientShare, BTreeSet<u64>>,
}

#[derive(Debug)]
struct Pending {
    share: Option<ClientShare>,
    since: Instant,
    leave: Arc<Notify>,
}

/// The place of one connection. Dropping it gives it to others.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    seat: Mutex<Seat>,
    leave: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Seat {
    /// None while the connection is no pending, or has to leave.
    number: Option<u64>,
    share: Option<ClientShare>,
    /// How many hold it.
    held: usize,
    gone: bool,
}

/// While it lives, the connection is not asked to leave.
#[derive(Debug)]
pub(crate) struct Held(Arc<Place>);

impl Places {
    pub(crate) fn new(listener: Listener, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self { table: Mutex::default(), metrics, listener })
    }

    /// A place for a connection that has just come. `share`: whose share it takes; none: nobody's, as for a proxy.
    pub(crate) fn enter(self: &Arc<Self>, share: Option<ClientShare>, bounds: Bounds) -> Arc<Place> {
        let place = Arc::new(Place { places: Arc::clone(self), seat: Mutex::default(), leave: Arc::default() });
        place.sit(share, bounds);
        place
    }

    /// Ends the pending connections that have waited the longest, at most so many: the system has run out of what a connection
    /// needs.
    pub(crate) fn make_room(&self, count: usize) {
        let mut table = self.lock();
        let gone: Vec<_> = (0..count).map_while(|_| table.take_oldest()).collect();
        self.leave(table, &gone, PendingEnded::Exhausted);
    }

    fn leave(&self, table: MutexGuard<'_, Table>, gone: &[Pending], reason: PendingEnded) {
        self.show(&table);
        drop(table);
        for pending in gone {
            self.metrics.http_pending_ended_total.with_label_values(&[self.listener.as_str(), reason.as_str()]).inc();
            pending.leave.notify_one();
        }
    }

    fn show(&self, table: &Table) {
        let waiting = i64::try_from(table.waiting.len()).unwrap_or(i64::MAX);
        self.metrics.http_pending.with_label_values(&[self.listener.as_str()]).set(waiting);
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn add(&mut self, share: Option<ClientShare>, leave: &Arc<Notify>) -> u64 {
        let number = self.next;
        self.next += 1;
        self.waiting.insert(number, Pending { share, since: Instant::now(), leave: Arc::clone(leave) });
        if let Some(share) = share {
            self.shares.entry(share).or_default().insert(number);
        }
        number
    }

    fn take(&mut self, number: u64) -> Option<Pending> {
        let pending = self.waiting.remove(&number)?;
        if let Some(share) = pending.share
            && let Some(numbers) = self.shares.get_mut(&share)
        {
            numbers.remove(&number);
            if numbers.is_empty() {
                self.shares.remove(&share);
            }
        }
        Some(pending)
    }

    fn take_oldest(&mut self) -> Option<Pending> {
        let (number, _) = self.waiting.first_key_value()?;
        self.take(*number)
    }

    /// Makes room for one more of this share.
    fn make_room(&mut self, share: Option<ClientShare>, bounds: Bounds) -> (Vec<Pending>, PendingEnded) {
        let over = |have: usize, most: usize| (have + 1).saturating_sub(most);
        let crowded = over(self.waiting.len(), bounds.crowd);
        let own = share.and_then(|share| self.shares.get(&share)).filter(|own| bounds.of_one > 0 && own.len() >= bounds.of_one);
        if let Some(own) = own {
            let surplus: Vec<u64> = own.iter().copied().take(over(own.len(), bounds.of_one)).collect();
            return (self.take_patient(surplus, bounds.grace, crowded), PendingEnded::Share);
        }
        let surplus: Vec<u64> = self.waiting.keys().copied().take(over(self.waiting.len(), bounds.all)).collect();
        (self.take_patient(surplus, bounds.grace, crowded), PendingEnded::Full)
    }

    /// Those of these, the oldest first, who have had their moment, and so many in any case.
    fn take_patient(&mut self, numbers: Vec<u64>, grace: Duration, at_least: usize) -> Vec<Pending> {
        let had_it = |table: &Self, number| table.waiting.get(&number).is_some_and(|pending| pending.since.elapsed() >= grace);
        let mut gone = Vec::new();
        for number in numbers {
            if gone.len() >= at_least && !had_it(self, number) {
                break;
            }
            gone.extend(self.take(number));
        }
        gone
    }
}

impl Place {
    /// Takes the share of another address from now on: that of the client behind the proxy that the connection came from.
    pub(crate) fn belongs_to(&self, share: Option<ClientShare>, bounds: Bounds) {
        let number = self.lock().number.take();
        if let Some(number) = number {
            self.places.lock().take(number);
            self.sit(share, bounds);
        }
    }

    /// Starts to wait anew: it has asked for something. If it was to leave, it stays: it had asked before, and this pod was too
    /// busy to hear it.
    pub(crate) fn asked(&self) {
        let mut seat = self.lock();
        if seat.held > 0 || seat.gone {
            return;
        }
        let mut table = self.places.lock();
        seat.number.and_then(|number| table.take(number));
        seat.number = Some(table.add(seat.share, &self.leave));
    }

    /// Is no pending connection's while the result lives: the connection waits for us.
    pub(crate) fn hold(self: &Arc<Self>) -> Held {
        let mut seat = self.lock();
        seat.held += 1;
        let number = seat.number.take();
        drop(seat);
        if let Some(number) = number {
            let mut table = self.places.lock();
            table.take(number);
            self.places.show(&table);
        }
        Held(Arc::clone(self))
    }

    /// Waits until the connection has to leave. For the one task that has the connection.
    pub(crate) async fn has_to_leave(&self) {
        loop {
            self.leave.notified().await;
            let out = {
                let seat = self.lock();
                // The table forgot its number, and it has not asked since.
                seat.held == 0 && seat.number.is_none_or(|number| !self.places.lock().waiting.contains_key(&number))
            };
            if out {
                return;
            }
        }
    }

    /// The connection is over, or something else: whatever still holds the place lets it go.
    pub(crate) fn give_up(&self) {
        let mut seat = self.lock();
        seat.gone = true;
        if let Some(number) = seat.number.take() {
            let mut table = self.places.lock();
            table.take(number);
            self.places.show(&table);
        }
    }

    fn sit(&self, share: Option<ClientShare>, bounds: Bounds) {
        let mut seat = self.lock();
        if seat.gone || seat.held > 0 {
            return;
        }
        let mut table = self.places.lock();
        let (gone, reason) = table.make_room(share, bounds);
        (seat.share, seat.number) = (share, Some(table.add(share, &self.leave)));
        drop(seat);
        self.places.leave(table, &gone, reason);
    }

    fn lock(&self) -> MutexGuard<'_, Seat> {
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_up();
    }
}

impl Drop for Held {
    /// It is a pending connection again, until it has read its answer or is over. The bound counts when the next one comes.
    fn drop(&mut self) {
        let share = {
            let mut seat = self.0.lock();
            seat.held -= 1;
            seat.share
        };
        self.0.sit(share, Bounds { all: usize::MAX, of_one: 0, grace: Duration::ZERO, crowd: usize::MAX });
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn places() -> Arc<Places> {
        Places::new(Listener::Http, Arc::new(Metrics::new().unwrap()))
    }

    fn share(number: u8) -> Option<ClientShare> {
        Some(ClientShare::of([203, 0, 113, number].into()))
    }

    fn has_to_leave(place: &Place) -> bool {
        place.has_to_leave().now_or_never().is_some()
    }

    fn pending(places: &Places) -> usize {
        let table = places.lock();
        assert!(table.shares.values().map(BTreeSet::len).sum::<usize>() <= table.waiting.len());
        assert!(table.shares.values().all(|numbers| !numbers.is_empty()));
        table.waiting.len()
    }

    const BOUNDS: Bounds = Bounds { all: 4, of_one: 2, grace: Duration::ZERO, crowd: 100 };

    #[test]
    fn the_pending_connection_that_has_waited_longest_leaves_for_the_next() {
        let places = places();
        let all: Vec<_> = (0..5).map(|number| places.enter(share(number), BOUNDS)).collect();
        assert_eq!(all.iter().map(|place| has_to_leave(place)).collect::<Vec<_>>(), [true, false, false, false, false]);
        assert_eq!(pending(&places), 4);
        assert_eq!(places.metrics.http_pending_ended_total.with_label_values(&["http", "full"]).get(), 1);
    }

    #[test]
    fn an_address_with_its_share_only_ends_its_own() {
        let places = places();
        let (other, own) = (places.enter(share(1), BOUNDS), (0..9).map(|_| places.enter(share(2), BOUNDS)).collect::<Vec<_>>());
        assert!(!has_to_leave(&other));
        assert_eq!(own.iter().filter(|place| has_to_leave(place)).count(), 7);
        assert_eq!(pending(&places), 3);
    }

    #[test]
    fn who_has_no_share_is_bounded_with_all() {
        let places = places();
        let all: Vec<_> = (0..10).map(|_| places.enter(None, BOUNDS)).collect();
        assert_eq!(all.iter().filter(|place| has_to_leave(place)).count(), 6);
    }

    #[test]
    fn who_asked_waits_anew_and_who_is_held_is_not_asked_to_leave() {
        let places = places();
        let (first, second) = (places.enter(share(1), BOUNDS), places.enter(share(2), BOUNDS));
        first.asked();
        let held = second.hold();
        assert_eq!(pending(&places), 1);
        let others: Vec<_> = (3..6).map(|number| places.enter(share(number), BOUNDS)).collect();
        assert!(!has_to_leave(&first));
        drop(held);
        assert_eq!(pending(&places), 5);
        let last = places.enter(share(7), BOUNDS);
        assert!(has_to_leave(&first) && has_to_leave(&others[0]), "one over, and one more");
        assert!(!has_to_leave(&second) && !has_to_leave(&last), "it has just become one again");
    }

    #[test]
    fn a_place_that_was_given_up_stays_free() {
        let places = places();
        let place = places.enter(share(1), BOUNDS);
        let held = place.hold();
        place.give_up();
        drop(held);
        assert_eq!(pending(&places), 0);
        drop(places.enter(share(1), BOUNDS));
        assert_eq!(pending(&places), 0);
    }

    #[test]
    fn a_client_behind_a_proxy_takes_its_own_share() {
        let places = places();
        let all: Vec<_> = (0..3).map(|_| places.enter(None, BOUNDS)).collect();
        all.iter().for_each(|place| place.belongs_to(share(1), BOUNDS));
        assert_eq!(all.iter().map(|place| has_to_leave(place)).collect::<Vec<_>>(), [true, false, false]);
    }

    #[test]
    fn when_the_system_is_exhausted_the_longest_waiting_go() {
        let places = places();
        let all: Vec<_> = (0..4).map(|number| places.enter(share(number), BOUNDS)).collect();
        places.make_room(3);
        assert_eq!(all.iter().map(|place| has_to_leave(place)).collect::<Vec<_>>(), [true, true, true, false]);
        places.make_room(3);
        assert_eq!(pending(&places), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_storm_everybody_has_a_moment_to_ask_up_to_what_a_pod_can_bear() {
        let bounds = Bounds { grace: Duration::from_secs(3), crowd: 50, ..BOUNDS };
        let places = places();
        let mut all: Vec<_> = (0..50).map(|_| places.enter(share(1), bounds)).collect();
        assert!(!all.iter().any(|place| has_to_leave(place)), "they have just come");
        all.push(places.enter(share(1), bounds));
        assert_eq!((all.iter().filter(|place| has_to_leave(place)).count(), pending(&places)), (1, 50));
        tokio::time::advance(Duration::from_secs(3)).await;
        let next = places.enter(share(1), bounds);
        assert!(!has_to_leave(&next) && all.iter().filter(|place| has_to_leave(place)).count() == 49);
        assert_eq!(pending(&places), 2, "the share");
    }

    #[test]
    fn who_asked_before_it_was_heard_that_it_has_to_leave_stays() {
        let places = places();
        let all: Vec<_> = (0..5).map(|number| places.enter(share(number), BOUNDS)).collect();
        all[0].asked();
        assert!(!has_to_leave(&all[0]));
        assert_eq!(pending(&places), 5, "until the next one comes");
        let next = places.enter(share(9), BOUNDS);
        assert_eq!(all.iter().map(|place| has_to_leave(place)).collect::<Vec<_>>(), [false, true, true, false, false]);
        assert!(!has_to_leave(&next));
    }
}
