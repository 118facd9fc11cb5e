//! The machine of the in-memory builder and runtime: what was built on it, and what runs there.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;
use crate::context::Context;
use crate::domain::{AppId, Image, Instance, InstanceName, InstanceState, OrgId, Port, TreeId};
use crate::error::{Error, Failure, Kind, Result};
use crate::image::BuildKey;
use crate::logs::LogStream;
use crate::runtime::{OutputLine, Subnet};
use crate::watch;

/// What building a tree does, and what the image does when it runs.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// The lines that the build writes.
    pub build_output: Vec<String>,
    /// How long it takes.
    pub build_time: Duration,
    /// How it fails, if it does.
    pub build_failure: Option<Failure>,
    /// The port that the image says it listens on.
    pub exposes: Option<Port>,
    /// What the image runs.
    pub program: Program,
}

/// What an image does when it runs.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The lines that it writes at its start.
    pub output: Vec<String>,
    /// How long it takes until it answers.
    pub answers_after: Duration,
    /// How it ends by itself, if it does.
    pub exit: Option<ProgramExit>,
    /// It goes on when it is asked to end.
    pub ignores_stop: bool,
}

/// How a program ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramExit {
    /// How long after its start.
    pub after: Duration,
    /// With which code.
    pub code: i64,
    /// Because it used more memory than it may.
    pub out_of_memory: bool,
}

/// A machine in memory: images, containers and networks, shared by a [`MemoryBuilder`](super::MemoryBuilder)
/// and a [`MemoryRuntime`](super::MemoryRuntime).
///
/// Programs live by the clock: nothing runs in the background. A program that ended stays ended; this machine
/// restarts nothing by itself.
///
/// ```
/// use std::sync::Arc;
/// use paas_core::SystemClock;
/// use paas_core::memory::{MemoryBuilder, MemoryHost, MemoryRuntime};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let host = MemoryHost::new(Arc::new(SystemClock::new()));
/// let builder = MemoryBuilder::new(host.clone());
/// let runtime = MemoryRuntime::new(host.clone());
/// assert!(host.instances().is_empty());
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MemoryHost {
    clock: Arc<dyn Clock>,
    state: Arc<Mutex<State>>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) scripts: BTreeMap<TreeId, Script>,
    pub(super) images: BTreeMap<String, BuiltImage>,
    pub(super) containers: BTreeMap<InstanceName, Container>,
    pub(super) networks: BTreeMap<OrgId, Option<Subnet>>,
    /// The orgs on whose network something foreign is.
    pub(super) shared_networks: BTreeSet<OrgId>,
    pub(super) foreign_names: BTreeSet<InstanceName>,
    pub(super) held_images: BTreeSet<String>,
    pub(super) builds_running: usize,
    pub(super) builds_begun: u64,
    pub(super) containers_begun: u64,
    pub(super) is_out: bool,
}

#[derive(Debug)]
pub(super) struct BuiltImage {
    pub(super) key: BuildKey,
    pub(super) org: OrgId,
    pub(super) app: AppId,
    pub(super) image: Image,
    pub(super) program: Program,
}

#[derive(Debug)]
pub(super) struct Container {
    pub(super) instance: Instance,
    pub(super) fingerprint: String,
    pub(super) digest: String,
    pub(super) program: Program,
    /// Monotonic, on the host's clock.
    pub(super) started: Duration,
    pub(super) output: Vec<OutputLine>,
    /// Set when it was ended from outside.
    pub(super) ended: Option<InstanceState>,
    pub(super) is_cut_off: bool,
}

impl Container {
    /// What it does at the monotonic time `now`.
    pub(super) fn state(&self, now: Duration) -> InstanceState {
        if let Some(ended) = &self.ended {
            return ended.clone();
        }
        match self.program.exit {
            Some(exit) if now >= self.started + exit.after => {
                InstanceState::Exited { code: exit.code, out_of_memory: exit.out_of_memory }
            }
            _ => InstanceState::Running,
        }
    }

    pub(super) fn observed(&self, now: Duration) -> Instance {
        let state = match self.state(now) {
            InstanceState::Running if self.is_cut_off => InstanceState::CutOff,
            state => state,
        };
        Instance { state, ..self.instance.clone() }
    }

    pub(super) fn write(&mut self, now: Timestamp, stream: LogStream, text: &str) {
        // Times are strictly increasing, as an engine's are in practice.
        let after_last = self.output.last().map(|line| line.at + SignedDuration::from_nanos(1));
        let at = after_last.map_or(now, |after| now.max(after));
        self.output.push(OutputLine { at, stream, text: text.to_owned() });
    }
}

