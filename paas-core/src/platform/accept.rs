//! Accepts operations: one commit makes the operation durable and decides what becomes of earlier ones.

use super::Platform;
use super::repeat::{IdempotencyRecord, Repeatable};
use crate::domain::{
    App, AppId, AppState, AppStatus, Config, Deployment, DeploymentId, DeploymentSpec, DesiredState,
    OperationKind, OrgId, Release, ReleaseNumber, Step,
};
use crate::engine::{Acceptance, due_now, tally};
use crate::error::{Error, Kind, Result};
use crate::pipeline::{CancelReason, Event, Outcome, Phase, Recorded, State, project};
use crate::records::{self, Versioned, release_id};
use crate::runtime::Selector;
use crate::store::{Append, Batch, Expect, LeaseChange, Position, Scope, StreamId, Write};

/// How often a commit is built anew after somebody else changed the same app.
pub(super) const TRIES: usize = 50;

/// The code of the error for a release whose image is gone.
pub(super) const IMAGE_GONE: &str = "image_gone";

/// What is asked for.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub kind: OperationKind,
    /// For a rollback.
    pub release: Option<ReleaseNumber>,
    pub no_cache: bool,
    /// The app's record with the changes that go with the operation, as they were made from this version.
    pub changed: Option<Versioned<App>>,
    /// What the app's own stream gets in the same commit.
    pub event: Option<Event>,
    /// The version that the app must have.
    pub expected: Option<u64>,
    /// By what it is known when it comes again.
    pub repeatable: Option<Repeatable>,
}

impl Request {
    pub(super) fn of(kind: OperationKind) -> Self {
        Self {
            kind,
            release: None,
            no_cache: false,
            changed: None,
            event: None,
            expected: None,
            repeatable: None,
        }
    }
}

impl Platform {
    /// Accepts an operation on an app.
    pub(super) async fn accept(&self, org: &OrgId, app: &AppId, request: Request) -> Result<Deployment> {
        let scope = Scope::Org(org.clone());
        for _ in 0..TRIES {
            if let Some(before) = self.done_before(org, request.repeatable.as_ref()).await? {
                return self.operation_of(&scope, &before).await;
            }
            // In this order: a change of the app in between changes the version of the status, too.
            let status: Option<Versioned<AppStatus>> = self.records().get(&scope, app.as_str()).await?;
            let status = status.ok_or_else(no_such_app)?;
            let app = self.app_record(&scope, app.as_str()).await?;
            match self.try_accept(&scope, app, status, &request).await {
                Err(error) if error.kind() == Kind::Conflict && error.reason().is_none() => {}
                result => return result,
            }
        }
        Err(too_many_at_once())
    }

    pub(super) async fn app_record(&self, scope: &Scope, id: &str) -> Result<Versioned<App>> {
        self.records().get(scope, id).await?.ok_or_else(no_such_app)
    }

    async fn try_accept(
        &self,
        scope: &Scope,
        app: Versioned<App>,
        status: Versioned<AppStatus>,
        request: &Request,
    ) -> Result<Deployment> {
        if request.expected.is_some_and(|expected| expected != app.version) {
            return Err(changed_meanwhile());
        }
        if let Some(running) = self.deletion(scope, &status.value).await? {
            return match request.kind {
                OperationKind::Delete => Ok(running),
                _ => Err(being_deleted()),
            };
        }
        check(request.kind, &app.value, &status.value)?;
        let (base, mut value) = match &request.changed {
            Some(changed) if changed.version != app.version => return Err(changed_meanwhile()),
            Some(changed) => (app.value, changed.value.clone()),
            None => (app.value.clone(), app.value),
        };
        value.desired = request.kind.desired().unwrap_or(value.desired);
        if let Some(number) = request.release {
            value.config = self.release_config(scope, &value, number).await?;
        }
        let mut parts = Parts::default();
        if value != base {
            value.updated_at = self.services().clock.now();
            parts.writes.push(records::update(&value, Expect::Version(app.version))?);
        }
        if let Some(event) = &request.event {
            parts.appends.push(self.app_event(scope, &value.id, event).await?);
        }
        let Versioned { version, value: mut status } = status;
        let deployment = self.enqueue(&value, &mut status, request, &mut parts)?;
        self.supersede(scope, &mut status, &deployment, &mut parts).await?;
        if status.queue.len() > self.services().settings.queue_limit {
            return Err(Error::new(
                Kind::RateLimited,
                "platform.accept",
                "too many operations of this app are waiting",
            )
            .fault(crate::error::Fault::User)
            .hint("wait until some of them are done, or cancel them"));
        }
        parts.writes.push(records::update(&status, Expect::Version(version))?);
        let repeatable = request.repeatable.as_ref();
        parts.writes.extend(self.remember(&value.org, repeatable, &value.id, Some(&deployment.id))?);
        self.commit(parts).await?;
        Ok(deployment)
    }

