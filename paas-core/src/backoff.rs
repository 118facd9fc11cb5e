//! How long to wait before trying again.

use std::time::Duration;

/// Exponential back-off with full jitter: pure arithmetic, so that whoever retries can journal or simulate it.
///
/// ```
/// use std::time::Duration;
/// use paas_core::Backoff;
/// let backoff = Backoff::default();
/// assert_eq!(backoff.ceiling(0), Duration::from_millis(500));
/// assert_eq!(backoff.ceiling(20), Duration::from_secs(60));
/// assert!(backoff.delay(3, 42, None) <= backoff.ceiling(3));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The longest wait after the first failure; it doubles with each further one.
    pub base: Duration,
    /// The longest wait of all.
    pub max: Duration,
}

impl Default for Backoff {
    /// The contract's: half a second, doubling to a minute.
    fn default() -> Self {
        Self { base: Duration::from_millis(500), max: Duration::from_secs(60) }
    }
}

impl Backoff {
    /// How long the other side may ask us to stay away: the window in which forges count requests.
    pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(60 * 60);

    /// The longest wait before retry number `retry`, counted from 0, when the other side asked for nothing.
    #[must_use]
    pub fn ceiling(&self, retry: u32) -> Duration {
        let factor = 2_u32.checked_pow(retry).unwrap_or(u32::MAX);
        self.base.saturating_mul(factor).min(self.max)
    }

    /// The wait before retry number `retry`, counted from 0: evenly spread between nothing and
    /// [`ceiling`](Self::ceiling) by `random`, a number of all 64 bits. Where the other side said when to come
    /// back, it is that long and then the spread, so that those it turned away do not all return at once.
    #[must_use]
    pub fn delay(&self, retry: u32, random: u64, retry_after: Option<Duration>) -> Duration {
        // At most `max` in nanoseconds times 2^64: `as_nanos` of any Duration is below 2^94, so it may overflow for
        // absurd bounds only, where saturating is right.
        let spread = self.ceiling(retry).as_nanos().saturating_mul(random.into()) >> 64;
        let spread = Duration::from_nanos(u64::try_from(spread).unwrap_or(u64::MAX));
        retry_after.unwrap_or_default().min(Self::MAX_RETRY_AFTER).saturating_add(spread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn the_ceiling_doubles_from_half_a_second_to_a_minute() {
        let ceilings: Vec<_> = (0..9).map(|retry| Backoff::default().ceiling(retry).as_millis()).collect();
        assert_eq!(ceilings, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(Backoff::default().ceiling(u32::MAX), 60 * SECOND);
    }

    #[test]
    fn the_jitter_spans_everything_below_the_ceiling() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(1, 0, None), Duration::ZERO);
        assert_eq!(backoff.delay(1, 1 << 63, None), SECOND / 2);
        let highest = backoff.delay(1, u64::MAX, None);
        assert!(highest < SECOND && highest > SECOND.mul_f64(0.999), "{highest:?}");
    }

    #[test]
    fn what_the_other_side_asks_for_is_the_least() {
        let backoff = Backoff::default();
        assert_eq!(backoff.delay(0, 0, Some(90 * SECOND)), 90 * SECOND);
        assert!(backoff.delay(0, u64::MAX, Some(90 * SECOND)) > 90 * SECOND);
    }

    #[test]
    fn nobody_keeps_us_away_for_ever() {
        let asked = Some(Duration::MAX);
        assert_eq!(Backoff::default().delay(0, 0, asked), Backoff::MAX_RETRY_AFTER);
    }

    #[test]
    fn absurd_bounds_do_not_overflow() {
        let backoff = Backoff { base: Duration::MAX, max: Duration::MAX };
        assert_eq!(backoff.ceiling(7), Duration::MAX);
        let _ = backoff.delay(u32::MAX, u64::MAX, Some(Duration::MAX));
    }
}
