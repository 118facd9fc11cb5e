//! The ingress of paas-core: routes requests by host to instances, in-process or as a process of its own.
mod body;
mod config;
mod control;
mod framing;
mod headers;
mod journal;
mod launch;
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
