//! Goal 1: durable steps a second, one commit a step, with 64 deployments in flight.

pub(crate) mod pipeline;
pub(crate) mod raw;
mod slow_disk;

use crate::contest::Contest;
use crate::contestant::{Contestant, turn};
use crate::report::{Report, Target};
use crate::{Effort, Result, peers};

const PIPELINE: &str = "pipeline";
const GROUP: &str = "raw group commit";
const SINGLE: &str = "one commit per step";
const APALIS: &str = "apalis-sqlite";

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
    Ok(())
}
