//! The ingress of paas-core: routes requests by host to instances, in-process or as a process of its own.
//!
//! ```
//! use std::sync::Arc;
//! use paas_core::{AppId, Context, Generation, Ingress, RandomIds, Route, SystemClock};
//! use paas_proxy::{Proxy, ProxyConfig};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> paas_core::Result<()> {
//! let clock = Arc::new(SystemClock::new());
//! let config = ProxyConfig { listen: "127.0.0.1:0".parse().unwrap(), ..ProxyConfig::default() };
//! let proxy = Proxy::start(config, clock.clone()).await?;
//!
//! let app = AppId::generate(&RandomIds::new(SystemClock::new()));
//! let route = Route { host: "hello.localhost".parse()?, app, targets: Vec::new() };
//! proxy.publish(&Context::new(clock), &route, Generation(1)).await?;
//! println!("{} says that the app is stopped", proxy.url(&route.host));
//! proxy.stop().await;
//! # Ok(())
//! # }
//! ```
//!
//! # Forms
//! [`Proxy`] is the data plane within a program: URLs live as long as the program. [`ProxyClient`] is the same in a
//! process of its own, which it starts when none runs and which outlives it: apps keep serving while the platform
//! restarts. Both implement [`Ingress`](paas_core::Ingress).
//!
//! # How a request goes
//! Threads, each with a runtime of its own, accept connections; hyper reads and writes HTTP/1.1. The table says by
//! host whose turn it is; the request goes out on an idle connection of the same thread, or a new one. Bodies are
//! streamed, never held. A request that is idempotent and has no body may go out on an idle connection, and is sent
//! again if that broke under it; any other gets a new connection.
//!
//! # Files in the directory
//! `routes.journal` the table, one line for each change; `lock` held while a proxy runs; `control.sock` and
//! `proxy.log` of the process. The files are their owner's alone, and others may not write in the directory. What was
//! unreadable of the table is kept in `routes.damaged`.
//!
//! # Stopping, upgrading
//! `paas-proxy --stop-paas-proxy DIRECTORY`, as every program that calls [`run_if_asked`], stops the process of a
//! directory: at once it accepts no more, and it ends when its requests have. A server that runs on the directory
//! brings the next one, of the program that is installed then, within a moment; its first answers wait for no request
//! of the old one.

mod body;
mod config;
mod control;
mod descriptors;
mod framing;
mod headers;
mod journal;
mod launch;
mod lock;
mod log;
mod pages;
mod probe;
mod process;
mod proxy;
mod service;
mod stream;
mod table;
mod timer;
mod tunnel;
mod upstream;
mod worker;

pub use config::{ProxyConfig, Timeouts};
pub use control::client::ProxyClient;
pub use launch::{Launcher, run_if_asked};
pub use proxy::Proxy;
