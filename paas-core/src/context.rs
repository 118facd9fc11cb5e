//! What travels into every call: cancellation, a time budget, and where log lines go.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::logs::{LogSink, LogSource};

/// Cancellation, time budget and log sink of one call.
///
/// # Guarantees
/// An adapter returns soon after [`cancel`](Context::cancel) fires, and only when nothing of the call goes on:
/// a cancelled build is gone when its call returns.
#[derive(Clone, Debug)]
pub struct Context {
    cancel: CancellationToken,
    clock: Arc<dyn Clock>,
    /// Monotonic, on `clock`.
    deadline: Option<Duration>,
    log: LogSink,
}

impl Context {
    /// A context without a deadline whose log lines go nowhere.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { cancel: CancellationToken::new(), clock, deadline: None, log: LogSink::discard() }
    }

    /// The same with its own cancellation: cancelling `self` cancels it, not the other way round.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { cancel: self.cancel.child_token(), ..self.clone() }
    }

    /// The same, with at most `budget` from now.
    #[must_use]
    pub fn with_budget(&self, budget: Duration) -> Self {
        let deadline = self.clock.elapsed().saturating_add(budget);
        Self {
            deadline: Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline))),
            ..self.clone()
        }
    }

    /// The same, with log lines going to `log`.
    #[must_use]
    pub fn with_log(&self, log: LogSink) -> Self {
        Self { log, ..self.clone() }
    }

    /// Fires when the caller no longer wants the result.
    #[must_use]
    pub fn cancellation(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Asks everything below this context to stop.
    pub fn cancel(&self) {
        self.cancel.cancel();
    }

    /// True once [`cancel`](Self::cancel) was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// The clock that waits and deadlines follow.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// How much time is left; `None` without a deadline.
    #[must_use]
    pub fn remaining(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_sub(self.clock.elapsed()))
    }

    /// Writes one line to the deployment's log.
    pub fn log(&self, source: LogSource, text: impl Into<String>) {
        self.log.line(source, text.into());
    }

    /// Where log lines go.
    #[must_use]
    pub fn log_sink(&self) -> &LogSink {
        &self.log
    }

    /// Waits, unless the call is cancelled or out of time first.
    ///
    /// # Errors
    /// `Cancelled` or `Timeout`.
    pub async fn sleep(&self, operation: &'static str, duration: Duration) -> Result<()> {
        self.run(operation, async {
            self.clock.sleep(duration).await;
            Ok(())
        })
        .await
    }

    /// Runs `work`, dropping it when the call is cancelled or out of time: for work that dropping ends.
    ///
    /// # Errors
    /// `Cancelled`, `Timeout`, or the work's own.
    pub async fn run<T>(&self, operation: &'static str, work: impl Future<Output = Result<T>>) -> Result<T> {
        let expired = async {
            match self.remaining() {
                Some(remaining) => self.clock.sleep(remaining).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Error::cancelled(operation)),
            result = work => result,
            () = expired => Err(Error::new(Kind::Timeout, operation, "it took longer than it may")),
        }
    }
}