impl MemoryHost {
    /// An empty machine on `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, state: Arc::default(), changed: watch::Sender::default() }
    }

    /// Says what building `tree` does from now on. A tree without a script builds at once, and its program
    /// answers at once and runs for ever.
    pub fn script(&self, tree: TreeId, script: Script) {
        self.locked().scripts.insert(tree, script);
    }

    /// Gives `name` to something that is not the platform's.
    pub fn take_name(&self, name: InstanceName) {
        self.locked().foreign_names.insert(name);
    }

    /// What is called by names that are not the platform's.
    #[must_use]
    pub fn foreign_names(&self) -> Vec<InstanceName> {
        self.locked().foreign_names.iter().cloned().collect()
    }

    /// Uses an image for something that is not the platform's: it can't be removed.
    pub fn hold_image(&self, image: &Image) {
        self.locked().held_images.insert(image.digest.clone());
    }

    /// Ends what [`hold_image`](Self::hold_image) began.
    pub fn release_image(&self, image: &Image) {
        self.locked().held_images.remove(&image.digest);
    }

    /// Every instance, in the order of their names.
    #[must_use]
    pub fn instances(&self) -> Vec<Instance> {
        let now = self.clock.elapsed();
        self.locked().containers.values().map(|container| container.observed(now)).collect()
    }

    /// Every image, in the order of their digests.
    #[must_use]
    pub fn images(&self) -> Vec<Image> {
        self.locked().images.values().map(|built| built.image.clone()).collect()
    }

    /// Puts an image there as if it had been built for an app, by a call that came late.
    pub fn put_image(&self, org: &OrgId, app: &AppId, image: &Image) {
        let built = BuiltImage {
            key: BuildKey(String::new()),
            org: org.clone(),
            app: app.clone(),
            image: image.clone(),
            program: Program::default(),
        };
        self.locked().images.insert(image.digest.clone(), built);
    }

    /// Puts an org's network there, as if by a call that came late.
    pub fn put_network(&self, org: &OrgId) {
        self.locked().networks.insert(org.clone(), None);
    }

    /// The apps that have an image, and how many.
    #[must_use]
    pub fn apps_with_images(&self) -> BTreeMap<AppId, usize> {
        let mut counts = BTreeMap::new();
        for built in self.locked().images.values() {
            *counts.entry(built.app.clone()).or_default() += 1;
        }
        counts
    }

    /// Puts something that is not the platform's on an org's network, or takes it away again: meanwhile the network can't
    /// be removed.
    pub fn share_network(&self, org: &OrgId, is_shared: bool) {
        let mut state = self.locked();
        if is_shared {
            state.shared_networks.insert(org.clone());
        } else {
            state.shared_networks.remove(org);
        }
    }

    /// The orgs that have a network.
    #[must_use]
    pub fn networks(&self) -> Vec<OrgId> {
        self.locked().networks.keys().cloned().collect()
    }

    /// How many builds run now.
    #[must_use]
    pub fn builds_running(&self) -> usize {
        self.locked().builds_running
    }

    /// How many builds were begun; a build that was answered from what is there does not count.
    #[must_use]
    pub fn builds_begun(&self) -> u64 {
        self.locked().builds_begun
    }

    /// How many containers were begun.
    #[must_use]
    pub fn containers_begun(&self) -> u64 {
        self.locked().containers_begun
    }

    /// True if a program answers at `address` now: what a health check would find.
    #[must_use]
    pub fn answers(&self, address: SocketAddr) -> bool {
        let now = self.clock.elapsed();
        self.locked().containers.values().any(|container| {
            container.instance.address == address
                && container.observed(now).is_running()
                && now >= container.started + container.program.answers_after
        })
    }

    /// Lets a running program write a line; no running program of that name writes none.
    pub fn write(&self, name: &InstanceName, stream: LogStream, text: &str) {
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        let mut state = self.locked();
        if let Some(container) = state.containers.get_mut(name)
            && container.state(elapsed) == InstanceState::Running
        {
            container.write(now, stream, text);
        }
        drop(state);
        self.notify();
    }

    /// Ends a program as if it had crashed.
    pub fn crash(&self, name: &InstanceName, code: i64) {
        if let Some(container) = self.locked().containers.get_mut(name) {
            container.ended.get_or_insert(InstanceState::Exited { code, out_of_memory: false });
        }
        self.notify();
    }

    /// Removes a container, as somebody at the machine would.
    pub fn remove(&self, name: &InstanceName) {
        self.locked().containers.remove(name);
        self.notify();
    }

    /// Takes a container from its network, as somebody at the machine would.
    pub fn cut_off(&self, name: &InstanceName) {
        if let Some(container) = self.locked().containers.get_mut(name) {
            container.is_cut_off = true;
        }
    }

    /// Ends a program and starts it again, as an engine's restart policy would.
    pub fn restart(&self, name: &InstanceName) {
        let now = self.clock.elapsed();
        if let Some(container) = self.locked().containers.get_mut(name) {
            (container.started, container.ended) = (now, None);
            container.instance.restarts += 1;
        }
        self.notify();
    }

    /// Lets the engine answer nothing until [`start_engine`](Self::start_engine). Programs run on.
    pub fn stop_engine(&self) {
        self.locked().is_out = true;
    }

    /// Lets the engine answer again.
    pub fn start_engine(&self) {
        self.locked().is_out = false;
    }

    /// Removes every image, as an operator's clean-up would.
    pub fn forget_images(&self) {
        self.locked().images.clear();
    }

    /// The instances that run now.
    pub(super) fn running(&self) -> BTreeSet<InstanceName> {
        let running = self.instances().into_iter().filter(Instance::is_running);
        running.map(|instance| instance.name).collect()
    }

    /// Fails for a cancelled call, and while the engine is out.
    pub(super) fn admit(&self, context: &Context, operation: &'static str) -> Result<()> {
        if context.is_cancelled() {
            return Err(Error::cancelled(operation));
        }
        if self.locked().is_out {
            return Err(Error::new(Kind::Unavailable, operation, "the engine does not answer"));
        }
        Ok(())
    }

    pub(super) fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    pub(super) fn locked(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves plain data behind.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn notify(&self) {
        self.changed.send(());
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
