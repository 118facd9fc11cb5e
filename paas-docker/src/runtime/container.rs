//! What a container is made of.

use std::collections::HashMap;
use std::net::SocketAddr;

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
/// The code of the error of an address that another container has.
pub(super) const ADDRESS_TAKEN: &str = "address_taken";

/// The engine's request for a container that is reached at `address`. Nothing in the spec can weaken what is set
/// here.
pub(super) fn body(engine: &DockerEngine, spec: &InstanceSpec, address: SocketAddr) -> ContainerCreateBody {
    let port = format!("{}/tcp", spec.port.number());
    let is_published = spec.placement == Placement::Chosen;
    let network = network::name(engine, &spec.org);
    // The engine would choose another port at every start.
    let loopback =
        PortBinding { host_ip: Some(address.ip().to_string()), host_port: Some(address.port().to_string()) };
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
        // The platform's warden starts again what ended, and says so.
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
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
        labels: Some(labels(engine, spec, address)),
        stop_timeout: i64::try_from(spec.stop_grace.as_secs()).ok(),
        host_config: Some(host_config),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network, endpoint(spec))])),
        }),
        ..Default::default()
    }
}

/// How it is on its org's network.
pub(super) fn endpoint(spec: &InstanceSpec) -> EndpointSettings {
    EndpointSettings {
        ipam_config: match spec.placement {
            Placement::Fixed { address, .. } => {
                Some(EndpointIpamConfig { ipv4_address: Some(address.to_string()), ..Default::default() })
            }
            Placement::Chosen => None,
        },
        ..Default::default()
    }
}

/// The user's variables as they are, and `PORT`.
fn env(spec: &InstanceSpec) -> Vec<String> {
    let mut env = vec![format!("PORT={}", spec.port.number())];
    env.extend(spec.env.iter().map(|(name, value)| format!("{name}={}", value.expose())));
    env
}

fn labels(engine: &DockerEngine, spec: &InstanceSpec, address: SocketAddr) -> HashMap<String, String> {
    texts(&[
        (label::INSTALLATION, engine.installation()),
        (label::ORG, spec.org.as_str()),
        (label::APP, spec.app.as_str()),
        (label::DEPLOYMENT, spec.deployment.as_str()),
        (label::SPEC, &spec.fingerprint()),
        (label::ADDRESS, &address.ip().to_string()),
        (label::PORT, &address.port().to_string()),
    ])
}

fn texts(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What the engine says when an image cannot be run as it is, and what its author can do about it.
const FLAWS_OF_IMAGES: [(&str, &str, &str); 9] = [
    ("No command specified", "the image does not say what to run", "add CMD or ENTRYPOINT to the Dockerfile"),
    ("unable to find user", NO_USER, USER_HINT),
    ("unable to find group", NO_USER, USER_HINT),
    ("uids and gids must be in range", NO_USER, USER_HINT),
    ("Cannot mkdir", NO_DIRECTORY, DIRECTORY_HINT),
    (": not a directory", NO_DIRECTORY, DIRECTORY_HINT),
    ("chdir to cwd", NO_DIRECTORY, DIRECTORY_HINT),
    ("cannot mount volume over existing file", NO_VOLUME, VOLUME_HINT),
    ("error mounting \"/var/lib/docker/volumes/", NO_VOLUME, VOLUME_HINT),
];
const NO_USER: &str = "the image's USER does not exist in it";
const USER_HINT: &str = "create the user in the Dockerfile before USER, or give its number";
const NO_DIRECTORY: &str = "the image's WORKDIR is not a directory";
const DIRECTORY_HINT: &str = "check WORKDIR in the Dockerfile, and that no file has its path";
const NO_VOLUME: &str = "a VOLUME of the image cannot be mounted";
const VOLUME_HINT: &str = "check that each VOLUME in the Dockerfile is a directory of the app's own";

/// Why a container could not be made or started: its address, the image, or the engine.
pub(super) fn refused(operation: &'static str, error: Error) -> Error {
    let Some((_, message)) = refusal(&error) else { return error };
    let is_port = message.contains("port is already allocated") || message.contains("address already in use");
    if is_port || message.contains("Address already in use") {
        return Error::new(Kind::Conflict, operation, "another container has this address")
            .code(ADDRESS_TAKEN)
            .fault(Fault::Platform)
            .retry(Retry::Transient { after: None })
            .source(error);
    }
    let flaw = FLAWS_OF_IMAGES.into_iter().find(|(text, ..)| message.contains(text));
    if let Some((_, text, hint)) = flaw {
        return Error::new(Kind::Unhealthy, operation, text).code("image_flawed").hint(hint).source(error);
    }
    error
}
