//! The trait of container runtimes.

use std::fmt::{self, Debug};
use std::net::IpAddr;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use jiff::Timestamp;

use crate::context::Context;
use crate::domain::{AppId, DeploymentId, Env, Image, Instance, InstanceName, OrgId, Port, Resources};
use crate::error::Result;
use crate::fingerprint::Fingerprint;
use crate::logs::LogStream;

/// An IPv4 subnet in the notation `10.181.4.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subnet {
    /// Its first address.
    pub address: std::net::Ipv4Addr,
    /// How many leading bits are fixed.
    pub prefix: u8,
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

/// Which address an instance gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// This address, fixed, on the org's network with this subnet. Nobody else gets it while it is allocated.
    Fixed {
        /// The org's subnet.
        subnet: Subnet,
        /// The address within it.
        address: IpAddr,
    },
    /// Whatever the runtime chooses: for runtimes whose addresses the platform can't choose or reach.
    Chosen,
}

/// Who gives instances their addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// The platform allocates them ([`Placement::Fixed`]).
    Platform,
    /// The runtime does ([`Placement::Chosen`]).
    Runtime,
}

/// The container that should be there.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    /// Its name.
    pub name: InstanceName,
    /// Whose it is.
    pub org: OrgId,
    /// Which app it runs.
    pub app: AppId,
    /// Which operation makes it.
    pub deployment: DeploymentId,
    /// What it runs.
    pub image: Image,
    /// Where its program listens; also set as `$PORT`.
    pub port: Port,
    /// Its environment.
    pub env: Env,
    /// What it may use.
    pub resources: Resources,
    /// How long it gets to end by itself when the engine stops it.
    pub stop_grace: Duration,
    /// Which address it gets.
    pub placement: Placement,
}

impl InstanceSpec {
    /// A digest of everything in it: what tells whether a container that is there is the one that should be.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let mut fingerprint = Fingerprint::new("instance/1");
        fingerprint
            .text(self.name.as_str())
            .text(self.org.as_str())
            .text(self.app.as_str())
            .text(self.deployment.as_str())
            .text(&self.image.digest)
            .number(self.port.number().into())
            .number(self.resources.memory_bytes)
            .number(self.resources.cpu_millis.into())
            .number(self.resources.pids.into())
            .number(u64::try_from(self.stop_grace.as_millis()).unwrap_or(u64::MAX));
        match self.placement {
            Placement::Fixed { subnet, address } => {
                fingerprint.text(&subnet.to_string()).text(&address.to_string());
            }
            Placement::Chosen => {
                fingerprint.text("chosen");
            }
        }
        for (name, value) in self.env.iter() {
            fingerprint.text(name.as_str()).text(value.expose());
        }
        fingerprint.finish()
    }
}

/// Which instances or images to list; all of the installation by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Only this org's.
    pub org: Option<OrgId>,
    /// Only this app's.
    pub app: Option<AppId>,
}

impl Selector {
    /// Those of one app.
    #[must_use]
    pub fn of_app(org: &OrgId, app: &AppId) -> Self {
        Self { org: Some(org.clone()), app: Some(app.clone()) }
    }
}

/// Which of an instance's output to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputOptions {
    /// Only what came after this time, itself excluded.
    pub after: Option<Timestamp>,
    /// Only the last lines, this many.
    pub tail: Option<usize>,
    /// Go on with what comes, until the instance ends.
    pub follow: bool,
}

/// A line that an instance wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputLine {
    /// When, by the engine's clock.
    pub at: Timestamp,
    /// To which output.
    pub stream: LogStream,
    /// The text without its line end, cut at [`NewLogLine::MAX_TEXT_BYTES`](crate::NewLogLine::MAX_TEXT_BYTES).
    pub text: String,
}

/// Runs containers.
///
/// # Flow
/// `ensure` makes the container that should be there, `inspect` and `list` observe, `stop` and `remove` end it.
///
/// # Guarantees
/// - Every verb is ensure-style: repeating it changes nothing, removing what is absent succeeds.
/// - Only containers and networks that carry this installation's label are changed or removed. A name that
///   something else has is `AlreadyExists` with the code `foreign_name`.
/// - `ensure` of a running container of that name with the same image and settings answers it as it is; one that was
///   cut off from its network is connected again, a stopped one is replaced.
/// - Containers are hardened as the contract says; nothing in [`InstanceSpec`] can weaken that.
/// - `remove` returns when the container is gone and its address can be given again.
///
/// # Errors
/// `NotFound` with the code `image_missing`, the platform's fault, when the engine has no such image. `Conflict`
/// with the code `address_taken`, transient, when another container still has the address. `Unavailable`, the
/// platform's fault, when the engine does not answer.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ContainerRuntime: Debug + Send + Sync + 'static {
    /// Who gives instances their addresses.
    fn addressing(&self) -> Addressing;

    /// Makes the instance run, with its network. It returns once the process was started, whatever becomes of it.
    async fn ensure(&self, context: &Context, spec: &InstanceSpec) -> Result<Instance>;

    /// The instance of this name, if there is one and it is this platform's.
    async fn inspect(&self, context: &Context, name: &InstanceName) -> Result<Option<Instance>>;

    /// This platform's instances, in the order of their names.
    async fn list(&self, context: &Context, selector: &Selector) -> Result<Vec<Instance>>;

    /// Asks the process to end (SIGTERM), ends it after `grace` (SIGKILL), and returns when it has ended.
    /// It stays listed, and its output readable, until it is removed.
    async fn stop(&self, context: &Context, name: &InstanceName, grace: Duration) -> Result<()>;

    /// Removes the container, ending its process at once if it still runs.
    async fn remove(&self, context: &Context, name: &InstanceName) -> Result<()>;

    /// Removes the org's network. Removing what is absent succeeds.
    ///
    /// # Errors
    /// `Conflict` with the code `in_use` while an instance is on it.
    async fn remove_network(&self, context: &Context, org: &OrgId) -> Result<()>;

    /// The orgs that have a network.
    async fn networks(&self, context: &Context) -> Result<Vec<OrgId>>;

    /// The instance's output, oldest first; it ends when there is no more, with `follow` when the instance ends.
    ///
    /// # Errors
    /// `NotFound` when there is no such instance.
    async fn output(
        &self,
        context: &Context,
        name: &InstanceName,
        options: &OutputOptions,
    ) -> Result<BoxStream<'static, Result<OutputLine>>>;

    /// A hint each time that an instance of this platform ends or disappears, from now on. Only a hint: it may be late,
    /// doubled or lost, and the stream may end at any time.
    async fn endings(&self, context: &Context) -> Result<BoxStream<'static, ()>>;

    /// Answers if the engine does: for readiness.
    async fn ping(&self, context: &Context) -> Result<()>;
}
