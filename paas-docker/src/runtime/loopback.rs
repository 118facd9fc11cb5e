//! Ports of 127.0.0.1 for containers whose own addresses cannot be reached.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};

use paas_core::{Error, Kind, Result, Retry};
use tokio::net::TcpListener;

const OPERATION: &str = "docker.choose_port";
/// Below the ports that Linux gives to outgoing connections: one of them could have it when a container restarts.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 12_000;
const TRIES: u32 = 100;

/// An address that none of `taken` is and nothing listens on. The engine has the last word on that.
pub(super) async fn choose(taken: BTreeSet<SocketAddr>) -> Result<SocketAddr> {
    for _ in 0..TRIES {
        let random = getrandom::u32().map_err(paas_core::error::map(OPERATION))?;
        let offset = u16::try_from(random % u32::from(PORTS)).unwrap_or_default();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST_PORT + offset));
        if !taken.contains(&address) && TcpListener::bind(address).await.is_ok() {
            return Ok(address);
        }
    }
    Err(Error::new(Kind::Internal, OPERATION, "no free port of this machine was found")
        .retry(Retry::Transient { after: None }))
}
