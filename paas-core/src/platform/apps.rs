//! The apps of one org.

use futures::stream::BoxStream;
use jiff::Timestamp;

use super::accept::{Parts, Request, no_such_app};
use super::repeat::{IdempotencyRecord, Repeatable};
use super::views::FIRST_VERSION;
use super::{AppRef, AppView, Created, DeployOptions, DeploymentHandle, NameCheck, NewApp, Platform};
use crate::domain::{
    App, AppId, AppName, AppState, AppStatus, Config, Deployment, DeploymentId, DesiredState, Host,
    IdempotencyKey, OperationKind, OrgId, Release, ReleaseNumber, Source,
};
use crate::error::{Error, Kind, Result};
use crate::pipeline::{Event, Recorded, shown_state};
use crate::records::{self, PageOptions, Versioned};
use crate::store::{Cursor, Expect, IndexRange, Page, Position, Scope, StreamId};

/// The apps of one org.
#[derive(Clone, Debug)]
pub struct Apps {
    platform: Platform,
    org: OrgId,
    expected: Option<u64>,
    repeatable: Option<Repeatable>,
}

impl Apps {
    pub(super) fn new(platform: Platform, org: OrgId) -> Self {
        Self { platform, org, expected: None, repeatable: None }
    }

    /// The org.
    #[must_use]
    pub fn org(&self) -> &OrgId {
        &self.org
    }

    /// The same apps for operations (deployments, restarts, rollbacks, stops, starts and deletions) that are accepted only
    /// while the app still has this version: later they are a `Conflict` with the code `version`.
    #[must_use]
    pub fn expecting(self, version: u64) -> Self {
        Self { expected: Some(version), ..self }
    }

    /// The same apps for one request that may have to be repeated because its answer was lost: a creation, or an operation as
    /// of [`expecting`](Self::expecting). Within 24 hours the same key has one effect: whoever repeats the request gets
    /// what it made, as that is by then. `asked` says what the request is, in any words: another one with the same key is
    /// `Invalid` with the code `idempotency_key_reused`.
    #[must_use]
    pub fn repeatable(self, key: IdempotencyKey, asked: &[&str]) -> Self {
        Self { repeatable: Some(Repeatable::new(key, asked)), ..self }
    }

    pub(super) fn scope(&self) -> Scope {
        Scope::Org(self.org.clone())
    }

    pub(super) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Makes an app, and unless it says otherwise deploys it: both in one commit.
    ///
    /// # Errors
    /// `Invalid` for a value that breaks a rule, `PermissionDenied` for a repository on a private address,
    /// `AlreadyExists` with the code `name_taken` when somebody has the name.
    pub async fn create(&self, new: NewApp) -> Result<Created> {
        new.validate()?;
        if let Some(before) = self.platform.done_before(&self.org, self.repeatable.as_ref()).await? {
            return self.created_before(&before).await;
        }
        let services = self.platform.services();
        services.settings.egress.check_url(&new.repository)?;
        Host::of_app(&new.name, &services.settings.domain)?;
        let now = services.clock.now();
        let id = AppId::generate(services.ids.as_ref());
        let (env, env_names) = services.seal_env(&id, &new.env)?;
        let token = new.token.as_ref().map(|token| services.seal_token(&id, token)).transpose()?;
        let app = App {
            id: id.clone(),
            org: self.org.clone(),
            name: new.name.clone(),
            source: Source {
                repository: new.repository,
                branch: new.branch,
                commit: new.commit,
                root_directory: new.root_directory,
                token,
            },
            config: Config {
                port: new.port,
                env,
                env_names,
                visibility: new.visibility,
                resources: new.resources,
                health_check: new.health_check,
            },
            desired: DesiredState::Running,
            created_at: now,
            updated_at: now,
        };
        let mut status = pending(&app);
        let mut parts = Parts::default();
        parts.writes.push(records::put(&app, Expect::Absent)?);
        let event = Event::AppCreated { name: app.name.clone() };
        parts.appends.push(records::append(self.scope(), StreamId::from(&id), 0, now, &[event])?);
        let request = Request::of(OperationKind::Deploy);
        let deployment =
            new.deploy.then(|| self.platform.enqueue(&app, &mut status, &request, &mut parts)).transpose()?;
        parts.writes.push(records::put(&status, Expect::Absent)?);
        let made = deployment.as_ref().map(|deployment| &deployment.id);
        parts.writes.extend(self.platform.remember(&self.org, self.repeatable.as_ref(), &id, made)?);
        if let Err(error) = self.platform.commit(parts).await {
            // The same request may have come twice at once: the other one has the name.
            if let Kind::AlreadyExists | Kind::Conflict = error.kind()
                && let Some(before) = self.platform.done_before(&self.org, self.repeatable.as_ref()).await?
            {
                return self.created_before(&before).await;
            }
            return Err(match error.kind() {
                Kind::AlreadyExists => {
                    Error::new(Kind::AlreadyExists, "apps.create", format!("the name {} is taken", new.name))
                        .code("name_taken")
                        .hint("choose another name")
                }
                _ => error,
            });
        }
        let handle = deployment.as_ref().map(|deployment| self.handle(deployment.id.clone()));
        Ok(Created { app, version: FIRST_VERSION, deployment: handle, status, active: deployment })
    }

