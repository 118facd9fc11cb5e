//! The journal of one operation, with the records that show it.

use std::sync::Arc;

use jiff::SignedDuration;

use crate::domain::{AppId, AppStatus, Deployment, DeploymentId, DeploymentSpec};
use crate::engine::{services::Services, take_back, tally};
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Event, Outcome, Phase, Recorded, State, project};
use crate::records::{self, Records, Versioned};
use crate::store::{Append, Batch, Expect, Lease, LeaseChange, Position, Scope, StreamId, Write};

/// How often a commit is built anew after somebody else changed the same records.
const TRIES: usize = 20;

/// The journal of one operation, replayed, with the records that show it.
#[derive(Debug)]
pub(crate) struct Journal {
    services: Arc<Services>,
    lease: Lease,
    scope: Scope,
    stream: StreamId,
    /// What was asked.
    pub spec: DeploymentSpec,
    /// The fold of the events so far.
    pub state: State,
    deployment: Versioned<Deployment>,
    status: Versioned<AppStatus>,
}

/// How long the deletion of an app can be looked up.
const DELETED_KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What a commit holds besides the events.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// Further records.
    pub writes: Vec<Write>,
    /// Events of other streams.
    pub appends: Vec<Append>,
    /// Gives the lease back in the same commit.
    pub release: Option<LeaseChange>,
    /// The app's records are among the writes, to be removed: only the operation's own stays, for a while.
    pub removes_app: bool,
}

impl Journal {
    /// Reads a journal; `None` if there is no such operation any more.
    pub(crate) async fn load(
        services: Arc<Services>,
        lease: Lease,
        app: &AppId,
        id: &DeploymentId,
    ) -> Result<Option<Self>> {
        let (records, scope) = (services.records(), lease.scope.clone());
        let Some(deployment) = records.get::<Deployment>(&scope, id.as_str()).await? else { return Ok(None) };
        let Some(status) = records.get::<AppStatus>(&scope, app.as_str()).await? else { return Ok(None) };
        let Some(spec) = records.get::<DeploymentSpec>(&scope, id.as_str()).await? else { return Ok(None) };
        let stream = StreamId::from(id);
        let events = records.events(&scope, &stream, 0).await?;
        let state = State::replay(&events);
        Ok(Some(Self { services, lease, scope, stream, spec: spec.value, state, deployment, status }))
    }

    /// The app's status as of the last read or commit.
    pub(crate) fn status(&self) -> &AppStatus {
        &self.status.value
    }

