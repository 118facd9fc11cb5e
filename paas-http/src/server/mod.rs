//! A server: one platform with its adapters, put together from a configuration.

mod adapters;
mod config;
mod database;
mod disk;
mod engine;
mod listener;
mod log;
mod token;
#[cfg(feature = "opentelemetry")]
mod traces;

use std::fs::DirBuilder;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use paas_core::{
    Clock, Context, EgressPolicy, Error, Keyring, Kind, Metrics, Platform, Result, Secret, Settings,
    SystemClock, TransparentDns,
};
use paas_git::{GitOptions, GixProvider};
use paas_plan::SourcePlanner;
use paas_proxy::{Launcher, ProxyClient, ProxyConfig};
use paas_store::{FileLogStore, Imported, PostgresStore};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use database::Database;

pub use adapters::Adapters;
pub use config::ServerConfig;
pub use log::{Log, log_to_stderr};
#[cfg(feature = "opentelemetry")]
pub use traces::Traces;

use crate::{Access, Options};

/// How long the engine gets to answer when the server starts.
const ENGINE_PATIENCE: Duration = Duration::from_secs(5);
/// How long threads get to end when everything else has.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// A platform on SQLite or PostgreSQL, git, Docker and the proxy, with its API.
///
/// This example is compiled but not run, for it takes ports and leaves a proxy behind:
///
/// ```no_run
/// # fn example() -> paas_core::Result<()> {
/// use paas_http::{Server, ServerConfig};
///
/// Server::serve(ServerConfig::default(), paas_proxy::Launcher::find()?)
/// # }
/// ```
///
/// # Guarantees
/// One server has the data directory for itself. It starts while the Docker engine is away: deployments wait for it,
/// and `/readyz` says so. The proxy is a process of its own, which goes on when this one ends.
#[derive(Debug)]
pub struct Server {
    platform: Platform,
    database: Database,
    address: SocketAddr,
    token: Secret,
    token_file: PathBuf,
    is_token_new: bool,
    closing: CancellationToken,
    serving: JoinHandle<()>,
}

impl Server {
    /// Puts everything together and serves. `launcher` starts the proxy if none runs.
    ///
    /// # Errors
    /// `Unavailable` when another server has the data directory, a port is taken, or the proxy can't be started;
    /// `Invalid` for a setting or file that is not valid; `Unsupported` for an engine that is too old.
    pub async fn start(config: ServerConfig, launcher: Launcher) -> Result<Self> {
        Self::start_with(config, launcher, |adapters| adapters).await
    }

