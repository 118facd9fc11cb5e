//! Time, injected: the only file that reads the machine's clock.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

/// Where the platform takes the time from and waits with.
///
/// # Guarantees
/// [`elapsed`](Clock::elapsed) never goes back; [`now`](Clock::now) may, when somebody sets the machine's clock.
/// Waits follow `elapsed`, so that a clock that jumps neither hurries nor stalls them.
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// The wall-clock time, for people and for persisted times.
    fn now(&self) -> Timestamp;

    /// Monotonic time since some fixed moment of this process.
    fn elapsed(&self) -> Duration;

    /// Waits for `duration` of monotonic time.
    async fn sleep(&self, duration: Duration);
}

#[async_trait]
impl<C: Clock + ?Sized> Clock for Arc<C> {
    fn now(&self) -> Timestamp {
        (**self).now()
    }

    fn elapsed(&self) -> Duration {
        (**self).elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        (**self).sleep(duration).await;
    }
}

/// The machine's clock.
///
/// Monotonic time and waits are tokio's, so a test with paused time controls them.
#[derive(Debug)]
pub struct SystemClock {
    started: tokio::time::Instant,
}

impl SystemClock {
    /// A clock whose [`elapsed`](Clock::elapsed) counts from now.
    #[must_use]
    #[allow(clippy::disallowed_methods)] // this file is where the machine's clock is wrapped
    pub fn new() -> Self {
        Self { started: tokio::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
#[allow(clippy::disallowed_methods)] // this file is where the machine's clock is wrapped
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

/// A clock for tests: it starts at a fixed date and moves only with tokio's (paused) time.
#[cfg(feature = "testing")]
#[derive(Debug)]
pub struct TestClock {
    started: tokio::time::Instant,
    /// What [`TestClock::jump`] has added to the wall clock, in nanoseconds.
    jumped: std::sync::atomic::AtomicI64,
}

#[cfg(feature = "testing")]
impl TestClock {
    /// A clock that says 2026-01-01T00:00:00Z.
    #[must_use]
    #[allow(clippy::disallowed_methods)]
    pub fn new() -> Self {
        Self { started: tokio::time::Instant::now(), jumped: std::sync::atomic::AtomicI64::new(0) }
    }

    /// Sets the wall clock forward or back, as an operator or NTP would; monotonic time is untouched.
    pub fn jump(&self, seconds: i64) {
        self.jumped.fetch_add(seconds * 1_000_000_000, std::sync::atomic::Ordering::SeqCst);
    }
}

#[cfg(feature = "testing")]
impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(feature = "testing")]
#[async_trait]
#[allow(clippy::disallowed_methods)]
impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        // 2026-01-01T00:00:00Z
        const START_SECONDS: i128 = 1_767_225_600;
        let jumped = self.jumped.load(std::sync::atomic::Ordering::SeqCst);
        let nanoseconds =
            START_SECONDS * 1_000_000_000 + self.started.elapsed().as_nanos() as i128 + i128::from(jumped);
        Timestamp::from_nanosecond(nanoseconds).unwrap_or(Timestamp::MAX)
    }

    fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}
