//! Puts a platform together.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::key_check::check_keys;
use super::{Inner, Part, Platform};
use crate::clock::{Clock, SystemClock};
use crate::dns::{DnsService, TransparentDns};
use crate::engine::{Collector, Effects, Engine, Hub, Outages, Services};
use crate::error::{Error, Result};
use crate::git::GitProvider;
use crate::ids::{Ids, RandomIds};
use crate::image::ImageBuilder;
use crate::ingress::Ingress;
use crate::logs::LogStore;
use crate::memory::{
    MemoryBuilder, MemoryGit, MemoryHost, MemoryIngress, MemoryLogStore, MemoryPlanner, MemoryRuntime,
    MemoryStore,
};
use crate::metrics::Metrics;
use crate::plan::Planner;
use crate::runtime::ContainerRuntime;
use crate::seal::Keyring;
use crate::settings::Settings;
use crate::store::StateStore;

/// Chooses the parts of a platform. What is not chosen is in memory: fine for trying out and for tests.
#[derive(Debug, Default)]
pub struct PlatformBuilder {
    store: Option<Arc<dyn StateStore>>,
    git: Option<Arc<dyn GitProvider>>,
    planner: Option<Arc<dyn Planner>>,
    image_builder: Option<Arc<dyn ImageBuilder>>,
    runtime: Option<Arc<dyn ContainerRuntime>>,
    dns: Option<Arc<dyn DnsService>>,
    ingress: Option<Arc<dyn Ingress>>,
    logs: Option<Arc<dyn LogStore>>,
    clock: Option<Arc<dyn Clock>>,
    ids: Option<Arc<dyn Ids>>,
    keyring: Option<Keyring>,
    settings: Settings,
    metrics: Arc<Metrics>,
    parts: Vec<Arc<dyn Part>>,
}

macro_rules! part {
    ($(#[$documentation:meta])* $field:ident: $port:ident) => {
        $(#[$documentation])*
        #[must_use]
        pub fn $field(mut self, $field: Arc<dyn $port>) -> Self {
            self.$field = Some($field);
            self
        }
    };
}

impl PlatformBuilder {
    part!(
        /// Where state is kept.
        store: StateStore
    );
    part!(
        /// Where code comes from.
        git: GitProvider
    );
    part!(
        /// How builds are planned.
        planner: Planner
    );
    part!(
        /// What builds images.
        image_builder: ImageBuilder
    );
    part!(
        /// What runs containers.
        runtime: ContainerRuntime
    );
    part!(
        /// What writes DNS records; by default every name is taken to reach the ingress already.
        dns: DnsService
    );
    part!(
        /// What routes requests.
        ingress: Ingress
    );
    part!(
        /// Where logs are kept.
        logs: LogStore
    );
    part!(
        /// Where the time comes from.
        clock: Clock
    );
    part!(
        /// Where identifiers come from.
        ids: Ids
    );

    /// The keys that seal secrets; by default a key that is gone with the program.
    #[must_use]
    pub fn keyring(mut self, keyring: Keyring) -> Self {
        self.keyring = Some(keyring);
        self
    }

    /// What an operator can set.
    #[must_use]
    pub fn settings(mut self, settings: Settings) -> Self {
        self.settings = settings;
        self
    }

    /// Where it counts what happens, to be read with [`Platform::metrics`]. Give the same to
    /// [`Observe`](crate::wrap::Observe) and to stores, and their numbers are there, too.
    #[must_use]
    pub fn metrics(mut self, metrics: Arc<Metrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// A part that is asked how it is with the platform's own, after those that were added before.
    #[must_use]
    pub fn part(mut self, part: Arc<dyn Part>) -> Self {
        self.parts.push(part);
        self
    }

    /// Starts the platform: it resumes what the store says is under way and takes new work.
    ///
    /// # Errors
    /// `Invalid` when a durable store is combined with a key that is gone with the program, or (code `other_key`) with
    /// another one than before, or for a setting that makes no sense; the store's.
    pub async fn start(self) -> Result<Platform> {
        if self.store.is_some() && self.keyring.is_none() {
            return Err(Error::invalid("platform.start", "a store is given but no keyring")
                .hint("open one with Keyring::open: secrets could not be read after a restart"));
        }
        self.settings.validate()?;
        let clock = self.clock.unwrap_or_else(|| Arc::new(SystemClock::new()));
        let host = MemoryHost::new(clock.clone());
        let services = Arc::new(Services {
            store: self.store.unwrap_or_else(|| Arc::new(MemoryStore::new(clock.clone()))),
            git: self.git.unwrap_or_else(|| Arc::new(MemoryGit::default())),
            planner: self.planner.unwrap_or_else(|| Arc::new(MemoryPlanner)),
            builder: self.image_builder.unwrap_or_else(|| Arc::new(MemoryBuilder::new(host.clone()))),
            runtime: self.runtime.unwrap_or_else(|| Arc::new(MemoryRuntime::new(host))),
            dns: self.dns.unwrap_or_else(|| Arc::new(TransparentDns)),
            ingress: self.ingress.unwrap_or_else(|| Arc::new(MemoryIngress::default())),
            logs: self.logs.unwrap_or_else(|| Arc::new(MemoryLogStore::new(clock.clone()))),
            ids: self.ids.unwrap_or_else(|| Arc::new(RandomIds::new(clock.clone()))),
            clock,
            keyring: Arc::new(self.keyring.map_or_else(Keyring::ephemeral, Ok)?),
            settings: Arc::new(self.settings),
            metrics: self.metrics,
            outages: Arc::new(Outages::default()),
            is_published: Arc::default(),
            parts: self.parts,
        });
        services.store.ping().await?;
        check_keys(&services).await?;
        let hub = Arc::new(Hub::default());
        let collector = Arc::new(Collector::new(services.clone()));
        let effects = Arc::new(Effects::new(services.clone(), collector.clone()));
        let engine = Engine::new(services.clone(), effects, hub.clone());
        let closing = CancellationToken::new();
        let inner = Inner { services, engine, hub, collector, closing };
        let platform = Platform { inner: Arc::new(inner) };
        platform.inner.engine.start();
        platform.restore();
        Ok(platform)
    }
}
