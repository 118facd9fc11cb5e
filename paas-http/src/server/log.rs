//! The log of a program that serves.

use tracing_subscriber::EnvFilter;

/// Writes the program's log to standard error: from `info` on, or as the variable `PAAS_LOG` says (`debug`,
/// `warn,paas_git=trace`). A program that has a log already keeps it.
pub fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("PAAS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
