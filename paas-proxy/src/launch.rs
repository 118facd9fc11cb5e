//! Starting the proxy as a process of its own, from any program.
//!
//! Whatever program is started gets two arguments: a fixed word and the configuration as JSON. `paas-proxy` knows
//! them, and so does every program that calls [`run_if_asked`] first: then one file is enough to install. The new
//! process says on its standard output how its start went, one line, and from then on only writes to its log. The same
//! programs stop the proxy of a directory: `paas-proxy --stop-paas-proxy DIRECTORY`.

use std::env;
use std::ffi::OsStr;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use paas_core::{Error, Failure, Kind, Result};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::config::{ProxyConfig, Timeouts};
use crate::control::link;
use crate::log::{self, Log};
use crate::process;

/// The word by which a program knows that it is to be the proxy.
const ARGUMENT: &str = "--run-paas-proxy";

/// The word by which a program knows that it is to stop the proxy of a directory.
pub(crate) const STOP_ARGUMENT: &str = "--stop-paas-proxy";

/// Names the proxy's program where it is not beside this one.
const VARIABLE: &str = "PAAS_PROXY_BINARY";

/// The longest report of a start.
const MAX_REPORT_BYTES: u64 = 64 * 1024;

/// Which program becomes the proxy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// This one: `paas-proxy`, or another that calls [`run_if_asked`].
    Program(PathBuf),
    /// The program that runs now, which calls [`run_if_asked`] at its start.
    CurrentProgram,
}

/// How a start went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Started {
    /// It listens.
    Ready,
    /// Another process has the directory: one that was started a moment before.
    ByAnother,
}

/// What the new process says about its start.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// It listens.
    Ready,
    /// It ends, and why.
    Failed(Failure),
}

impl Launcher {
    /// The program that `PAAS_PROXY_BINARY` names, or else `paas-proxy` beside the program that runs now.
    ///
    /// # Errors
    /// `Unavailable` when there is neither.
    pub fn find() -> Result<Self> {
        if let Some(program) = env::var_os(VARIABLE) {
            return Ok(Self::Program(program.into()));
        }
        env::current_exe()
            .ok()
            .map(|program| program.with_file_name("paas-proxy"))
            .filter(|program| program.is_file())
            .map(Self::Program)
            .ok_or_else(|| {
                Error::new(Kind::Unavailable, "proxy.find_program", "the program `paas-proxy` was not found")
                    .hint(format!("install it beside this program, or name it in {VARIABLE}"))
            })
    }

    /// The program's path.
    pub(crate) fn program(&self) -> io::Result<PathBuf> {
        let current = match self {
            Self::Program(program) => return std::path::absolute(program),
            Self::CurrentProgram => env::current_exe()?,
        };
        // So Linux calls a file that was replaced, as by an upgrade: the new one is wanted.
        let replaced = current.to_str().and_then(|path| path.strip_suffix(" (deleted)")).map(PathBuf::from);
        Ok(replaced.unwrap_or(current))
    }

    /// Starts the process and waits for its report. Dropping the wait leaves the process to itself.
    pub(crate) async fn start(&self, config: &ProxyConfig, directory: &Path) -> Result<Started> {
        const OPERATION: &str = "proxy.start_process";
        let failed = |error: io::Error| {
            Error::new(Kind::Unavailable, OPERATION, "the proxy can't be started")
                .context("directory", directory.display())
                .source(error)
        };
        let program = self.program().map_err(failed)?;
        let log = log::open(directory).map_err(failed)?;
        let config = serde_json::to_string(config).map_err(paas_core::error::map(OPERATION))?;
        let mut child = Command::new(&program)
            .arg(ARGUMENT)
            .arg(config)
            // What the starter's environment holds is not the proxy's business, and it outlives its folder.
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| failed(error).context("program", program.display()))?;
        let mut line = Vec::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output)
                .take(MAX_REPORT_BYTES)
                .read_until(b'\n', &mut line)
                .await
                .map_err(failed)?;
        }
        // The runtime reaps it, should it end before this program does.
        drop(child);
        match serde_json::from_slice(&line) {
            Ok(Report::Ready) => Ok(Started::Ready),
            Ok(Report::Failed(failure)) if failure.code.as_deref() == Some("directory_in_use") => {
                Ok(Started::ByAnother)
            }
            Ok(Report::Failed(failure)) => Err(Error::from(&failure)),
            Err(error) => Err(Error::new(Kind::Unavailable, OPERATION, "the proxy ended while it started")
                .hint("its log is `proxy.log` in its directory; is the program `paas-proxy`?")
                .context("program", program.display())
                .source(error)),
        }
    }
}

/// Becomes the proxy if this program was started to be it, or stops one if it was started for that (with the arguments
/// `--stop-paas-proxy DIRECTORY`), and then never returns.
///
/// Call it first in `main`, before threads and runtimes, and give [`Launcher::CurrentProgram`] to
/// [`ProxyClient::connect_or_spawn`](crate::ProxyClient::connect_or_spawn):
///
/// ```
/// paas_proxy::run_if_asked();
/// // … the program itself
/// ```
pub fn run_if_asked() {
    let mut arguments = env::args_os().skip(1);
    let word = arguments.next();
    let argument = arguments.next().unwrap_or_default();
    if word.as_deref() == Some(OsStr::new(ARGUMENT)) {
        std::process::exit(match run(&argument.to_string_lossy()) {
            Ok(()) => 0,
            Err(error) => {
                tracing::error!(error = ?error, "the proxy ends");
                report(&Report::Failed(Failure::from(&error)));
                1
            }
        });
    }
    if word.as_deref() == Some(OsStr::new(STOP_ARGUMENT)) {
        let (text, code) = match stop(Path::new(&argument)) {
            Ok(true) => ("the proxy has stopped".to_owned(), 0),
            Ok(false) => ("no proxy runs in this directory".to_owned(), 0),
            Err(error) => (format!("error: {error}"), 1),
        };
        // Nobody may be reading.
        let _ = writeln!(io::stderr(), "{text}");
        std::process::exit(code);
    }
}

/// Stops the proxy that runs in the directory; false if none does.
fn stop(directory: &Path) -> Result<bool> {
    const OPERATION: &str = "proxy.stop";
    let directory = std::path::absolute(directory)
        .map_err(|error| Error::invalid(OPERATION, "name the proxy's directory").source(error))?;
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(paas_core::error::map(OPERATION))?
        .block_on(link::stop(&directory, Timeouts::default().shutdown))
}

fn run(config: &str) -> Result<()> {
    let config: Result<ProxyConfig> = serde_json::from_str(config).map_err(|error| {
        Error::invalid("proxy.configure", "the proxy's configuration is not valid").source(error)
    });
    let log = Log::new(config.as_ref().ok().and_then(|config| config.directory.as_deref()));
    tracing_subscriber::fmt().with_writer(log).with_ansi(false).init();
    let config = config?;
    process::run(config, || report(&Report::Ready))
}

/// Tells whoever started this process; they may be gone.
fn report(report: &Report) {
    let mut output = io::stdout();
    if let Ok(line) = serde_json::to_string(report) {
        let _ = writeln!(output, "{line}").and_then(|()| output.flush());
    }
}
