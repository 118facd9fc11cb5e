//! Changing an app, and what follows of it.

use super::accept::{Parts, Request, TRIES, being_deleted, changed_meanwhile, no_such_app, too_many_at_once};
use super::{AppChanges, AppRef, Apps, ChangeEffects, Updated};
use crate::domain::{App, AppState, AppStatus, DesiredState, Env, OperationKind};
use crate::error::{Error, Kind, Result};
use crate::pipeline::Event;
use crate::records::{self, Versioned};
use crate::store::Expect;

impl Apps {
    /// Changes an app. What runs follows by itself: another source is deployed, another configuration restarts it.
    ///
    /// # Errors
    /// `Conflict` with the code `version` when `expected` is given and is not the app's version any more, and while it
    /// is being deleted;
    /// `Invalid` for a value that breaks a rule.
    pub async fn update(
        &self,
        app: impl Into<AppRef> + Send,
        changes: AppChanges,
        expected: Option<u64>,
    ) -> Result<Updated> {
        let reference = app.into();
        for _ in 0..TRIES {
            let before = self.find(reference.clone()).await?;
            if expected.is_some_and(|expected| expected != before.version) {
                return Err(changed_meanwhile());
            }
            match self.try_update(before, &changes).await {
                // Somebody else changed it meanwhile: the changes are merged into what they made of it.
                Err(error) if error.kind() == Kind::Conflict && is_race(&error) => {}
                result => return result,
            }
        }
        Err(too_many_at_once())
    }

    async fn try_update(&self, before: Versioned<App>, changes: &AppChanges) -> Result<Updated> {
        let after = self.apply(&before.value, changes)?;
        let fields = changed_fields(&before.value, &after);
        if fields.is_empty() {
            return Ok(Updated { app: before, deployment: None, effects: ChangeEffects::default() });
        }
        let status: Option<Versioned<AppStatus>> =
            self.platform().records().get(&self.scope(), before.value.id.as_str()).await?;
        let Versioned { version, value: status } = status.ok_or_else(no_such_app)?;
        if self.platform().deletion(&self.scope(), &status).await?.is_some() {
            return Err(being_deleted());
        }
        let is_busy = status.active.is_some() || !status.queue.is_empty();
        let was_deployed = status.state != AppState::Pending || is_busy;
        let runs = before.value.desired == DesiredState::Running;
        let is_other_config = before.value.config != after.config;
        let kind = if before.value.source != after.source && was_deployed && runs {
            Some(OperationKind::Deploy)
        } else if is_other_config && status.live.is_some() && runs {
            Some(OperationKind::Config)
        } else if is_other_config && is_busy && runs {
            // The first deployment began with the old configuration: the one that supersedes it has the new one.
            Some(OperationKind::Deploy)
        } else {
            None
        };
        let effects = ChangeEffects {
            redeploy: kind == Some(OperationKind::Deploy),
            restart: kind == Some(OperationKind::Config),
            dns: kind.is_some() && before.value.config.visibility != after.config.visibility,
        };
        let event = Event::AppChanged { fields };
        let changed = Versioned { version: before.version, value: after };
        let id = before.value.id.clone();
        let deployment = match kind {
            Some(kind) => {
                let request = Request { changed: Some(changed), event: Some(event), ..Request::of(kind) };
                Some(self.platform().accept(self.org(), &id, request).await?)
            }
            None => {
                let mut parts = Parts::default();
                let value = App { updated_at: self.platform().services().clock.now(), ..changed.value };
                parts.writes.push(records::update(&value, Expect::Version(changed.version))?);
                // An operation that is accepted meanwhile would run what was before: one of both is made anew.
                parts.writes.push(records::update(&status, Expect::Version(version))?);
                parts.appends.push(self.platform().app_event(&self.scope(), &id, &event).await?);
                self.platform().commit(parts).await?;
                None
            }
        };
        let app = self.find(AppRef::Id(id)).await?;
        Ok(Updated { app, deployment: deployment.map(|deployment| self.handle(deployment.id)), effects })
    }

    fn apply(&self, before: &App, changes: &AppChanges) -> Result<App> {
        let services = self.platform().services();
        let mut app = before.clone();
        if let Some(repository) = &changes.repository {
            services.settings.egress.check_url(repository)?;
            if *repository != app.source.repository {
                // A token is for one repository: it never travels to another one unasked.
                app.source.token = None;
            }
            app.source.repository = repository.clone();
        }
        let assign = |slot: &mut Option<_>, value: &Option<Option<_>>| {
            if let Some(value) = value {
                slot.clone_from(value);
            }
        };
        assign(&mut app.source.branch, &changes.branch);
        if let Some(commit) = &changes.commit {
            app.source.commit.clone_from(commit);
        }
        if let Some(root) = &changes.root_directory {
            app.source.root_directory = root.clone();
        }
        if let Some(token) = &changes.token {
            app.source.token = token.as_ref().map(|token| services.seal_token(&app.id, token)).transpose()?;
        }
        if let Some(port) = changes.port {
            app.config.port = port;
        }
        if !changes.env.is_empty() {
            let env = self.merged_env(&app, changes)?;
            if env != services.open_env(&app.id, &app.config)? {
                (app.config.env, app.config.env_names) = services.seal_env(&app.id, &env)?;
            }
        }
        app.config.visibility = changes.visibility.unwrap_or(app.config.visibility);
        app.config.resources = changes.resources.applied_to(app.config.resources);
        app.config.resources.validate()?;
        app.config.health_check = changes.health_check.applied_to(&app.config.health_check);
        app.config.health_check.validate()?;
        Ok(app)
    }

    fn merged_env(&self, app: &App, changes: &AppChanges) -> Result<Env> {
        let mut env = self.platform().services().open_env(&app.id, &app.config)?;
        for (name, value) in &changes.env {
            match value {
                Some(value) => env.set(name.clone(), value.clone())?,
                None => env.remove(name),
            }
        }
        Ok(env)
    }
}

/// True if somebody else changed the app between reading and writing it.
fn is_race(error: &Error) -> bool {
    error.reason().is_none_or(|reason| reason == "version")
}

fn changed_fields(before: &App, after: &App) -> Vec<String> {
    let (source, config) = ((&before.source, &after.source), (&before.config, &after.config));
    let fields = [
        ("repository", source.0.repository != source.1.repository),
        ("branch", source.0.branch != source.1.branch),
        ("commit", source.0.commit != source.1.commit),
        ("root_directory", source.0.root_directory != source.1.root_directory),
        ("token", source.0.token != source.1.token),
        ("port", config.0.port != config.1.port),
        ("env", config.0.env != config.1.env),
        ("visibility", config.0.visibility != config.1.visibility),
        ("resources", config.0.resources != config.1.resources),
        ("health_check", config.0.health_check != config.1.health_check),
    ];
    fields.into_iter().filter(|(_, is_changed)| *is_changed).map(|(name, _)| name.to_owned()).collect()
}
