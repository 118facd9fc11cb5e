//! Both forms of the proxy keep the promises of `Ingress`.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use paas_core::testing::ingress::{Answer, Flight, IngressHarness};
use paas_core::{Host, Ingress, InstanceName};
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::support::{Client, Held, Instance, config, get, start};

struct Harness {
    ingress: Arc<dyn Ingress>,
    address: SocketAddr,
    instances: Mutex<Vec<Instance>>,
    /// What else must live as long as the test.
    _process: Option<crate::process::Running>,
}

impl Harness {
    async fn in_process() -> Self {
        let proxy = start(config()).await;
        Self { address: proxy.address(), ingress: proxy, instances: Mutex::default(), _process: None }
    }

    async fn process() -> Self {
        let running = crate::process::Running::start().await;
        Self {
            address: running.address,
            ingress: running.client.clone(),
            instances: Mutex::default(),
            _process: Some(running),
        }
    }
}

#[async_trait]
impl IngressHarness for Harness {
    fn ingress(&self) -> Arc<dyn Ingress> {
        Arc::clone(&self.ingress)
    }

    async fn start(&self, name: InstanceName) -> SocketAddr {
        let instance = Instance::start(name).await;
        let address = instance.address;
        self.instances.lock().await.push(instance);
        address
    }

    async fn unhealthy(&self) -> SocketAddr {
        // Nobody listens there any more.
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    async fn request(&self, host: &Host) -> Answer {
        let answer = get(self.address, host.as_str(), "/").await.unwrap();
        match answer.status {
            200 => {
                let instances = self.instances.lock().await;
                let found = instances.iter().find(|instance| instance.name.as_str() == answer.body);
                Answer::Instance(found.unwrap().name.clone())
            }
            503 => Answer::Stopped,
            421 => Answer::Unknown,
            status => panic!("unexpected status {status}"),
        }
    }

    async fn begin(&self, host: &Host) -> Box<dyn Flight> {
        let mut client = Client::connect(self.address).await;
        client.send(&format!("GET /hold HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let instances = self.instances.lock().await.clone();
        let arrivals = instances.iter().map(|instance| Box::pin(instance.held()));
        let (held, ..) = futures::future::select_all(arrivals).await;
        Box::new(InFlight { client, held })
    }
}

struct InFlight {
    client: Client,
    held: Held,
}

#[async_trait]
impl Flight for InFlight {
    async fn finish(self: Box<Self>) -> bool {
        let Self { mut client, held } = *self;
        drop(held);
        client.answer().await.is_some_and(|answer| answer.status == 200)
    }
}

mod in_process {
    use super::Harness;

    paas_core::conformance!(ingress, Harness::in_process);
}

mod process {
    use super::Harness;

    paas_core::conformance!(ingress, Harness::process);
}
