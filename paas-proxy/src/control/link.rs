//! How the program reaches the process: connections, greetings, starts.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use paas_core::{Context, Error, Fault, Kind, Result};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;

use super::published::Published;
use super::{Answer, Call, Hello, PROTOCOL, Request, Wire, socket_path};
use crate::config::ProxyConfig;
use crate::launch::{Launcher, STOP_ARGUMENT, Started};
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

/// The way to the process.
#[derive(Debug)]
pub(super) struct Link {
    config: ProxyConfig,
    directory: PathBuf,
    launcher: Option<Launcher>,
    public_port: AtomicU16,
    /// That of the process that was reached last.
    revision: AtomicU32,
    idle: Mutex<Vec<Wire>>,
    /// One start at a time.
    starting: Semaphore,
    /// What a process that lost its table is told again.
    pub(super) published: Mutex<Published>,
}

impl Link {
    pub(super) fn new(config: ProxyConfig, directory: PathBuf, launcher: Option<Launcher>) -> Self {
        Self {
            config,
            directory,
            launcher,
            public_port: AtomicU16::new(0),
            revision: AtomicU32::new(0),
            idle: Mutex::default(),
            starting: Semaphore::new(1),
            published: Mutex::default(),
        }
    }

    /// The port in apps' URLs.
    pub(super) fn public_port(&self) -> u16 {
        self.public_port.load(Ordering::Relaxed)
    }

    /// Which calls the process knows.
    pub(super) fn revision(&self) -> u32 {
        self.revision.load(Ordering::Relaxed)
    }

    /// What the process says about itself.
    pub(super) async fn hello(&self, operation: &'static str) -> Result<Hello> {
        let (_, hello) =
            greet(&self.directory, PROTOCOL).await.map_err(|error| unreachable(operation, error))?;
        Ok(hello)
    }

    /// Asks the process to stop, and returns when it is gone.
    pub(super) async fn stop(&self) -> Result<()> {
        locked(&self.idle).clear();
        stop(&self.directory, self.config.timeouts.shutdown).await.map(drop)
    }

    /// Does one call.
    pub(super) async fn call(
        &self,
        context: &Context,
        operation: &'static str,
        call: Call,
    ) -> Result<Answer> {
        let budget = context.remaining().unwrap_or(DEFAULT_BUDGET);
        let request = Request::within(budget, call);
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
        if let Some(mut wire) = kept
            && let Ok(answer) = wire.converse(request).await
        {
            self.keep(wire);
            return Ok(answer);
        }
        // The kept connection had ended, as after a restart of the process. Every call can be repeated.
        locked(&self.idle).clear();
        let mut wire = self.dial().await?;
        let answer = wire.converse(request).await.map_err(|error| unreachable(operation, error))?;
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
    pub(super) async fn dial(&self) -> Result<Wire> {
        const OPERATION: &str = "proxy.connect";
        let refused = match greet(&self.directory, PROTOCOL).await {
            Ok((wire, hello)) => return self.accept(wire, &hello),
            Err(error) => unreachable(OPERATION, error),
        };
        let Some(launcher) = &self.launcher else { return Err(refused) };
        let _starting = self.starting.acquire().await.map_err(paas_core::error::map(OPERATION))?;
        let find = async {
            loop {
                // Another call, or another program, may have started it meanwhile.
                if let Ok((wire, hello)) = greet(&self.directory, PROTOCOL).await {
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

    /// Checks that the process is the one that this program needs.
    fn accept(&self, wire: Wire, hello: &Hello) -> Result<Wire> {
        let refused = |code: &'static str, message: String| {
            let program = self.launcher.as_ref().and_then(|launcher| launcher.program().ok());
            let program = program.unwrap_or_else(|| "paas-proxy".into());
            Error::new(Kind::Unavailable, "proxy.connect", message)
                .code(code)
                .fault(Fault::Platform)
                .hint(format!(
                    "`{} {STOP_ARGUMENT} {}` stops it: the next start brings the one that is needed",
                    program.display(),
                    self.directory.display()
                ))
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
        self.revision.store(hello.revision, Ordering::Relaxed);
        self.public_port.store(self.config.public_port.unwrap_or(hello.public_port), Ordering::Relaxed);
        Ok(wire)
    }

    /// A connection to a process that serves at least what this program has published.
    pub(super) async fn restore(&self) -> Result<Wire> {
        const OPERATION: &str = "proxy.restore";
        let mut wire = self.dial().await?;
        let calls = locked(&self.published).calls();
        for call in calls {
            let request = Request::within(DEFAULT_BUDGET, call);
            let answer = tokio::time::timeout(DEFAULT_BUDGET + CALL_SLACK, wire.converse(&request)).await;
            match answer.unwrap_or_else(|elapsed| Err(elapsed.into())) {
                Ok(Answer::Done) => {}
                // Somebody has changed it since.
                Ok(Answer::Failed(failure)) if failure.code.as_deref() == Some("stale_generation") => {}
                Ok(Answer::Failed(failure)) => return Err(Error::from(&failure)),
                Ok(answer) => return Err(misunderstood(OPERATION, &answer)),
                Err(error) => return Err(unreachable(OPERATION, error)),
            }
        }
        Ok(wire)
    }
}

async fn greet(directory: &Path, protocol: u32) -> io::Result<(Wire, Hello)> {
    let greet = async {
        let stream = UnixStream::connect(socket_path(directory)).await?;
        let mut wire = Wire::new(stream);
        let request = Request { call: Call::Hello { protocol }, budget_milliseconds: None };
        match wire.converse(&request).await? {
            Answer::Hello(hello) => Ok((wire, hello)),
            _ => Err(io::Error::from(io::ErrorKind::InvalidData)),
        }
    };
    tokio::time::timeout(HELLO_TIMEOUT, greet).await?
}

/// Asks the process of a directory to stop, whatever protocol it speaks, and returns when it is gone: requests in
/// flight may take `patience` to end. False if none runs.
///
/// # Errors
/// `Timeout` when it does not end in time, `Unavailable` when it does not answer.
pub(crate) async fn stop(directory: &Path, patience: Duration) -> Result<bool> {
    const OPERATION: &str = "proxy.stop";
    let stopped = async {
        let (mut wire, hello) = greet(directory, PROTOCOL).await?;
        if hello.protocol != PROTOCOL {
            (wire, _) = greet(directory, hello.protocol).await?;
        }
        wire.send(&Request { call: Call::Stop {}, budget_milliseconds: None }).await?;
        // An error is a connection that broke: the process is gone.
        while let Ok(Some(_)) = wire.receive::<Answer>().await {}
        Ok::<(), io::Error>(())
    };
    match tokio::time::timeout(patience + CALL_SLACK, stopped).await {
        Ok(Ok(())) => Ok(true),
        Ok(Err(error)) if is_gone(&error) => Ok(false),
        Ok(Err(error)) => Err(unreachable(OPERATION, error)),
        Err(_) => Err(Error::new(Kind::Timeout, OPERATION, "the proxy did not stop in time")),
    }
}

/// True if nobody is at the other end, or somebody who was just ending.
fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotFound | UnexpectedEof)
}

fn unreachable(operation: &'static str, error: io::Error) -> Error {
    Error::new(Kind::Unavailable, operation, "the proxy can't be reached").source(error)
}

pub(super) fn misunderstood(operation: &'static str, answer: &Answer) -> Error {
    Error::internal(operation, format!("the proxy answered {answer:?}"))
}
