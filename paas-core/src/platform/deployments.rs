//! Handles to operations: watching, waiting, cancelling.

use std::time::Duration;

use futures::stream::BoxStream;

use super::Apps;
use super::accept::Parts;
use crate::domain::{AppStatus, Deployment, DeploymentId, DeploymentState, Step};
use crate::engine::{due_now, take_back};
use crate::error::{Error, Kind, Result, Retry};
use crate::pipeline::{CancelReason, Event, Phase, Recorded};
use crate::records::{self, Versioned};
use crate::store::{Expect, StateStore, StreamId, WorkClass};

/// How often a request to cancel is made anew when the operation moved on meanwhile.
const TRIES: usize = 50;

/// How to deploy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeployOptions {
    /// Build even if the same tree was built before.
    pub no_cache: bool,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// It will not change any more.
    Settled,
    /// It did what was asked.
    Success,
}

/// An operation after waiting for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waited {
    /// The operation.
    pub deployment: Deployment,
    /// Whether what was waited for came.
    pub reached: bool,
}

/// A handle to an operation. Dropping it changes nothing.
#[derive(Clone, Debug)]
pub struct DeploymentHandle {
    apps: Apps,
    id: DeploymentId,
}

impl Apps {
    /// Waits for news, or long enough that a lost hint does not matter.
    pub(super) async fn pause(&self, news: &mut crate::engine::Watch) {
        const NET: Duration = Duration::from_secs(5);
        tokio::select! {
            biased;
            _ = news.changed() => {}
            () = self.platform().services().clock.sleep(NET) => {}
        }
    }
}

impl DeploymentHandle {
    pub(super) fn new(apps: Apps, id: DeploymentId) -> Self {
        Self { apps, id }
    }

    /// Its identifier.
    #[must_use]
    pub fn id(&self) -> &DeploymentId {
        &self.id
    }

    /// Where it is now.
    ///
    /// # Errors
    /// `NotFound` once it was forgotten, or for another org's; the store's.
    pub async fn get(&self) -> Result<Deployment> {
        let mut deployment = self.record().await?.value;
        let platform = self.apps.platform();
        // Nobody can write into a journal that nobody understands: that it is stuck shows here only.
        if !deployment.state.is_settled()
            && platform.inner.engine.stuck().contains_key(deployment.app.as_str())
            && let Err(error) = platform.replay(&self.apps.scope(), &self.id).await
            && error.reason() == Some(records::UNKNOWN_EVENT)
        {
            deployment.state = DeploymentState::Stuck;
        }
        Ok(deployment)
    }

    pub(super) fn apps(&self) -> &Apps {
        &self.apps
    }

    async fn record(&self) -> Result<Versioned<Deployment>> {
        let found = self.apps.platform().records().get(&self.apps.scope(), self.id.as_str()).await?;
        found.ok_or_else(|| Error::not_found("deployments.get", "there is no such deployment"))
    }

