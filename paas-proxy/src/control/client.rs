//! The program's side: an [`Ingress`] that is a process of its own.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use paas_core::{
    Context, Error, Fault, Generation, HealthCheck, Host, Ingress, InstanceName, Kind, Probe, Result, Route,
    Serving,
};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::{Answer, Call, Hello, PROTOCOL, Request, Wire, socket_path};
use crate::config::{ProxyConfig, url};
use crate::launch::{Launcher, Started};
use crate::lock::locked;
use crate::timer::sleep;

/// How long a process may take to answer a hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a process that was started, by this program or another, may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(15);

/// How often a process that another program is starting is looked for.
const START_POLL: Duration = Duration::from_millis(20);

/// How long a call may take when its context sets no limit: also how long a drain waits by default.
const DEFAULT_BUDGET: Duration = Duration::from_secs(30);

/// How much longer than its budget a call may take: the process counts the budget itself.
const CALL_SLACK: Duration = Duration::from_secs(5);

/// How many unused connections are kept.
const MAX_IDLE: usize = 16;

/// A proxy that runs as a process of its own and outlives this program.
///
/// # Flow
/// [`connect_or_spawn`](Self::connect_or_spawn) finds the process that runs in the directory, or starts one. Should it
/// be gone later, the next call starts it again; it then serves its last table at once.
///
/// # Assumptions
/// One directory, one proxy: programs that share the directory share the proxy. A supervisor that ends everything in
/// a service's control group (systemd does by default) ends the proxy too: there, run `paas-proxy` as a service of its
/// own with the same directory.
#[derive(Debug)]
pub struct ProxyClient {
    config: ProxyConfig,
    directory: PathBuf,
    launcher: Option<Launcher>,
    public_port: AtomicU16,
    idle: Mutex<Vec<Wire>>,
    /// One start at a time.
    starting: Semaphore,
}

impl ProxyClient {
    /// Connects to the process that runs in the configuration's directory.
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
        let client = Self {
            config,
            directory,
            launcher,
            public_port: AtomicU16::new(0),
            idle: Mutex::default(),
            starting: Semaphore::new(1),
        };
        let wire = client.dial().await?;
        client.keep(wire);
        Ok(client)
    }

    /// Where the process listens, and its process id.
    ///
    /// # Errors
    /// `Unavailable` when it can't be reached.
    pub async fn describe(&self) -> Result<(SocketAddr, u32)> {
        let (_, hello) = self.greeted("proxy.describe").await?;
        Ok((hello.address, hello.process_id))
    }

    /// Asks the process to stop, as for an upgrade, and returns when it is gone: requests in flight end first.
    ///
    /// # Errors
    /// `Timeout` when it does not end in its configured time.
    pub async fn stop(&self) -> Result<()> {
        const OPERATION: &str = "proxy.stop";
        let Ok((mut wire, _)) = self.greeted(OPERATION).await else { return Ok(()) };
        locked(&self.idle).clear();
        let stopped = async {
            wire.send(&Request { call: Call::Stop {}, budget_milliseconds: None }).await?;
            while wire.receive::<Answer>().await?.is_some() {}
            Ok::<(), io::Error>(())
        };
        let limit = self.config.timeouts.shutdown + CALL_SLACK;
        match tokio::time::timeout(limit, stopped).await {
            // An error is a connection that broke: the process is gone.
            Ok(_) => Ok(()),
            Err(_) => Err(Error::new(Kind::Timeout, OPERATION, "the proxy did not stop in time")),
        }
    }

    /// Does one call.
    async fn call(&self, context: &Context, operation: &'static str, call: Call) -> Result<Answer> {
        let budget = context.remaining().unwrap_or(DEFAULT_BUDGET);
        let budget_milliseconds = Some(u64::try_from(budget.as_millis()).unwrap_or(u64::MAX));
        let request = Request { call, budget_milliseconds };
        let limit = budget.saturating_add(CALL_SLACK);
        tokio::select! {
            biased;
            // Dropping the exchange hangs up, and that cancels the call over there.
            () = context.cancellation().cancelled() => Err(Error::cancelled(operation)),
            answer = self.exchange(operation, &request) => match answer? {
                Answer::Failed(failure) => Err(Error::from(&failure)),
                answer => Ok(answer),
            },
            () = context.clock().sleep(limit) => {
                Err(Error::new(Kind::Timeout, operation, "the proxy does not answer"))
            }
        }
    }

    async fn exchange(&self, operation: &'static str, request: &Request) -> Result<Answer> {
        let kept = locked(&self.idle).pop();
        if let Some(wire) = kept
            && let Ok(answer) = self.converse(wire, request).await
        {
            return Ok(answer);
        }
        // The kept connection had ended, as after a restart of the process. Every call can be repeated.
        locked(&self.idle).clear();
        let wire = self.dial().await?;
        self.converse(wire, request).await.map_err(|error| unreachable(operation, error))
    }

    async fn converse(&self, mut wire: Wire, request: &Request) -> io::Result<Answer> {
        wire.send(request).await?;
        let answer = wire.receive().await?.ok_or(io::ErrorKind::UnexpectedEof)?;
        self.keep(wire);
        Ok(answer)
    }

    fn keep(&self, wire: Wire) {
        let mut idle = locked(&self.idle);
        if idle.len() < MAX_IDLE {
            idle.push(wire);
        }
    }

    /// A connection to the process, which is started if it does not run.
    async fn dial(&self) -> Result<Wire> {
        const OPERATION: &str = "proxy.connect";
        let refused = match self.greeted(OPERATION).await {
            Ok((wire, hello)) => return self.accept(wire, &hello),
            Err(error) => error,
        };
        let Some(launcher) = &self.launcher else { return Err(refused) };
        let _starting = self.starting.acquire().await.map_err(paas_core::error::map(OPERATION))?;
        let find = async {
            loop {
                // Another call, or another program, may have started it meanwhile.
                if let Ok((wire, hello)) = self.greeted(OPERATION).await {
                    return self.accept(wire, &hello);
                }
                match launcher.start(&self.config, &self.directory).await? {
                    Started::Ready => {}
                    Started::ByAnother => sleep(START_POLL).await,
                }
            }
        };
        tokio::time::timeout(START_TIMEOUT, find).await.map_err(|_| {
            Error::new(Kind::Timeout, OPERATION, "the proxy did not start in time")
                .hint("its log is `proxy.log` in its directory")
                .context("directory", self.directory.display())
        })?
    }

    async fn greeted(&self, operation: &'static str) -> Result<(Wire, Hello)> {
        let greet = async {
            let stream = UnixStream::connect(socket_path(&self.directory)).await?;
            let mut wire = Wire::new(stream);
            let call = Call::Hello { protocol: PROTOCOL };
            wire.send(&Request { call, budget_milliseconds: None }).await?;
            match wire.receive().await? {
                Some(Answer::Hello(hello)) => Ok((wire, hello)),
                _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
            }
        };
        match tokio::time::timeout(HELLO_TIMEOUT, greet).await {
            Ok(greeted) => greeted.map_err(|error| unreachable(operation, error)),
            Err(elapsed) => Err(unreachable(operation, elapsed.into())),
        }
    }

    /// Checks that the process is the one that this program needs.
    fn accept(&self, wire: Wire, hello: &Hello) -> Result<Wire> {
        let refused = |code: &'static str, message: String| {
            Error::new(Kind::Unavailable, "proxy.connect", message)
                .code(code)
                .fault(Fault::Platform)
                .hint("stop the running proxy first: the next start brings the one that is needed")
                .context("process", hello.process_id)
        };
        if hello.protocol != PROTOCOL {
            let message = format!("the running proxy, version {}, speaks another protocol", hello.version);
            return Err(refused("proxy_version", message));
        }
        let wanted = self.config.listen;
        if wanted.port() != 0 && hello.address != wanted {
            let message = format!(
                "the proxy that runs in this directory listens on {}, not on {wanted}",
                hello.address
            );
            return Err(refused("proxy_config", message));
        }
        self.public_port.store(self.config.public_port.unwrap_or(hello.public_port), Ordering::Relaxed);
        Ok(wire)
    }

    async fn done(&self, context: &Context, operation: &'static str, call: Call) -> Result<()> {
        match self.call(context, operation, call).await? {
            Answer::Done => Ok(()),
            answer => Err(misunderstood(operation, &answer)),
        }
    }
}

