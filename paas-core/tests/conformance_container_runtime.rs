//! The in-memory runtime keeps the promises of every runtime, whoever gives the addresses.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code

mod shared;
mod wrapped;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use paas_core::memory::{MemoryBuilder, MemoryHost, MemoryRuntime, Program, ProgramExit, Script};
use paas_core::testing::container_runtime::{ContainerRuntimeHarness, TestProgram};
use paas_core::wrap::{Timeout, TimeoutPolicy};
use paas_core::{
    Addressing, AppId, ContainerRuntime, Context, Image, ImageBuilder, InstanceName, OrgId, RandomIds,
    Subnet, SystemClock,
};
use wrapped::observed;

struct Harness {
    host: MemoryHost,
    /// What the suite asks: the host's runtime, or that one wrapped.
    runtime: Arc<dyn ContainerRuntime>,
}

impl Harness {
    fn new(addressing: Addressing) -> Self {
        let host = MemoryHost::new(Arc::new(SystemClock::new()));
        Self { runtime: Arc::new(MemoryRuntime::new(host.clone()).with_addressing(addressing)), host }
    }

    /// Without `Retry`: the suite looks at an error that it would try again.
    fn wrapped() -> Self {
        let Self { host, runtime } = Self::new(Addressing::Platform);
        Self { host, runtime: Arc::new(observed(Timeout::new(runtime, TimeoutPolicy::default()))) }
    }
}

#[async_trait]
impl ContainerRuntimeHarness for Harness {
    fn runtime(&self) -> Arc<dyn ContainerRuntime> {
        self.runtime.clone()
    }

    async fn image(&self, program: TestProgram) -> Image {
        let context = Context::new(Arc::new(SystemClock::new()));
        let ids = RandomIds::new(SystemClock::new());
        let request = shared::request(&OrgId::default_org(), &AppId::generate(&ids), &format!("{program:?}"));
        let exit = ProgramExit { after: Duration::from_millis(5), code: 3, out_of_memory: false };
        let program = Program {
            output: vec!["hello 1".to_owned(), "hello 2".to_owned(), "hello 3".to_owned()],
            exit: (program == TestProgram::Ends).then_some(exit),
            ignores_stop: program == TestProgram::Stubborn,
            ..Program::default()
        };
        self.host.script(request.tree.id(), Script { program, ..Script::default() });
        let builder = MemoryBuilder::new(self.host.clone());
        let key = builder.key(&context, &request).await.unwrap();
        builder.build(&context, &request, &key).await.unwrap()
    }

    fn subnet(&self) -> Subnet {
        Subnet { address: Ipv4Addr::new(10, 181, 0, 0), prefix: 24 }
    }

    async fn take_name(&self, name: &InstanceName) {
        self.host.take_name(name.clone());
    }

    async fn give_name_back(&self, name: &InstanceName) -> bool {
        self.host.foreign_names().contains(name)
    }
}

mod platform_addresses {
    use super::*;
    paas_core::conformance!(container_runtime, || async { Harness::new(Addressing::Platform) });
}

mod runtime_addresses {
    use super::*;
    paas_core::conformance!(container_runtime, || async { Harness::new(Addressing::Runtime) });
}

mod in_wrappers {
    use super::*;
    paas_core::conformance!(container_runtime, || async { Harness::wrapped() });
}