    /// How many operations are ahead of it: of its own app, and of others for a worker or a build slot. `None` unless it
    /// waits for its turn.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn queue_position(&self) -> Result<Option<u64>> {
        let (platform, scope) = (self.apps.platform(), self.apps.scope());
        let deployment = self.get().await?;
        let key = deployment.app.to_string();
        let (class, own) = match (deployment.state, deployment.step) {
            (DeploymentState::Queued, _) => {
                let status: Option<Versioned<AppStatus>> = platform.records().get(&scope, &key).await?;
                let status = status.map(|status| status.value);
                let own = status.into_iter().flat_map(|status| status.active.into_iter().chain(status.queue));
                (WorkClass::Light, own.take_while(|id| *id != self.id).count() as u64)
            }
            // It may be planning still.
            (DeploymentState::Building, Some(Step::Plan))
                if platform.replay(&scope, &self.id).await?.phase == (Phase::Ready { next: Step::Build }) =>
            {
                (WorkClass::Build, 0)
            }
            _ => return Ok(None),
        };
        let others = platform.services().store.count(class, Some(key)).await?;
        Ok(Some(own + others))
    }

    /// Its events so far after a version, oldest first.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn history(&self, after: u64) -> Result<Vec<Recorded>> {
        self.get().await?;
        self.apps.platform().records().events(&self.apps.scope(), &StreamId::from(&self.id), after).await
    }

    /// Its events after a version, and those to come until it has ended: no end of the reader's time loses one.
    pub fn events(&self, after: u64) -> BoxStream<'static, Result<Recorded>> {
        let stream = StreamId::from(&self.id);
        let news = self.apps.platform().inner.hub.watch(stream.clone());
        let state = (self.clone(), stream, news, after, Vec::new().into_iter(), false);
        Box::pin(futures::stream::try_unfold(
            state,
            |(handle, stream, mut news, mut after, mut page, mut is_over)| async move {
                loop {
                    if let Some(recorded) = page.next() {
                        let recorded: Recorded = recorded;
                        after = recorded.version;
                        is_over |= matches!(recorded.event, Event::Ended { .. });
                        return Ok(Some((recorded, (handle, stream, news, after, page, is_over))));
                    }
                    let records = handle.apps.platform().records();
                    let events = records.events(&handle.apps.scope(), &stream, after).await?;
                    if events.is_empty() {
                        if is_over {
                            return Ok(None);
                        }
                        // It may be over before `after`; or just now, and what it ended with is to be read yet.
                        is_over = handle.get().await?.state.is_settled() && handle.is_ended().await?;
                        if !is_over {
                            handle.apps.pause(&mut news).await;
                        }
                    }
                    page = events.into_iter();
                }
            },
        ))
    }

    async fn is_ended(&self) -> Result<bool> {
        let state = self.apps.platform().replay(&self.apps.scope(), &self.id).await?;
        Ok(state.is_ended())
    }

    /// Waits, at most `timeout`.
    ///
    /// # Errors
    /// As [`get`](Self::get). That the time is up is an answer, not an error.
    pub async fn wait(&self, wanted: WaitFor, timeout: Duration) -> Result<Waited> {
        let clock = self.apps.platform().services().clock.clone();
        let until = clock.elapsed().saturating_add(timeout);
        let mut news = self.apps.platform().inner.hub.watch(StreamId::from(&self.id));
        loop {
            let deployment = self.get().await?;
            let is_settled = deployment.state.is_settled();
            let reached = match wanted {
                WaitFor::Settled => is_settled,
                WaitFor::Success => deployment.state.is_success(),
            };
            let remaining = until.saturating_sub(clock.elapsed());
            if reached || is_settled || remaining.is_zero() {
                return Ok(Waited { deployment, reached });
            }
            tokio::select! {
                biased;
                () = self.apps.pause(&mut news) => {}
                () = clock.sleep(remaining) => {}
            }
        }
    }

    /// Waits until it is settled, however long that takes, and answers it.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn settled(&self) -> Result<Deployment> {
        Ok(self.wait(WaitFor::Settled, Duration::MAX).await?.deployment)
    }

    /// Waits until it did what was asked.
    ///
    /// # Errors
    /// Its failure, with fault, hint and the last log lines; `Cancelled`; `Conflict` with the code `superseded`.
    pub async fn outcome(&self) -> Result<Deployment> {
        let deployment = self.settled().await?;
        match (deployment.state, &deployment.failure) {
            (state, _) if state.is_success() => Ok(deployment),
            (DeploymentState::Cancelled, _) => {
                Err(Error::new(Kind::Cancelled, "deployments.outcome", "the deployment was cancelled"))
            }
            (DeploymentState::Superseded, _) => {
                Err(Error::new(Kind::Conflict, "deployments.outcome", "a newer deployment was accepted")
                    .code("superseded"))
            }
            (DeploymentState::Stuck, _) => Err(Error::new(
                Kind::Unavailable,
                "deployments.outcome",
                "the deployment can't go on: this version does not know what its journal holds",
            )
            .code("stuck")
            .retry(Retry::Permanent)
            .hint("run the version that wrote it, or a newer one")),
            (_, Some(failure)) => Err(Error::from(failure)),
            (_, None) => {
                Err(Error::internal("deployments.outcome", "the deployment says nothing of why it failed"))
            }
        }
    }

    /// Asks it to stop. It says `cancelled` only once nothing of it goes on; what served before still serves.
    /// Cancelling what is cancelled succeeds.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` once it is live, superseded or over.
    pub async fn cancel(&self) -> Result<Deployment> {
        for _ in 0..TRIES {
            match self.try_cancel().await {
                Err(error) if error.kind() == Kind::Conflict && error.reason().is_none() => {}
                result => return result,
            }
        }
        Err(Error::new(
            Kind::Unavailable,
            "deployments.cancel",
            "the deployment is being changed by too many at once",
        ))
    }

    async fn try_cancel(&self) -> Result<Deployment> {
        let (platform, scope) = (self.apps.platform(), self.apps.scope());
        let record = self.record().await?;
        let state = platform.replay(&scope, &self.id).await?;
        if record.value.state == DeploymentState::Cancelled || state.cancel == Some(CancelReason::Requested) {
            return Ok(record.value);
        }
        if state.is_committed() || state.is_ended() || state.cancel.is_some() {
            return Err(Error::new(
                Kind::Conflict,
                "deployments.cancel",
                "it is too late to cancel this deployment",
            )
            .code("state")
            .hint("roll back to the release before it, or stop the app"));
        }
        let reason = CancelReason::Requested;
        let mut parts = Parts::default();
        let app = record.value.app.clone();
        let status: Option<Versioned<AppStatus>> = platform.records().get(&scope, app.as_str()).await?;
        match status {
            // No worker has touched it: it is over with this commit.
            Some(Versioned { version, value: mut status }) if status.queue.contains(&self.id) => {
                platform.end_queued(&scope, &mut status, record, &reason, &mut parts).await?;
                if let Some(spec) = platform.records().get(&scope, self.id.as_str()).await? {
                    let wish = take_back(&platform.records(), &scope, &spec.value, &status).await?;
                    parts.writes.extend(wish);
                }
                parts.writes.push(records::update(&status, Expect::Version(version))?);
            }
            _ => {
                let now = platform.services().clock.now();
                let stream = StreamId::from(&self.id);
                let events = [Event::CancelRequested { reason }];
                parts.appends.push(records::append(scope.clone(), stream, state.version, now, &events)?);
                parts.leases.push(due_now(&app, scope));
            }
        }
        platform.commit(parts).await?;
        self.get().await
    }
}
