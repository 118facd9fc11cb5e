//! Builder and runtime on a real Docker engine keep the promises of every builder and runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code

mod shared;

use std::sync::Arc;

use async_trait::async_trait;
use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use paas_core::testing::container_runtime::{ContainerRuntimeHarness, TestProgram};
use paas_core::testing::image_builder::{ImageBuilderHarness, TestBuild};
use paas_core::{AppId, BuildRequest, ContainerRuntime, Image, ImageBuilder, InstanceName, OrgId, Subnet};
use paas_docker::{DockerBuilder, DockerEngine, DockerRuntime};
use shared::{BASE, Tree, client, context, engine, is_running, request};

struct BuilderHarness {
    engine: DockerEngine,
    /// How long an endless build sleeps: tells its process from those of other tests.
    seconds: String,
}

impl BuilderHarness {
    async fn new() -> Self {
        Self { engine: engine().await, seconds: (1_000_000 + shared::random() % 1_000_000_000).to_string() }
    }
}

#[async_trait]
impl ImageBuilderHarness for BuilderHarness {
    fn builder(&self) -> Arc<dyn ImageBuilder> {
        Arc::new(DockerBuilder::new(self.engine.clone()))
    }

    fn request(&self, org: &OrgId, app: &AppId, build: &TestBuild) -> BuildRequest {
        let text = match build {
            TestBuild::Succeeds(text) => text.as_str(),
            TestBuild::Fails | TestBuild::Endless => "",
        };
        let run = match build {
            TestBuild::Succeeds(_) => "echo built $(cat /text)".to_owned(),
            TestBuild::Fails => "echo about to fail && exit 7".to_owned(),
            TestBuild::Endless => format!("trap '' TERM; echo waiting; sleep {}", self.seconds),
        };
        let dockerfile = format!("FROM {BASE}\nCOPY text /text\nRUN {run}\n");
        request(org, app, Tree::of(&[("text", text)]), &dockerfile)
    }

    async fn is_building(&self) -> bool {
        is_running(&self.seconds)
    }

    async fn hold(&self, image: &Image) {
        create(&holder(image), &image.digest).await;
    }

    async fn release(&self, image: &Image) {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        client().await.remove_container(&holder(image), Some(options)).await.unwrap();
    }
}

fn holder(image: &Image) -> String {
    format!("paas-test-holder-{}", &image.digest["sha256:".len()..][..12])
}

async fn create(name: &str, image: &str) {
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        cmd: Some(vec!["true".to_owned()]),
        labels: Some([("paas.test".to_owned(), "1".to_owned())].into()),
        ..Default::default()
    };
    client().await.create_container(Some(options), body).await.unwrap();
}

struct RuntimeHarness {
    engine: DockerEngine,
    runtime: DockerRuntime,
    subnet: Subnet,
}

impl RuntimeHarness {
    async fn new() -> Self {
        let engine = engine().await;
        Self { runtime: DockerRuntime::new(engine.clone()), engine, subnet: shared::subnet() }
    }

    async fn on_loopback() -> Self {
        let harness = Self::new().await;
        Self { runtime: harness.runtime.on_loopback(), ..harness }
    }
}

#[async_trait]
impl ContainerRuntimeHarness for RuntimeHarness {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        Arc::new(self.runtime.clone())
    }

    /// The same three small images for every test: they stay.
    async fn image(&self, program: TestProgram) -> Image {
        let rest = match program {
            TestProgram::Runs => "exec sleep 1000000",
            TestProgram::Stubborn => "trap '' TERM; while :; do sleep 1000000; done",
            TestProgram::Ends => "exit 3",
        };
        // A trap comes before the first line, so that a test that has seen the line is not too early.
        let (first, rest) =
            rest.split_once("; ").filter(|(first, _)| first.starts_with("trap")).unwrap_or((":", rest));
        let dockerfile = format!(
            "FROM {BASE}\nCMD [\"/bin/sh\", \"-c\", \"{first}; for i in 1 2 3; do echo hello $i; done; {rest}\"]\n"
        );
        let builder = DockerBuilder::new(self.engine.clone());
        let (org, app) = (OrgId::default_org(), format!("app_{}", "0".repeat(26)).parse::<AppId>().unwrap());
        let request = request(&org, &app, Tree::of(&[]), &dockerfile);
        let key = builder.key(&context(), &request).await.unwrap();
        builder.build(&context(), &request, &key).await.unwrap()
    }

    fn subnet(&self) -> Subnet {
        self.subnet
    }

    async fn take_name(&self, name: &InstanceName) {
        create(name.as_str(), BASE).await;
    }

    async fn give_name_back(&self, name: &InstanceName) -> bool {
        let found = client().await.inspect_container(name.as_str(), None).await.is_ok();
        client().await.remove_container(name.as_str(), None).await.unwrap();
        found
    }
}

paas_core::conformance!(image_builder, BuilderHarness::new);

mod platform_addresses {
    use super::*;
    paas_core::conformance!(container_runtime, RuntimeHarness::new);
}

mod runtime_addresses {
    use super::*;
    paas_core::conformance!(container_runtime, RuntimeHarness::on_loopback);
}