    /// What a repeated request made, as it is by now.
    async fn created_before(&self, before: &IdempotencyRecord) -> Result<Created> {
        let Versioned { version, value: app } = self.find(AppRef::Id(before.app.clone())).await?;
        let status: Option<Versioned<AppStatus>> =
            self.platform.records().get(&self.scope(), app.id.as_str()).await?;
        let status = status.ok_or_else(no_such_app)?.value;
        let deployment = before.deployment.as_ref().map(|id| self.handle(id.clone()));
        let active = match &deployment {
            Some(handle) => Some(handle.get().await?),
            None => None,
        };
        Ok(Created { app, version, deployment, status, active })
    }

    /// Whether a name can be had now; only creating an app makes sure of it.
    ///
    /// # Errors
    /// The store's. A name that breaks a rule is an answer, not an error.
    pub async fn check_name(&self, name: &str) -> Result<NameCheck> {
        let name: AppName = match name.parse() {
            Ok(name) => name,
            Err(error) => {
                let reason =
                    error.hinted().map_or_else(|| error.to_string(), |hint| format!("{error}: {hint}"));
                return Ok(NameCheck { is_available: false, reason: Some(reason), suggestions: Vec::new() });
            }
        };
        if !self.is_taken(&name).await? {
            return Ok(NameCheck { is_available: true, reason: None, suggestions: Vec::new() });
        }
        let mut suggestions = Vec::new();
        for number in 2..=4 {
            // A long name leaves no room for a suffix: then there is no suggestion.
            if let Ok(candidate) = format!("{name}-{number}").parse::<AppName>()
                && !self.is_taken(&candidate).await?
            {
                suggestions.push(candidate);
            }
        }
        Ok(NameCheck { is_available: false, reason: Some("the name is taken".to_owned()), suggestions })
    }

    /// That a name is taken is the one thing that shows across orgs.
    async fn is_taken(&self, name: &AppName) -> Result<bool> {
        let found: Option<Versioned<App>> =
            self.platform.records().find(&Scope::System, "name", name.as_str()).await?;
        Ok(found.is_some())
    }

    /// An app with what is happening to it.
    ///
    /// # Errors
    /// `NotFound` when there is none, and the same for another org's.
    pub async fn get(&self, app: impl Into<AppRef> + Send) -> Result<AppView> {
        let app = self.find(app.into()).await?;
        self.view(app).await
    }