    pub(crate) fn set_lease(&mut self, lease: Lease) {
        self.lease = lease;
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    fn records(&self) -> Records {
        self.services.records()
    }

    /// Folds what others appended since.
    pub(crate) async fn refresh(&mut self) -> Result<()> {
        let events = self.records().events(&self.scope, &self.stream, self.state.version).await?;
        for event in &events {
            self.state.read(event);
        }
        Ok(())
    }

    /// Appends the events that `make` answers for the present state, and brings the records up to them, in one
    /// commit fenced by the lease. When somebody else was faster, everything is read and made anew.
    ///
    /// # Errors
    /// `Conflict` with the code `fenced` when the lease is lost, and without one when somebody gave the operation up
    /// meanwhile, or wrote what this version can't read; the store's.
    pub(crate) async fn commit(
        &mut self,
        make: impl Fn(&State, &AppStatus) -> Result<(Vec<Event>, Extra)>,
    ) -> Result<()> {
        let was_abandoned = self.state.abandoned.is_some();
        for _ in 0..TRIES {
            let (events, extra) = make(&self.state, &self.status.value)?;
            match self.try_commit(events, extra).await {
                Err(error) if error.kind() == Kind::Conflict && error.reason() != Some(FENCED) => {
                    self.reload().await?;
                    if self.state.is_stuck() || self.state.abandoned.is_some() != was_abandoned {
                        return Err(error);
                    }
                }
                result => return result,
            }
        }
        Err(Error::new(Kind::Unavailable, "journal.commit", "the app is being changed by too many at once"))
    }

    async fn try_commit(&mut self, events: Vec<Event>, extra: Extra) -> Result<()> {
        let at = self.services.clock.now();
        let (mut state, mut deployment, mut status) =
            (self.state.clone(), self.deployment.value.clone(), self.status.value.clone());
        let mut is_status_changed = false;
        let mut recorded = self.at_positions(&events, at, Position(0));
        for event in &recorded {
            state = state.apply(event).map_err(illegal)?;
            is_status_changed |= project(&state, event, &mut deployment, &mut status);
        }
        let mut batch = Batch {
            fence: Some(self.lease.clone()),
            writes: extra.writes,
            leases: extra.release.into_iter().collect(),
            ..Batch::default()
        };
        if !events.is_empty() {
            batch.appends.push(records::append(
                self.scope.clone(),
                self.stream.clone(),
                self.state.version,
                at,
                &events,
            )?);
        }
        batch.appends.extend(extra.appends);
        let is_undone = |outcome: &Outcome| *outcome != Outcome::Succeeded;
        if matches!(&state.phase, Phase::Ended { outcome } if is_undone(outcome)) {
            batch.writes.extend(take_back(&self.records(), &self.scope, &self.spec, &status).await?);
        }
        let base = batch.writes.len();
        let is_deployment_changed = deployment != self.deployment.value;
        if is_deployment_changed {
            let expect = Expect::Version(self.deployment.version);
            batch.writes.push(match extra.removes_app {
                true => records::put_expiring(&deployment, expect, at + DELETED_KEPT)?,
                false => records::update(&deployment, expect)?,
            });
        }
        if is_status_changed && !extra.removes_app {
            batch.writes.push(records::update(&status, Expect::Version(self.status.version))?);
        }
        let committed = self.services.store.commit(batch).await?;
        for event in &events {
            tally::operation(&self.services.metrics, self.spec.kind, event);
        }
        // The generation of a route is the position of its event: only now is it known.
        if let Some(first) = committed.positions.first().filter(|_| !events.is_empty()) {
            recorded = self.at_positions(&events, at, *first);
            for event in &recorded {
                self.state = std::mem::take(&mut self.state).apply(event).map_err(illegal)?;
            }
        }
        let mut versions = committed.versions.into_iter().skip(base);
        if is_deployment_changed {
            self.deployment.value = deployment;
            self.deployment.version = versions.next().unwrap_or(self.deployment.version + 1);
        }
        if is_status_changed && !extra.removes_app {
            self.status.value = status;
            self.status.version = versions.next().unwrap_or(self.status.version + 1);
        }
        Ok(())
    }

    fn at_positions(&self, events: &[Event], at: jiff::Timestamp, first: Position) -> Vec<Recorded> {
        let place = |(offset, event): (u64, &Event)| Recorded {
            stream: self.stream.clone(),
            version: self.state.version + 1 + offset,
            position: Position(first.0 + offset),
            at,
            event: event.clone(),
        };
        (0..).zip(events).map(place).collect()
    }

    /// Reads everything anew.
    ///
    /// # Errors
    /// `Conflict` with the code `fenced` when the app was deleted; the store's.
    pub(crate) async fn reload(&mut self) -> Result<()> {
        self.refresh().await?;
        let gone = || Error::new(Kind::Conflict, "journal.reload", "the app was deleted").code(FENCED);
        let id = self.deployment.value.id.clone();
        self.deployment = self.records().get(&self.scope, id.as_str()).await?.ok_or_else(gone)?;
        self.status =
            self.records().get(&self.scope, self.status.value.id.as_str()).await?.ok_or_else(gone)?;
        Ok(())
    }
}

/// The code of the error of a worker that lost its lease.
pub(crate) const FENCED: &str = "fenced";

fn illegal(error: crate::pipeline::IllegalEvent) -> Error {
    Error::internal("journal.commit", error)
}
