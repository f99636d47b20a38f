//! Hash maps whose order of iteration a simulation can fix.
//!
//! Wherever the order in which a map is walked can be seen from outside (which pod is asked first, which session is renewed
//! first), a run that is to be repeated needs it to be the same. The hash is that of the standard library (`SipHash` 1-3), under
//! one pair of keys for the whole process: drawn at random, so that nobody can make keys meet, unless a simulation fixes it.

use std::{
    collections::{HashMap, HashSet, hash_map::RandomState},
    hash::BuildHasher,
    sync::OnceLock,
};

use siphasher::sip::SipHasher13;

/// A hash map under the process's keys; made by `Map::default()`.
pub type Map<K, V> = HashMap<K, V, HashKeys>;

/// A hash set under the process's keys; made by `Set::default()`.
pub type Set<T> = HashSet<T, HashKeys>;

static KEYS: OnceLock<HashKeys> = OnceLock::new();

/// The keys of this process's hashes.
#[derive(Clone, Copy)]
pub struct HashKeys(u64, u64);

impl std::fmt::Debug for HashKeys {
    /// Without the keys: anyone who knows them can make entries meet.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKeys")
    }
}

impl Default for HashKeys {
    fn default() -> Self {
        *KEYS.get_or_init(|| Self(RandomState::new().hash_one(0_u8), RandomState::new().hash_one(1_u8)))
    }
}

impl BuildHasher for HashKeys {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

/// Has all maps of this process that are made from now on walked in an order that depends on nothing but their contents and
/// history. For simulations alone: who knows the keys can make entries meet. False, and without effect, once a map was made.
pub fn fix_hash_keys(seed: u64) -> bool {
    KEYS.set(HashKeys(seed, !seed)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_hashes_as_the_standard_library_does_under_its_keys() {
        // The reference vector of SipHash 1-3 for keys 0 and 0 and no input.
        assert_eq!(std::hash::Hasher::finish(&HashKeys(0, 0).build_hasher()), 0xd1fb_a762_150c_532c);
        assert_ne!(HashKeys(0, 1).hash_one("a"), HashKeys(1, 0).hash_one("a"));
    }

    #[test]
    fn all_maps_of_a_process_are_walked_alike_and_its_keys_are_not_shown() {
        let [a, b] = [(); 2].map(|()| (0..100).collect::<Set<u32>>());
        assert_eq!(a.iter().collect::<Vec<_>>(), b.iter().collect::<Vec<_>>());
        assert!(!fix_hash_keys(7), "a map was made");
        assert_eq!(format!("{:?}", HashKeys::default()), "HashKeys");
    }
}
