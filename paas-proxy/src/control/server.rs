//! The process's side.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use paas_core::{Clock, Context, Error, Failure, Ingress, Kind, Result};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::{Answer, Call, Hello, PROTOCOL, REVISION, Request, Wire, socket_path};
use crate::proxy::Proxy;
use crate::timer::sleep;

/// How many calls go on at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 256;

/// How long a new connection may take to say hello.
const HELLO_TIMEOUT: Duration = Duration::from_secs(5);

const ACCEPT_BACK_OFF: Duration = Duration::from_millis(50);

/// Takes calls for a proxy.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) proxy: Arc<Proxy>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Fires when a caller asks the process to stop.
    pub(crate) stopping: CancellationToken,
    /// Fires to hang up, so that programs look for the next process while this one lets its requests end.
    pub(crate) closing: CancellationToken,
}

/// Opens the socket; whoever calls this holds the directory's lock, so that an old socket is nobody's.
pub(crate) fn bind(directory: &Path) -> Result<UnixListener> {
    let path = socket_path(directory);
    let open = || -> io::Result<UnixListener> {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        // The process's mask kept others out before this line.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(listener)
    };
    open().map_err(|error| {
        Error::new(
            Kind::Unavailable,
            "proxy.open_control_socket",
            "the proxy's control socket can't be opened",
        )
        .hint("the path of a socket may have at most 107 bytes: choose a shorter directory")
        .context("path", path.display())
        .source(error)
    })
}

impl Server {
    /// Takes calls until dropped.
    pub(crate) async fn run(self, listener: UnixListener) {
        let server = Arc::new(self);
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = Arc::clone(&server);
                    tokio::spawn(async move {
                        server.connection(stream).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "no control connection can be accepted");
                    sleep(ACCEPT_BACK_OFF).await;
                }
            }
        }
    }

    async fn connection(&self, stream: UnixStream) {
        let mut wire = Wire::new(stream);
        let greeted = tokio::time::timeout(HELLO_TIMEOUT, self.greet(&mut wire)).await;
        let served = match greeted {
            Ok(Ok(true)) => self.calls(&mut wire).await,
            Ok(other) => other.map(drop),
            Err(_) => return,
        };
        if let Err(error) = served {
            tracing::warn!(%error, "a control connection broke the protocol");
            let failure = Error::invalid("proxy.control", "this is not a call of the proxy's protocol");
            // It may be gone already.
            let _ = wire.send(&Answer::Failed(Failure::from(&failure))).await;
        }
    }

    /// Says hello; false if the other side is of another time, or went away.
    async fn greet(&self, wire: &mut Wire) -> io::Result<bool> {
        let Some(Request { call: Call::Hello { protocol }, .. }) = wire.receive().await? else {
            return Ok(false);
        };
        let hello = Hello {
            protocol: PROTOCOL,
            revision: REVISION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process_id: std::process::id(),
            address: self.proxy.address(),
            public_port: self.proxy.public_port(),
        };
        wire.send(&Answer::Hello(hello)).await?;
        Ok(protocol == PROTOCOL)
    }

    async fn calls(&self, wire: &mut Wire) -> io::Result<()> {
        while let Some(received) = self.closing.run_until_cancelled(wire.receive::<Request>()).await
            && let Some(request) = received?
        {
            if matches!(request.call, Call::Stop {}) {
                wire.send(&Answer::Done).await?;
                self.stopping.cancel();
                // The connection ends with the process: that is how the caller knows.
                std::future::pending::<()>().await;
            }
            let context = Context::new(Arc::clone(&self.clock));
            let context = match request.budget_milliseconds {
                Some(budget) => context.with_budget(Duration::from_millis(budget)),
                None => context,
            };
            let answer = tokio::select! {
                biased;
                answer = self.call(&context, request.call) => answer,
                // Dropping the call cancels it.
                () = wire.interrupted() => return Ok(()),
                () = self.closing.cancelled() => return Ok(()),
            };
            wire.send(&answer.unwrap_or_else(|error| Answer::Failed(Failure::from(&error)))).await?;
        }
        Ok(())
    }

    async fn call(&self, context: &Context, call: Call) -> Result<Answer> {
        Ok(match call {
            Call::Publish { route, generation } => {
                self.proxy.publish(context, &route, generation).await?;
                Answer::Done
            }
            Call::Withdraw { host, generation } => {
                self.proxy.withdraw(context, &host, generation).await?;
                Answer::Done
            }
            Call::Serving { host } => Answer::Serving(self.proxy.serving(context, &host).await?),
            Call::Digest {} => Answer::Digest(self.proxy.digest(context).await?),
            Call::List { from } => Answer::List(self.proxy.list(context, from).await?),
            Call::Drain { instance, address } => {
                self.proxy.drain(context, &instance, address).await?;
                Answer::Done
            }
            Call::Probe { address, check } => {
                Answer::Probe(self.proxy.probe(context, address, &check).await?)
            }
            Call::Ping {} => {
                self.proxy.ping(context).await?;
                Answer::Done
            }
            Call::Hello { .. } | Call::Stop {} => {
                return Err(Error::invalid("proxy.control", "this call has its place elsewhere"));
            }
        })
    }
}
