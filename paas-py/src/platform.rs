//! The platform itself.

use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use paas_core::memory;
use paas_core::{DeployOptions, Error, Kind, Position, Result, Settings, SystemClock};
use pyo3::prelude::*;

use crate::apps::Apps;
use crate::arguments::{AppArgument, Pairs};
use crate::call::{awaitable, wait};
use crate::deployment::Deployment;
use crate::error::raise;
use crate::event::Event;
use crate::local::{Local, LocalOptions};
use crate::memory::{MemoryGit, MemoryHost};
use crate::stream::Stream;

/// A platform in this process: accepts apps and deployments, and takes them to live URLs.
///
/// `Platform.in_memory()` tries things out and tests programs; `Platform.local(directory)` is real. Every call that
/// waits exists twice: `x()` blocks, `x_async()` is awaited. Use it as a context manager, or call `shutdown()`.
#[derive(Clone)]
#[pyclass(frozen, module = "paas")]
pub(crate) struct Platform {
    platform: paas_core::Platform,
    parts: Arc<Parts>,
}

/// What a platform was made of, beside what it owns itself.
enum Parts {
    Memory { git: memory::MemoryGit, host: memory::MemoryHost },
    Local(Local),
}

impl Platform {
    async fn start_in_memory(domain: String) -> Result<Self> {
        let clock = Arc::new(SystemClock::new());
        let (git, host) = (memory::MemoryGit::new(), memory::MemoryHost::new(clock.clone()));
        let platform = paas_core::Platform::builder()
            .clock(clock)
            .git(Arc::new(git.clone()))
            .image_builder(Arc::new(memory::MemoryBuilder::new(host.clone())))
            .runtime(Arc::new(memory::MemoryRuntime::new(host.clone())))
            .settings(Settings { domain: domain.parse()?, ..Settings::default() })
            .start()
            .await?;
        Ok(Self { platform, parts: Arc::new(Parts::Memory { git, host }) })
    }

    async fn start_local(options: LocalOptions) -> Result<Self> {
        let (platform, local) = Local::start(options).await?;
        Ok(Self { platform, parts: Arc::new(Parts::Local(local)) })
    }

    async fn deployed(self, app: AppArgument) -> Result<Deployment> {
        let apps = self.platform.apps();
        let handle = apps.deploy(app.0, DeployOptions::default()).await?;
        Deployment::read(apps, handle).await
    }

    async fn ended(self) -> Result<()> {
        self.platform.shutdown().await;
        if let Parts::Local(local) = &*self.parts {
            local.stop().await;
        }
        Ok(())
    }

    async fn itself(self) -> Result<Self> {
        Ok(self)
    }
}

/// For what only in-memory platforms have.
fn not_in_memory() -> PyErr {
    raise(
        &Error::new(Kind::Unsupported, "platform.memory", "this platform is not in memory")
            .hint("make one with Platform.in_memory()"),
    )
}

#[pymethods]
#[allow(clippy::too_many_arguments)] // keyword arguments
impl Platform {
    /// A platform in memory, gone with the program: `memory_git` takes repositories, and nothing is really built, run
    /// or served.
    #[staticmethod]
    #[pyo3(signature = (*, domain="localhost"))]
    fn in_memory(py: Python<'_>, domain: &str) -> PyResult<Self> {
        wait(py, Self::start_in_memory(domain.to_owned()))
    }

