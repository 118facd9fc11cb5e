//! A platform on this machine: which adapters it is made of, and where they keep what.

use std::fs::{DirBuilder, File};
use std::io::{self, ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use paas_core::{
    AddressPool, Clock, Context, EgressPolicy, Error, Ids, Keyring, Kind, OrgId, Platform, RandomIds, Result,
    Settings, SystemClock, error,
};
use paas_docker::{DockerBuilder, DockerEngine, DockerRuntime};
use paas_git::{GitOptions, GixProvider};
use paas_plan::{BaseImages, SourcePlanner};
use paas_proxy::{Proxy, ProxyConfig};
use paas_store::{FileLogStore, SqliteStore};

const OPERATION: &str = "platform.local";
/// The file that keeps the installation's name.
const NAME_FILE: &str = "installation";
/// How many leading bits of an address an org's subnet fixes: room for 253 instances.
const SUBNET_PREFIX: u8 = 24;

/// The options of `Platform.local`.
pub(crate) struct LocalOptions {
    pub directory: PathBuf,
    pub domain: String,
    pub proxy_port: u16,
    pub allowed_hosts: Vec<String>,
    pub base_images: Option<Vec<(String, String)>>,
    pub ca_certificates: Option<PathBuf>,
    pub address_pool: String,
    pub installation: Option<String>,
}

/// The parts that end with the platform.
pub(crate) struct Local {
    directory: PathBuf,
    proxy: Arc<Proxy>,
    store: Arc<SqliteStore>,
}

impl Local {
    pub(crate) async fn start(options: LocalOptions) -> Result<(Platform, Self)> {
        let settings = Settings {
            domain: options.domain.parse()?,
            egress: options
                .allowed_hosts
                .iter()
                .cloned()
                .fold(EgressPolicy::default(), EgressPolicy::allowing),
            address_pool: address_pool(&options.address_pool)?,
            ..Settings::default()
        };
        let images =
            options.base_images.clone().map_or_else(|| Ok(BaseImages::default()), BaseImages::new)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let directory = options.directory.clone();
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).map_err(unusable(&directory))?;
        // First: it locks the directory.
        let store = Arc::new(SqliteStore::open(directory.join("paas.db"), clock.clone()).await?);
        let parts = Parts { settings, images, clock, store: store.clone() };
        match Self::assemble(options, parts).await {
            Ok((platform, proxy)) => Ok((platform, Self { directory, proxy, store })),
            Err(error) => {
                store.close().await;
                Err(error)
            }
        }
    }

    async fn assemble(options: LocalOptions, parts: Parts) -> Result<(Platform, Arc<Proxy>)> {
        let Parts { settings, images, clock, store } = parts;
        let directory = options.directory;
        let ids: Arc<dyn Ids> = Arc::new(RandomIds::new(clock.clone()));
        let name = off_the_runtime(&directory, |directory| known_name(&directory)).await?;
        let is_new = name.is_none();
        let name = match (name, options.installation) {
            (Some(known), Some(wanted)) if known != wanted => return Err(another_name(&known)),
            (known, wanted) => known.or(wanted),
        };
        let name = name.unwrap_or_else(|| format!("local-{}", OrgId::generate(ids.as_ref()).suffix()));
        // It refuses what is no name: nothing is kept of that.
        let engine = DockerEngine::connect(&Context::new(clock.clone()), &name).await?;
        let keep = move |directory: PathBuf| {
            if is_new {
                write_whole(&directory.join(NAME_FILE), &name).map_err(unusable(&directory))?;
            }
            Keyring::open(&directory.join("master.key"))
        };
        let keyring = off_the_runtime(&directory, keep).await?;
        let git = GitOptions {
            egress: settings.egress.clone(),
            extra_certificates: options.ca_certificates.clone(),
            ..GitOptions::default()
        };
        let mut builder = DockerBuilder::new(engine.clone());
        if options.ca_certificates.is_some() {
            builder = builder.with_ca_bundle(options.ca_certificates);
        }
        let logs = FileLogStore::open(directory.join("logs"), clock.clone()).await?;
        let git = GixProvider::open(directory.join("mirrors"), git)?;
        let proxy = ProxyConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, options.proxy_port)),
            directory: Some(directory.join("proxy")),
            ..ProxyConfig::default()
        };
        let proxy = Arc::new(Proxy::start(proxy, clock.clone()).await?);
        let platform = Platform::builder()
            .store(store)
            .logs(Arc::new(logs))
            .git(Arc::new(git))
            .planner(Arc::new(SourcePlanner::new(images)))
            .image_builder(Arc::new(builder))
            .runtime(Arc::new(DockerRuntime::new(engine)))
            .ingress(proxy.clone())
            .clock(clock)
            .ids(ids)
            .keyring(keyring)
            .settings(settings)
            .start()
            .await;
        match platform {
            Ok(platform) => Ok((platform, proxy)),
            Err(error) => {
                proxy.stop().await;
                Err(error)
            }
        }
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Ends the parts, once the platform has been shut down.
    pub(crate) async fn stop(&self) {
        self.proxy.stop().await;
        self.store.close().await;
    }
}

/// What a platform is assembled from, beside its options.
struct Parts {
    settings: Settings,
    images: BaseImages,
    clock: Arc<dyn Clock>,
    store: Arc<SqliteStore>,
}

fn unusable(directory: &Path) -> impl Fn(io::Error) -> Error {
    move |cause| {
        Error::new(Kind::Unavailable, OPERATION, "the platform's directory can't be used")
            .hint("it must be on a local disk, and writable")
            .context("directory", directory.display())
            .source(cause)
    }
}

/// Does what touches files on a blocking thread.
async fn off_the_runtime<T: Send + 'static>(
    directory: &Path,
    work: impl FnOnce(PathBuf) -> Result<T> + Send + 'static,
) -> Result<T> {
    let directory = directory.to_owned();
    tokio::task::spawn_blocking(move || work(directory)).await.map_err(error::map(OPERATION))?
}

/// The installation's name on the engine, which was kept at the first start.
fn known_name(directory: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(directory.join(NAME_FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        found => found.map(Some).map_err(unusable(directory)),
    }
}

fn another_name(known: &str) -> Error {
    Error::invalid(OPERATION, format!("the directory belongs to the installation {known}"))
        .hint("leave out `installation`, or take another directory")
}

/// Writes a file whole or not at all: killed on the way, the next start must not find a part of it.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, path)?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Reads `10.181.0.0/16`.
fn address_pool(text: &str) -> Result<AddressPool> {
    let parsed = text
        .split_once('/')
        .and_then(|(address, prefix)| Some((address.parse::<Ipv4Addr>().ok()?, prefix.parse::<u8>().ok()?)));
    let (address, prefix) = parsed.ok_or_else(|| {
        Error::invalid(OPERATION, "the address pool is not a range of addresses")
            .hint("give a private range such as 10.181.0.0/16")
    })?;
    AddressPool::new(address, prefix, SUBNET_PREFIX.max(prefix))
}
