//! The engine, killed with SIGKILL under the real server while things are asked of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::task::block_in_place;

use crate::act::Act;
use crate::from_environment;
use crate::installation::own_engine::OwnEngine;
use crate::installation::server::Machine;
use crate::steady::Steady;
use crate::victim::Victim;

/// How many kills a plain test run does.
const KILLS: usize = 5;
/// What is under way goes on within so long of the engine's next start, as of the server's. It ends within it, too.
const WITHIN: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_killed_at_any_moment_costs_nobody_a_request() {
    let kills =
        from_environment("TORTURE_ENGINE_KILLS").map_or(KILLS, |kills| usize::try_from(kills).unwrap());
    let seed = from_environment("TORTURE_SEED").unwrap_or(1);
    let mut random = StdRng::seed_from_u64(seed);
    let engine = block_in_place(OwnEngine::start);
    let machine = Machine::new().await.with_engine(engine);
    let engine = machine.engine.as_ref().unwrap();
    let server = machine.start().await;
    let steady = Steady::start(&machine, &server).await;
    let mut victim = Victim::new(&machine);
    let mut longest: BTreeMap<Act, (usize, Duration)> = BTreeMap::new();
    for number in 0..kills {
        let act = Act::ALL[number % Act::ALL.len()];
        let after = Duration::from_millis(random.random_range(0..2_000));
        let away = Duration::from_millis(random.random_range(0..8_000));
        let round = format!("round {number}: {act:?}, the engine killed after {after:?} for {away:?}");
        println!("{round}");
        victim.prepare(&server, act).await;
        let request = victim.request(&server, act).await;
        let answer = server.ask(&request).await.expect("the server answers");
        tokio::time::sleep(after).await;
        block_in_place(|| engine.kill());
        tokio::time::sleep(away).await;
        block_in_place(|| engine.start_again());
        let began = Instant::now();
        victim.check(&server, act, answer).await;
        let took = began.elapsed();
        assert!(took < WITHIN, "{round}: it took {took:?}");
        let (count, longest) = longest.entry(act).or_default();
        (*count, *longest) = (*count + 1, took.max(*longest));
    }
    println!("\n| operation | the engine killed | longest until it ended |\n|---|---|---|");
    for (act, (count, longest)) in longest {
        println!("| {act:?} | {count} | {:.1} s |", longest.as_secs_f64());
    }
    steady.finish(&machine, &server).await;
    victim.prepare(&server, Act::Create).await;
    server.kill().await;
}
