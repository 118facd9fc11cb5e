//! What a container is made of.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, HostConfigLogConfig,
    NetworkingConfig, PortBinding, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use paas_core::{Error, Fault, InstanceSpec, Kind, Placement, Retry};

use super::network;
use crate::engine::{DockerEngine, label, refusal};

/// All that is left of root's powers: enough for images that change owners and drop to a user of their own.
const CAPABILITIES: [&str; 6] = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID", "NET_BIND_SERVICE"];
/// Open files of a process.
const OPEN_FILES: i64 = 4096;
/// The scheduler's period that the CPU quota is a share of, in microseconds.
const CPU_PERIOD_MICROS: i64 = 100_000;

/// The engine's request for a container. Nothing in the spec can weaken what is set here.
pub(super) fn body(engine: &DockerEngine, spec: &InstanceSpec) -> ContainerCreateBody {
    let port = format!("{}/tcp", spec.port.number());
    let is_published = spec.placement == Placement::Chosen;
    let network = network::name(engine, &spec.org);
    let endpoint = EndpointSettings {
        ipam_config: match spec.placement {
            Placement::Fixed { address, .. } => {
                Some(EndpointIpamConfig { ipv4_address: Some(address.to_string()), ..Default::default() })
            }
            Placement::Chosen => None,
        },
        ..Default::default()
    };
    let loopback = PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(String::new()) };
    let memory = i64::try_from(spec.resources.memory_bytes).unwrap_or(i64::MAX);
    let host_config = HostConfig {
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: Some(CAPABILITIES.map(str::to_owned).to_vec()),
        security_opt: Some(vec!["no-new-privileges:true".to_owned()]),
        privileged: Some(false),
        init: Some(true),
        pids_limit: Some(spec.resources.pids.into()),
        memory: Some(memory),
        // The same figure: no swap on top.
        memory_swap: Some(memory),
        cpu_period: Some(CPU_PERIOD_MICROS),
        cpu_quota: Some(i64::from(spec.resources.cpu_millis) * CPU_PERIOD_MICROS / 1000),
        ulimits: Some(vec![ResourcesUlimits {
            name: Some("nofile".to_owned()),
            soft: Some(OPEN_FILES),
            hard: Some(OPEN_FILES),
        }]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(texts(&[("max-size", "10m"), ("max-file", "3")])),
        }),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::ON_FAILURE),
            maximum_retry_count: None,
        }),
        network_mode: Some(network.clone()),
        port_bindings: is_published.then(|| HashMap::from([(port.clone(), Some(vec![loopback]))])),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(spec.image.digest.clone()),
        env: Some(env(spec)),
        exposed_ports: is_published.then(|| vec![port]),
        labels: Some(labels(engine, spec)),
        stop_timeout: i64::try_from(spec.stop_grace.as_secs()).ok(),
        host_config: Some(host_config),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network, endpoint)])),
        }),
        ..Default::default()
    }
}

/// The user's variables as they are, and `PORT`.
fn env(spec: &InstanceSpec) -> Vec<String> {
    let mut env = vec![format!("PORT={}", spec.port.number())];
    env.extend(spec.env.iter().map(|(name, value)| format!("{name}={}", value.expose())));
    env
}

fn labels(engine: &DockerEngine, spec: &InstanceSpec) -> HashMap<String, String> {
    let fingerprint = spec.fingerprint();
    let port = spec.port.number().to_string();
    let mut labels = texts(&[
        (label::INSTALLATION, engine.installation()),
        (label::ORG, spec.org.as_str()),
        (label::APP, spec.app.as_str()),
        (label::DEPLOYMENT, spec.deployment.as_str()),
        (label::SPEC, &fingerprint),
        (label::PORT, &port),
    ]);
    if let Placement::Fixed { address, .. } = spec.placement {
        labels.insert(label::ADDRESS.to_owned(), address.to_string());
    }
    labels
}

fn texts(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// Why a container could not be started: the address, the user's program, or the engine.
pub(super) fn not_started(operation: &'static str, error: Error) -> Error {
    let Some((_, message)) = refusal(&error) else { return error };
    if message.contains("Address already in use") {
        return Error::new(Kind::Conflict, operation, "another container has this address")
            .code("address_taken")
            .fault(Fault::Platform)
            .retry(Retry::Transient { after: None })
            .source(error);
    }
    // The program's own text comes last: `… exec: "serve": executable file not found in $PATH: unknown`.
    let is_program =
        ["executable file not found", "no such file or directory", "permission denied", "exec format error"]
            .iter()
            .any(|reason| message.contains(reason));
    if is_program && message.contains("exec") {
        let reason = message.rsplit_once("exec").map_or(message, |(_, reason)| reason);
        let reason = reason.trim_start_matches([':', ' ']).trim_end_matches(": unknown").trim();
        let text = format!("the program could not be started: {reason}");
        return Error::new(Kind::Unhealthy, operation, text)
            .fault(Fault::User)
            .hint("check the start command, and that its program is in the image and may be executed")
            .source(error);
    }
    error
}
