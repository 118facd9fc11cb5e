//! The container runtime.

mod container;
mod loopback;
mod network;
mod observe;
mod output;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bollard::models::{ContainerSummary, ContainerSummaryStateEnum};
use bollard::query_parameters as query;
use futures::StreamExt;
use futures::stream::BoxStream;
use paas_core::{
    Addressing, ContainerRuntime, Context, Error, Fault, Instance, InstanceName, InstanceSpec, InstanceState,
    Kind, OrgId, OutputLine, OutputOptions, Placement, Result, Retry, Selector,
};

use crate::engine::{CALL_TIMEOUT, DockerEngine, absent_is_done, failed, is_missing, label, refusal};
use observe::Found;

/// How often a container is made: what has its name is replaced, and a port that was taken meanwhile chosen anew.
const ENSURE_TRIES: u32 = 4;

/// The numbers of the names that copies of an operation's container get: far above those of its substitutes.
const COPIES: std::ops::Range<u32> = 1_000..1_100;

/// Runs containers on a Docker engine.
///
/// What a container may do is fixed: see `container.rs` for the whole list. [`list`](ContainerRuntime::list) is one
/// call to the engine, which does not tell when a container started, how often it was restarted and whether it ran
/// out of memory: [`inspect`](ContainerRuntime::inspect) does. A copy of a container that somebody made with its labels
/// is given a name when it is listed first. Engine 20.10 may say that it ran out of memory a moment
/// after it says that it ended.
#[derive(Clone, Debug)]
pub struct DockerRuntime {
    engine: DockerEngine,
    addressing: Addressing,
    /// One network is made or removed at a time: the engine would give two the same name.
    making_network: Arc<tokio::sync::Semaphore>,
    /// The orgs whose network was seen.
    networks: Arc<Mutex<BTreeSet<OrgId>>>,
}

impl DockerRuntime {
    /// A runtime on `engine` whose containers have addresses that the platform allocates.
    #[must_use]
    pub fn new(engine: DockerEngine) -> Self {
        Self {
            engine,
            addressing: Addressing::Platform,
            making_network: Arc::new(tokio::sync::Semaphore::new(1)),
            networks: Arc::default(),
        }
    }

    /// The same with [`Addressing::Runtime`]: each container's port is published on a port of 127.0.0.1, which
    /// stays its own until it is removed. For hosts that cannot reach their containers' addresses, such as desktops with the engine
    /// in a virtual machine.
    #[must_use]
    pub fn on_loopback(self) -> Self {
        Self { addressing: Addressing::Runtime, ..self }
    }

