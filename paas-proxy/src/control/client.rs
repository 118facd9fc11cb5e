//! The program's side: an [`Ingress`] that is a process of its own.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use paas_core::{
    Context, Error, Generation, HealthCheck, Host, Ingress, InstanceName, Kind, Probe, Result, Route,
    RoutePage, RoutesDigest, Serving,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::link::{Link, misunderstood};
use super::watch::watch;
use super::{Answer, Call, LISTS_SINCE};
use crate::config::{ProxyConfig, url};
use crate::launch::Launcher;
use crate::lock::locked;

/// A proxy that runs as a process of its own and outlives this program.
///
/// # Flow
/// [`connect_or_spawn`](Self::connect_or_spawn) finds the process that runs in the directory, or starts one. Should it
/// end while the client lives, it is started again within a second and serves its last table at once; what this
/// client has published is then published again, so that a table that was lost or damaged is whole again.
///
/// # Assumptions
/// One directory, one proxy: programs that share the directory share the proxy. A supervisor that ends everything in
/// a service's control group (systemd does by default) ends the proxy too: there, run `paas-proxy` as a service of its
/// own with the same directory.
#[derive(Debug)]
pub struct ProxyClient {
    link: Arc<Link>,
    /// Fires to let the process be.
    leaving: CancellationToken,
    _leave: DropGuard,
}

impl ProxyClient {
    /// Connects to the process that runs in the configuration's directory. One that ends is waited for, not started.
    ///
    /// # Errors
    /// `Unavailable` when none runs, or one of another protocol (code `proxy_version`) or on another address (code
    /// `proxy_config`).
    pub async fn connect(config: ProxyConfig) -> Result<Self> {
        Self::open(config, None).await
    }

    /// Connects to the process that runs in the configuration's directory, or starts one with `launcher`, detached
    /// from this program.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and those of [`Proxy::start`](crate::Proxy::start), which the process reports.
    pub async fn connect_or_spawn(config: ProxyConfig, launcher: Launcher) -> Result<Self> {
        Self::open(config, Some(launcher)).await
    }

    async fn open(mut config: ProxyConfig, launcher: Option<Launcher>) -> Result<Self> {
        let directory = config.directory.clone().ok_or_else(|| {
            Error::invalid("proxy.connect", "a proxy process needs a directory")
                .hint("set `directory` in the proxy's configuration")
        })?;
        // The process has another working directory.
        let directory = std::path::absolute(directory).map_err(paas_core::error::map("proxy.connect"))?;
        config.directory = Some(directory.clone());
        let link = Arc::new(Link::new(config, directory, launcher));
        let wire = link.dial().await?;
        let leaving = CancellationToken::new();
        tokio::spawn(leaving.clone().run_until_cancelled_owned(watch(Arc::clone(&link), wire)));
        Ok(Self { link, leaving: leaving.clone(), _leave: leaving.drop_guard() })
    }

    /// Where the process listens, and its process id.
    ///
    /// # Errors
    /// `Unavailable` when it can't be reached.
    pub async fn describe(&self) -> Result<(SocketAddr, u32)> {
        let hello = self.link.hello("proxy.describe").await?;
        Ok((hello.address, hello.process_id))
    }

    /// Asks the process to stop and returns when it is gone: requests in flight end first. This client watches over
    /// it no longer; another one, as of a server that runs, starts it again as soon as its port is free.
    ///
    /// # Errors
    /// `Timeout` when it does not end in its configured time, `Unavailable` when it does not answer.
    pub async fn stop(&self) -> Result<()> {
        self.leaving.cancel();
        self.link.stop().await
    }

    async fn done(&self, context: &Context, operation: &'static str, call: Call) -> Result<()> {
        match self.link.call(context, operation, call).await? {
            Answer::Done => Ok(()),
            answer => Err(misunderstood(operation, &answer)),
        }
    }

    /// # Errors
    /// `Unsupported` when the process that runs is too old to list its routes.
    fn check_lists(&self, operation: &'static str) -> Result<()> {
        if self.link.revision() < LISTS_SINCE {
            let message = "the running proxy is too old to list its routes";
            return Err(Error::new(Kind::Unsupported, operation, message)
                .hint("stop it: the next start brings the one that can"));
        }
        Ok(())
    }

    fn remember(&self, host: &Host, generation: Generation, route: Option<Route>) {
        locked(&self.link.published).remember(host.clone(), Serving { generation, route });
    }
}

#[async_trait]
impl Ingress for ProxyClient {
    fn url(&self, host: &Host) -> String {
        url(host, self.link.public_port())
    }

    async fn publish(&self, context: &Context, route: &Route, generation: Generation) -> Result<()> {
        self.done(context, "ingress.publish", Call::Publish { route: route.clone(), generation }).await?;
        self.remember(&route.host, generation, Some(route.clone()));
        Ok(())
    }

    async fn withdraw(&self, context: &Context, host: &Host, generation: Generation) -> Result<()> {
        self.done(context, "ingress.withdraw", Call::Withdraw { host: host.clone(), generation }).await?;
        self.remember(host, generation, None);
        Ok(())
    }

    async fn serving(&self, context: &Context, host: &Host) -> Result<Option<Serving>> {
        const OPERATION: &str = "ingress.serving";
        match self.link.call(context, OPERATION, Call::Serving { host: host.clone() }).await? {
            Answer::Serving(serving) => Ok(serving),
            answer => Err(misunderstood(OPERATION, &answer)),
        }
    }

    async fn digest(&self, context: &Context) -> Result<RoutesDigest> {
        const OPERATION: &str = "ingress.digest";
        self.check_lists(OPERATION)?;
        match self.link.call(context, OPERATION, Call::Digest {}).await? {
            Answer::Digest(digest) => Ok(digest),
            answer => Err(misunderstood(OPERATION, &answer)),
        }
    }

    async fn list(&self, context: &Context, from: u64) -> Result<RoutePage> {
        const OPERATION: &str = "ingress.list";
        self.check_lists(OPERATION)?;
        match self.link.call(context, OPERATION, Call::List { from }).await? {
            Answer::List(page) => Ok(page),
            answer => Err(misunderstood(OPERATION, &answer)),
        }
    }

    async fn drain(&self, context: &Context, instance: &InstanceName, address: SocketAddr) -> Result<()> {
        self.done(context, "ingress.drain", Call::Drain { instance: instance.clone(), address }).await
    }

    async fn probe(&self, context: &Context, address: SocketAddr, check: &HealthCheck) -> Result<Probe> {
        const OPERATION: &str = "ingress.probe";
        match self.link.call(context, OPERATION, Call::Probe { address, check: check.clone() }).await? {
            Answer::Probe(probe) => Ok(probe),
            answer => Err(misunderstood(OPERATION, &answer)),
        }
    }

    async fn ping(&self, context: &Context) -> Result<()> {
        self.done(context, "ingress.ping", Call::Ping {}).await
    }
}
