//! The proxy as a process: a session of its own, a control socket, and an orderly end.

use std::sync::Arc;

use paas_core::{Clock, Error, Result, SystemClock};
use rustix::fs::Mode;
use rustix::process::{setsid, umask};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::config::ProxyConfig;
use crate::control::server::{Server, bind};
use crate::proxy::Proxy;

/// Runs the proxy until SIGTERM, SIGINT or a caller's `stop`. `ready` is called once it listens.
pub(crate) fn run(config: ProxyConfig, ready: impl FnOnce()) -> Result<()> {
    // Signals to the starter's terminal or session do not reach it. It fails for a leader, who has one already.
    let _ = setsid();
    // Whatever it makes is its owner's alone from the first moment on, the socket included.
    umask(Mode::RWXG | Mode::RWXO);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(paas_core::error::map("proxy.run"))?
        .block_on(serve(config, ready))
}

async fn serve(config: ProxyConfig, ready: impl FnOnce()) -> Result<()> {
    let directory = config
        .directory
        .clone()
        .ok_or_else(|| Error::invalid("proxy.configure", "a proxy process needs a directory"))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    // Before anything else can be interrupted.
    let mut terminated = signal(SignalKind::terminate()).map_err(paas_core::error::map("proxy.run"))?;
    let mut interrupted = signal(SignalKind::interrupt()).map_err(paas_core::error::map("proxy.run"))?;
    let proxy = Arc::new(Proxy::start(config, Arc::clone(&clock)).await?);
    let listener = bind(&directory)?;
    let stopping = CancellationToken::new();
    let closing = CancellationToken::new();
    let server =
        Server { proxy: Arc::clone(&proxy), clock, stopping: stopping.clone(), closing: closing.clone() };
    tracing::info!(address = %proxy.address(), directory = %directory.display(), "the proxy serves");
    ready();
    tokio::select! {
        biased;
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        () = stopping.cancelled() => {}
        () = server.run(listener) => {}
    }
    tracing::info!("the proxy stops; requests in flight may end");
    closing.cancel();
    proxy.stop().await;
    Ok(())
}
