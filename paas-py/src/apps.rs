//! The apps of a platform.

use paas_core::{
    AppChanges, AppRef, Apps as CoreApps, Cursor, DeployOptions, NewApp, Page, ReleaseNumber, Result,
};
use pyo3::prelude::*;

use crate::app::App;
use crate::arguments::{AppArgument, Change, Pairs, SecretText, port};
use crate::call::{awaitable, wait};
use crate::deployment::Deployment;
use crate::release::Release;
use crate::stream::Stream;

/// The apps of a platform. Where an app is wanted, an `App` will do as well as its name or id.
#[pyclass(frozen, module = "paas")]
pub(crate) struct Apps(CoreApps);

/// What can be asked of an app that exists.
enum Operation {
    Deploy { no_cache: bool },
    Restart,
    Stop,
    Start,
    Rollback(u64),
    Delete,
}

/// The options of `create`.
struct Wanted {
    name: String,
    repository: String,
    branch: Option<String>,
    root_directory: Option<String>,
    env: Pairs<SecretText>,
    port: Option<i64>,
    token: Option<SecretText>,
    deploy: bool,
}

/// The options of `update`.
struct Changes {
    repository: Option<String>,
    branch: Change<String>,
    env: Pairs<Option<SecretText>>,
    port: Change<i64>,
    token: Change<SecretText>,
}

impl Wanted {
    fn into_app(self) -> Result<NewApp> {
        let mut app = NewApp::new(&self.name, &self.repository)?;
        app.branch = self.branch.map(|branch| branch.parse()).transpose()?;
        app.root_directory = self.root_directory.unwrap_or_default().parse()?;
        app.env = self.env.into_env()?;
        app.port = self.port.map(port).transpose()?;
        app.token = self.token.map(|token| token.0);
        app.deploy = self.deploy;
        Ok(app)
    }
}

impl Changes {
    fn into_changes(self) -> Result<AppChanges> {
        let mut changes = AppChanges {
            repository: self.repository.map(|repository| repository.parse()).transpose()?,
            branch: self.branch.parsed(|branch| branch.parse())?,
            token: self.token.parsed(|token| Ok(token.0))?,
            port: self.port.parsed(port)?,
            ..AppChanges::default()
        };
        for (name, value) in self.env.0 {
            changes.env.insert(name.parse()?, value.map(|value| value.0));
        }
        Ok(changes)
    }
}

impl Apps {
    pub(crate) fn new(apps: CoreApps) -> Self {
        Self(apps)
    }

    /// A call that accepts an operation.
    fn operate(
        &self,
        app: AppArgument,
        operation: Operation,
    ) -> impl Future<Output = Result<Deployment>> + use<> {
        let (apps, app) = (self.0.clone(), app.0);
        async move {
            let handle = match operation {
                Operation::Deploy { no_cache } => apps.deploy(app, DeployOptions { no_cache }).await,
                Operation::Restart => apps.restart(app).await,
                Operation::Stop => apps.stop(app).await,
                Operation::Start => apps.start(app).await,
                Operation::Rollback(release) => apps.rollback(app, ReleaseNumber(release)).await,
                Operation::Delete => apps.delete(app).await,
            }?;
            Deployment::read(apps, handle).await
        }
    }

    fn make(&self, wanted: Wanted) -> impl Future<Output = Result<App>> + use<> {
        let apps = self.0.clone();
        async move {
            let created = apps.create(wanted.into_app()?).await?;
            App::of(apps, created.view(), None).await
        }
    }

    fn change(&self, app: AppArgument, changes: Changes) -> impl Future<Output = Result<App>> + use<> {
        let apps = self.0.clone();
        async move {
            let updated = apps.update(app.0, changes.into_changes()?, None).await?;
            let view = apps.get(&updated.app.value).await?;
            App::of(apps, view, updated.deployment).await
        }
    }

    fn find(&self, app: AppArgument) -> impl Future<Output = Result<App>> + use<> {
        let apps = self.0.clone();
        async move {
            let view = apps.get(app.0).await?;
            App::of(apps, view, None).await
        }
    }

    fn find_deployment(&self, id: String) -> impl Future<Output = Result<Deployment>> + use<> {
        let apps = self.0.clone();
        async move {
            let handle = apps.deployment(&id.parse()?).await?;
            Deployment::read(apps, handle).await
        }
    }
}

