//! The connection to a Docker engine, and what both adapters need of it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use paas_core::{Context, Error, Fault, Kind, Result, Retry};

/// How long one ordinary call may take: the engine answers in milliseconds, but may be busy with builds.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Labels of everything that the platform makes. Each is set on whatever has it: an image's own labels, which are its
/// author's, would show through where one is not.
pub(crate) mod label {
    pub(crate) const INSTALLATION: &str = "paas.installation";
    pub(crate) const ORG: &str = "paas.org";
    pub(crate) const APP: &str = "paas.app";
    pub(crate) const DEPLOYMENT: &str = "paas.deployment";
    /// The fingerprint of the spec that a container was made from.
    pub(crate) const SPEC: &str = "paas.spec";
    /// The port at which it is reached.
    pub(crate) const PORT: &str = "paas.port";
    /// The address at which it is reached.
    pub(crate) const ADDRESS: &str = "paas.address";
    pub(crate) const BUILD_KEY: &str = "paas.build-key";
}

/// Where the engine listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Unix(PathBuf),
    Tcp(String),
}

/// A connection to a Docker engine on behalf of one installation of the platform.
///
/// It holds no open connection: each call makes its own, so an engine that restarts is simply there again.
#[derive(Clone, Debug)]
pub struct DockerEngine {
    docker: Docker,
    endpoint: Endpoint,
    installation: String,
}

impl DockerEngine {
    /// Connects to the engine that `DOCKER_HOST` names, else to the local one. `installation` is the name of this
    /// installation of the platform: several on one engine do not see each other's containers.
    ///
    /// # Errors
    /// `Invalid` when `installation` is not made of `a-z`, `0-9` and `-`; `Unavailable` when no engine answers;
    /// `Unsupported` when it is too old, or not on Linux.
    pub async fn connect(context: &Context, installation: &str) -> Result<Self> {
        let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        Self::connect_to(context, host.as_deref().unwrap_or("unix:///var/run/docker.sock"), installation)
            .await
    }

    /// Connects to the engine at `host`: `unix:///path` or `tcp://address:port`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect).
    pub async fn connect_to(context: &Context, host: &str, installation: &str) -> Result<Self> {
        const OPERATION: &str = "docker.connect";
        let is_name = |text: &str| {
            (1..=40).contains(&text.len())
                && text.starts_with(|first: char| first.is_ascii_lowercase())
                && text.ends_with(|last: char| last != '-')
                && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !text.contains("--")
        };
        if !is_name(installation) {
            return Err(Error::invalid(OPERATION, "this is not the name of an installation")
                .hint("use up to 40 of a-z, 0-9 and '-', starting with a letter"));
        }
        let endpoint = match host.split_once("://") {
            Some(("unix", path)) => Endpoint::Unix(path.into()),
            Some(("tcp" | "http", address)) => Endpoint::Tcp(address.trim_end_matches('/').to_owned()),
            _ => {
                return Err(Error::new(
                    Kind::Unsupported,
                    OPERATION,
                    "this address of an engine is not supported",
                )
                .context("host", host)
                .hint("use unix:///path or tcp://address:port"));
            }
        };
        let seconds = CALL_TIMEOUT.as_secs();
        let docker = match &endpoint {
            Endpoint::Unix(_) => Docker::connect_with_unix(host, seconds, API_DEFAULT_VERSION),
            Endpoint::Tcp(_) => Docker::connect_with_http(host, seconds, API_DEFAULT_VERSION),
        };
        let docker = docker.map_err(failed(OPERATION))?;
        let engine = Self { docker, endpoint, installation: installation.to_owned() };
        engine.negotiated(context).await
    }

    async fn negotiated(self, context: &Context) -> Result<Self> {
        const OPERATION: &str = "docker.connect";
        let version = self.call(context, OPERATION, self.docker.version()).await?;
        let unsupported = |message: &str| Error::new(Kind::Unsupported, OPERATION, message);
        if version.os.as_deref() != Some("linux") {
            return Err(unsupported("the engine does not run Linux containers"));
        }
        let docker = self.call(context, OPERATION, self.docker.clone().negotiate_version()).await?;
        let spoken = docker.client_version();
        if (spoken.major_version, spoken.minor_version) < (1, 41) {
            return Err(unsupported("this Docker engine is too old")
                .hint("install Docker Engine 20.10 or newer")
                .context("api_version", spoken));
        }
        Ok(Self { docker, ..self })
    }

