//! The real server on the real engine, killed with SIGKILL before and after every commit and every effect of every kind
//! of operation, and at any moment, some of them again while they recover. `make torture` does it a thousand times;
//! `make torture KILLS=50 SEED=7` as often as it says, with these dice.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout
)]

mod act;
mod drift;
mod engine;
mod fleet;
#[path = "../installation/mod.rs"]
mod installation;
mod steady;
#[path = "../../../paas-store/tests/support/mod.rs"]
mod support;
mod traffic;
mod victim;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use act::Act;
use installation::server::{Machine, Server};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use steady::Steady;
use victim::Victim;

/// How many kills a plain test run does: so many in a hundred points and moments.
const KILLS: usize = 30;
/// The contract's: an operation goes on within so long of the next start. These end within it, too.
const WITHIN: Duration = Duration::from_secs(60);

/// When the server is killed.
#[derive(Clone, Debug)]
enum Kill {
    /// At a named point.
    At(String),
    /// So long after it was asked.
    After(Duration),
}

/// What became of the rounds of one kind of operation.
#[derive(Debug, Default)]
struct Row {
    at_point: usize,
    at_random: usize,
    twice: usize,
    longest: Duration,
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_killed_anywhere_loses_nothing() {
    let kills = from_environment("TORTURE_KILLS").map_or(KILLS, |kills| usize::try_from(kills).unwrap());
    let seed = from_environment("TORTURE_SEED").unwrap_or(1);
    let mut random = StdRng::seed_from_u64(seed);
    let machine = Machine::new().await.fragile();
    let mut server = machine.start().await;
    let steady = Steady::start(&machine, &server).await;
    let mut victim = Victim::new(&machine);
    let points = points(&machine, &server, &mut victim).await;
    println!("{} points, seed {seed}", points.len());
    let mut table: BTreeMap<Act, Row> = BTreeMap::new();
    for number in 0..kills {
        let (act, kill) = if number % 5 == 4 {
            let after = Duration::from_millis(random.random_range(0..2_500));
            (*Act::ALL.choose(&mut random).unwrap(), Kill::After(after))
        } else {
            let (act, point) = &points[number * points.len() / kills];
            (*act, Kill::At(point.clone()))
        };
        let is_twice = number % 10 == 9;
        let again = is_twice.then(|| Duration::from_millis(random.random_range(50..2_000)));
        let row = table.entry(act).or_default();
        let round = format!("round {number}: {act:?} {kill:?}, again: {again:?}");
        println!("{round}");
        let (next, was_at_point, took) = play(&machine, server, &mut victim, act, &kill, again).await;
        server = next;
        assert!(took < WITHIN, "{round}: it took {took:?}");
        row.at_point += usize::from(was_at_point);
        row.at_random += usize::from(!was_at_point);
        row.twice += usize::from(is_twice);
        row.longest = row.longest.max(took);
    }
    print(&table);
    steady.finish(&machine, &server).await;
    victim.prepare(&server, Act::Create).await;
    server.kill().await;
}

/// Every point that each kind of operation passes, in their order: it is performed once without a kill.
async fn points(machine: &Machine, server: &Server, victim: &mut Victim<'_>) -> Vec<(Act, String)> {
    let mut points = Vec::new();
    for act in Act::ALL {
        victim.prepare(server, act).await;
        let before = machine.points_passed().len();
        victim.perform(server, act).await;
        let mut of_act = Vec::new();
        for point in machine.points_passed().split_off(before) {
            if is_change(&point) && !of_act.contains(&(act, point.clone())) {
                of_act.push((act, point));
            }
        }
        assert!(of_act.len() > 4, "{act:?}: {of_act:?}");
        points.extend(of_act);
    }
    points
}

/// True for the points around what changes something.
fn is_change(point: &str) -> bool {
    const CHANGES: [&str; 12] = [
        "commit",
        "git.fetch",
        "git.forget",
        "image.build",
        "image.remove",
        "runtime.ensure",
        "runtime.stop",
        "runtime.remove",
        "ingress.publish",
        "ingress.withdraw",
        "ingress.drain",
        "log_store.remove",
    ];
    CHANGES.iter().any(|change| point.starts_with(change))
}

/// Asks a server for something and kills it, starts it again, maybe kills that one, too, and looks what has become of
/// it. Answers the server that runs then, whether the first died at its point, and how long the last one took.
async fn play(
    machine: &Machine,
    mut server: Server,
    victim: &mut Victim<'_>,
    act: Act,
    kill: &Kill,
    again: Option<Duration>,
) -> (Server, bool, Duration) {
    victim.prepare(&server, act).await;
    let request = victim.request(&server, act).await;
    let patience = match kill {
        Kill::At(point) => {
            machine.arm(point);
            Duration::from_secs(20)
        }
        Kill::After(after) => *after,
    };
    let asked = Instant::now();
    let answer = tokio::select! {
        answer = server.ask(&request) => answer,
        () = tokio::time::sleep(patience) => None,
    };
    let has_died = server.dies_within(patience.saturating_sub(asked.elapsed())).await;
    machine.disarm();
    server.kill().await;
    if let Some(again) = again {
        machine.start_and_kill(again).await;
    }
    let server = machine.start().await;
    let began = Instant::now();
    let answer = match answer {
        Some(answer) => answer,
        // Nobody heard of it: it is asked again, and is one and the same.
        None => server.ask(&request).await.expect("the server answers"),
    };
    victim.check(&server, act, answer).await;
    (server, has_died, began.elapsed())
}

fn print(table: &BTreeMap<Act, Row>) {
    println!("\n| operation | killed at a point | at any moment | of these twice | longest until it ended |");
    println!("|---|---|---|---|---|");
    for (act, Row { at_point, at_random, twice, longest }) in table {
        println!("| {act:?} | {at_point} | {at_random} | {twice} | {:.1} s |", longest.as_secs_f64());
    }
}
