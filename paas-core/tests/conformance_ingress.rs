//! The in-memory ingress keeps the trait's promises.
#![cfg(feature = "testing")]
#![allow(clippy::panic)]

mod wrapped;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use async_trait::async_trait;
use paas_core::memory::{MemoryAnswer, MemoryIngress, MemoryRequest};
use paas_core::testing::ingress::{Answer, Flight, IngressHarness};
use paas_core::{Host, Ingress, InstanceName, Probe};
use wrapped::wrapped;

struct Harness {
    ingress: Arc<MemoryIngress>,
    /// What the suite asks: the same, or wrapped.
    asked: Arc<dyn Ingress>,
    next_port: AtomicU16,
}

impl Harness {
    fn plain() -> Self {
        let ingress = Arc::new(MemoryIngress::new());
        Self { asked: ingress.clone(), ingress, next_port: AtomicU16::new(0) }
    }

    fn wrapped() -> Self {
        let plain = Self::plain();
        Self { asked: Arc::new(wrapped(plain.asked)), ..plain }
    }

    fn address(&self) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], self.next_port.fetch_add(1, Ordering::SeqCst)))
    }
}

#[async_trait]
impl IngressHarness for Harness {
    fn ingress(&self) -> Arc<dyn Ingress> {
        self.asked.clone()
    }

    async fn start(&self, _name: InstanceName) -> SocketAddr {
        self.address()
    }

    async fn unhealthy(&self) -> SocketAddr {
        let address = self.address();
        self.ingress.set_probe(address, Probe::Unhealthy("it answered 500".to_owned()));
        address
    }

    async fn request(&self, host: &Host) -> Answer {
        match self.ingress.request(host) {
            MemoryAnswer::Instance(request) => Answer::Instance(request.target().instance.clone()),
            MemoryAnswer::Stopped => Answer::Stopped,
            MemoryAnswer::Unknown => Answer::Unknown,
        }
    }

    async fn begin(&self, host: &Host) -> Box<dyn Flight> {
        match self.ingress.request(host) {
            MemoryAnswer::Instance(request) => Box::new(Pretended(request)),
            other => panic!("no instance has the request: {other:?}"),
        }
    }
}

struct Pretended(MemoryRequest);

#[async_trait]
impl Flight for Pretended {
    async fn finish(self: Box<Self>) -> bool {
        !self.0.is_cut()
    }
}

mod plain {
    use super::*;
    paas_core::conformance!(ingress, || async { Harness::plain() });
}

mod in_wrappers {
    use super::*;
    paas_core::conformance!(ingress, || async { Harness::wrapped() });
}

#[tokio::test]
async fn failures_and_probes_are_scripted() {
    let ingress = MemoryIngress::new();
    let context = paas_core::Context::new(Arc::new(paas_core::SystemClock::new()));
    let address = SocketAddr::from(([192, 0, 2, 1], 80));
    ingress.fail_next(1);
    assert!(ingress.ping(&context).await.unwrap_err().is_transient());
    ingress.ping(&context).await.unwrap();
    ingress.script_probes(address, [Probe::Unhealthy("not yet".to_owned()), Probe::Healthy]);
    let check = paas_core::HealthCheck::default();
    let mut found = Vec::new();
    for _ in 0..3 {
        found.push(ingress.probe(&context, address, &check).await.unwrap());
    }
    assert_eq!(found, [Probe::Unhealthy("not yet".to_owned()), Probe::Healthy, Probe::Healthy]);
}
