//! A container runtime in memory.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use jiff::Timestamp;

use super::host::{Container, MemoryHost, State};
use crate::context::Context;
use crate::domain::{Instance, InstanceName, InstanceState, OrgId};
use crate::error::{Error, Fault, Kind, Result, Retry};
use crate::logs::LogStream;
use crate::runtime::{
    Addressing, ContainerRuntime, InstanceSpec, OutputLine, OutputOptions, Placement, Selector,
};

/// The first port of [`Placement::Chosen`] instances; they count up from here.
const FIRST_CHOSEN_PORT: u16 = 20_000;

/// Runs the images of a [`MemoryHost`], as their [`Program`](super::Program)s say.
#[derive(Clone, Debug)]
pub struct MemoryRuntime {
    host: MemoryHost,
    addressing: Addressing,
}

impl MemoryRuntime {
    /// A runtime on `host` whose addresses the platform allocates.
    #[must_use]
    pub fn new(host: MemoryHost) -> Self {
        Self { host, addressing: Addressing::Platform }
    }

    /// The same with addresses from `addressing`.
    #[must_use]
    pub fn with_addressing(self, addressing: Addressing) -> Self {
        Self { addressing, ..self }
    }

    /// Ends a container as SIGTERM (`143`) or SIGKILL (`137`) would, if it still runs.
    fn end(&self, name: &InstanceName, code: i64) {
        let now = self.host.clock().elapsed();
        if let Some(container) = self.host.locked().containers.get_mut(name) {
            let state = match container.state(now) {
                InstanceState::Running => InstanceState::Exited { code, out_of_memory: false },
                ended => ended,
            };
            container.ended = Some(state);
        }
        self.host.notify();
    }
}

fn address_of(state: &mut State, spec: &InstanceSpec, now: Duration) -> Result<SocketAddr> {
    match spec.placement {
        Placement::Fixed { subnet, address } => {
            let address = SocketAddr::new(address, spec.port.number());
            let on_network = |org: &OrgId| state.containers.values().any(|other| other.instance.org == *org);
            if state.networks.get(&spec.org).is_some_and(|known| *known != Some(subnet))
                && on_network(&spec.org)
            {
                return Err(Error::new(
                    Kind::Conflict,
                    "memory.ensure_network",
                    "the network of this org has another subnet",
                )
                .code("in_use")
                .fault(Fault::Platform));
            }
            let taken = state.containers.values().any(|other| {
                other.instance.address.ip() == address.ip() && other.state(now) == InstanceState::Running
            });
            if taken {
                return Err(Error::new(
                    Kind::Conflict,
                    "memory.ensure",
                    "another container has this address",
                )
                .code("address_taken")
                .fault(Fault::Platform)
                .retry(Retry::Transient { after: None }));
            }
            state.networks.insert(spec.org.clone(), Some(subnet));
            Ok(address)
        }
        Placement::Chosen => {
            state.networks.entry(spec.org.clone()).or_insert(None);
            let count = u16::try_from(state.containers_begun % 40_000).unwrap_or_default();
            Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), FIRST_CHOSEN_PORT + count))
        }
    }
}

#[async_trait]
impl ContainerRuntime for MemoryRuntime {
    fn addressing(&self) -> Addressing {
        self.addressing
    }

    async fn ensure(&self, context: &Context, spec: &InstanceSpec) -> Result<Instance> {
        self.host.admit(context, "memory.ensure")?;
        let (now, elapsed) = (self.host.clock().now(), self.host.clock().elapsed());
        let fingerprint = spec.fingerprint();
        let mut state = self.host.locked();
        if state.foreign_names.contains(&spec.name) {
            return Err(Error::new(
                Kind::AlreadyExists,
                "memory.ensure",
                format!("something that is not this platform's is called {}", spec.name),
            )
            .code("foreign_name")
            .fault(Fault::Platform));
        }
        if let Some(there) = state.containers.get_mut(&spec.name)
            && there.fingerprint == fingerprint
            && there.state(elapsed) == InstanceState::Running
        {
            there.is_cut_off = false;
            return Ok(there.observed(elapsed));
        }
        let Some(program) = state.images.get(&spec.image.digest).map(|built| built.program.clone()) else {
            return Err(Error::not_found("memory.ensure", "the image of this release is no longer there")
                .code("image_missing")
                .fault(Fault::Platform));
        };
        state.containers.remove(&spec.name);
        let address = address_of(&mut state, spec, elapsed)?;
        state.containers_begun += 1;
        let instance = Instance {
            name: spec.name.clone(),
            org: spec.org.clone(),
            app: spec.app.clone(),
            deployment: spec.deployment.clone(),
            address,
            state: InstanceState::Running,
            started_at: Some(now),
            restarts: 0,
        };
        let mut container = Container {
            instance,
            fingerprint,
            digest: spec.image.digest.clone(),
            program,
            started: elapsed,
            output: Vec::new(),
            ended: None,
            is_cut_off: false,
        };
        for line in container.program.output.clone() {
            container.write(now, LogStream::Stdout, &line);
        }
        let observed = container.observed(elapsed);
        state.containers.insert(spec.name.clone(), container);
        drop(state);
        self.host.notify();
        Ok(observed)
    }

    async fn inspect(&self, context: &Context, name: &InstanceName) -> Result<Option<Instance>> {
        self.host.admit(context, "memory.inspect")?;
        let now = self.host.clock().elapsed();
        Ok(self.host.locked().containers.get(name).map(|container| container.observed(now)))
    }

