//! A platform on this machine: which adapters it is made of, and where they keep what.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{ErrorKind, Write as _};
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
            egress: options.allowed_hosts.into_iter().fold(EgressPolicy::default(), EgressPolicy::allowing),
            address_pool: address_pool(&options.address_pool)?,
            ..Settings::default()
        };
        let images = options.base_images.map_or_else(|| Ok(BaseImages::default()), BaseImages::new)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let ids: Arc<dyn Ids> = Arc::new(RandomIds::new(clock.clone()));
        let directory = options.directory;
        let (installation, keyring) = {
            let (directory, ids) = (directory.clone(), ids.clone());
            tokio::task::spawn_blocking(move || prepare(&directory, ids.as_ref()))
                .await
                .map_err(error::map(OPERATION))??
        };
        let engine = DockerEngine::connect(&Context::new(clock.clone()), &installation).await?;
        let git = GitOptions {
            egress: settings.egress.clone(),
            extra_certificates: options.ca_certificates.clone(),
            ..GitOptions::default()
        };
        let mut builder = DockerBuilder::new(engine.clone());
        if options.ca_certificates.is_some() {
            builder = builder.with_ca_bundle(options.ca_certificates);
        }
        let proxy = ProxyConfig {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, options.proxy_port)),
            directory: Some(directory.join("proxy")),
            ..ProxyConfig::default()
        };
        let store = Arc::new(SqliteStore::open(directory.join("paas.db"), clock.clone()).await?);
        let proxy = Arc::new(Proxy::start(proxy, clock.clone()).await?);
        let platform = Platform::builder()
            .store(store.clone())
            .logs(Arc::new(FileLogStore::open(directory.join("logs"), clock.clone()).await?))
            .git(Arc::new(GixProvider::open(directory.join("mirrors"), git)?))
            .planner(Arc::new(SourcePlanner::new(images)))
            .image_builder(Arc::new(builder))
            .runtime(Arc::new(DockerRuntime::new(engine)))
            .ingress(proxy.clone())
            .clock(clock)
            .ids(ids)
            .keyring(keyring)
            .settings(settings)
            .start()
            .await?;
        Ok((platform, Self { directory, proxy, store }))
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

/// Makes the directory and what identifies the installation: its name on the Docker engine, and its keys.
fn prepare(directory: &Path, ids: &dyn Ids) -> Result<(String, Keyring)> {
    let unusable = |cause: std::io::Error| {
        Error::new(Kind::Unavailable, OPERATION, "the platform's directory can't be used")
            .hint("it must be on a local disk, and writable")
            .context("directory", directory.display())
            .source(cause)
    };
    DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(unusable)?;
    let path = directory.join("installation");
    match OpenOptions::new().write(true).create_new(true).open(&path) {
        Ok(mut file) => {
            let name = format!("local-{}", OrgId::generate(ids).suffix());
            file.write_all(name.as_bytes()).and_then(|()| file.sync_all()).map_err(unusable)?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(unusable(error)),
    }
    let name = std::fs::read_to_string(&path).map_err(unusable)?;
    Ok((name, Keyring::open(&directory.join("master.key"))?))
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