#[async_trait]
impl Ingress for ProxyClient {
    fn url(&self, host: &Host) -> String {
        url(host, self.public_port.load(Ordering::Relaxed))
    }

    async fn publish(&self, context: &Context, route: &Route, generation: Generation) -> Result<()> {
        self.done(context, "ingress.publish", Call::Publish { route: route.clone(), generation }).await
    }

    async fn withdraw(&self, context: &Context, host: &Host, generation: Generation) -> Result<()> {
        self.done(context, "ingress.withdraw", Call::Withdraw { host: host.clone(), generation }).await
    }

    async fn serving(&self, context: &Context, host: &Host) -> Result<Option<Serving>> {
        const OPERATION: &str = "ingress.serving";
        match self.call(context, OPERATION, Call::Serving { host: host.clone() }).await? {
            Answer::Serving(serving) => Ok(serving),
            answer => Err(misunderstood(OPERATION, &answer)),
        }
    }

    async fn drain(&self, context: &Context, instance: &InstanceName, address: SocketAddr) -> Result<()> {
        self.done(context, "ingress.drain", Call::Drain { instance: instance.clone(), address }).await
    }

    async fn probe(&self, context: &Context, address: SocketAddr, check: &HealthCheck) -> Result<Probe> {
        const OPERATION: &str = "ingress.probe";
        match self.call(context, OPERATION, Call::Probe { address, check: check.clone() }).await? {
            Answer::Probe(probe) => Ok(probe),
            answer => Err(misunderstood(OPERATION, &answer)),
        }
    }

    async fn ping(&self, context: &Context) -> Result<()> {
        self.done(context, "ingress.ping", Call::Ping {}).await
    }
}

fn unreachable(operation: &'static str, error: io::Error) -> Error {
    Error::new(Kind::Unavailable, operation, "the proxy can't be reached").source(error)
}

fn misunderstood(operation: &'static str, answer: &Answer) -> Error {
    Error::internal(operation, format!("the proxy answered {answer:?}"))
}
