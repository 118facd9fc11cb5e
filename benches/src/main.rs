//! Measures the platform beside its peers, in one run on one machine, and writes one table.
//!
//! `make bench` runs the whole suite; `--only store,proxy` a part of it; `--quick` shows in a minute that it works.
//! Contestants take turns, round after round, so that what else the machine does falls on all of them alike.

mod build;
mod contest;
mod contestant;
mod idle;
mod installation;
mod latency;
mod machine;
mod nginx;
mod peers;
mod postgres;
mod proxy;
mod push;
mod report;
mod source;
mod store;
mod swap;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use contestant::Contestant;
use report::Report;

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// Measures the platform beside its peers.
#[derive(Debug, Parser)]
struct Options {
    /// The suites to run; all of them by default.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Suite>,
    /// Two short rounds: shows that everything works, measures nothing worth quoting.
    #[arg(long)]
    quick: bool,
    /// How often each contestant has its turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Where the table is written to, as Markdown and JSON.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/results"))]
    out: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measures one contestant in this process and prints the figures: what the suite starts for each turn.
    #[command(hide = true)]
    Contestant {
        /// Which one.
        contestant: Contestant,
        /// An empty folder for its files.
        folder: PathBuf,
        /// How long to measure.
        seconds: f64,
    },
    /// Deploys so many apps into a folder.
    #[command(hide = true)]
    IdleSeed {
        /// Where to.
        folder: PathBuf,
        /// How many.
        apps: usize,
    },
    /// Runs a platform in that folder that does nothing.
    #[command(hide = true)]
    Idle {
        /// Where.
        folder: PathBuf,
        /// How many apps it has.
        apps: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// Durable steps a second, with the pipeline and without.
    Store,
    /// How soon and how fast an idle platform works.
    Latency,
    /// From a push until the new page is served.
    Push,
    /// Images of large trees.
    Build,
    /// New commits of large trees.
    Source,
    /// New instances of running apps, and requests meanwhile.
    Swap,
    /// Requests through the proxy.
    Proxy,
    /// A platform that does nothing.
    Idle,
}

/// How much to measure.
#[derive(Clone, Copy, Debug)]
struct Effort {
    rounds: usize,
    turn: Duration,
    is_quick: bool,
}

fn main() -> Result<()> {
    // The suite's own program becomes the proxy that it measures.
    paas_proxy::run_if_asked();
    let options = Options::parse();
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(run(options))
}

async fn run(options: Options) -> Result<()> {
    match options.command {
        Some(Command::Contestant { contestant, folder, seconds }) => {
            return contestant.measure(&folder, Duration::from_secs_f64(seconds)).await;
        }
        Some(Command::IdleSeed { folder, apps }) => return idle::seed(&folder, apps).await,
        Some(Command::Idle { folder, .. }) => return idle::stand(&folder).await,
        None => {}
    }
    let effort = Effort {
        rounds: if options.quick { 2 } else { options.rounds.max(1) },
        turn: Duration::from_secs_f64(if options.quick { 0.3 } else { 1.5 }),
        is_quick: options.quick,
    };
    let suites = if options.only.is_empty() { Suite::value_variants().to_vec() } else { options.only };
    let mut report = Report::begin()?;
    let mut failed = Vec::new();
    for (number, suite) in (1..).zip(&suites) {
        eprintln!("measuring: {suite:?} ({number} of {})", suites.len());
        let done = match suite {
            Suite::Store => store::run(effort, &mut report).await,
            Suite::Latency => latency::run(effort, &mut report).await,
            Suite::Push => push::run(effort, &mut report).await,
            Suite::Build => build::run(effort, &mut report).await,
            Suite::Source => source::run(effort, &mut report).await,
            Suite::Swap => swap::run(effort, &mut report).await,
            Suite::Proxy => proxy::run(effort, &mut report).await,
            Suite::Idle => idle::run(effort, &mut report).await,
        };
        if let Err(error) = done {
            report.note(format!("{suite:?} could not be measured: {error}"));
            failed.push(format!("{suite:?}"));
        }
    }
    report.write(&options.out)?;
    if failed.is_empty() { Ok(()) } else { Err(format!("not measured: {}", failed.join(", ")).into()) }
}
