//! Identifiers and randomness, injected.

use std::fmt::Debug;
use std::sync::Mutex;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::clock::Clock;

/// Where identifiers and random numbers come from.
///
/// # Guarantees
/// [`next`](Ids::next) is unique and, read as big-endian bytes, sorts by the time that it was given.
pub trait Ids: Debug + Send + Sync + 'static {
    /// A new sortable 128-bit identifier (UUID version 7 layout).
    fn next(&self) -> u128;

    /// A random number, for jitter. Never for secrets: those come from the operating system.
    fn random(&self) -> u64;
}

/// Identifiers of the injected clock's time with random tails.
#[derive(Debug)]
pub struct RandomIds<C> {
    clock: C,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    random: StdRng,
    last_millisecond: u64,
    sequence: u16,
}

impl<C: Clock> RandomIds<C> {
    /// Seeded by the operating system.
    #[must_use]
    pub fn new(clock: C) -> Self {
        Self::from_random(clock, StdRng::from_os_rng())
    }

    /// The same seed and clock give the same identifiers: for simulation.
    #[must_use]
    pub fn seeded(clock: C, seed: u64) -> Self {
        Self::from_random(clock, StdRng::seed_from_u64(seed))
    }

    fn from_random(clock: C, random: StdRng) -> Self {
        Self { clock, state: Mutex::new(State { random, last_millisecond: 0, sequence: 0 }) }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic while it was held leaves the generator usable.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<C: Clock> Ids for RandomIds<C> {
    fn next(&self) -> u128 {
        let now = u64::try_from(self.clock.now().as_millisecond()).unwrap_or(0);
        let mut state = self.locked();
        // Within one millisecond, and when the clock was set back, the sequence keeps the order.
        if now > state.last_millisecond {
            state.last_millisecond = now;
            state.sequence = 0;
        } else if state.sequence == 0x0fff {
            state.last_millisecond += 1;
            state.sequence = 0;
        } else {
            state.sequence += 1;
        }
        let random: u64 = state.random.random();
        let (millisecond, sequence) = (u128::from(state.last_millisecond), u128::from(state.sequence));
        (millisecond << 80) | (0x7 << 76) | (sequence << 64) | (0b10 << 62) | u128::from(random >> 2)
    }

    fn random(&self) -> u64 {
        self.locked().random.random()
    }
}
