//! One call to a server: what ends it early, how fast it has to be, and why it failed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use paas_core::{Context, Error, Kind, Result};

use crate::errors;
use crate::options::GitLimits;

/// Shared between the caller and the blocking thread that works for it.
///
/// gix reports errors as text. So the parts of a call that know better note the error here, and it takes
/// precedence over whatever gix makes of it.
#[derive(Debug)]
pub(crate) struct Call {
    operation: &'static str,
    context: Context,
    limits: GitLimits,
    /// What gix polls.
    interrupt: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    failure: Option<Error>,
    /// How many more bytes the server may send.
    allowance: u64,
    received: u64,
    /// Time spent waiting for the server in the present stretch, and what it sent meanwhile.
    waited: Duration,
    received_meanwhile: u64,
}

impl Call {
    pub(crate) fn new(operation: &'static str, context: &Context, limits: &GitLimits) -> Arc<Self> {
        let state = State {
            failure: None,
            allowance: limits.pack_bytes,
            received: 0,
            waited: Duration::ZERO,
            received_meanwhile: 0,
        };
        Arc::new(Self {
            operation,
            context: context.child().with_budget(limits.time),
            limits: limits.clone(),
            interrupt: AtomicBool::new(false),
            state: Mutex::new(state),
        })
    }

    pub(crate) fn operation(&self) -> &'static str {
        self.operation
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    pub(crate) fn limits(&self) -> &GitLimits {
        &self.limits
    }

    pub(crate) fn interrupt(&self) -> &AtomicBool {
        &self.interrupt
    }

    /// How many bytes the server has sent.
    pub(crate) fn received(&self) -> u64 {
        self.locked().received
    }

    /// Lets the server send at most this much more.
    pub(crate) fn allow(&self, bytes: u64) {
        self.locked().allowance = bytes;
    }

    /// Ends the work: the transfer at once, gix where it next looks.
    pub(crate) fn stop(&self) {
        self.interrupt.store(true, Ordering::Relaxed);
        self.context.cancel();
    }

    /// Waits until the caller no longer wants the result, or the time is over, and says which.
    pub(crate) async fn ended(&self) -> Error {
        let never = std::future::pending::<Result<std::convert::Infallible>>();
        match self.context.run(self.operation, never).await {
            Err(error) if error.kind() == Kind::Timeout => errors::timeout(self.operation),
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    /// Notes why the call fails; the first reason stays. What is returned is for gix to hand up.
    pub(crate) fn fail(&self, error: Error) -> std::io::Error {
        let text = error.to_string();
        self.locked().failure.get_or_insert(error);
        std::io::Error::other(text)
    }

    /// The noted reason, or what gix's own error tells.
    pub(crate) fn failure(&self, error: gix::Error) -> Error {
        let noted = self.locked().failure.take();
        noted.unwrap_or_else(|| match self.check() {
            Err(stopped) => stopped,
            Ok(()) => errors::from_gix(self.operation, error),
        })
    }

    /// Notes that a pack could not be stored, unless it is known why.
    pub(crate) fn unreadable(&self, error: gix::Error) -> std::io::Error {
        let text = format!("{error:?}");
        let mut state = self.locked();
        if state.failure.is_none() && self.check().is_ok() {
            state.failure = Some(errors::from_pack(self.operation, error));
        }
        std::io::Error::other(text)
    }

    /// An error once the work was stopped: long work on this machine asks for it from time to time.
    pub(crate) fn check(&self) -> Result<()> {
        if self.interrupt.load(Ordering::Relaxed) { Err(Error::cancelled(self.operation)) } else { Ok(()) }
    }

    /// Counts bytes from the server.
    pub(crate) fn count(&self, bytes: u64) -> Result<()> {
        let mut state = self.locked();
        state.received += bytes;
        state.received_meanwhile += bytes;
        state.allowance = state
            .allowance
            .checked_sub(bytes)
            .ok_or_else(|| errors::too_large(self.operation, "it is larger than the platform takes"))?;
        Ok(())
    }

    /// Waits for the server, unless the call ends or the server has stalled.
    pub(crate) async fn wait<T>(&self, answer: impl Future<Output = T>) -> Result<T> {
        let clock = self.context.clock().clone();
        let mut answer = std::pin::pin!(answer);
        loop {
            let left = self.limits.stall_window.saturating_sub(self.locked().waited);
            let before = clock.elapsed();
            let answered = tokio::select! {
                biased;
                () = self.context.cancellation().cancelled() => return Err(Error::cancelled(self.operation)),
                answered = &mut answer => Some(answered),
                () = clock.sleep(left) => None,
            };
            let mut state = self.locked();
            state.waited += clock.elapsed().saturating_sub(before);
            if state.waited >= self.limits.stall_window {
                if state.received_meanwhile < self.limits.stall_bytes {
                    return Err(errors::timeout(self.operation));
                }
                (state.waited, state.received_meanwhile) = (Duration::ZERO, 0);
            }
            if let Some(answered) = answered {
                return Ok(answered);
            }
        }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Plain numbers: a panic while it was held leaves them usable.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops the call when its caller goes away.
pub(crate) struct StopOnDrop(pub(crate) Arc<Call>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}
