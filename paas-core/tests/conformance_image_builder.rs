//! The in-memory builder keeps the promises of every builder.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code

mod shared;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use paas_core::memory::{MemoryBuilder, MemoryHost, MemoryRuntime, Script};
use paas_core::testing::image_builder::{ImageBuilderHarness, TestBuild};
use paas_core::{
    AppId, BuildRequest, ContainerRuntime, Context, Error, Failure, Image, ImageBuilder, Kind, OrgId,
    SystemClock,
};

struct Harness(MemoryHost);

#[async_trait]
impl ImageBuilderHarness for Harness {
    fn builder(&self) -> Arc<dyn ImageBuilder> {
        Arc::new(MemoryBuilder::new(self.0.clone()))
    }

    fn request(&self, org: &OrgId, app: &AppId, build: &TestBuild) -> BuildRequest {
        let request = shared::request(org, app, &format!("{build:?}"));
        let script = match build {
            TestBuild::Succeeds(text) => {
                Script { build_output: vec![format!("built {text}")], ..Script::default() }
            }
            TestBuild::Fails => {
                let error = Error::new(Kind::BuildFailed, "memory.build", "it failed")
                    .evidence(["about to fail".to_owned()]);
                Script { build_failure: Some(Failure::from(&error)), ..Script::default() }
            }
            TestBuild::Endless => Script {
                build_output: vec!["waiting".to_owned()],
                build_time: Duration::from_secs(86_400),
                ..Script::default()
            },
        };
        self.0.script(request.tree.id(), script);
        request
    }

    async fn is_building(&self) -> bool {
        self.0.builds_running() > 0
    }

    async fn hold(&self, image: &Image) {
        let context = Context::new(Arc::new(SystemClock::new()));
        MemoryRuntime::new(self.0.clone()).ensure(&context, &shared::spec(image)).await.unwrap();
    }

    async fn release(&self, _image: &Image) {
        let context = Context::new(Arc::new(SystemClock::new()));
        for instance in self.0.instances() {
            MemoryRuntime::new(self.0.clone()).remove(&context, &instance.name).await.unwrap();
        }
    }
}

paas_core::conformance!(image_builder, || async { Harness(MemoryHost::new(Arc::new(SystemClock::new()))) });