    /// As `in_memory`.
    #[staticmethod]
    #[pyo3(signature = (*, domain="localhost"))]
    fn in_memory_async<'py>(py: Python<'py>, domain: &str) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, Self::start_in_memory(domain.to_owned()))
    }

    /// A platform on this machine: state and logs in `directory`, code from git servers, builds and containers on its
    /// Docker engine. Apps answer at `http://{name}.{domain}:{proxy_port}` as long as this program lives; their
    /// containers, and everything in `directory`, outlive it.
    ///
    /// `allowed_hosts` are git servers on private addresses or plain `http` (`"git.lan"`, `"127.0.0.1:3000"`);
    /// `base_images` maps `"python:3.11"`, `"node:20"` and `"static"` to images of one's own; `ca_certificates` is a
    /// PEM file that git trusts beside the system's authorities and builds instead of them. Two platforms on one
    /// engine need ranges of addresses of their own: `address_pool`. `installation` names this one on the engine, from the
    /// first start in `directory` on; without it the name is made up.
    ///
    /// Raises `Unavailable` when the Docker engine does not answer, another program uses the directory, or the port is
    /// taken.
    #[staticmethod]
    #[pyo3(signature = (
        directory, *, domain="localhost", proxy_port=8080, allowed_hosts=Vec::new(), base_images=None,
        ca_certificates=None, address_pool="10.181.0.0/16", installation=None
    ))]
    fn local(
        py: Python<'_>,
        directory: PathBuf,
        domain: &str,
        proxy_port: u16,
        allowed_hosts: Vec<String>,
        base_images: Option<Pairs<String>>,
        ca_certificates: Option<PathBuf>,
        address_pool: &str,
        installation: Option<String>,
    ) -> PyResult<Self> {
        let options = LocalOptions {
            directory,
            domain: domain.to_owned(),
            proxy_port,
            allowed_hosts,
            base_images: base_images.map(|images| images.0),
            ca_certificates,
            address_pool: address_pool.to_owned(),
            installation,
        };
        wait(py, Self::start_local(options))
    }

    /// As `local`.
    #[staticmethod]
    #[pyo3(signature = (
        directory, *, domain="localhost", proxy_port=8080, allowed_hosts=Vec::new(), base_images=None,
        ca_certificates=None, address_pool="10.181.0.0/16", installation=None
    ))]
    fn local_async<'py>(
        py: Python<'py>,
        directory: PathBuf,
        domain: &str,
        proxy_port: u16,
        allowed_hosts: Vec<String>,
        base_images: Option<Pairs<String>>,
        ca_certificates: Option<PathBuf>,
        address_pool: &str,
        installation: Option<String>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = LocalOptions {
            directory,
            domain: domain.to_owned(),
            proxy_port,
            allowed_hosts,
            base_images: base_images.map(|images| images.0),
            ca_certificates,
            address_pool: address_pool.to_owned(),
            installation,
        };
        awaitable(py, Self::start_local(options))
    }

    /// Its apps.
    #[getter]
    fn apps(&self) -> Apps {
        Apps::new(self.platform.apps())
    }

    /// The git servers of an in-memory platform. Raises `Unsupported` on another one.
    #[getter]
    fn memory_git(&self) -> PyResult<MemoryGit> {
        match &*self.parts {
            Parts::Memory { git, .. } => Ok(MemoryGit(git.clone())),
            Parts::Local(_) => Err(not_in_memory()),
        }
    }

    /// The machine of an in-memory platform. Raises `Unsupported` on another one.
    #[getter]
    fn memory_host(&self) -> PyResult<MemoryHost> {
        match &*self.parts {
            Parts::Memory { host, .. } => Ok(MemoryHost(host.clone())),
            Parts::Local(_) => Err(not_in_memory()),
        }
    }

    /// Deploys the newest commit of an app's branch.
    fn deploy(&self, py: Python<'_>, app: AppArgument) -> PyResult<Deployment> {
        wait(py, self.clone().deployed(app))
    }

    /// As `deploy`.
    fn deploy_async<'py>(&self, py: Python<'py>, app: AppArgument) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.clone().deployed(app))
    }

    /// Every event of every app and deployment behind the position `after`, and those to come: it does not end by
    /// itself. A reader that keeps the position of the last event it handled misses none.
    #[pyo3(signature = (after=0))]
    fn events(&self, after: u64) -> Stream {
        Stream::new(self.platform.events(Position(after)).map_ok(Event).boxed())
    }

    /// Lets go of everything that is under way and stops working. Apps keep running; what was under way goes on when
    /// a platform is next started on the same directory.
    fn shutdown(&self, py: Python<'_>) -> PyResult<()> {
        wait(py, self.clone().ended())
    }

    /// As `shutdown`.
    fn shutdown_async<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.clone().ended())
    }

    fn __enter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyAny>) -> PyResult<()> {
        self.shutdown(py)
    }

    fn __aenter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        awaitable(py, self.clone().itself())
    }

    #[pyo3(signature = (*_exception))]
    fn __aexit__<'py>(&self, py: Python<'py>, _exception: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        self.shutdown_async(py)
    }

    fn __repr__(&self) -> String {
        match &*self.parts {
            Parts::Memory { .. } => "<paas.Platform in memory>".to_owned(),
            Parts::Local(local) => format!("<paas.Platform in {}>", local.directory().display()),
        }
    }
}
