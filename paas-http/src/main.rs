//! `paas-server`: the platform with its API, on this machine.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use paas_core::Result;
use paas_http::{Server, ServerConfig};
use paas_proxy::Launcher;
use paas_store::Imported;

/// Takes git repositories to live URLs. Settings come from the file, and from variables `PAAS_…` over it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file (TOML).
    #[arg(long, env = "PAAS_CONFIG")]
    config: Option<PathBuf>,
    /// Copies the state of this SQLite file, whose server is stopped, into the empty database that DATABASE_URL names,
    /// compares both, and ends.
    #[arg(long, value_name = "FILE")]
    import_sqlite: Option<PathBuf>,
}

fn main() -> ExitCode {
    // The proxy may be this same program.
    paas_proxy::run_if_asked();
    let arguments = Arguments::parse();
    // Kept to the end: it sends the last traces.
    let _log = paas_http::log_to_stderr();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(?error, "the server ends");
            let hint = error.hinted().map(|hint| format!("\n{hint}")).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "error: {error}{hint}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let config = ServerConfig::load(arguments.config.as_deref(), std::env::vars_os())?;
    match &arguments.import_sqlite {
        Some(file) => import(&config, file),
        None => Server::serve(config, Launcher::find().unwrap_or(Launcher::CurrentProgram)),
    }
}

#[tokio::main]
async fn import(config: &ServerConfig, file: &Path) -> Result<()> {
    let Imported { records, events, work } = Server::import(config, file).await?;
    let told =
        format!("copied and compared: {records} records, {events} events, {work} apps with work due\n");
    // Nobody may be reading.
    let _ = std::io::stdout().write_all(told.as_bytes());
    Ok(())
}
