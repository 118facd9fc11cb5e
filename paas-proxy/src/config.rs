//! What a proxy is told when it starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use paas_core::Host;
use serde::{Deserialize, Serialize};

/// Where a proxy listens, and its bounds. The defaults suit one machine.
///
/// ```
/// use paas_proxy::ProxyConfig;
/// let config = ProxyConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ProxyConfig::default() };
/// assert_eq!(config.max_connections, 16_384);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProxyConfig {
    /// Where clients connect. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// The port in apps' URLs where it is not the one listened on: behind a port mapping.
    pub public_port: Option<u16>,
    /// Where the table is kept, and for the process its socket, lock and log. Without one, routes are forgotten
    /// when the proxy ends.
    pub directory: Option<PathBuf>,
    /// How many threads carry requests; 0 is one for each core.
    pub workers: usize,
    /// How many client connections are open at most; more wait to be accepted. Fewer where the limit of open files
    /// allows no more: each takes two, and a proxy raises its process's soft limit to the hard one.
    pub max_connections: usize,
    /// How long things may take.
    pub timeouts: Timeouts,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            public_port: None,
            directory: None,
            workers: 0,
            max_connections: 16_384,
            timeouts: Timeouts::default(),
        }
    }
}

impl ProxyConfig {
    /// How many threads to start.
    pub(crate) fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            workers => workers,
        }
    }
}

/// How long a proxy waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// For a client to send the head of its next request, idle time included; checked once in this time, so it may
    /// take up to twice as long.
    pub request_head: Duration,
    /// For an instance to accept a connection.
    pub connect: Duration,
    /// For an instance to begin its answer after the request was sent.
    pub response_head: Duration,
    /// For the next bytes of a body, a tunnel or a write.
    pub idle_body: Duration,
    /// How long an unused connection to an instance is kept. Shorter than the 5 s after which Node and uvicorn
    /// close theirs, so that they seldom close one that is about to be used.
    pub idle_upstream: Duration,
    /// For requests in flight when the proxy is asked to stop.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            request_head: Duration::from_secs(30),
            connect: Duration::from_secs(5),
            response_head: Duration::from_secs(60),
            idle_body: Duration::from_secs(300),
            idle_upstream: Duration::from_secs(4),
            shutdown: Duration::from_secs(30),
        }
    }
}

/// Where people reach an app's host when clients connect to `port`.
pub(crate) fn url(host: &Host, port: u16) -> String {
    if port == 80 { format!("http://{host}") } else { format!("http://{host}:{port}") }
}
