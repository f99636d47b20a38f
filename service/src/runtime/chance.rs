//! Chance, in the one place that may draw it for what is simulated.
//!
//! Like tokio's clock, it belongs to the thread: a simulation seeds it and has every draw again. Keys, nonces and proofs are drawn
//! elsewhere, straight from the system: they must never come from a seed.

use std::{cell::RefCell, marker::PhantomData};

use rand::{
    Rng, RngExt as _, SeedableRng as _,
    distr::{Distribution, StandardUniform},
    rngs::StdRng,
    seq::SliceRandom as _,
};

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// While it lives, all draws on this thread come from one seed.
#[derive(Debug)]
#[must_use = "it ends when it is dropped"]
pub struct Seeded(PhantomData<*const ()>);

impl Seeded {
    /// Draws from `seed` from now on, on this thread; whatever was in force before is over.
    pub fn begin(seed: u64) -> Self {
        SEEDED.set(Some(StdRng::seed_from_u64(seed)));
        Self(PhantomData)
    }
}

impl Drop for Seeded {
    fn drop(&mut self) {
        SEEDED.set(None);
    }
}

/// A number, or whatever else is drawn evenly; a float is from 0 to 1, without 1.
#[must_use]
pub(crate) fn draw<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    with(|rng| rng.random(), rand::random)
}

/// A draw in place of what the process counts, where there is a seed: another run counts on.
#[must_use]
pub(crate) fn in_place_of_a_count() -> Option<u32> {
    SEEDED.with_borrow_mut(|rng| rng.as_mut().map(|rng| rng.random()))
}

/// Puts them in some order.
pub(crate) fn shuffle<T>(items: &mut [T]) {
    let order = |rng: &mut dyn Rng, items: &mut [T]| items.shuffle(rng);
    SEEDED.with_borrow_mut(|seeded| match seeded {
        Some(rng) => order(rng, items),
        None => order(&mut rand::rng(), items),
    });
}

fn with<T>(seeded: impl FnOnce(&mut StdRng) -> T, otherwise: impl FnOnce() -> T) -> T {
    // The borrow ends before the system is asked.
    SEEDED.with_borrow_mut(|rng| rng.as_mut().map(seeded)).unwrap_or_else(otherwise)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draws() -> (u128, Vec<u8>) {
        let mut items: Vec<u8> = (0..100).collect();
        shuffle(&mut items);
        (draw(), items)
    }

    #[test]
    fn a_seed_gives_the_same_draws_again_and_no_seed_others() {
        let [first, again] = [(); 2].map(|()| {
            let _seeded = Seeded::begin(7);
            draws()
        });
        assert_eq!(first, again);
        assert_ne!(draws(), draws());
        let _seeded = Seeded::begin(8);
        assert_ne!(draws(), first);
    }

    #[test]
    fn another_thread_is_not_seeded() {
        let _seeded = Seeded::begin(7);
        let elsewhere = || std::thread::spawn(draw::<u128>).join().unwrap();
        assert_ne!(elsewhere(), elsewhere());
    }
}
