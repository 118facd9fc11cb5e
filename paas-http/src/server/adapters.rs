//! The parts that a server gives its platform.

use std::sync::Arc;

use paas_core::wrap::Observe;
use paas_core::{
    Clock, ContainerRuntime, DnsService, GitProvider, ImageBuilder, Ingress, LogStore, Metrics, Planner,
    Platform, PlatformBuilder, StateStore,
};

/// What a [`Server`](super::Server) works with. Whoever embeds one can put something around an adapter, or another in
/// its place; calls are counted and timed by the server, outermost.
#[derive(Clone, Debug)]
pub struct Adapters {
    /// Where state is kept.
    pub store: Arc<dyn StateStore>,
    /// Where code comes from.
    pub git: Arc<dyn GitProvider>,
    /// How builds are planned.
    pub planner: Arc<dyn Planner>,
    /// What builds images.
    pub image_builder: Arc<dyn ImageBuilder>,
    /// What runs containers.
    pub runtime: Arc<dyn ContainerRuntime>,
    /// What writes DNS records.
    pub dns: Arc<dyn DnsService>,
    /// What routes requests.
    pub ingress: Arc<dyn Ingress>,
    /// Where logs are kept.
    pub logs: Arc<dyn LogStore>,
}

impl Adapters {
    /// A platform of them, whose calls are counted.
    pub(super) fn observed(self, clock: &Arc<dyn Clock>, metrics: &Arc<Metrics>) -> PlatformBuilder {
        macro_rules! observed {
            ($adapter:ident) => {
                Arc::new(Observe::new(self.$adapter, clock.clone(), metrics.clone()))
            };
        }
        Platform::builder()
            .store(observed!(store))
            .git(observed!(git))
            .planner(observed!(planner))
            .image_builder(observed!(image_builder))
            .runtime(observed!(runtime))
            .dns(observed!(dns))
            .ingress(observed!(ingress))
            .logs(observed!(logs))
    }
}
