//! The real engine under torture: many servers on one store, in paused time, with faults in every call, all from one
//! seed. `make simulate SEED=17` replays one, `make simulate SEEDS=100000` tries many.

#![cfg(feature = "testing")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::print_stdout
)]

mod check;
mod ledger;
mod sabotage;
mod server;
mod story;
#[path = "../world/mod.rs"]
mod world;

use std::sync::atomic::{AtomicU64, Ordering};

use sabotage::Sabotage;
use story::Ending;

/// How many seeds a plain test run tries.
const SEEDS: u64 = 2_000;
/// Within how many seeds a bug that was put in is to be found.
const SEEDS_TO_FIND: u64 = 1_000;

fn run(seed: u64, sabotage: Sabotage, is_told: bool) -> Result<Ending, String> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(story::play(seed, sabotage, is_told))
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

/// Tries seeds on every core; answers the first that fails, and how.
fn first_failure(seeds: u64, sabotage: Sabotage) -> Option<(u64, String)> {
    let next = AtomicU64::new(0);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let worker = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return None;
            }
            if let Err(violation) = run(seed, sabotage, false) {
                next.store(seeds, Ordering::Relaxed);
                return Some((seed, violation));
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().filter_map(|worker| worker.join().expect("a seed panicked")).min()
    })
}

#[test]
fn every_seed_keeps_the_promises() {
    if let Some(seed) = from_environment("SIMULATE_SEED") {
        let ending = run(seed, Sabotage::None, true).unwrap_or_else(|violation| panic!("{violation}"));
        println!("seed {seed}: {ending:?}");
        return;
    }
    let seeds = from_environment("SIMULATE_SEEDS").unwrap_or(SEEDS);
    if let Some((seed, violation)) = first_failure(seeds, Sabotage::None) {
        panic!("{violation}\nagain: make simulate SEED={seed}");
    }
}

#[test]
fn the_same_seed_is_the_same_story() {
    for seed in 0..20 {
        assert_eq!(run(seed, Sabotage::None, false), run(seed, Sabotage::None, false), "seed {seed}");
    }
}

fn is_found(sabotage: Sabotage) {
    let (seed, violation) = first_failure(SEEDS_TO_FIND, sabotage).expect("the bug was not found");
    println!("seed {seed}: {violation}");
}

#[test]
fn acting_before_journaling_is_found() {
    is_found(Sabotage::ActFirst);
}

#[test]
fn an_unfenced_append_is_found() {
    is_found(Sabotage::Unfenced);
}

#[test]
fn a_retry_under_a_fresh_name_is_found() {
    is_found(Sabotage::FreshNames);
}
