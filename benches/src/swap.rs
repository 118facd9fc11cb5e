//! Goal 7: a new instance of a running app, started, checked and switched to, against the bare engine API; and how
//! many requests fail meanwhile.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, EndpointIpamConfig, EndpointSettings, HostConfig, Ipam, IpamConfig,
    NetworkCreateRequest, NetworkingConfig,
};
use bollard::query_parameters::{CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder};
use paas_core::{Clock, SystemClock};

use crate::contest::{Contest, Turn};
use crate::installation::{Installation, PORT, client, get, site};
use crate::report::{Report, Row, Target};
use crate::{Effort, Result};

const OURS: &str = "platform";
const RAW: &str = "engine API: create, start, first answer";
const WHAT: &str = "a new instance serves";
const NETWORK: &str = "paas-bench-raw";
const CLIENTS: usize = 8;

pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let installation = Installation::start().await?;
    installation.git.commit("site", "main", site(10, 1)).await?;
    installation.live("site").await?;
    let address = installation.proxy.address().to_string();
    let raw = Raw::prepare().await?;
    let clock = SystemClock::new();
    let mut contest = Contest::default();
    let hammer = Hammer::start(address, "site.localhost");
    for round in 0..=effort.rounds {
        let begun = clock.elapsed();
        installation.platform.apps().restart("site").await?.outcome().await?;
        let ours = clock.elapsed() - begun;
        // Its old instance is drained and removed behind the answer.
        clock.sleep(Duration::from_millis(300)).await;
        let theirs = raw.start(round).await?;
        if round > 0 {
            contest.add(OURS, Turn::of_time(ours));
            contest.add(RAW, Turn::of_time(theirs));
        }
    }
    let (answered, failed) = hammer.stop().await;
    raw.clean().await?;
    installation.finish().await?;
    report.contest(7, WHAT, "ms", &contest, OURS, &[(RAW, Some(Target::AtMost(1.15)))]);
    report.row(Row {
        goal: 7,
        what: format!("failed of {answered} requests during {} swaps", effort.rounds + 1),
        who: OURS.to_owned(),
        value: failed as f64,
        unit: "requests",
        target: Some(Target::AtMost(0.0)),
        ..Row::default()
    });
    Ok(())
}

/// The least that starts a container: a network, an address, a process.
struct Raw {
    docker: Docker,
    image: String,
    third: u8,
}

impl Raw {
    async fn prepare() -> Result<Self> {
        let docker = Docker::connect_with_local_defaults()?.negotiate_version().await?;
        let third = std::process::id().to_be_bytes()[3];
        let _ = docker.remove_network(NETWORK).await;
        let config = IpamConfig { subnet: Some(format!("10.233.{third}.0/24")), ..IpamConfig::default() };
        let ipam = Ipam { config: Some(vec![config]), ..Ipam::default() };
        let request = NetworkCreateRequest {
            name: NETWORK.to_owned(),
            ipam: Some(ipam),
            ..NetworkCreateRequest::default()
        };
        docker.create_network(request).await?;
        Ok(Self { docker, image: crate::installation::BASE.to_owned(), third })
    }

    fn name(round: usize) -> String {
        format!("{NETWORK}-{round}")
    }

    async fn start(&self, round: usize) -> Result<Duration> {
        let clock = SystemClock::new();
        let address = Ipv4Addr::new(10, 233, self.third, u8::try_from(round % 200)? + 10);
        let endpoint = EndpointSettings {
            ipam_config: Some(EndpointIpamConfig {
                ipv4_address: Some(address.to_string()),
                ..EndpointIpamConfig::default()
            }),
            ..EndpointSettings::default()
        };
        let command = ["busybox", "httpd", "-f", "-p", &PORT.to_string(), "-h", "/etc"].map(str::to_owned);
        let body = ContainerCreateBody {
            image: Some(self.image.clone()),
            cmd: Some(command.to_vec()),
            host_config: Some(HostConfig { network_mode: Some(NETWORK.to_owned()), ..HostConfig::default() }),
            networking_config: Some(NetworkingConfig {
                endpoints_config: Some([(NETWORK.to_owned(), endpoint)].into()),
            }),
            ..ContainerCreateBody::default()
        };
        let name = Self::name(round);
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        self.docker.create_container(Some(options), body).await?;
        self.docker.start_container(&name, None).await?;
        let (client, address) = (client(), format!("{address}:{PORT}"));
        while clock.elapsed() < Duration::from_secs(20) {
            if get(&client, &address, "raw").await.is_ok() {
                let time = clock.elapsed();
                self.remove(round).await;
                return Ok(time);
            }
            clock.sleep(Duration::from_millis(1)).await;
        }
        Err("the bare container does not answer".into())
    }

    async fn remove(&self, round: usize) {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        let _ = self.docker.remove_container(&Self::name(round), Some(options)).await;
    }

    async fn clean(&self) -> Result<()> {
        Ok(self.docker.remove_network(NETWORK).await?)
    }
}

/// Clients that ask without a pause and count what is not answered with 200.
struct Hammer {
    is_over: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<u64>>,
}

impl Hammer {
    fn start(address: String, host: &'static str) -> Self {
        let (is_over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..CLIENTS)
            .map(|_| {
                let (address, is_over, answered) = (address.clone(), is_over.clone(), answered.clone());
                tokio::spawn(async move {
                    let (client, clock, mut failed) = (client(), SystemClock::new(), 0);
                    while !is_over.load(Ordering::Relaxed) {
                        match get(&client, &address, host).await {
                            Ok((200, _)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            _ => failed += 1,
                        }
                        clock.sleep(Duration::from_millis(4)).await;
                    }
                    failed
                })
            })
            .collect();
        Self { is_over, answered, clients }
    }

    /// How many were answered, and how many were not.
    async fn stop(self) -> (u64, u64) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut failed = 0;
        for client in self.clients {
            failed += client.await.unwrap_or(1);
        }
        (self.answered.load(Ordering::Relaxed), failed)
    }
}
