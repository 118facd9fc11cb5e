//! What a worker minds while an effect is under way: its lease, requests to cancel, the time, a stop of the platform.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;

use super::{Drive, is_cancelled};
use crate::context::Context;
use crate::error::{Error, Kind, Result};
use crate::pipeline::may_be_outage;

/// How long a cancelled step gets to prove that nothing of it goes on.
const CANCEL_GRACE: Duration = Duration::from_secs(60);
/// How long a step that is under way gets to end when the platform stops.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// How long a step that used up its time gets to notice by itself before it is cancelled.
const BUDGET_GRACE: Duration = Duration::from_secs(10);

/// What a request to cancel means for what is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OnCancel {
    /// It is to end.
    End,
    /// Nothing: it is what the request asks for.
    GoOn,
}

/// What became of an effect.
pub(super) enum Attended<T> {
    /// It came to an end.
    Done(Result<T>),
    /// The platform stops: whether it acted is for the next start to find out.
    Interrupted,
}

impl Drive<'_> {
    /// Runs an effect, and meanwhile renews the lease, watches for a request to cancel, and ends what takes longer
    /// than it may. The outer error is the worker's, the inner one the effect's.
    pub(super) async fn attend<T>(
        &mut self,
        context: &Context,
        on_cancel: OnCancel,
        effect: impl Future<Output = Result<T>>,
    ) -> Result<Attended<T>> {
        let stop = self.worker.stop.clone();
        self.is_overdue = false;
        // An adapter that panics fails its step; what it was given is not used again.
        let effect = AssertUnwindSafe(effect).catch_unwind();
        let result = tokio::select! {
            biased;
            result = effect => result.unwrap_or_else(|panic| Err(panicked(panic.as_ref()))),
            // Beside the effect, which goes on meanwhile: what this waits for, such as a connection to the store, may
            // be what the effect was just given.
            ended = self.watch(context, on_cancel) => Err(ended?),
        };
        Ok(match result {
            Err(_) if stop.is_cancelled() && context.is_cancelled() => Attended::Interrupted,
            Err(error) if self.is_overdue && error.kind() == Kind::Cancelled => {
                Attended::Done(Err(Error::new(Kind::Timeout, "worker.attend", "it took longer than it may")))
            }
            result => Attended::Done(result),
        })
    }

    /// Renews the lease, looks for a request to cancel and at the time, until a cancelled effect is overdue: answers
    /// the error that stands for it. Dropping it is safe at any time.
    async fn watch(&mut self, context: &Context, on_cancel: OnCancel) -> Result<Error> {
        let clock = self.services().clock.clone();
        let stop = self.worker.stop.clone();
        let (mut cancel_until, mut stop_at) = (None, None);
        let mut overdue_at =
            context.remaining().map(|left| clock.elapsed().saturating_add(left).saturating_add(BUDGET_GRACE));
        loop {
            if context.is_cancelled() && cancel_until.is_none() {
                cancel_until = Some(clock.elapsed() + CANCEL_GRACE);
            }
            let wake_at = [cancel_until, stop_at, overdue_at].into_iter().flatten().min();
            let wake_at = wake_at.map_or(*self.renew_at, |at| at.min(*self.renew_at));
            tokio::select! {
                biased;
                () = stop.cancelled(), if stop_at.is_none() => stop_at = Some(clock.elapsed() + STOP_GRACE),
                version = self.news.changed() => {
                    // Mostly it is this worker's own commit.
                    if version > self.journal.state.version {
                        self.watch_for_cancel(context, on_cancel).await?;
                    }
                }
                () = clock.sleep(wake_at.saturating_sub(clock.elapsed())) => {
                    let now = clock.elapsed();
                    if cancel_until.is_some_and(|until| now >= until) {
                        tracing::warn!("a cancelled step did not end in time");
                        return Ok(Error::cancelled("worker.attend"));
                    }
                    if stop_at.is_some_and(|at| now >= at) {
                        context.cancel();
                        stop_at = Some(now + CANCEL_GRACE);
                    }
                    if overdue_at.is_some_and(|at| now >= at) {
                        self.is_overdue = true;
                        context.cancel();
                        overdue_at = None;
                    }
                    if now >= *self.renew_at {
                        if let Err(error) = self.renew().await {
                            context.cancel();
                            return Err(error);
                        }
                        self.watch_for_cancel(context, on_cancel).await?;
                    }
                }
            }
        }
    }

    async fn watch_for_cancel(&mut self, context: &Context, on_cancel: OnCancel) -> Result<()> {
        match self.journal.refresh().await {
            // The store is out: the next renewal looks again.
            Err(error) if error.is_transient() => return Ok(()),
            result => result?,
        }
        let state = &self.journal.state;
        // Nobody here can record what comes of the step any more, or it is asked to stop.
        let is_out_of_hand = state.is_stuck() || state.abandoned.is_some();
        if on_cancel == OnCancel::End && (is_out_of_hand || is_cancelled(state)) {
            context.cancel();
        }
        Ok(())
    }

    /// # Errors
    /// `Conflict` when the lease is lost.
    pub(super) async fn renew(&mut self) -> Result<()> {
        let (duration, renewal) = (self.services().settings.lease, self.services().settings.lease_renewal);
        *self.renew_at = self.services().clock.elapsed() + renewal;
        match self.services().store.renew(self.journal.lease(), duration).await {
            Ok(lease) => {
                self.journal.set_lease(lease);
                Ok(())
            }
            Err(error) if error.kind() == Kind::Conflict => Err(error),
            // The store is out: the lease may still be good, and every write is fenced.
            Err(_) => Ok(()),
        }
    }

    /// True if the failure came of an outage of the platform's own parts, which is waited out.
    pub(super) async fn is_outage(&mut self, error: &Error) -> Result<bool> {
        let services = self.worker.services.clone();
        let app = self.journal.spec.app.clone();
        services.outages.go_on(&app);
        if !may_be_outage(error) {
            return Ok(false);
        }
        let context = services.context();
        let ask = async { Ok(services.is_out(&context).await) };
        let is_out = matches!(self.attend(&context, OnCancel::GoOn, ask).await?, Attended::Done(Ok(true)));
        if is_out {
            services.outages.wait(&app);
        }
        Ok(is_out)
    }
}

fn panicked(panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied().or(panic.downcast_ref::<String>().map(String::as_str));
    Error::internal("worker.attend", format!("panicked: {}", text.unwrap_or("without a text")))
}
