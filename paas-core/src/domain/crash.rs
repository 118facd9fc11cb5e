//! What becomes of an app whose process ends by itself.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backoff::Backoff;
use crate::pipeline::Drift;

/// How an app's live instance keeps ending by itself, or disappearing, and when it is started again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Crashes {
    /// How many there were in a row; it begins anew once the process has run for [`STEADY`](Self::STEADY).
    pub count: u32,
    /// How it ended last.
    pub drift: Drift,
    /// When it ended, or was started again since.
    pub at: Timestamp,
    /// True until it is started again.
    pub is_down: bool,
}

impl Crashes {
    /// So many in a row are called a loop: the contract's number.
    pub const LOOP: u32 = 10;
    /// A process that ran for so long is not in a loop.
    pub const STEADY: Duration = Duration::from_secs(10 * 60);
    /// The waits before it is started again: the contract's.
    const WAITS: Backoff = Backoff { base: Duration::from_secs(1), max: Duration::from_secs(5 * 60) };

    /// One more, at `now`, after those `before`.
    #[must_use]
    pub fn another(before: Option<&Self>, drift: Drift, now: Timestamp) -> Self {
        let in_a_row = before.filter(|before| !before.is_over(now)).map_or(0, |before| before.count);
        Self { count: in_a_row.saturating_add(1), drift, at: now, is_down: true }
    }

    /// True if it is called a loop.
    #[must_use]
    pub fn is_loop(&self) -> bool {
        self.count >= Self::LOOP
    }

    /// True if the process has run for long enough since.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        !self.is_down && self.left(Self::STEADY, now).is_zero()
    }

    /// How long it is until something is to be done: starting it again, or forgetting that it crashed.
    #[must_use]
    pub fn wait(&self, now: Timestamp) -> Duration {
        let wait =
            if self.is_down { Self::WAITS.ceiling(self.count.saturating_sub(1)) } else { Self::STEADY };
        self.left(wait, now)
    }

    /// What is left at `now` of a wait that began with it: nothing once the clock was set back, or it would not pass until
    /// the clock is where it was.
    fn left(&self, wait: Duration, now: Timestamp) -> Duration {
        let passed = Duration::try_from(now.duration_since(self.at));
        passed.map_or(Duration::ZERO, |passed| wait.saturating_sub(passed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDED: Drift = Drift::Ended { code: 1, out_of_memory: false };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).unwrap()
    }

    #[test]
    fn waits_double_from_a_second_to_five_minutes() {
        let mut crashes = Crashes::another(None, ENDED, at(0));
        let mut waits = vec![crashes.wait(at(0)).as_secs()];
        for _ in 0..10 {
            crashes = Crashes::another(Some(&Crashes { is_down: false, ..crashes }), ENDED, at(0));
            waits.push(crashes.wait(at(0)).as_secs());
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert!(crashes.is_loop());
    }

    #[test]
    fn a_long_run_ends_the_count() {
        let crashes = Crashes { is_down: false, ..Crashes::another(None, ENDED, at(0)) };
        assert_eq!(Crashes::another(Some(&crashes), ENDED, at(599)).count, 2);
        assert_eq!(Crashes::another(Some(&crashes), ENDED, at(600)).count, 1);
        assert!(!Crashes { is_down: true, ..crashes }.is_over(at(600)));
    }

    #[test]
    fn a_clock_that_was_set_back_ends_the_wait() {
        let crashes = Crashes::another(None, ENDED, at(0));
        assert_eq!(crashes.wait(at(-3600)), Duration::ZERO);
        assert_eq!(crashes.wait(at(3600)), Duration::ZERO);
    }
}
