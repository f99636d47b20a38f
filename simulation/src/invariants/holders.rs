//! Who holds which lock, by what the store was told: kept beside it, from what it answers.

use std::time::Duration;

use daisi_ws_domain::{
    maps::Map,
    session::{LockOwner, SessionKey},
};

use super::LOCK_IS_TAKEN_FROM_WHO_IS_EXPECTED;

/// Who holds a lock.
#[derive(Debug, Clone)]
struct Holder {
    owner: LockOwner,
    /// Until when, unless it is renewed.
    until: Duration,
}

/// Who holds what, and until when what each socket had lives.
#[derive(Debug, Default)]
pub struct Holders {
    now: Map<SessionKey, Holder>,
    lives: Map<LockOwner, Duration>,
}

impl Holders {
    /// The store gave a lock to an owner who expected it to be free, or to be that of `seen`. What is wrong, if anything.
    pub fn take(
        &mut self,
        key: &SessionKey,
        seen: Option<&LockOwner>,
        owner: &LockOwner,
        at: Duration,
        ttl: Duration,
    ) -> Option<(&'static str, String)> {
        let before = self.hold(key, owner, at, ttl)?;
        let is_expected = before == *owner || Some(&before) == seen;
        (!is_expected).then(|| {
            let what = format!("{owner} took the lock of {before}, which held it, and expected {seen:?}");
            (LOCK_IS_TAKEN_FROM_WHO_IS_EXPECTED, what)
        })
    }

    /// The store renewed a lock, or gave it back to who had it. Returns who held it until now.
    pub fn hold(&mut self, key: &SessionKey, owner: &LockOwner, at: Duration, ttl: Duration) -> Option<LockOwner> {
        self.lives.insert(owner.clone(), at + ttl);
        let before = self.now.insert(key.clone(), Holder { owner: owner.clone(), until: at + ttl });
        before.filter(|holder| holder.until > at).map(|holder| holder.owner)
    }

    /// An owner let a lock go, if it was its.
    pub fn let_go(&mut self, key: &SessionKey, owner: &LockOwner) {
        if self.now.get(key).is_some_and(|holder| holder.owner == *owner) {
            self.now.remove(key);
        }
    }

    /// The store has lost what it held: nobody knows any more who holds what, and those who do say so again.
    pub fn forget(&mut self) {
        self.now.clear();
    }

    /// Until when a socket's lock lives at the latest.
    #[must_use]
    pub fn life(&self, owner: &LockOwner) -> Option<Duration> {
        self.lives.get(owner).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Plan;

    const SECOND: Duration = Duration::from_secs(1);
    const TTL: Duration = Duration::from_secs(10);

    fn key() -> SessionKey {
        Plan::of(1).people[0].who.claims().unwrap().session_key()
    }

    fn owner(pod: &str) -> LockOwner {
        LockOwner::parse(&format!("{pod}/{}", "0".repeat(32))).unwrap()
    }

    /// Is it wrong when `b` takes what `a` took at first, after all that `between` does?
    fn is_wrong(seen: Option<&LockOwner>, at: Duration, between: impl FnOnce(&mut Holders)) -> bool {
        let mut holders = Holders::default();
        assert_eq!(holders.take(&key(), None, &owner("a"), SECOND, TTL), None, "it is free");
        between(&mut holders);
        let wrong = holders.take(&key(), seen, &owner("b"), at, TTL);
        assert!(wrong.as_ref().is_none_or(|(name, _)| *name == LOCK_IS_TAKEN_FROM_WHO_IS_EXPECTED));
        wrong.is_some()
    }

    #[test]
    fn a_lock_that_is_taken_from_another_than_was_seen_is_seen() {
        assert!(is_wrong(None, 2 * SECOND, |_| {}) && is_wrong(Some(&owner("c")), 2 * SECOND, |_| {}));
        assert!(!is_wrong(Some(&owner("a")), 2 * SECOND, |_| {}), "who is seen in it");
        assert!(
            is_wrong(None, 12 * SECOND, |holders| drop(holders.hold(&key(), &owner("a"), 9 * SECOND, TTL))),
            "it was renewed"
        );
        assert!(is_wrong(None, 2 * SECOND, |holders| holders.let_go(&key(), &owner("c"))), "another let it go");
    }

    #[test]
    fn a_lock_that_ran_out_was_let_go_or_was_lost_is_anybodys() {
        assert!(!is_wrong(None, 11 * SECOND, |_| {}));
        assert!(!is_wrong(None, 2 * SECOND, |holders| holders.let_go(&key(), &owner("a"))));
        assert!(!is_wrong(None, 2 * SECOND, Holders::forget));
    }

    #[test]
    fn a_socket_knows_the_last_life_of_its_lock_whoever_has_it_since() {
        let mut holders = Holders::default();
        holders.hold(&key(), &owner("a"), SECOND, TTL);
        holders.hold(&key(), &owner("b"), 2 * SECOND, TTL);
        assert_eq!(holders.life(&owner("a")), Some(11 * SECOND));
        assert_eq!(holders.life(&owner("c")), None);
    }
}
