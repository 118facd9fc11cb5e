//! The Docker engine, which may be away when the server starts.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use paas_core::{
    Addressing, BuildKey, BuildRequest, ContainerRuntime, Context, Image, ImageBuilder, Instance,
    InstanceName, InstanceSpec, Kind, OrgId, OutputLine, OutputOptions, Result, Selector, StoredImage,
};
use paas_docker::{DockerBuilder, DockerEngine, DockerRuntime};
use tokio::sync::OnceCell;

use super::config::ServerConfig;

/// Builder and runtime on an engine that is connected to at the first call that finds it.
///
/// Connecting asks the engine what it can and which version of its API to speak, so it fails while there is none. After
/// an outage it is asked again: it may have been upgraded.
#[derive(Debug)]
pub(super) struct LateEngine {
    host: String,
    installation: String,
    ca_bundle: Option<PathBuf>,
    on_loopback: bool,
    connected: Mutex<Arc<OnceCell<Adapters>>>,
}

type Adapters = Arc<(DockerBuilder, DockerRuntime)>;

impl LateEngine {
    pub(super) fn new(config: &ServerConfig) -> Self {
        Self {
            host: config.docker_host.clone(),
            installation: config.installation.clone(),
            ca_bundle: config.ca_bundle.clone(),
            on_loopback: config.docker_on_loopback,
            connected: Mutex::default(),
        }
    }

    /// Connects at once if the engine answers.
    ///
    /// # Errors
    /// Those that waiting does not mend: a bad address or name, an engine that is too old.
    pub(super) async fn try_connect(&self, context: &Context) -> Result<()> {
        match self.adapters(context).await {
            Err(error) if matches!(error.kind(), Kind::Invalid | Kind::Unsupported) => Err(error),
            Err(error) => {
                tracing::warn!(?error, "the Docker engine does not answer: deployments wait for it");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }

    async fn adapters(&self, context: &Context) -> Result<Adapters> {
        let connect = || async {
            let engine = DockerEngine::connect_to(context, &self.host, &self.installation).await?;
            let mut builder = DockerBuilder::new(engine.clone());
            if self.ca_bundle.is_some() {
                builder = builder.with_ca_bundle(self.ca_bundle.clone());
            }
            let runtime = DockerRuntime::new(engine);
            Ok(Arc::new((builder, if self.on_loopback { runtime.on_loopback() } else { runtime })))
        };
        let cell = self.connected().clone();
        cell.get_or_try_init(connect).await.cloned()
    }

    /// After a call that the engine did not answer, or not as it should, the next one connects anew: the engine may be
    /// another one by then.
    fn noted<T>(&self, answer: Result<T>) -> Result<T> {
        if let Err(error) = &answer
            && matches!(error.kind(), Kind::Unavailable | Kind::Internal)
        {
            *self.connected() = Arc::default();
        }
        answer
    }

    fn connected(&self) -> MutexGuard<'_, Arc<OnceCell<Adapters>>> {
        // Nothing that panics runs under this lock.
        self.connected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ImageBuilder for LateEngine {
    async fn key(&self, context: &Context, request: &BuildRequest) -> Result<BuildKey> {
        self.noted(self.adapters(context).await?.0.key(context, request).await)
    }

    async fn find(&self, context: &Context, key: &BuildKey) -> Result<Option<Image>> {
        self.noted(self.adapters(context).await?.0.find(context, key).await)
    }

    async fn build(&self, context: &Context, request: &BuildRequest, key: &BuildKey) -> Result<Image> {
        self.noted(self.adapters(context).await?.0.build(context, request, key).await)
    }

    async fn remove(&self, context: &Context, digest: &str) -> Result<()> {
        self.noted(self.adapters(context).await?.0.remove(context, digest).await)
    }

    async fn list(&self, context: &Context, selector: &Selector) -> Result<Vec<StoredImage>> {
        self.noted(self.adapters(context).await?.0.list(context, selector).await)
    }

    async fn prune(&self, context: &Context, keep_bytes: u64) -> Result<u64> {
        self.noted(self.adapters(context).await?.0.prune(context, keep_bytes).await)
    }
}

#[async_trait]
impl ContainerRuntime for LateEngine {
    fn addressing(&self) -> Addressing {
        if self.on_loopback { Addressing::Runtime } else { Addressing::Platform }
    }

    async fn ensure(&self, context: &Context, spec: &InstanceSpec) -> Result<Instance> {
        self.noted(self.adapters(context).await?.1.ensure(context, spec).await)
    }

    async fn inspect(&self, context: &Context, name: &InstanceName) -> Result<Option<Instance>> {
        self.noted(self.adapters(context).await?.1.inspect(context, name).await)
    }

    async fn list(&self, context: &Context, selector: &Selector) -> Result<Vec<Instance>> {
        self.noted(self.adapters(context).await?.1.list(context, selector).await)
    }

    async fn stop(&self, context: &Context, name: &InstanceName, grace: Duration) -> Result<()> {
        self.noted(self.adapters(context).await?.1.stop(context, name, grace).await)
    }

    async fn remove(&self, context: &Context, name: &InstanceName) -> Result<()> {
        self.noted(self.adapters(context).await?.1.remove(context, name).await)
    }

    async fn remove_network(&self, context: &Context, org: &OrgId) -> Result<()> {
        self.noted(self.adapters(context).await?.1.remove_network(context, org).await)
    }

    async fn networks(&self, context: &Context) -> Result<Vec<OrgId>> {
        self.noted(self.adapters(context).await?.1.networks(context).await)
    }

    async fn output(
        &self,
        context: &Context,
        name: &InstanceName,
        options: &OutputOptions,
    ) -> Result<BoxStream<'static, Result<OutputLine>>> {
        self.noted(self.adapters(context).await?.1.output(context, name, options).await)
    }

    async fn endings(&self, context: &Context) -> Result<BoxStream<'static, ()>> {
        self.noted(self.adapters(context).await?.1.endings(context).await)
    }

    async fn ping(&self, context: &Context) -> Result<()> {
        self.noted(self.adapters(context).await?.1.ping(context).await)
    }
}