async fn page_of_apps(apps: CoreApps, limit: usize, cursor: Option<Cursor>) -> Result<Page<App>> {
    let page = apps.list(limit, cursor).await?;
    let mut items = Vec::with_capacity(page.items.len());
    for view in page.items {
        items.push(App::of(apps.clone(), view, None).await?);
    }
    Ok(Page { items, next: page.next })
}

async fn page_of_deployments(
    apps: CoreApps,
    app: AppRef,
    limit: usize,
    cursor: Option<Cursor>,
) -> Result<Page<Deployment>> {
    let page = apps.deployments(app, limit, cursor).await?;
    let of = |deployment| Deployment::of(apps.clone(), deployment);
    Ok(Page { items: page.items.into_iter().map(of).collect(), next: page.next })
}

async fn page_of_releases(
    apps: CoreApps,
    app: AppRef,
    limit: usize,
    cursor: Option<Cursor>,
) -> Result<Page<Release>> {
    let page = apps.releases(app, limit, cursor).await?;
    Ok(Page { items: page.items.into_iter().map(Release).collect(), next: page.next })
}

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments
impl Apps {
    /// Makes an app, and unless told otherwise deploys it: both in one commit. Its first deployment is
    /// `app.deployment`.
    ///
    /// `branch` is a branch or tag, the repository's default branch when not given; `root_directory` the directory of
    /// the repository that holds the app; `port` what its program listens on, where the plan should not decide;
    /// `token` reads a private repository. `token` and the values of `env` are kept sealed and never shown again.
    ///
    /// Raises `Invalid` for a value that breaks a rule, `PermissionDenied` for a repository on a private address, and
    /// `AlreadyExists` with the code `name_taken` when the name is taken.
    #[pyo3(signature = (
        name, repository, *, branch=None, root_directory=None, env=Pairs::default(), port=None, token=None,
        deploy=true
    ))]
    fn create(
        &self,
        py: Python<'_>,
        name: String,
        repository: String,
        branch: Option<String>,
        root_directory: Option<String>,
        env: Pairs<SecretText>,
        port: Option<i64>,
        token: Option<SecretText>,
        deploy: bool,
    ) -> PyResult<App> {
        wait(py, self.make(Wanted { name, repository, branch, root_directory, env, port, token, deploy }))
    }

    /// As `create`.
    #[pyo3(signature = (
        name, repository, *, branch=None, root_directory=None, env=Pairs::default(), port=None, token=None,
        deploy=true
    ))]
    fn create_async<'py>(
        &self,
        py: Python<'py>,
        name: String,
        repository: String,
        branch: Option<String>,
        root_directory: Option<String>,
        env: Pairs<SecretText>,
        port: Option<i64>,
        token: Option<SecretText>,
        deploy: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaitable(
            py,
            self.make(Wanted { name, repository, branch, root_directory, env, port, token, deploy }),
        )
    }

    /// An app. Raises `NotFound` when there is none.
    fn get(&self, py: Python<'_>, app: AppArgument) -> PyResult<App> {
        wait(py, self.find(app))
    }

    /// As `get`.
    fn get_async<'py>(&self, py: Python<'py>, app: AppArgument) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.find(app))
    }

    /// Every app, oldest first.
    fn list(&self) -> Stream {
        let apps = self.0.clone();
        Stream::of_pages(move |limit, cursor| page_of_apps(apps.clone(), limit, cursor))
    }

    /// Changes an app. What is not given stays; `None` goes back to the default, and in `env` removes a variable.
    /// What runs follows by itself: another source is deployed, another configuration restarts it; the operation is
    /// the answer's `deployment`.
    #[pyo3(signature = (
        app, *, repository=None, branch=Change::Keep, env=Pairs::default(), port=Change::Keep, token=Change::Keep
    ))]
    fn update(
        &self,
        py: Python<'_>,
        app: AppArgument,
        repository: Option<String>,
        branch: Change<String>,
        env: Pairs<Option<SecretText>>,
        port: Change<i64>,
        token: Change<SecretText>,
    ) -> PyResult<App> {
        wait(py, self.change(app, Changes { repository, branch, env, port, token }))
    }

    /// As `update`.
    #[pyo3(signature = (
        app, *, repository=None, branch=Change::Keep, env=Pairs::default(), port=Change::Keep, token=Change::Keep
    ))]
    fn update_async<'py>(
        &self,
        py: Python<'py>,
        app: AppArgument,
        repository: Option<String>,
        branch: Change<String>,
        env: Pairs<Option<SecretText>>,
        port: Change<i64>,
        token: Change<SecretText>,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.change(app, Changes { repository, branch, env, port, token }))
    }

    /// Deploys the newest commit of the app's branch. An earlier deployment that is not live yet is superseded.
    /// `no_cache` builds even if the same tree was built before.
    #[pyo3(signature = (app, *, no_cache=false))]
    fn deploy(&self, py: Python<'_>, app: AppArgument, no_cache: bool) -> PyResult<Deployment> {
        wait(py, self.operate(app, Operation::Deploy { no_cache }))
    }

    /// As `deploy`.
    #[pyo3(signature = (app, *, no_cache=false))]
    fn deploy_async<'py>(
        &self,
        py: Python<'py>,
        app: AppArgument,
        no_cache: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.operate(app, Operation::Deploy { no_cache }))
    }

    /// Replaces the running instance by a fresh one of the same release. Raises `Conflict` unless the app runs.
    fn restart(&self, py: Python<'_>, app: AppArgument) -> PyResult<Deployment> {
        wait(py, self.operate(app, Operation::Restart))
    }

    /// As `restart`.
    fn restart_async<'py>(&self, py: Python<'py>, app: AppArgument) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.operate(app, Operation::Restart))
    }

    /// Stops an app. It keeps its name, releases and logs.
    fn stop(&self, py: Python<'_>, app: AppArgument) -> PyResult<Deployment> {
        wait(py, self.operate(app, Operation::Stop))
    }

    /// As `stop`.
    fn stop_async<'py>(&self, py: Python<'py>, app: AppArgument) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.operate(app, Operation::Stop))
    }

    /// Starts a stopped app.
    fn start(&self, py: Python<'_>, app: AppArgument) -> PyResult<Deployment> {
        wait(py, self.operate(app, Operation::Start))
    }

    /// As `start`.
    fn start_async<'py>(&self, py: Python<'py>, app: AppArgument) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.operate(app, Operation::Start))
    }

    /// Runs the release of this number again: its code and its configuration, as a new release.
    fn rollback(&self, py: Python<'_>, app: AppArgument, release: u64) -> PyResult<Deployment> {
        wait(py, self.operate(app, Operation::Rollback(release)))
    }

    /// As `rollback`.
    fn rollback_async<'py>(
        &self,
        py: Python<'py>,
        app: AppArgument,
        release: u64,
    ) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.operate(app, Operation::Rollback(release)))
    }

    /// Deletes an app with everything it has. Deleting what is being deleted answers the same operation.
    fn delete(&self, py: Python<'_>, app: AppArgument) -> PyResult<Deployment> {
        wait(py, self.operate(app, Operation::Delete))
    }

    /// As `delete`.
    fn delete_async<'py>(&self, py: Python<'py>, app: AppArgument) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.operate(app, Operation::Delete))
    }

    /// The deployment of this id. Raises `NotFound` when there is none.
    fn deployment(&self, py: Python<'_>, id: String) -> PyResult<Deployment> {
        wait(py, self.find_deployment(id))
    }

    /// As `deployment`.
    fn deployment_async<'py>(&self, py: Python<'py>, id: String) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.find_deployment(id))
    }

    /// The operations on an app, newest first.
    fn deployments(&self, app: AppArgument) -> Stream {
        let (apps, app) = (self.0.clone(), app.0);
        Stream::of_pages(move |limit, cursor| page_of_deployments(apps.clone(), app.clone(), limit, cursor))
    }

    /// An app's releases, newest first.
    fn releases(&self, app: AppArgument) -> Stream {
        let (apps, app) = (self.0.clone(), app.0);
        Stream::of_pages(move |limit, cursor| page_of_releases(apps.clone(), app.clone(), limit, cursor))
    }

    fn __repr__(&self) -> String {
        format!("<paas.Apps of {}>", self.0.org())
    }
}