    /// What has the name, whoever made it.
    async fn found(
        &self,
        context: &Context,
        operation: &'static str,
        name: &InstanceName,
    ) -> Result<Option<Found>> {
        let call = self.engine.docker().inspect_container(name.as_str(), None);
        match self.engine.call(context, operation, call).await {
            Ok(response) => Found::new(&self.engine, response).map(Some),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The engine's id of the container, if it is this installation's.
    async fn own_id(
        &self,
        context: &Context,
        operation: &'static str,
        name: &InstanceName,
    ) -> Result<Option<String>> {
        Ok(match self.found(context, operation, name).await? {
            Some(Found::Own { id, .. }) => Some(id),
            Some(Found::Foreign) | None => None,
        })
    }

    async fn remove_by_id(&self, context: &Context, operation: &'static str, id: &str) -> Result<()> {
        let options = query::RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        let call = self.engine.docker().remove_container(id, Some(options));
        match absent_is_done(self.engine.effect(context, operation, call).await) {
            // Somebody else is removing it: it is gone when the engine no longer knows it.
            Err(error) if matches!(refusal(&error), Some((409, _))) => {
                self.wait_until_gone(context, operation, id).await
            }
            result => result,
        }
    }

    async fn wait_until_gone(&self, context: &Context, operation: &'static str, id: &str) -> Result<()> {
        let patient = context.with_budget(CALL_TIMEOUT);
        loop {
            match self
                .engine
                .call(&patient, operation, self.engine.docker().inspect_container(id, None))
                .await
            {
                Err(error) if is_missing(&error) => return Ok(()),
                Err(error) => return Err(error),
                Ok(_) => patient.sleep(operation, Duration::from_millis(50)).await?,
            }
        }
    }

    /// Where the container will be reached.
    async fn address(&self, context: &Context, spec: &InstanceSpec) -> Result<SocketAddr> {
        match spec.placement {
            Placement::Fixed { address, .. } => Ok((address, spec.port.number()).into()),
            Placement::Chosen => {
                let taken = self.list(context, &Selector::default()).await?;
                loopback::choose(taken.into_iter().map(|instance| instance.address).collect()).await
            }
        }
    }

    /// Makes the container; `None` when something has that name meanwhile.
    async fn create(
        &self,
        context: &Context,
        spec: &InstanceSpec,
        address: SocketAddr,
    ) -> Result<Option<String>> {
        const OPERATION: &str = "docker.create_container";
        let options = query::CreateContainerOptionsBuilder::new().name(spec.name.as_str()).build();
        let body = container::body(&self.engine, spec, address);
        let call = self.engine.docker().create_container(Some(options), body);
        match self.engine.effect(context, OPERATION, call).await {
            Ok(created) => Ok(Some(created.id)),
            Err(error) => match refusal(&error) {
                Some((409, _)) => Ok(None),
                Some((404, _)) => {
                    Err(Error::not_found(OPERATION, "the image of this release is no longer on the engine")
                        .code("image_missing")
                        .fault(Fault::Platform)
                        .context("image", &spec.image.digest)
                        .source(error))
                }
                _ => Err(container::refused(OPERATION, error)),
            },
        }
    }

    /// Starts a created container, with its network.
    async fn start(&self, context: &Context, spec: &InstanceSpec, id: &str) -> Result<()> {
        const OPERATION: &str = "docker.start_container";
        let mut is_network_fresh = false;
        if !self.known_networks().contains(&spec.org) {
            network::ensure(self, context, spec).await?;
            is_network_fresh = true;
        }
        loop {
            let error = match self
                .engine
                .effect(context, OPERATION, self.engine.docker().start_container(id, None))
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let (status, message) = refusal(&error).map_or((0, ""), |(status, message)| (status, message));
            // Somebody removed or replaced the network since it was last seen.
            let is_about_network =
                message.contains("network") && (status == 404 || message.contains("subnet"));
            if is_about_network && !is_network_fresh {
                network::ensure(self, context, spec).await?;
                is_network_fresh = true;
                continue;
            }
            if is_about_network && status == 404 {
                // It went between being looked at and being used.
                return Err(Error::new(
                    Kind::Conflict,
                    OPERATION,
                    "the network of this org was removed meanwhile",
                )
                .fault(Fault::Platform)
                .retry(Retry::Transient { after: None })
                .source(error));
            }
            return Err(container::refused(OPERATION, error));
        }
    }

    /// Gives the operation's container its name back, when somebody renamed it: it has the address. False if there is none.
    async fn adopt(&self, context: &Context, spec: &InstanceSpec) -> Result<bool> {
        const OPERATION: &str = "docker.rename_container";
        let filters = self.engine.filters(&[(label::DEPLOYMENT, spec.deployment.as_str())]);
        let options = query::ListContainersOptionsBuilder::new().filters(&filters).build();
        let call = self.engine.docker().list_containers(Some(options));
        let running = self.engine.call(context, OPERATION, call).await?;
        let Some(id) = running.into_iter().find_map(|container| container.id) else { return Ok(false) };
        let options = query::RenameContainerOptionsBuilder::new().name(spec.name.as_str()).build();
        let call = self.engine.docker().rename_container(&id, options);
        self.engine.effect(context, OPERATION, call).await?;
        Ok(true)
    }

    /// Gives a copy of an operation's container, which somebody made, a name by which it can be told of and removed.
    /// `None` for what is no copy of one of `instances`, or can't be renamed.
    async fn name_copy(
        &self,
        context: &Context,
        copy: &mut ContainerSummary,
        instances: &[Instance],
    ) -> Option<Instance> {
        const OPERATION: &str = "docker.rename_container";
        let id = copy.id.clone()?;
        let deployment = observe::deployment(copy)?;
        if !instances.iter().any(|instance| instance.deployment == deployment) {
            return None;
        }
        let is_free = |name: &InstanceName| !instances.iter().any(|instance| instance.name == *name);
        let mut names = COPIES.map(|number| InstanceName::of(&deployment, number));
        let name = names.find(is_free)?;
        let options = query::RenameContainerOptionsBuilder::new().name(name.as_str()).build();
        let call = self.engine.docker().rename_container(&id, options);
        self.engine.effect(context, OPERATION, call).await.ok()?;
        copy.names = Some(vec![name.to_string()]);
        observe::listed(copy).ok()
    }

    /// Starts a created container and answers what it is then.
    async fn started(&self, context: &Context, spec: &InstanceSpec, id: &str) -> Result<Instance> {
        const OPERATION: &str = "docker.ensure_container";
        self.start(context, spec, id).await?;
        match self.found(context, OPERATION, &spec.name).await? {
            Some(Found::Own { instance, .. }) => Ok(instance),
            _ => Err(Error::new(Kind::Conflict, OPERATION, "the container was removed by somebody else")
                .fault(Fault::Platform)
                .retry(Retry::Transient { after: None })),
        }
    }

    fn known_networks(&self) -> std::sync::MutexGuard<'_, BTreeSet<OrgId>> {
        // A panic while it was held leaves plain data behind.
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl ContainerRuntime for DockerRuntime {
    fn addressing(&self) -> Addressing {
        self.addressing
    }

    async fn ensure(&self, context: &Context, spec: &InstanceSpec) -> Result<Instance> {
        const OPERATION: &str = "docker.ensure_container";
        for tries_left in (0..ENSURE_TRIES).rev() {
            let address = self.address(context, spec).await?;
            if let Some(id) = self.create(context, spec, address).await? {
                let error = match self.started(context, spec, &id).await {
                    Ok(instance) => return Ok(instance),
                    Err(error) => error,
                };
                // Also when this call was cancelled meanwhile.
                let uncancelled = Context::new(context.clock().clone());
                if let Err(left) = self.remove_by_id(&uncancelled, "docker.remove_container", &id).await {
                    tracing::warn!(error = ?left, name = %spec.name, "a container that did not start is left");
                }
                let is_taken = error.reason() == Some(container::ADDRESS_TAKEN);
                if is_taken && self.adopt(context, spec).await? {
                    continue;
                }
                let is_other_port_possible = spec.placement == Placement::Chosen && tries_left > 0;
                if is_other_port_possible && is_taken {
                    continue;
                }
                return Err(error);
            }
            match self.found(context, OPERATION, &spec.name).await? {
                Some(Found::Foreign) => {
                    return Err(Error::new(
                        Kind::AlreadyExists,
                        OPERATION,
                        format!("something that is not this platform's is called {}", spec.name),
                    )
                    .code("foreign_name")
                    .fault(Fault::Platform));
                }
                Some(Found::Own { instance, spec: made_from, .. })
                    if instance.is_running() && made_from == spec.fingerprint() =>
                {
                    return Ok(instance);
                }
                Some(Found::Own { id, instance, spec: made_from })
                    if instance.state == InstanceState::CutOff
                        && made_from == spec.fingerprint()
                        && network::connect(self, context, spec, &id).await? => {}
                Some(Found::Own { id, .. }) => {
                    self.remove_by_id(context, "docker.remove_container", &id).await?;
                }
                None => {}
            }
        }
        Err(Error::new(Kind::Conflict, OPERATION, "somebody else is making the same container")
            .fault(Fault::Platform)
            .retry(Retry::Transient { after: None }))
    }

    async fn inspect(&self, context: &Context, name: &InstanceName) -> Result<Option<Instance>> {
        Ok(match self.found(context, "docker.inspect_container", name).await? {
            Some(Found::Own { instance, .. }) => Some(instance),
            Some(Found::Foreign) | None => None,
        })
    }

    async fn list(&self, context: &Context, selector: &Selector) -> Result<Vec<Instance>> {
        const OPERATION: &str = "docker.list_containers";
        let mut labels = Vec::new();
        labels.extend(selector.org.as_ref().map(|org| (label::ORG, org.as_str())));
        labels.extend(selector.app.as_ref().map(|app| (label::APP, app.as_str())));
        let filters = self.engine.filters(&labels);
        let options = query::ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let call = self.engine.docker().list_containers(Some(options));
        let summaries = self.engine.call(context, OPERATION, call).await?;
        let mut instances = Vec::with_capacity(summaries.len());
        let mut misnamed = Vec::new();
        for summary in summaries {
            match observe::listed(&summary) {
                Ok(instance) => instances.push(instance),
                // It has no name any more, and no process. Where the engine failed to remove its last file, it lists it
                // so until its own next start.
                Err(_) if summary.state == Some(ContainerSummaryStateEnum::REMOVING) => {}
                Err(error) => misnamed.push((summary, error)),
            }
        }
        for (mut summary, error) in misnamed {
            match self.name_copy(context, &mut summary, &instances).await {
                Some(instance) => instances.push(instance),
                // One that somebody renamed must not hide the others.
                None => tracing::warn!(?error, names = ?summary.names, "a container is not understood"),
            }
        }
        instances.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(instances)
    }

    async fn stop(&self, context: &Context, name: &InstanceName, grace: Duration) -> Result<()> {
        const OPERATION: &str = "docker.stop_container";
        let Some(id) = self.own_id(context, OPERATION, name).await? else { return Ok(()) };
        let seconds = i32::try_from(grace.as_secs().saturating_add(u64::from(grace.subsec_nanos() > 0)));
        let options = query::StopContainerOptionsBuilder::new().t(seconds.unwrap_or(i32::MAX)).build();
        // The engine answers when the process has ended, so the client waits for longer than the grace.
        let patience = grace.saturating_add(CALL_TIMEOUT);
        let docker = self.engine.docker().clone().with_timeout(patience);
        let patient = context.with_budget(patience);
        let stopping = async { docker.stop_container(&id, Some(options)).await.map_err(failed(OPERATION)) };
        absent_is_done(patient.run(OPERATION, stopping).await)
    }

    async fn remove(&self, context: &Context, name: &InstanceName) -> Result<()> {
        const OPERATION: &str = "docker.remove_container";
        match self.own_id(context, OPERATION, name).await? {
            Some(id) => self.remove_by_id(context, OPERATION, &id).await,
            None => Ok(()),
        }
    }

    async fn remove_network(&self, context: &Context, org: &OrgId) -> Result<()> {
        let selector = Selector { org: Some(org.clone()), app: None };
        if !self.list(context, &selector).await?.is_empty() {
            return Err(network::in_use());
        }
        let _permit = network::permit(self).await?;
        network::remove(self, context, org).await
    }

    async fn networks(&self, context: &Context) -> Result<Vec<OrgId>> {
        network::list(self, context).await
    }

    async fn output(
        &self,
        context: &Context,
        name: &InstanceName,
        options: &OutputOptions,
    ) -> Result<BoxStream<'static, Result<OutputLine>>> {
        const OPERATION: &str = "docker.container_output";
        match self.own_id(context, OPERATION, name).await? {
            Some(id) => Ok(output::read(&self.engine, &id, options)),
            None => Err(Error::not_found(OPERATION, "there is no such instance").fault(Fault::Platform)),
        }
    }

    async fn endings(&self, context: &Context) -> Result<BoxStream<'static, ()>> {
        const OPERATION: &str = "docker.events";
        if context.is_cancelled() {
            return Err(Error::cancelled(OPERATION));
        }
        let mut filters = self.engine.filters(&[]);
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        filters.insert("event".to_owned(), vec!["die".to_owned(), "destroy".to_owned(), "rename".to_owned()]);
        let options = query::EventsOptionsBuilder::new().filters(&filters).build();
        // It lasts until the engine ends it: whoever reads then asks again.
        let docker = self.engine.docker().clone().with_timeout(Duration::from_secs(24 * 60 * 60));
        let events = docker.events(Some(options)).take_while(|event| std::future::ready(event.is_ok()));
        Ok(events.map(|_| ()).boxed())
    }

    async fn ping(&self, context: &Context) -> Result<()> {
        self.engine.call(context, "docker.ping", self.engine.docker().ping()).await.map(drop)
    }
}
