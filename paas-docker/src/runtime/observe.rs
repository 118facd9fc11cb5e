//! What the engine says of a container, in the platform's words.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use bollard::models::{
    ContainerInspectResponse, ContainerStateStatusEnum, ContainerSummary, ContainerSummaryStateEnum,
    EndpointSettings,
};
use jiff::Timestamp;
use paas_core::{DeploymentId, Error, Instance, InstanceName, InstanceState, Result};

use crate::engine::{DockerEngine, label};

/// A container that was looked up by its name.
pub(super) enum Found {
    /// This installation made it.
    Own {
        /// The engine's id.
        id: String,
        /// What it is doing.
        instance: Instance,
        /// The fingerprint of the spec that it was made from.
        spec: String,
    },
    /// Somebody else did.
    Foreign,
}

impl Found {
    pub(super) fn new(engine: &DockerEngine, response: ContainerInspectResponse) -> Result<Self> {
        let labels = response.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
        if !engine.owns(Some(&labels)) {
            return Ok(Self::Foreign);
        }
        let state = response.state.unwrap_or_default();
        let observed = match state.status {
            Some(ContainerStateStatusEnum::RUNNING | ContainerStateStatusEnum::PAUSED) => {
                let networks = response.network_settings.and_then(|settings| settings.networks);
                running(networks.as_ref(), &labels)
            }
            _ => InstanceState::Exited {
                code: state.exit_code.unwrap_or_default(),
                out_of_memory: state.oom_killed.unwrap_or_default(),
            },
        };
        let mut instance = of_labels(response.name.as_deref(), &labels)?;
        instance.state = observed;
        // A container that was never started says `0001-01-01T00:00:00Z`.
        let started: Option<Timestamp> = state.started_at.and_then(|text| text.parse().ok());
        instance.started_at = started.filter(|at| *at > Timestamp::UNIX_EPOCH);
        instance.restarts = u32::try_from(response.restart_count.unwrap_or_default()).unwrap_or_default();
        Ok(Self::Own {
            id: response.id.unwrap_or_default(),
            instance,
            spec: labels.get(label::SPEC).cloned().unwrap_or_default(),
        })
    }
}

/// A container of a list.
pub(super) fn listed(summary: &ContainerSummary) -> Result<Instance> {
    let labels = summary.labels.as_ref().ok_or_else(|| unreadable("labels"))?;
    let name = summary.names.iter().flatten().next();
    let mut instance = of_labels(name.map(String::as_str), labels)?;
    instance.state = match summary.state {
        Some(ContainerSummaryStateEnum::RUNNING | ContainerSummaryStateEnum::PAUSED) => {
            let networks = summary.network_settings.as_ref().and_then(|settings| settings.networks.as_ref());
            running(networks, labels)
        }
        _ => InstanceState::Exited {
            code: exit_code(summary.status.as_deref().unwrap_or_default()),
            out_of_memory: false,
        },
    };
    Ok(instance)
}

/// Whether a container that runs can be reached: at its address, or on a network at all where its port is published.
fn running(
    networks: Option<&HashMap<String, EndpointSettings>>,
    labels: &HashMap<String, String>,
) -> InstanceState {
    let address = labels.get(label::ADDRESS).map(String::as_str).unwrap_or_default();
    let is_published = address.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    let has = |endpoint: &EndpointSettings| {
        let own = endpoint.ip_address.as_deref().unwrap_or_default();
        if is_published { !own.is_empty() } else { own == address }
    };
    if networks.is_some_and(|networks| networks.values().any(has)) {
        InstanceState::Running
    } else {
        InstanceState::CutOff
    }
}

/// The operation that a container of a list says it is of.
pub(super) fn deployment(summary: &ContainerSummary) -> Option<DeploymentId> {
    summary.labels.as_ref()?.get(label::DEPLOYMENT)?.parse().ok()
}

/// The code in `Exited (137) 3 seconds ago`, `Restarting (1) 2 seconds ago`; 0 where there is none.
fn exit_code(status: &str) -> i64 {
    let code = status.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(code, _)| code);
    code.and_then(|code| code.parse().ok()).unwrap_or_default()
}

/// What name and labels say; the rest is for the caller to fill in.
fn of_labels(name: Option<&str>, labels: &HashMap<String, String>) -> Result<Instance> {
    let read = |name: &'static str| labels.get(name).map(String::as_str).ok_or_else(|| unreadable(name));
    let deployment: DeploymentId = read(label::DEPLOYMENT)?.parse()?;
    let address = read(label::ADDRESS)?.parse().map_err(|_| unreadable(label::ADDRESS))?;
    let port = read(label::PORT)?.parse().map_err(|_| unreadable(label::PORT))?;
    Ok(Instance {
        name: instance_name(name.unwrap_or_default(), &deployment).ok_or_else(|| unreadable("name"))?,
        org: read(label::ORG)?.parse()?,
        app: read(label::APP)?.parse()?,
        deployment,
        address: SocketAddr::new(address, port),
        state: InstanceState::Running,
        started_at: None,
        restarts: 0,
    })
}

/// The name of the deployment's instance that the engine writes as `/paas-…` or `/paas-…-2`.
fn instance_name(text: &str, deployment: &DeploymentId) -> Option<InstanceName> {
    let text = text.trim_start_matches('/');
    let fallback = text.rsplit_once('-').and_then(|(_, number)| number.parse().ok()).unwrap_or_default();
    [InstanceName::of(deployment, 0), InstanceName::of(deployment, fallback)]
        .into_iter()
        .find(|name| name.as_str() == text)
}

fn unreadable(what: &'static str) -> Error {
    Error::internal(
        "docker.read_container",
        format!("a container of this installation has no readable {what}"),
    )
}