    /// The operation that a repeated request was accepted as.
    async fn operation_of(&self, scope: &Scope, before: &IdempotencyRecord) -> Result<Deployment> {
        let gone = || Error::not_found("platform.repeat", "what this request made before is gone");
        let id = before.deployment.as_ref().ok_or_else(gone)?;
        let deployment: Option<Versioned<Deployment>> = self.records().get(scope, id.as_str()).await?;
        deployment.map(|deployment| deployment.value).ok_or_else(gone)
    }

    /// Commits; the error of a lost race has no code.
    pub(super) async fn commit(&self, parts: Parts) -> Result<()> {
        let Parts { writes, appends, leases, ended } = parts;
        let services = self.services();
        services.store.commit(Batch { writes, appends, leases, ..Batch::default() }).await?;
        for (kind, event) in &ended {
            tally::operation(&services.metrics, *kind, event);
        }
        Ok(())
    }

    /// Puts a new operation behind the others.
    pub(super) fn enqueue(
        &self,
        app: &App,
        status: &mut AppStatus,
        request: &Request,
        parts: &mut Parts,
    ) -> Result<Deployment> {
        let services = self.services();
        let now = services.clock.now();
        let id = DeploymentId::generate(services.ids.as_ref());
        let scope = Scope::Org(app.org.clone());
        let spec = DeploymentSpec {
            id: id.clone(),
            org: app.org.clone(),
            app: app.id.clone(),
            kind: request.kind,
            source: app.source.clone(),
            config: app.config.clone(),
            from_release: request.release,
            no_cache: request.no_cache,
        };
        let Acceptance { deployment, writes, append } = Acceptance::of(services, &spec, now)?;
        parts.writes.extend(writes);
        parts.appends.push(append);
        // What is under way takes it along, and keeps its place in the queue for a build slot meanwhile.
        if status.active.is_none() {
            parts.leases.push(due_now(&app.id, scope));
        }
        status.queue.push(id);
        Ok(deployment)
    }

    /// Ends what waits and is pointless now, and asks what is under way to stop if it still can.
    async fn supersede(
        &self,
        scope: &Scope,
        status: &mut AppStatus,
        newer: &Deployment,
        parts: &mut Parts,
    ) -> Result<()> {
        let reason = CancelReason::Superseded { by: newer.id.clone() };
        let earlier: Vec<_> = status.queue.iter().filter(|id| **id != newer.id).cloned().collect();
        for id in earlier {
            let Some(old) = self.records().get::<Deployment>(scope, id.as_str()).await? else { continue };
            // Nobody can end for certain what nobody here understands: it keeps its turn.
            let is_open = !self.replay(scope, &id).await?.is_committed();
            if is_open && newer.kind.supersedes(old.value.kind) {
                self.end_queued(scope, status, old, &reason, parts).await?;
            }
        }
        let Some(active) = status.active.clone() else { return Ok(()) };
        let Some(old) = self.records().get::<Deployment>(scope, active.as_str()).await? else {
            return Ok(());
        };
        if !newer.kind.supersedes(old.value.kind) {
            return Ok(());
        }
        let state = self.replay(scope, &active).await?;
        let is_routing = matches!(state.phase, Phase::Running { step: Step::Route, .. });
        if !state.is_committed() && !is_routing && state.cancel.is_none() {
            let events = [Event::CancelRequested { reason }];
            let now = self.services().clock.now();
            let stream = StreamId::from(&active);
            parts.appends.push(records::append(scope.clone(), stream, state.version, now, &events)?);
            parts.leases.push(due_now(&newer.app, scope.clone()));
        }
        Ok(())
    }

    /// Ends an operation that no worker has touched.
    pub(super) async fn end_queued(
        &self,
        scope: &Scope,
        status: &mut AppStatus,
        deployment: Versioned<Deployment>,
        reason: &CancelReason,
        parts: &mut Parts,
    ) -> Result<()> {
        let Versioned { version, value: mut deployment } = deployment;
        let outcome = match reason {
            CancelReason::Requested => Outcome::Cancelled,
            CancelReason::Superseded { by } => Outcome::Superseded { by: by.clone() },
        };
        let ended = Event::Ended { outcome };
        let events = [Event::CancelRequested { reason: reason.clone() }, ended.clone()];
        let now = self.services().clock.now();
        let stream = StreamId::from(&deployment.id);
        let mut state = self.replay(scope, &deployment.id).await?;
        let before = state.version;
        for event in &events {
            let recorded = Recorded {
                stream: stream.clone(),
                version: state.version + 1,
                position: Position::default(),
                at: now,
                event: event.clone(),
            };
            // A worker has begun it since the status was read: the caller looks again.
            state = state.apply(&recorded).map_err(|error| {
                Error::new(Kind::Conflict, "platform.end_queued", "the operation has begun meanwhile")
                    .source(error)
            })?;
            project(&state, &recorded, &mut deployment, status);
        }
        parts.appends.push(records::append(scope.clone(), stream, before, now, &events)?);
        parts.writes.push(records::update(&deployment, Expect::Version(version))?);
        parts.ended.push((deployment.kind, ended));
        Ok(())
    }