    /// The same with other adapters: `arrange` gets the server's own, to put something around them or in their place.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with(
        config: ServerConfig,
        launcher: Launcher,
        arrange: impl FnOnce(Adapters) -> Adapters,
    ) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let directory = &config.data_directory;
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|error| {
            let message = format!("the data directory {} can't be made", directory.display());
            Error::new(Kind::Unavailable, "server.start", message).source(error)
        })?;
        // First: it locks the directory.
        let metrics = Arc::new(Metrics::default());
        let database = Database::open(&config, clock.clone(), metrics.clone()).await?;
        let server = Self::assemble(config, launcher, database.clone(), clock, metrics, arrange).await;
        if server.is_err() {
            database.close().await;
        }
        server
    }

    /// Copies the state of a SQLite file, whose server is stopped, into the empty database that the configuration names,
    /// and compares both: all of it, or nothing.
    ///
    /// # Errors
    /// `Invalid` when the configuration names no database; `Unavailable` when the file or the database can't be opened,
    /// and when the database holds something already.
    pub async fn import(config: &ServerConfig, file: &Path) -> Result<Imported> {
        let url = config.database_url.as_ref().ok_or_else(|| {
            Error::invalid("server.import", "no database is named to import into")
                .hint("set DATABASE_URL, or `database_url` in the configuration file")
        })?;
        let store = PostgresStore::open(url.expose(), Arc::new(SystemClock::new())).await?;
        let imported = store.import_sqlite(file).await;
        store.close().await;
        imported
    }

    /// Starts a server and runs it to its end, on threads of its own: the whole of a program's work.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`run`](Self::run).
    pub fn serve(config: ServerConfig, launcher: Launcher) -> Result<()> {
        Self::serve_with(config, launcher, |adapters| adapters)
    }

    /// The same with other adapters.
    ///
    /// # Errors
    /// As [`start`](Self::start) and [`run`](Self::run).
    pub fn serve_with(
        config: ServerConfig,
        launcher: Launcher,
        arrange: impl FnOnce(Adapters) -> Adapters,
    ) -> Result<()> {
        let runtime = tokio::runtime::Runtime::new().map_err(paas_core::error::map("server.serve"))?;
        let served =
            runtime.block_on(async { Self::start_with(config, launcher, arrange).await?.run().await });
        // A thread that hangs, as on a disk that does not answer, must not keep the process.
        runtime.shutdown_timeout(LAST_PATIENCE);
        served
    }

    async fn assemble(
        config: ServerConfig,
        launcher: Launcher,
        database: Database,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        arrange: impl FnOnce(Adapters) -> Adapters,
    ) -> Result<Self> {
        let context = Context::new(clock.clone());
        let settings = Settings {
            domain: config.domain.clone(),
            egress: EgressPolicy { allowed_hosts: config.allowed_hosts.clone() },
            address_pool: config.pool()?,
            ..Settings::default()
        };
        let directory = &config.data_directory;
        let listener = TcpListener::bind(config.listen).await.map_err(|error| {
            let message = format!("the API can't listen at {}: {error}", config.listen);
            Error::new(Kind::Unavailable, "server.listen", message)
                .hint("set `listen` to a free address")
                .source(error)
        })?;
        let address = listener.local_addr().map_err(paas_core::error::map("server.listen"))?;
        let token_file = directory.join("token");
        let (token, is_token_new) = token::open(&token_file)?;
        let keyring = Keyring::open(&directory.join("master.key"))?;
        let git = GitOptions {
            egress: settings.egress.clone(),
            extra_certificates: config.ca_bundle.clone(),
            ..GitOptions::default()
        };
        let git = GixProvider::open(directory.join("mirrors"), git)?;
        let logs = FileLogStore::open(directory.join("logs"), clock.clone()).await?;
        let engine = Arc::new(engine::LateEngine::new(&config));
        engine.try_connect(&context.with_budget(ENGINE_PATIENCE)).await?;
        let proxy = ProxyConfig {
            listen: config.proxy_listen,
            public_port: config.proxy_public_port,
            directory: Some(config.proxy_directory.unwrap_or_else(|| directory.join("proxy"))),
            ..ProxyConfig::default()
        };
        let proxy = ProxyClient::connect_or_spawn(proxy, launcher).await?;

        let adapters = arrange(Adapters {
            store: database.store(),
            git: Arc::new(git),
            planner: Arc::new(SourcePlanner::new(config.base_images)),
            image_builder: engine.clone(),
            runtime: engine,
            dns: Arc::new(TransparentDns),
            ingress: Arc::new(proxy),
            logs: Arc::new(logs),
        });
        let platform = adapters
            .observed(&clock, &metrics)
            .clock(clock.clone())
            .keyring(keyring)
            .settings(settings)
            .metrics(metrics)
            .part(Arc::new(disk::Disk(directory.clone())))
            .start()
            .await?;
        let closing = CancellationToken::new();
        let access = Access::bearer(token.expose(), clock.clone());
        let options = Options { closing: closing.clone(), ..Options::new(access) };
        let router = crate::router(platform.clone(), options);
        let serving = tokio::spawn(listener::serve(listener, router, closing.clone(), clock));
        Ok(Self { platform, database, address, token, token_file, is_token_new, closing, serving })
    }

    /// Where the API listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The token that the API asks for.
    #[must_use]
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// The platform itself.
    #[must_use]
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Says on standard output where it is and which file holds its token, serves until SIGINT or SIGTERM, then stops; a
    /// second one ends it without waiting, which loses nothing either.
    ///
    /// # Errors
    /// `Internal` when signals can't be received.
    pub async fn run(self) -> Result<()> {
        const OPERATION: &str = "server.run";
        let mut interrupt = signal(SignalKind::interrupt()).map_err(paas_core::error::map(OPERATION))?;
        let mut terminate = signal(SignalKind::terminate()).map_err(paas_core::error::map(OPERATION))?;
        // Only now: who reads it may end the server at once.
        self.announce();
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        tracing::info!("stopping: apps go on running");
        tokio::select! {
            () = self.stop() => {}
            _ = interrupt.recv() => tracing::warn!("stopping at once"),
            _ = terminate.recv() => tracing::warn!("stopping at once"),
        }
        Ok(())
    }

    /// Says on standard output where the API and the file with its token are. The token itself is shown when it is new,
    /// and on a terminal: elsewhere a service's journal would keep it, start after start.
    fn announce(&self) {
        let mut out = std::io::stdout();
        let mut text = format!("API:   http://{}\nToken file: {}\n", self.address, self.token_file.display());
        if self.is_token_new || out.is_terminal() {
            text.push_str("Token: ");
            text.push_str(self.token.expose());
            text.push('\n');
        }
        // Nobody may be reading.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Ends streams, lets requests and short steps end, gives back what takes longer, and closes the store: within 30 s.
    /// Apps and the proxy go on; what was under way goes on at the next start.
    pub async fn stop(self) {
        self.closing.cancel();
        // Serving ends by itself; that it panicked is in the log.
        let _ = tokio::join!(self.serving, self.platform.shutdown());
        self.database.close().await;
    }
}
