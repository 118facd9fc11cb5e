//! Goal 1: durable steps a second, one commit a step, with 64 deployments in flight; on PostgreSQL; and with how many apps.

pub(crate) mod pipeline;
pub(crate) mod raw;
mod slow_disk;

use crate::contest::Contest;
use crate::contestant::APPS;
use crate::contestant::{Contestant, turn};
use crate::peers::Peer;
use crate::postgres::{self, Cluster};
use crate::report::{Report, Target};
use crate::{Effort, Result, peers};

const PIPELINE: &str = "pipeline";
const GROUP: &str = "raw group commit";
const SINGLE: &str = "one commit per step";
const APALIS: &str = "apalis-sqlite";
const GRAPHILE: &str = "graphile-worker";
const DBOS: &str = "DBOS";
/// How many apps there are that nothing is done to, and what that is called.
const AMONG: [(usize, &str); 3] =
    [(100, "among 100 apps"), (10_000, "among 10,000 apps"), (100_000, "among 100,000 apps")];

/// What is added to each sync in the second half: what a disk with a durable cache takes.
const SLOW_MICROS: u32 = 1000;

pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let apalis = peers::apalis().await.map_err(|error| report.note(format!("apalis-sqlite: {error}"))).ok();
    for is_slow in [false, true] {
        let disk = if is_slow { Some(slow_disk::build(SLOW_MICROS).await?) } else { None };
        let mut contest = Contest::default();
        for _ in 0..effort.rounds {
            for (name, contestant) in [
                (PIPELINE, Contestant::Pipeline),
                (GROUP, Contestant::GroupCommit),
                (SINGLE, Contestant::SingleCommit),
            ] {
                contest.add(name, turn(contestant.command()?, effort.turn, disk.as_ref()).await?);
            }
            if let Some(apalis) = &apalis {
                contest.add(APALIS, turn(apalis.command(), effort.turn, disk.as_ref()).await?);
            }
        }
        let (what, single, group) = if is_slow {
            ("durable steps, 64 in flight, 1 ms more per sync", Some(Target::AtLeast(30.0)), None)
        } else {
            ("durable steps, 64 in flight", None, Some(Target::AtLeast(0.5)))
        };
        let peers = [(GROUP, group), (SINGLE, single), (APALIS, Some(Target::AtLeast(20.0)))];
        report.contest(1, what, "steps/s", &contest, PIPELINE, &peers);
    }
    on_postgres(effort, report).await?;
    among(effort, report).await
}

async fn on_postgres(effort: Effort, report: &mut Report) -> Result<()> {
    let mut cluster = match Cluster::start().await {
        Ok(cluster) => cluster,
        Err(error) => {
            report.note(format!("PostgreSQL: {error}"));
            return Ok(());
        }
    };
    let graphile =
        peers::graphile().await.map_err(|error| report.note(format!("graphile-worker: {error}"))).ok();
    let dbos = peers::dbos().await.map_err(|error| report.note(format!("DBOS: {error}"))).ok();
    let mut contest = Contest::default();
    for _ in 0..effort.rounds {
        let contestants = [
            (PIPELINE, Some(Contestant::PipelineOnPostgres.command()?)),
            (GRAPHILE, graphile.as_ref().map(Peer::command)),
            (DBOS, dbos.as_ref().map(Peer::command)),
        ];
        for (name, command) in contestants {
            if let Some(mut command) = command {
                command.env(postgres::VARIABLE, cluster.database().await?);
                contest.add(name, turn(command, effort.turn, None).await?);
            }
        }
    }
    let peers = [(GRAPHILE, Some(Target::AtLeast(1.0))), (DBOS, None)];
    report.contest(1, "durable steps on PostgreSQL, 64 in flight", "steps/s", &contest, PIPELINE, &peers);
    report.note(
        "On PostgreSQL processor time is the client's alone. A step of graphile-worker is a job that was queued before; \
         one of DBOS is a sixth of a workflow.",
    );
    Ok(())
}

/// The same work beside ever more apps that nothing is done to.
async fn among(effort: Effort, report: &mut Report) -> Result<()> {
    let counts = if effort.is_quick { &AMONG[..1] } else { &AMONG[..] };
    let mut contest = Contest::default();
    for _ in 0..effort.rounds.min(3) {
        for (apps, name) in counts {
            let mut command = Contestant::PipelineAmong.command()?;
            command.env(APPS, apps.to_string());
            contest.add(name, turn(command, effort.turn, None).await?);
        }
    }
    let Some(((_, most), fewer)) = counts.split_last() else { return Ok(()) };
    // Flat within 1.3 times.
    let peers: Vec<_> = fewer.iter().map(|(_, name)| (*name, Some(Target::AtLeast(1.0 / 1.3)))).collect();
    report.contest(1, "durable steps, 64 in flight", "steps/s", &contest, most, &peers);
    Ok(())
}