    /// The name of this installation.
    #[must_use]
    pub fn installation(&self) -> &str {
        &self.installation
    }

    pub(crate) fn docker(&self) -> &Docker {
        &self.docker
    }

    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// True if these labels are of something that this installation made.
    pub(crate) fn owns(&self, labels: Option<&HashMap<String, String>>) -> bool {
        labels.and_then(|labels| labels.get(label::INSTALLATION)) == Some(&self.installation)
    }

    /// A list filter: this installation's, with each of `labels` as well.
    pub(crate) fn filters(&self, labels: &[(&str, &str)]) -> HashMap<String, Vec<String>> {
        let mut wanted = vec![format!("{}={}", label::INSTALLATION, self.installation)];
        wanted.extend(labels.iter().map(|(name, value)| format!("{name}={value}")));
        HashMap::from([("label".to_owned(), wanted)])
    }

    /// A call that reads, or whose effect may be left unfinished: dropped when it is cancelled or out of time.
    pub(crate) async fn call<T>(
        &self,
        context: &Context,
        operation: &'static str,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        context
            .with_budget(CALL_TIMEOUT)
            .run(operation, async { call.await.map_err(failed(operation)) })
            .await
    }

    /// A call that changes something: it runs to its end even when it is cancelled meanwhile, because the engine
    /// would go on with it. Bounded all the same.
    pub(crate) async fn effect<T>(
        &self,
        context: &Context,
        operation: &'static str,
        call: impl Future<Output = Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        if context.is_cancelled() {
            return Err(Error::cancelled(operation));
        }
        let uncancelled = Context::new(context.clock().clone());
        self.call(&uncancelled, operation, call).await
    }
}

/// The engine's answer to a request that it refused.
pub(crate) fn refusal(error: &Error) -> Option<(u16, &str)> {
    let source = std::error::Error::source(error)?;
    match source.downcast_ref::<bollard::errors::Error>()? {
        bollard::errors::Error::DockerResponseServerError { status_code, message } => {
            Some((*status_code, message))
        }
        _ => None,
    }
}

/// True if the engine answered that it has no such thing.
pub(crate) fn is_missing(error: &Error) -> bool {
    matches!(refusal(error), Some((404, _)))
}

/// Removing what is absent succeeds.
pub(crate) fn absent_is_done(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if is_missing(&error) => Ok(()),
        result => result,
    }
}

/// Names the operation of an error of the engine, or of the way to it.
pub(crate) fn failed(operation: &'static str) -> impl FnOnce(bollard::errors::Error) -> Error {
    use bollard::errors::Error as Cause;
    move |cause| {
        let error = match &cause {
            Cause::DockerResponseServerError { status_code: 404, .. } => {
                Error::new(Kind::NotFound, operation, "the container engine has no such thing")
                    .fault(Fault::Platform)
            }
            Cause::DockerResponseServerError { status_code: 409, .. } => {
                Error::new(Kind::Conflict, operation, "the container engine is in the way of this")
                    .fault(Fault::Platform)
                    .retry(Retry::Transient { after: None })
            }
            // What stands before the engine says so.
            Cause::DockerResponseServerError { status_code: 502..=504, .. } | Cause::RequestTimeoutError => {
                Error::new(Kind::Unavailable, operation, "the container engine could not do it now")
            }
            // It answers: this is no outage, which would be waited out, but may pass all the same.
            Cause::DockerResponseServerError { status_code: 500.., .. } => {
                Error::new(Kind::Internal, operation, "the container engine failed at this")
                    .retry(Retry::Transient { after: None })
            }
            Cause::DockerResponseServerError { .. } => {
                Error::new(Kind::Internal, operation, "the container engine refused a request")
            }
            Cause::SocketNotFoundError(_)
            | Cause::IOError { .. }
            | Cause::HyperLegacyError { .. }
            | Cause::HyperResponseError { .. } => {
                Error::new(Kind::Unavailable, operation, "the container engine does not answer").hint(
                    "start the Docker engine (examples/setup/engine.sh installs and starts one), or set DOCKER_HOST",
                )
            }
            _ => Error::new(Kind::Internal, operation, "an internal error occurred"),
        };
        error.source(cause)
    }
}
