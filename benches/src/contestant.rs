//! Contestants that get a process of their own for each turn, so that a slow disk can be put under them and their
//! processor time is theirs alone.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use paas_core::SystemClock;
use paas_store::PostgresStore;
use tokio::process::Command;

use crate::contest::Turn;
use crate::store::{pipeline, raw};
use crate::{Result, machine, postgres};

/// How many work at once.
pub(crate) const CLIENTS: usize = 64;

/// The variable that says how many apps there are besides.
pub(crate) const APPS: &str = "PAAS_BENCH_APPS";

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Contestant {
    /// The platform's engine on its SQLite store, all else in memory.
    Pipeline,
    /// The same with so many apps that nothing is done to: the variable `PAAS_BENCH_APPS`.
    PipelineAmong,
    /// The platform's engine on PostgreSQL, all else in memory.
    PipelineOnPostgres,
    /// The same two statements, gathered into shared transactions by one thread, and nothing else.
    GroupCommit,
    /// The same two statements, a transaction each.
    SingleCommit,
}

impl Contestant {
    /// Measures in this process, and prints the turn as JSON.
    #[allow(clippy::print_stdout)] // the answer to whoever started this process
    pub(crate) async fn measure(self, folder: &Path, time: Duration) -> Result<()> {
        let turn = match self {
            Self::Pipeline => pipeline::measure(pipeline::sqlite(folder).await?, folder, time, 0).await?,
            Self::PipelineAmong => {
                let apps = std::env::var(APPS)?.parse()?;
                pipeline::measure(pipeline::sqlite(folder).await?, folder, time, apps).await?
            }
            Self::PipelineOnPostgres => {
                let url = std::env::var(postgres::VARIABLE)?;
                let store = PostgresStore::open(&url, Arc::new(SystemClock::new()));
                pipeline::measure(Arc::new(store.await?), folder, time, 0).await?
            }
            Self::GroupCommit => raw::measure(folder, time, raw::GROUP).await?,
            Self::SingleCommit => raw::measure(folder, time, 1).await?,
        };
        println!("{}", serde_json::to_string(&turn)?);
        Ok(())
    }

    /// The program and arguments that measure it.
    pub(crate) fn command(self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        let name = self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default();
        command.arg("contestant").arg(name);
        Ok(command)
    }
}

/// A library that makes syncs slow, and by how much.
#[derive(Clone, Debug)]
pub(crate) struct SlowDisk {
    pub(crate) library: PathBuf,
    pub(crate) micros: u32,
}

/// Gives a contestant its turn in a fresh process and folder.
pub(crate) async fn turn(mut command: Command, time: Duration, disk: Option<&SlowDisk>) -> Result<Turn> {
    let folder = tempfile::tempdir()?;
    command.arg(folder.path()).arg(time.as_secs_f64().to_string());
    if let Some(SlowDisk { library, micros }) = disk {
        command.env("LD_PRELOAD", library).env("PAAS_SLOW_SYNC_MICROSECONDS", micros.to_string());
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true).output().await?;
    if !output.status.success() {
        return Err(format!("a contestant ended with {}", output.status).into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The processor time of this process so far, in seconds.
pub(crate) fn processor_seconds() -> Result<f64> {
    Ok(machine::processor_time(std::process::id())?.as_secs_f64())
}
