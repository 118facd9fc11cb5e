//! How a program talks to the proxy process: JSON lines over a Unix socket that only its owner can open.
//!
//! A connection carries one call at a time; hanging up cancels it. The first call says the protocol's number.

pub(crate) mod client;
pub(crate) mod link;
mod published;
pub(crate) mod server;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use paas_core::{
    Failure, Generation, HealthCheck, Host, InstanceName, Probe, Route, RoutePage, RoutesDigest, Serving,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Changes whenever an older side could misunderstand a newer one. `hello` and `stop` keep their form in all of them,
/// so that a process of any protocol can be told to make room.
const PROTOCOL: u32 = 1;

/// Grows with every call that is added: what a process is too old to know is not asked of it.
const REVISION: u32 = 1;

/// The first revision that knows the calls `digest` and `list`.
const LISTS_SINCE: u32 = 1;

/// The longest message: a route with thousands of targets.
const MAX_MESSAGE_BYTES: u64 = 1024 * 1024;

/// Where the process listens.
fn socket_path(directory: &Path) -> PathBuf {
    directory.join("control.sock")
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    call: Call,
    /// What is left of the caller's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    budget_milliseconds: Option<u64>,
}

impl Request {
    /// A call of a caller who has this much time.
    fn within(budget: Duration, call: Call) -> Self {
        let budget_milliseconds = Some(u64::try_from(budget.as_millis()).unwrap_or(u64::MAX));
        Self { call, budget_milliseconds }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "snake_case", deny_unknown_fields)]
enum Call {
    Hello { protocol: u32 },
    Publish { route: Route, generation: Generation },
    Withdraw { host: Host, generation: Generation },
    Serving { host: Host },
    Digest {},
    List { from: u64 },
    Drain { instance: InstanceName, address: SocketAddr },
    Probe { address: SocketAddr, check: HealthCheck },
    Ping {},
    Stop {},
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Hello(Hello),
    Done,
    Serving(Option<Serving>),
    Digest(RoutesDigest),
    List(RoutePage),
    Probe(Probe),
    Failed(Failure),
}

/// What a process says about itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Hello {
    protocol: u32,
    /// Processes from before there was one say none.
    #[serde(default)]
    revision: u32,
    version: String,
    process_id: u32,
    address: SocketAddr,
    public_port: u16,
}

/// One connection, either side.
#[derive(Debug)]
struct Wire(BufReader<UnixStream>);

impl Wire {
    fn new(stream: UnixStream) -> Self {
        Self(BufReader::new(stream))
    }

    async fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.write_all(&line).await
    }

    /// The next message; `None` when the other side hung up.
    async fn receive<M: DeserializeOwned>(&mut self) -> io::Result<Option<M>> {
        let mut line = Vec::new();
        (&mut self.0).take(MAX_MESSAGE_BYTES).read_until(b'\n', &mut line).await?;
        if line.is_empty() {
            return Ok(None);
        }
        if !line.ends_with(b"\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some(serde_json::from_slice(&line)?))
    }

    /// Sends a request and waits for its answer.
    async fn converse(&mut self, request: &Request) -> io::Result<Answer> {
        self.send(request).await?;
        Ok(self.receive().await?.ok_or(io::ErrorKind::UnexpectedEof)?)
    }

    /// Returns when the other side hangs up, or speaks out of turn.
    async fn interrupted(&mut self) {
        let _ = self.0.fill_buf().await;
    }
}
