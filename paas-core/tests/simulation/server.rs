//! One server: a platform that reaches everything through a process that can be paused and killed.

use std::sync::Arc;
use std::time::Duration;

use paas_core::memory::MemoryBuilder;
use paas_core::testing::chaos::{Chaos, ChaosPlan};
use paas_core::testing::process::Process;
use paas_core::{Platform, RandomIds};

use crate::sabotage::Sabotage;
use crate::world::World;

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) number: u64,
    pub(crate) process: Process,
    pub(crate) platform: Platform,
}

impl Server {
    pub(crate) async fn start(world: &World, number: u64, plan: &ChaosPlan, sabotage: Sabotage) -> Self {
        let process = Process::default();
        // A call without a context would never end.
        let bounded = ChaosPlan { hang_percent: 0, ..plan.clone() };
        macro_rules! chaotic {
            ($inner:expr, $plan:expr) => {
                Arc::new(
                    Chaos::new($inner, world.clock.clone(), number, $plan.clone())
                        .of_process(process.clone()),
                )
            };
        }
        let builder = MemoryBuilder::new(world.host.clone());
        let store = sabotage.store(chaotic!(world.store.clone(), bounded));
        let runtime = sabotage.runtime(chaotic!(world.runtime.clone(), plan));
        let ids = Arc::new(RandomIds::seeded(world.clock.clone(), number));
        let git = chaotic!(world.git.clone(), plan);
        let builder = chaotic!(builder, plan);
        let ingress = chaotic!(world.ingress.clone(), plan);
        let dns = chaotic!(world.dns.clone(), plan);
        let logs = chaotic!(world.logs.clone(), bounded);
        loop {
            let starting = world
                .builder()
                .store(store.clone())
                .git(git.clone())
                .image_builder(builder.clone())
                .runtime(runtime.clone())
                .ingress(ingress.clone())
                .dns(dns.clone())
                .logs(logs.clone())
                .ids(ids.clone());
            match starting.start().await {
                Ok(platform) => return Self { number, process, platform },
                // As a supervisor of processes would.
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }
}