    /// The org's apps, oldest first.
    ///
    /// # Errors
    /// `Invalid` with the code `cursor` for a cursor that is not from this list; the store's.
    pub async fn list(&self, limit: usize, cursor: Option<Cursor>) -> Result<Page<AppView>> {
        check_cursor(cursor.as_ref(), |cursor| {
            cursor.value == cursor.id && cursor.id.parse::<AppId>().is_ok()
        })?;
        let options = PageOptions { descending: false, limit, cursor };
        let page: Page<Versioned<App>> =
            self.platform.records().scan(&self.scope(), "id", IndexRange::all(), options).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for app in page.items {
            match self.view(app).await {
                Ok(view) => items.push(view),
                // It was deleted since the page was read.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Page { items, next: page.next })
    }

    async fn view(&self, app: Versioned<App>) -> Result<AppView> {
        let records = self.platform.records();
        let status: Option<Versioned<AppStatus>> = records.get(&self.scope(), app.value.id.as_str()).await?;
        let status = status.ok_or_else(no_such_app)?.value;
        let active = match status.next_operation() {
            Some(id) => match self.handle(id.clone()).get().await {
                // It is over, and forgotten, since the status was read.
                Err(error) if error.kind() == Kind::NotFound => None,
                active => Some(active?),
            },
            None => None,
        };
        let state = shown_state(&status, active.as_ref());
        Ok(AppView { app: app.value, version: app.version, status, state, active })
    }

    pub(super) async fn find(&self, app: AppRef) -> Result<Versioned<App>> {
        let records = self.platform.records();
        let found = match app {
            AppRef::Id(id) => records.get(&self.scope(), id.as_str()).await?,
            AppRef::Name(name) => records.find(&self.scope(), "name", name.as_str()).await?,
            AppRef::Unknown => None,
        };
        found.ok_or_else(no_such_app)
    }

    /// The id that an app is meant by. An id is not looked up: whether there is such an app shows when it is used.
    ///
    /// # Errors
    /// `NotFound` for a name that no app of the org has.
    pub async fn id_of(&self, app: impl Into<AppRef> + Send) -> Result<AppId> {
        match app.into() {
            AppRef::Id(id) => Ok(id),
            other => Ok(self.find(other).await?.value.id),
        }
    }

    /// Deletes an app with everything it has. Deleting what is being deleted answers the same operation.
    ///
    /// # Errors
    /// `NotFound`; the store's.
    pub async fn delete(&self, app: impl Into<AppRef> + Send) -> Result<DeploymentHandle> {
        self.operate(app.into(), Request::of(OperationKind::Delete)).await
    }

    /// Deploys an app: the newest commit of its branch, or the commit it is pinned to. An earlier deployment that
    /// is not live yet is superseded.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` while it is being deleted; `RateLimited` when too many wait.
    pub async fn deploy(
        &self,
        app: impl Into<AppRef> + Send,
        options: DeployOptions,
    ) -> Result<DeploymentHandle> {
        let request = Request { no_cache: options.no_cache, ..Request::of(OperationKind::Deploy) };
        self.operate(app.into(), request).await
    }

    /// Replaces the running instance by a fresh one of the same release.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` unless it runs.
    pub async fn restart(&self, app: impl Into<AppRef> + Send) -> Result<DeploymentHandle> {
        self.operate(app.into(), Request::of(OperationKind::Restart)).await
    }

    /// Stops an app. It keeps its name, releases and logs.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` if it is stopped already.
    pub async fn stop(&self, app: impl Into<AppRef> + Send) -> Result<DeploymentHandle> {
        self.operate(app.into(), Request::of(OperationKind::Stop)).await
    }

    /// Starts a stopped app.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` unless it is stopped.
    pub async fn start(&self, app: impl Into<AppRef> + Send) -> Result<DeploymentHandle> {
        self.operate(app.into(), Request::of(OperationKind::Start)).await
    }

    /// Runs an old release again: its code and its configuration, as a new release.
    ///
    /// # Errors
    /// `NotFound`, with the code `image_gone` when the release exists but its image does not.
    pub async fn rollback(
        &self,
        app: impl Into<AppRef> + Send,
        release: ReleaseNumber,
    ) -> Result<DeploymentHandle> {
        let request = Request { release: Some(release), ..Request::of(OperationKind::Rollback) };
        self.operate(app.into(), request).await
    }

    async fn operate(&self, app: AppRef, request: Request) -> Result<DeploymentHandle> {
        let id = self.id_of(app).await?;
        let request = Request { expected: self.expected, repeatable: self.repeatable.clone(), ..request };
        let deployment = self.platform.accept(&self.org, &id, request).await?;
        Ok(self.handle(deployment.id))
    }

    /// An app's releases, newest first.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` with the code `cursor` for a cursor that is not from this list; the store's.
    pub async fn releases(
        &self,
        app: impl Into<AppRef> + Send,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<Release>> {
        self.of_app(app.into(), limit, cursor).await
    }

    /// An app's operations, newest first.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` with the code `cursor` for a cursor that is not from this list; the store's.
    pub async fn deployments(
        &self,
        app: impl Into<AppRef> + Send,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<Deployment>> {
        self.of_app(app.into(), limit, cursor).await
    }

    async fn of_app<T: records::Document>(
        &self,
        app: AppRef,
        limit: usize,
        cursor: Option<Cursor>,
    ) -> Result<Page<T>> {
        let app = self.find(app).await?.value;
        let prefix = format!("{}/", app.id);
        check_cursor(cursor.as_ref(), |cursor| {
            cursor.value.starts_with(&prefix) && cursor.value.ends_with(&cursor.id)
        })?;
        let range = IndexRange::starting_with(prefix);
        let options = PageOptions { descending: true, limit, cursor };
        let page: Page<Versioned<T>> =
            self.platform.records().scan(&self.scope(), "app", range, options).await?;
        Ok(Page { items: page.items.into_iter().map(|item| item.value).collect(), next: page.next })
    }

    /// An operation.
    ///
    /// # Errors
    /// `NotFound` when there is none, and the same for another org's.
    pub async fn deployment(&self, id: &DeploymentId) -> Result<DeploymentHandle> {
        let handle = self.handle(id.clone());
        handle.get().await?;
        Ok(handle)
    }

    /// A handle to an operation that was read already: nothing is looked up.
    #[must_use]
    pub fn handle_to(&self, deployment: &Deployment) -> DeploymentHandle {
        self.handle(deployment.id.clone())
    }

    pub(super) fn handle(&self, id: DeploymentId) -> DeploymentHandle {
        DeploymentHandle::new(self.clone(), id)
    }

    /// The platform's time, which relative queries are relative to.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.platform.services().clock.now()
    }

    /// Every event of the org's streams after a position, and those to come. See [`Platform::events`].
    pub fn events(&self, after: Position) -> BoxStream<'static, Result<Recorded>> {
        self.platform.feed(self.scope(), after)
    }
}

fn pending(app: &App) -> AppStatus {
    AppStatus {
        id: app.id.clone(),
        org: app.org.clone(),
        state: AppState::Pending,
        active: None,
        queue: Vec::new(),
        live: None,
        instance: None,
        route: crate::domain::Generation::default(),
        url: None,
        last_release: ReleaseNumber(0),
        crashes: None,
        revival: None,
        conditions: Vec::new(),
    }
}

/// Cursors come back from outside: one that this list can't have given is refused.
fn check_cursor(cursor: Option<&Cursor>, is_ours: impl FnOnce(&Cursor) -> bool) -> Result<()> {
    if cursor.is_none_or(is_ours) {
        return Ok(());
    }
    Err(Error::invalid("apps.list", "the cursor is not from this list")
        .code("cursor")
        .hint("take it from the page before, or begin without one"))
}
