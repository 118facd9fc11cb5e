//! The bundled HTTP server: one machine, one team.
//!
//! ```text
//! cargo run -p paas-examples --bin http_server
//! ```
//! Settings come from variables `PAAS_…`; see `paas_http::ServerConfig`. `PAAS_LOG` says how much it logs.

use paas_core::Result;
use paas_http::{Server, ServerConfig};
use paas_proxy::Launcher;

fn main() -> Result<()> {
    // The proxy may be this same program, in a process of its own that outlives it.
    paas_proxy::run_if_asked();
    let _log = paas_http::log_to_stderr();
    let config = ServerConfig::load(None, std::env::vars_os())?;
    Server::serve(config, Launcher::find().unwrap_or(Launcher::CurrentProgram))
}
