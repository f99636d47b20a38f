//! Numbers that follow from a seed, and from nothing else.
//!
//! The product draws from its own source of chance, which a run seeds. What is drawn here is the simulation's: plans, and what
//! befalls each call of a port. Each has a stream of its own, named by words, so that taking one thing out of a plan leaves the
//! draws for all others as they were.

/// A stream of draws (`SplitMix64`).
#[derive(Debug, Clone)]
pub struct Draw(u64);

impl Draw {
    /// The stream of this name.
    #[must_use]
    pub fn of(words: &[u64]) -> Self {
        words.iter().fold(Self(0x6A09_E667_F3BC_C908), |draw, word| Self(Self(draw.0 ^ *word).bits()))
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `n`, without `n`; 0 if that is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 { 0 } else { self.bits() % n }
    }

    /// A number from `least` to `most`, both included.
    pub fn between(&mut self, least: u64, most: u64) -> u64 {
        least + self.below(most.saturating_sub(least) + 1)
    }

    /// A number from `least` to `most` whose order of magnitude is as likely as any other.
    pub fn magnitude(&mut self, least: u64, most: u64) -> u64 {
        let doublings = (most / least.max(1)).max(1).ilog2();
        let scale = least << self.below(u64::from(doublings) + 1);
        self.between(scale, scale.saturating_mul(2)).min(most)
    }

    /// True so often, of one in all.
    pub fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// From 0 to 1, without 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a float has")]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// One of them.
    ///
    /// # Panics
    /// When there is none.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[usize::try_from(self.below(items.len() as u64)).unwrap_or_default()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_the_same_stream_again_and_another_name_another() {
        let first = |words: &[u64]| Draw::of(words).bits();
        assert_eq!(first(&[1, 2]), first(&[1, 2]));
        assert!(first(&[1, 2]) != first(&[2, 1]) && first(&[1]) != first(&[1, 0]));
    }

    #[test]
    fn draws_keep_to_their_bounds_and_reach_them() {
        let mut draw = Draw::of(&[7]);
        let drawn: Vec<u64> = (0..1000).map(|_| draw.between(3, 5)).collect();
        assert_eq!((drawn.iter().min(), drawn.iter().max()), (Some(&3), Some(&5)));
        let drawn: Vec<u64> = (0..1000).map(|_| draw.magnitude(100, 10_000)).collect();
        assert!(drawn.iter().all(|n| (100..=10_000).contains(n)));
        assert!(drawn.iter().any(|n| *n < 200) && drawn.iter().any(|n| *n > 5000));
        assert!((0..1000).all(|_| (0.0..1.0).contains(&draw.unit())));
    }
}
