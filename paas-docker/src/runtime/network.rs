//! The network of an org.

use bollard::models::{
    Ipam, IpamConfig, Network, NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest,
    NetworkInspect,
};
use bollard::query_parameters as query;
use paas_core::{Context, Error, Fault, InstanceSpec, Kind, OrgId, Placement, Result, Retry};
use tokio::sync::SemaphorePermit;

use super::{DockerRuntime, container};
use crate::engine::{DockerEngine, absent_is_done, is_missing, label, refusal};

pub(super) fn name(engine: &DockerEngine, org: &OrgId) -> String {
    format!("paas-{}-{}", engine.installation(), org.suffix())
}

pub(super) fn in_use() -> Error {
    Error::new(Kind::Conflict, "docker.remove_network", "an instance is on the network of this org")
        .code("in_use")
        .fault(Fault::Platform)
}

/// Makes the org's network, or replaces an unused one with another subnet.
pub(super) async fn ensure(runtime: &DockerRuntime, context: &Context, spec: &InstanceSpec) -> Result<()> {
    let _permit = permit(runtime).await?;
    let subnet = match spec.placement {
        Placement::Fixed { subnet, .. } => Some(subnet.to_string()),
        Placement::Chosen => None,
    };
    match inspect(runtime, context, &spec.org).await? {
        Some(network) if is_as_wanted(&network, subnet.as_deref()) => {}
        Some(_) => {
            remove(runtime, context, &spec.org).await?;
            create(runtime, context, &spec.org, subnet).await?;
        }
        None => create(runtime, context, &spec.org, subnet).await?,
    }
    runtime.known_networks().insert(spec.org.clone());
    Ok(())
}

/// Whoever makes or removes a network holds it.
pub(super) async fn permit(runtime: &DockerRuntime) -> Result<SemaphorePermit<'_>> {
    runtime.making_network.acquire().await.map_err(paas_core::error::map("docker.network"))
}

/// Removes the org's network, under a permit; absent is done.
pub(super) async fn remove(runtime: &DockerRuntime, context: &Context, org: &OrgId) -> Result<()> {
    const OPERATION: &str = "docker.remove_network";
    runtime.known_networks().remove(org);
    if inspect(runtime, context, org).await?.is_none() {
        return Ok(());
    }
    let name = name(&runtime.engine, org);
    let call = runtime.engine.docker().remove_network(&name);
    match absent_is_done(runtime.engine.effect(context, OPERATION, call).await) {
        Err(error) if matches!(refusal(&error), Some((403, _))) => Err(in_use().source(error)),
        result => result,
    }
}

/// The orgs that have a network.
pub(super) async fn list(runtime: &DockerRuntime, context: &Context) -> Result<Vec<OrgId>> {
    const OPERATION: &str = "docker.list_networks";
    let filters = runtime.engine.filters(&[]);
    let options = query::ListNetworksOptionsBuilder::new().filters(&filters).build();
    let call = runtime.engine.docker().list_networks(Some(options));
    let networks = runtime.engine.call(context, OPERATION, call).await?;
    let org = |network: Network| network.labels?.get(label::ORG)?.parse().ok();
    Ok(networks.into_iter().filter_map(org).collect())
}

/// Connects a container that was cut off again. False if that can't be: another has its address, or it ended meanwhile.
pub(super) async fn connect(
    runtime: &DockerRuntime,
    context: &Context,
    spec: &InstanceSpec,
    id: &str,
) -> Result<bool> {
    const OPERATION: &str = "docker.connect_network";
    ensure(runtime, context, spec).await?;
    let name = name(&runtime.engine, &spec.org);
    // It may be on it at another address.
    let request = NetworkDisconnectRequest { container: id.to_owned(), force: Some(true) };
    let call = runtime.engine.docker().disconnect_network(&name, request);
    if let Err(error) = runtime.engine.effect(context, OPERATION, call).await
        && refusal(&error).is_none()
    {
        return Err(error);
    }
    let request =
        NetworkConnectRequest { container: id.to_owned(), endpoint_config: Some(container::endpoint(spec)) };
    let call = runtime.engine.docker().connect_network(&name, request);
    match runtime.engine.effect(context, OPERATION, call).await {
        Ok(()) => Ok(true),
        Err(error) if refusal(&error).is_some() => {
            tracing::warn!(?error, "a container can't be connected again: it is replaced");
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

async fn inspect(runtime: &DockerRuntime, context: &Context, org: &OrgId) -> Result<Option<NetworkInspect>> {
    const OPERATION: &str = "docker.inspect_network";
    let name = name(&runtime.engine, org);
    match runtime.engine.call(context, OPERATION, runtime.engine.docker().inspect_network(&name, None)).await
    {
        Ok(network) if runtime.engine.owns(network.labels.as_ref()) => Ok(Some(network)),
        Ok(_) => Err(Error::new(
            Kind::AlreadyExists,
            OPERATION,
            format!("a network that is not this platform's is called {name}"),
        )
        .code("foreign_name")
        .fault(Fault::Platform)),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_as_wanted(network: &NetworkInspect, subnet: Option<&str>) -> bool {
    let configured = network.ipam.as_ref().and_then(|ipam| ipam.config.as_ref());
    subnet.is_none_or(|subnet| {
        configured.is_some_and(|all| all.iter().any(|one| one.subnet.as_deref() == Some(subnet)))
    })
}

async fn create(
    runtime: &DockerRuntime,
    context: &Context,
    org: &OrgId,
    subnet: Option<String>,
) -> Result<()> {
    const OPERATION: &str = "docker.create_network";
    let wanted = subnet.clone().unwrap_or_default();
    let labels = [(label::INSTALLATION, runtime.engine.installation()), (label::ORG, org.as_str())];
    let request = NetworkCreateRequest {
        name: name(&runtime.engine, org),
        driver: Some("bridge".to_owned()),
        ipam: subnet.map(|subnet| Ipam {
            config: Some(vec![IpamConfig { subnet: Some(subnet), ..Default::default() }]),
            ..Default::default()
        }),
        labels: Some(labels.map(|(name, value)| (name.to_owned(), value.to_owned())).into()),
        ..Default::default()
    };
    let call = runtime.engine.docker().create_network(request);
    match runtime.engine.effect(context, OPERATION, call).await {
        Ok(_) => Ok(()),
        Err(error) => match refusal(&error) {
            Some((403, message)) if message.contains("overlaps") => Err(Error::new(
                Kind::Conflict,
                OPERATION,
                format!("another network of this machine has addresses of {wanted}"),
            )
            .code("subnet_taken")
            .fault(Fault::Platform)
            .retry(Retry::Permanent)
            .hint("find it with `docker network ls` and `ip route` and remove it, or give the platform another range of \
                   addresses (address_pool)")
            .source(error)),
            _ => Err(error),
        },
    }
}
