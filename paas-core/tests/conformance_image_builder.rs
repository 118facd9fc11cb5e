//! The in-memory builder keeps the promises of every builder.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code

mod shared;
mod wrapped;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use paas_core::memory::{MemoryBuilder, MemoryHost, MemoryRuntime, Script};
use paas_core::testing::image_builder::{ImageBuilderHarness, TestBuild};
use paas_core::wrap::Cache;
use paas_core::{
    AppId, BuildRequest, ContainerRuntime, Context, Error, Failure, Image, ImageBuilder, Kind, OrgId,
    SystemClock,
};
use wrapped::{observed, wrapped};

/// A host, and what the suite asks: its builder, or that one wrapped.
struct Harness(MemoryHost, Arc<dyn ImageBuilder>);

impl Harness {
    fn plain() -> Self {
        let host = MemoryHost::new(Arc::new(SystemClock::new()));
        Self(host.clone(), Arc::new(MemoryBuilder::new(host)))
    }

    fn wrapped() -> Self {
        let Self(host, builder) = Self::plain();
        Self(host, Arc::new(observed(Cache::images(wrapped(builder), 16))))
    }
}

#[async_trait]
impl ImageBuilderHarness for Harness {
    fn builder(&self) -> Arc<dyn ImageBuilder> {
        self.1.clone()
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

mod plain {
    use super::*;
    paas_core::conformance!(image_builder, || async { Harness::plain() });
}

mod in_wrappers {
    use super::*;
    paas_core::conformance!(image_builder, || async { Harness::wrapped() });
}