    pub(super) async fn replay(&self, scope: &Scope, id: &DeploymentId) -> Result<State> {
        let events = self.records().events(scope, &StreamId::from(id), 0).await?;
        Ok(State::replay(&events))
    }

    /// The append of an event to an app's own stream.
    pub(super) async fn app_event(&self, scope: &Scope, app: &AppId, event: &Event) -> Result<Append> {
        let stream = StreamId::from(app);
        let version = self.records().count_events(scope, &stream).await?;
        records::append(
            scope.clone(),
            stream,
            version,
            self.services().clock.now(),
            std::slice::from_ref(event),
        )
    }

    /// The deletion that is under way, if one is.
    pub(super) async fn deletion(&self, scope: &Scope, status: &AppStatus) -> Result<Option<Deployment>> {
        for id in status.active.iter().chain(&status.queue) {
            let deployment: Option<Versioned<Deployment>> = self.records().get(scope, id.as_str()).await?;
            if let Some(deployment) = deployment.filter(|found| found.value.kind == OperationKind::Delete) {
                return Ok(Some(deployment.value));
            }
        }
        Ok(None)
    }

    /// The configuration of a release that can be run again.
    async fn release_config(&self, scope: &Scope, app: &App, number: ReleaseNumber) -> Result<Config> {
        let release: Option<Versioned<Release>> =
            self.records().get(scope, &release_id(&app.id, number)).await?;
        let release = release
            .ok_or_else(|| Error::not_found("platform.rollback", format!("there is no release {number}")))?;
        let context = self.services().context().with_budget(std::time::Duration::from_secs(10));
        let images = self.services().builder.list(&context, &Selector::of_app(&app.org, &app.id)).await?;
        if !images.iter().any(|image| image.digest == release.value.image.digest) {
            return Err(Error::new(
                Kind::NotFound,
                "platform.rollback",
                format!("the image of {number} is gone"),
            )
            .code(IMAGE_GONE)
            .hint("deploy its commit again"));
        }
        Ok(release.value.config)
    }
}

/// The parts of a commit.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub writes: Vec<Write>,
    pub appends: Vec<Append>,
    pub leases: Vec<LeaseChange>,
    /// The operations that it ends.
    pub ended: Vec<(OperationKind, Event)>,
}

pub(super) fn too_many_at_once() -> Error {
    Error::new(Kind::Unavailable, "platform.accept", "the app is being changed by too many at once")
}

/// The same for an app that does not exist and for another org's.
pub(super) fn no_such_app() -> Error {
    Error::not_found("apps.get", "there is no such app")
}

pub(super) fn changed_meanwhile() -> Error {
    Error::new(Kind::Conflict, "apps.update", "the app was changed meanwhile")
        .code("version")
        .hint("read it again and repeat the change")
}

fn refused(message: &str, hint: &str) -> Error {
    Error::new(Kind::Conflict, "platform.accept", message).code("state").hint(hint)
}

pub(super) fn being_deleted() -> Error {
    refused("the app is being deleted", "wait until its name is free again")
}

/// Checks whether the app's state allows the operation.
fn check(kind: OperationKind, app: &App, status: &AppStatus) -> Result<()> {
    let is_idle = status.active.is_none() && status.queue.is_empty();
    let is_stopped = app.desired == DesiredState::Stopped;
    match kind {
        OperationKind::Restart if is_stopped => Err(refused("the app is stopped", "start it instead")),
        OperationKind::Restart | OperationKind::Start if status.live.is_none() => {
            Err(refused("the app has no release yet", "deploy it first"))
        }
        OperationKind::Start if !is_stopped => {
            Err(refused("the app is running already", "restart it instead"))
        }
        OperationKind::Stop if is_stopped && status.state == AppState::Stopped => {
            Err(refused("the app is stopped already", "nothing is left to do"))
        }
        OperationKind::Stop if status.live.is_none() && is_idle => {
            Err(refused("the app does not run", "nothing is left to do"))
        }
        _ => Ok(()),
    }
}