    async fn list(&self, context: &Context, selector: &Selector) -> Result<Vec<Instance>> {
        self.host.admit(context, "memory.list")?;
        let mut instances = self.host.instances();
        instances.retain(|instance| {
            selector.org.as_ref().is_none_or(|org| instance.org == *org)
                && selector.app.as_ref().is_none_or(|app| instance.app == *app)
        });
        Ok(instances)
    }

    async fn stop(&self, context: &Context, name: &InstanceName, grace: Duration) -> Result<()> {
        self.host.admit(context, "memory.stop")?;
        let ignores = {
            let state = self.host.locked();
            let Some(container) = state.containers.get(name) else { return Ok(()) };
            container.program.ignores_stop
                && container.state(self.host.clock().elapsed()) == InstanceState::Running
        };
        if ignores {
            context.sleep("memory.stop", grace).await?;
            self.end(name, 137);
        } else {
            self.end(name, 143);
        }
        Ok(())
    }

    async fn remove(&self, context: &Context, name: &InstanceName) -> Result<()> {
        self.host.admit(context, "memory.remove")?;
        self.host.locked().containers.remove(name);
        self.host.notify();
        Ok(())
    }

    async fn remove_network(&self, context: &Context, org: &OrgId) -> Result<()> {
        self.host.admit(context, "memory.remove_network")?;
        let mut state = self.host.locked();
        let is_shared = state.shared_networks.contains(org);
        if is_shared || state.containers.values().any(|container| container.instance.org == *org) {
            return Err(Error::new(
                Kind::Conflict,
                "memory.remove_network",
                "an instance is on this network",
            )
            .code("in_use"));
        }
        state.networks.remove(org);
        Ok(())
    }

    async fn networks(&self, context: &Context) -> Result<Vec<OrgId>> {
        self.host.admit(context, "memory.networks")?;
        Ok(self.host.networks())
    }

    async fn output(
        &self,
        context: &Context,
        name: &InstanceName,
        options: &OutputOptions,
    ) -> Result<BoxStream<'static, Result<OutputLine>>> {
        self.host.admit(context, "memory.output")?;
        let mut reader = Reader {
            host: self.host.clone(),
            name: name.clone(),
            after: options.after,
            follow: options.follow,
        };
        let Some((mut first, _)) = reader.read() else {
            return Err(Error::not_found("memory.output", "there is no such instance"));
        };
        reader.after = first.last().map(|line| line.at).or(reader.after);
        if let Some(tail) = options.tail {
            let excess = first.len().saturating_sub(tail);
            first.drain(..excess);
        }
        Ok(follow(reader, first))
    }

    async fn endings(&self, context: &Context) -> Result<BoxStream<'static, ()>> {
        self.host.admit(context, "memory.endings")?;
        let watching = (self.host.clone(), self.host.changes(), self.host.running());
        let endings = futures::stream::unfold(watching, |(host, mut changes, mut before)| async move {
            loop {
                changes.changed().await;
                let running = host.running();
                let has_ended = !before.is_subset(&running);
                before = running;
                if has_ended {
                    return Some(((), (host, changes, before)));
                }
            }
        });
        Ok(endings.boxed())
    }

    async fn ping(&self, context: &Context) -> Result<()> {
        self.host.admit(context, "memory.ping")
    }
}

struct Reader {
    host: MemoryHost,
    name: InstanceName,
    after: Option<Timestamp>,
    follow: bool,
}

impl Reader {
    /// The lines that are there behind `after`, and when the program will end by itself if it still runs
    /// (`None`: it has ended). `None` when there is no such container.
    fn read(&self) -> Option<(Vec<OutputLine>, Option<Duration>)> {
        let state = self.host.locked();
        let container = state.containers.get(&self.name)?;
        let is_wanted = |line: &&OutputLine| self.after.is_none_or(|after| line.at > after);
        let lines = container.output.iter().filter(is_wanted).cloned().collect();
        let now = self.host.clock().elapsed();
        let rest = match (container.state(now), container.program.exit) {
            (InstanceState::Exited { .. }, _) => None,
            (_, Some(exit)) => Some((container.started + exit.after).saturating_sub(now)),
            (_, None) => Some(Duration::MAX),
        };
        Some((lines, rest))
    }
}

/// First the lines that were read already, then what comes while the program runs.
fn follow(reader: Reader, first: Vec<OutputLine>) -> BoxStream<'static, Result<OutputLine>> {
    let changes = reader.host.changes();
    let pages = futures::stream::unfold(
        (reader, Some(first), changes),
        |(mut reader, mut page, mut changes)| async move {
            loop {
                if let Some(lines) = page.take().filter(|lines| !lines.is_empty()) {
                    reader.after = lines.last().map(|line| line.at);
                    return Some((lines, (reader, None, changes)));
                }
                if !reader.follow {
                    return None;
                }
                changes.mark_seen();
                let (lines, rest) = reader.read()?;
                if !lines.is_empty() {
                    page = Some(lines);
                    continue;
                }
                let rest = rest?;
                tokio::select! {
                    biased;
                    () = changes.changed() => {}
                    () = reader.host.clock().sleep(rest) => {}
                }
            }
        },
    );
    pages.map(|lines| futures::stream::iter(lines.into_iter().map(Ok))).flatten().boxed()
}
