//! What of the unsynced reaches the disk, by lot.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How much reaches the disk; one of them is drawn for each loss of power. Nothing at all is what finds most.
const ODDS: [f64; 4] = [0.0, 0.1, 0.5, 0.9];

#[derive(Debug)]
pub(crate) struct Lot {
    random: StdRng,
    odds: f64,
}

impl Lot {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let odds = ODDS[random.random_range(0..ODDS.len())];
        Self { random, odds }
    }

    /// Whether something reached the disk.
    pub(crate) fn arrives(&mut self) -> bool {
        self.random.random_bool(self.odds)
    }

    /// Which of several that followed each other is on the disk; `None` is what was there before.
    pub(crate) fn which<'a, T>(&mut self, versions: &'a [T]) -> Option<&'a T> {
        if versions.is_empty() || !self.arrives() {
            return None;
        }
        versions.get(self.random.random_range(0..versions.len()))
    }
}
