//! The way out of an operation whose journal this version can't read.

use super::DeploymentHandle;
use super::accept::Parts;
use super::deployments::{TRIES, too_many_at_once};
use crate::domain::{Deployment, Step};
use crate::engine::{StuckNote, due_now};
use crate::error::{Error, Failure, Fault, Kind, Result, Retry};
use crate::pipeline::{Event, IllegalEvent, Outcome, Phase};
use crate::records;
use crate::store::StreamId;

impl DeploymentHandle {
    /// Gives up an operation that is [`Stuck`](crate::DeploymentState::Stuck). Running the version that wrote its journal,
    /// or a newer one, is better: then it goes on by itself.
    ///
    /// # Flow
    /// That it is given up is recorded behind what this version can't read. A worker then puts the app's route back to
    /// where it led, and ends the operation: as failed, with a failure of the code `abandoned`, or, if it was live
    /// already, as it is. Whatever else it left behind is the warden's. Abandoning what was abandoned succeeds.
    ///
    /// # Guarantees
    /// What the records call live stays live. The end is recorded under the app's lease, as everything that workers do: a
    /// server that is at work on the operation lets go of it first.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not stuck.
    pub async fn abandon(&self) -> Result<Deployment> {
        for _ in 0..TRIES {
            match self.try_abandon().await {
                Err(error) if error.kind() == Kind::Conflict && error.reason().is_none() => {}
                result => return result,
            }
        }
        Err(too_many_at_once())
    }

    async fn try_abandon(&self) -> Result<Deployment> {
        let (platform, scope) = (self.apps().platform(), self.apps().scope());
        // In this order: what it became since then is in conflict with what is appended.
        let state = platform.replay(&scope, self.id()).await?;
        let deployment = self.record().await?.value;
        let Phase::Stuck { by } = &state.phase else {
            return match state.abandoned {
                Some(_) => self.get().await,
                None => Err(not_stuck(&deployment)),
            };
        };
        let outcome = if deployment.state.is_settled() {
            Outcome::Succeeded
        } else {
            let step = deployment.step.or(deployment.kind.steps().first().copied());
            Outcome::Failed { step: step.unwrap_or(Step::Fetch), failure: abandoned(by) }
        };
        let (now, stream) = (platform.services().clock.now(), StreamId::from(self.id()));
        let append =
            records::append(scope.clone(), stream, state.version, now, &[Event::Abandoned { outcome }])?;
        let leases = vec![due_now(&deployment.app, scope)];
        platform.commit(Parts { appends: vec![append], leases, ..Parts::default() }).await?;
        self.get().await
    }

    /// Why it can't go on, if a worker has found that this version can't read its journal.
    pub(super) async fn stuck(&self, deployment: &Deployment) -> Result<Option<Failure>> {
        let (platform, scope) = (self.apps().platform(), self.apps().scope());
        if !StuckNote::is_on(&platform.records(), &scope, &deployment.app, self.id()).await? {
            return Ok(None);
        }
        Ok(match platform.replay(&scope, self.id()).await?.phase {
            Phase::Stuck { by } => Some(stuck(&by)),
            _ => None,
        })
    }
}

fn stuck(by: &IllegalEvent) -> Failure {
    let message = format!("the deployment can't go on: {by}");
    let error = Error::new(Kind::Unavailable, "deployments.stuck", message)
        .code("stuck")
        .retry(Retry::Permanent)
        .hint("run the version that wrote its journal, or a newer one; or have an operator abandon it");
    Failure::from(&error)
}

fn abandoned(by: &IllegalEvent) -> Failure {
    let message = format!("an operator gave the deployment up, as it could not go on: {by}");
    let error = Error::new(Kind::Cancelled, "deployments.abandon", message)
        .code("abandoned")
        .fault(Fault::Platform)
        .hint("ask for it again");
    Failure::from(&error)
}

fn not_stuck(deployment: &Deployment) -> Error {
    let hint = if deployment.state.is_settled() {
        "nothing is left to do"
    } else {
        "it goes on by itself; cancel it if it is not wanted any more"
    };
    Error::new(Kind::Conflict, "deployments.abandon", "only a deployment that is stuck can be abandoned")
        .code("state")
        .hint(hint)
}
