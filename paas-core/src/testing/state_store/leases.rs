//! Leases: who works on what.

use std::time::Duration;

use super::{Harness, append, org, put, refused};
use crate::error::{Kind, Result};
use crate::store::{
    Backlog, Batch, Claim, Claimed, Committed, Expect, Lease, LeaseChange, Position, Scope, WorkClass,
};

use WorkClass::{Build, Light};

const HOLD: Duration = Duration::from_secs(15);
const NOW: Duration = Duration::ZERO;
const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn claim_of(class: WorkClass, limit: usize) -> Claim {
    Claim {
        worker: "w".to_owned(),
        limit: [(class, limit)].into(),
        slots: Default::default(),
        duration: HOLD,
    }
}

async fn claim(harness: &Harness, class: WorkClass, limit: usize) -> Claimed {
    harness.store.claim(&claim_of(class, limit)).await.unwrap()
}

/// Claims one key of the light class, which must be due.
pub(super) async fn claimed_one(harness: &Harness) -> Lease {
    claim(harness, Light, 1).await.leases.pop().expect("due work")
}

fn keys(claimed: &Claimed) -> Vec<&str> {
    claimed.leases.iter().map(|lease| lease.key.as_str()).collect()
}

fn scheduled(scope: &Scope, key: &str, class: WorkClass, after: Duration) -> LeaseChange {
    LeaseChange::Schedule { key: key.to_owned(), scope: scope.clone(), class, after }
}

async fn schedule(harness: &Harness, key: &str, class: WorkClass, after: Duration) {
    change(harness, scheduled(&org(1), key, class, after)).await.unwrap();
}

async fn release(harness: &Harness, lease: &Lease, next: Option<(WorkClass, Duration)>) -> Result<Committed> {
    change(harness, LeaseChange::Release { lease: lease.clone(), next }).await
}

async fn change(harness: &Harness, change: LeaseChange) -> Result<Committed> {
    harness.store.commit(Batch { leases: vec![change], ..Batch::default() }).await
}

/// Asserts how long it is until the next work is due, give or take what the test takes.
#[track_caller]
fn assert_about(next_due: Option<Duration>, wanted: Duration) {
    let next_due = next_due.expect("something is due later");
    assert!(next_due <= wanted && next_due + Duration::from_secs(5) > wanted, "{next_due:?}, not {wanted:?}");
}

/// Asserts that a write fenced by `lease` is refused and did not happen.
async fn assert_lost(harness: &Harness, lease: &Lease) {
    let batch = Batch {
        fence: Some(lease.clone()),
        writes: vec![put("fenced", Expect::Any, "")],
        appends: vec![append("fenced", 0, harness.now(), &["x"])],
        leases: vec![scheduled(&org(1), "fenced", Light, NOW)],
    };
    let error = refused(harness.store.commit(batch).await, Kind::Conflict);
    assert_eq!(error.reason(), Some("fenced"));
    assert_eq!(harness.get("fenced").await, None);
    assert!(harness.store.feed(&Scope::System, Position(0), 10).await.unwrap().is_empty());
    let error = refused(harness.store.renew(lease, HOLD).await, Kind::Conflict);
    assert_eq!(error.reason(), Some("fenced"));
    let error = refused(release(harness, lease, None).await, Kind::Conflict);
    assert_eq!(error.reason(), Some("fenced"));
}

/// Held work is nobody else's, and its holder may write.
pub async fn due_work_is_claimed_once(harness: &Harness) {
    schedule(harness, "k", Light, NOW).await;
    let claimed = claim(harness, Light, 10).await;
    assert_eq!(keys(&claimed), ["k"]);
    let lease = &claimed.leases[0];
    assert_eq!((lease.scope.clone(), lease.class), (org(1), Light));
    assert!(lease.expires_at > harness.after(10) && lease.expires_at <= harness.after(15));
    assert!(claim(harness, Light, 10).await.leases.is_empty());
    let batch =
        Batch { fence: Some(lease.clone()), writes: vec![put("a", Expect::Absent, "")], ..Batch::default() };
    harness.store.commit(batch).await.unwrap();
    assert!(harness.get("a").await.is_some());
}

/// Not before its time, which the claim tells.
pub async fn work_is_claimed_when_it_is_due(harness: &Harness) {
    assert_eq!(claim(harness, Light, 1).await, Claimed::default());
    schedule(harness, "later", Light, 10 * MINUTE).await;
    schedule(harness, "soon", Build, MINUTE).await;
    let claimed = claim(harness, Light, 10).await;
    assert!(claimed.leases.is_empty());
    assert_about(claimed.next_due, MINUTE);
    harness.advance(MINUTE);
    let claimed = claim(harness, Build, 10).await;
    assert_eq!(keys(&claimed), ["soon"]);
    // The lease ends before the other work is due.
    assert_about(claimed.next_due, HOLD);
    release(harness, &claimed.leases[0], None).await.unwrap();
    assert_about(claim(harness, Build, 10).await.next_due, 9 * MINUTE);
}

/// In whichever order they come.
pub async fn the_earliest_due_time_wins(harness: &Harness) {
    schedule(harness, "a", Light, MINUTE).await;
    schedule(harness, "a", Light, Duration::from_secs(600)).await;
    schedule(harness, "b", Light, Duration::from_secs(600)).await;
    schedule(harness, "b", Light, Duration::from_secs(50)).await;
    harness.advance(Duration::from_secs(61));
    let claimed = claim(harness, Light, 10).await;
    assert_eq!(keys(&claimed), ["b", "a"]);
    for lease in &claimed.leases {
        release(harness, lease, None).await.unwrap();
    }
    assert_eq!(claim(harness, Light, 10).await.next_due, None);
}

/// Sleeping work that is wanted earlier is wanted as the earlier one says; due work keeps its class.
pub async fn an_earlier_due_time_brings_its_class(harness: &Harness) {
    schedule(harness, "k", Build, MINUTE).await;
    schedule(harness, "k", Light, Duration::from_secs(90)).await;
    assert!(claim(harness, Light, 1).await.leases.is_empty());
    schedule(harness, "k", Light, NOW).await;
    schedule(harness, "k", Build, NOW).await;
    assert!(claim(harness, Build, 1).await.leases.is_empty());
    assert_eq!(keys(&claim(harness, Light, 1).await), ["k"]);
}

/// Work that waits for a slot waits no longer when somebody wants it looked at: by its holder, too.
pub async fn what_is_due_as_both_is_light(harness: &Harness) {
    schedule(harness, "k", Build, NOW).await;
    schedule(harness, "k", Light, MINUTE).await;
    assert!(claim(harness, Light, 1).await.leases.is_empty());
    schedule(harness, "k", Light, NOW).await;
    assert_eq!(harness.store.count(Build, None).await.unwrap(), 0);
    assert!(claim(harness, Build, 1).await.leases.is_empty());
    let lease = claimed_one(harness).await;
    assert_eq!(lease.class, Light);
    schedule(harness, "k", Light, NOW).await;
    release(harness, &lease, Some((Build, NOW))).await.unwrap();
    assert_eq!(claimed_one(harness).await.class, Light);
}

/// A wait lasts as long as it was meant to when it began.
pub async fn a_clock_set_back_makes_no_wait_longer(harness: &Harness) {
    schedule(harness, "sleeping", Light, MINUTE).await;
    schedule(harness, "held", Light, NOW).await;
    let lease = claimed_one(harness).await;
    harness.set_back(Duration::from_secs(3600));
    assert!(claim(harness, Light, 2).await.leases.is_empty());
    harness.store.renew(&lease, HOLD).await.unwrap();
    harness.advance(HOLD);
    assert_eq!(keys(&claim(harness, Light, 2).await), ["held"]);
    harness.advance(Duration::from_secs(50));
    assert!(keys(&claim(harness, Light, 2).await).contains(&"sleeping"));
}

/// Finished work does not come back.
pub async fn a_released_key_is_forgotten(harness: &Harness) {
    schedule(harness, "k", Light, NOW).await;
    let lease = claimed_one(harness).await;
    release(harness, &lease, None).await.unwrap();
    assert_eq!(claim(harness, Light, 10).await, Claimed::default());
    assert_eq!(harness.store.count(Light, None).await.unwrap(), 0);
    assert_lost(harness, &lease).await;
    schedule(harness, "k", Light, NOW).await;
    assert!(claimed_one(harness).await.fence > lease.fence);
}

/// In its next class, at its next time.
pub async fn a_released_key_is_due_as_it_says(harness: &Harness) {
    schedule(harness, "k", Light, NOW).await;
    let lease = claimed_one(harness).await;
    release(harness, &lease, Some((Build, MINUTE))).await.unwrap();
    let claimed = claim(harness, Build, 1).await;
    assert!(claimed.leases.is_empty());
    assert_about(claimed.next_due, MINUTE);
    harness.advance(MINUTE);
    assert!(claim(harness, Light, 1).await.leases.is_empty());
    assert_eq!(keys(&claim(harness, Build, 1).await), ["k"]);
}

/// The holder keeps the key; its release makes it due, at the earlier of both times.
pub async fn a_schedule_during_a_claim_is_not_lost(harness: &Harness) {
    schedule(harness, "k", Light, NOW).await;
    let lease = claimed_one(harness).await;
    schedule(harness, "k", Light, NOW).await;
    schedule(harness, "k", Light, MINUTE).await;
    assert!(claim(harness, Light, 1).await.leases.is_empty());
    release(harness, &lease, None).await.unwrap();
    let lease = claimed_one(harness).await;
    schedule(harness, "k", Light, NOW).await;
    release(harness, &lease, Some((Build, MINUTE))).await.unwrap();
    let lease = claimed_one(harness).await;
    schedule(harness, "k", Light, MINUTE).await;
    release(harness, &lease, Some((Build, NOW))).await.unwrap();
    let lease = claim(harness, Build, 1).await.leases.pop().unwrap();
    release(harness, &lease, None).await.unwrap();
    assert_eq!(claim(harness, Light, 10).await, Claimed::default());
}

/// Also when the first holder never releases.
pub async fn a_schedule_during_a_claim_survives_its_expiry(harness: &Harness) {
    schedule(harness, "k", Light, NOW).await;
    claimed_one(harness).await;
    schedule(harness, "k", Light, NOW).await;
    harness.advance(HOLD);
    let lease = claimed_one(harness).await;
    release(harness, &lease, None).await.unwrap();
    claimed_one(harness).await;
}

/// Whoever was released, or outlived their lease, changes nothing by it.
pub async fn a_lost_lease_writes_nothing(harness: &Harness) {
    schedule(harness, "k", Light, NOW).await;
    let lost = claimed_one(harness).await;
    release(harness, &lost, Some((Light, NOW))).await.unwrap();
    assert_lost(harness, &lost).await;
    let held = claimed_one(harness).await;
    assert_lost(harness, &lost).await;
    assert_lost(harness, &Lease { fence: held.fence + 1, ..held.clone() }).await;
    // All that did no harm to the holder.
    release(harness, &held, None).await.unwrap();
}

/// When a holder falls silent its work goes on elsewhere.
pub async fn an_expired_lease_goes_to_another(harness: &Harness) {
    schedule(harness, "k", Light, NOW).await;
    let first = claimed_one(harness).await;
    let claimed = claim(harness, Light, 1).await;
    assert!(claimed.leases.is_empty());
    assert_about(claimed.next_due, HOLD);
    harness.advance(HOLD);
    let second = claimed_one(harness).await;
    assert!(second.fence > first.fence);
    assert_lost(harness, &first).await;
    release(harness, &second, None).await.unwrap();
}

/// Also when nobody has taken the work over yet.
pub async fn an_expired_lease_is_lost_to_its_holder(harness: &Harness) {
    schedule(harness, "k", Light, NOW).await;
    let lease = claimed_one(harness).await;
    harness.advance(HOLD);
    assert_lost(harness, &lease).await;
}

/// Renewal counts from now, keeps the fence, and the older copy of the lease stays good.
pub async fn a_renewed_lease_lasts(harness: &Harness) {
    schedule(harness, "k", Light, NOW).await;
    let lease = claimed_one(harness).await;
    harness.advance(Duration::from_secs(10));
    let renewed = harness.store.renew(&lease, HOLD).await.unwrap();
    assert_eq!((renewed.fence, &renewed.key), (lease.fence, &lease.key));
    assert!(renewed.expires_at > harness.after(10) && renewed.expires_at <= harness.after(15));
    harness.advance(Duration::from_secs(10));
    assert!(claim(harness, Light, 1).await.leases.is_empty());
    release(harness, &lease, None).await.unwrap();
}

/// Over all keys.
pub async fn fences_grow(harness: &Harness) {
    let mut last = 0;
    for number in 0..10 {
        schedule(harness, &format!("k{number}"), Light, NOW).await;
        let lease = claimed_one(harness).await;
        assert!(lease.fence > last);
        last = lease.fence;
    }
}

/// A release in a batch that is refused did not happen.
pub async fn a_failed_batch_keeps_the_lease(harness: &Harness) {
    schedule(harness, "k", Light, NOW).await;
    let lease = claimed_one(harness).await;
    let batch = Batch {
        fence: Some(lease.clone()),
        appends: vec![append("s", 0, harness.now(), &["x"])],
        leases: vec![
            scheduled(&org(1), "other", Light, NOW),
            LeaseChange::Release { lease: lease.clone(), next: Some((Light, NOW)) },
            LeaseChange::Release { lease: lease.clone(), next: None },
        ],
        ..Batch::default()
    };
    refused(harness.store.commit(batch).await, Kind::Conflict);
    assert!(claim(harness, Light, 10).await.leases.is_empty());
    assert!(harness.store.feed(&Scope::System, Position(0), 10).await.unwrap().is_empty());
    release(harness, &lease, None).await.unwrap();
    assert_eq!(claim(harness, Light, 10).await, Claimed::default());
}

/// A slot is free again after a release.
pub async fn slots_bound_all_workers_together(harness: &Harness) {
    for number in 0..5 {
        schedule(harness, &format!("k{number}"), Build, NOW).await;
        schedule(harness, &format!("l{number}"), Light, NOW).await;
    }
    let with_slots =
        |worker: &str| Claim { worker: worker.to_owned(), slots: [(Build, 2)].into(), ..claim_of(Build, 10) };
    let held = harness.store.claim(&with_slots("one")).await.unwrap().leases;
    assert_eq!(held.len(), 2);
    assert!(harness.store.claim(&with_slots("two")).await.unwrap().leases.is_empty());
    assert_eq!(claim(harness, Light, 10).await.leases.len(), 5);
    release(harness, &held[0], None).await.unwrap();
    assert_eq!(harness.store.claim(&with_slots("two")).await.unwrap().leases.len(), 1);
    harness.advance(HOLD);
    assert_eq!(harness.store.claim(&with_slots("two")).await.unwrap().leases.len(), 2);
}

/// What a worker did not ask for it does not get.
pub async fn limits_are_by_class(harness: &Harness) {
    for number in 0..5 {
        schedule(harness, &format!("l{number}"), Light, NOW).await;
        schedule(harness, &format!("b{number}"), Build, NOW).await;
    }
    let claim = Claim { limit: [(Light, 3), (Build, 1)].into(), ..claim_of(Light, 0) };
    let claimed = harness.store.claim(&claim).await.unwrap();
    let of = |class| claimed.leases.iter().filter(|lease| lease.class == class).count();
    assert_eq!((of(Light), of(Build)), (3, 1));
    assert!(self::claim(harness, Light, 0).await.leases.is_empty());
}

/// An org with much work does not delay the others' behind all of it.
pub async fn orgs_take_turns(harness: &Harness) {
    for number in 0..6 {
        change(harness, scheduled(&org(1), &format!("a{number}"), Light, NOW)).await.unwrap();
    }
    for (number, key) in [(2, "b0"), (2, "b1"), (3, "c0")] {
        change(harness, scheduled(&org(number), key, Light, NOW)).await.unwrap();
    }
    // One at a time, each finished before the next: turns alone decide.
    let mut order = Vec::new();
    for _ in 0..9 {
        let lease = claimed_one(harness).await;
        release(harness, &lease, None).await.unwrap();
        order.push(lease.key);
    }
    let first_rounds: Vec<_> = order[..3].iter().map(|key| &key[..1]).collect();
    assert_eq!(
        {
            let mut orgs = first_rounds;
            orgs.sort_unstable();
            orgs
        },
        ["a", "b", "c"],
        "{order:?}"
    );
    let place = |key: &str| order.iter().position(|at| at == key).unwrap();
    assert!(place("b1") <= 5, "{order:?}");
    assert!(order.iter().filter(|key| key.starts_with('a')).is_sorted(), "{order:?}");
}

/// Slots go first to whom they serve least.
pub async fn a_busy_org_comes_behind_an_idle_one(harness: &Harness) {
    for number in 0..4 {
        change(harness, scheduled(&org(1), &format!("a{number}"), Build, NOW)).await.unwrap();
    }
    assert_eq!(claim(harness, Build, 2).await.leases.len(), 2);
    for number in 0..2 {
        change(harness, scheduled(&org(2), &format!("b{number}"), Build, NOW)).await.unwrap();
    }
    assert_eq!(keys(&claim(harness, Build, 2).await), ["b0", "b1"]);
}

/// Within an org, by due time and not by name or arrival.
pub async fn the_longest_waiting_comes_first(harness: &Harness) {
    for (key, seconds) in [("a", 30), ("b", 10), ("c", 20)] {
        schedule(harness, key, Light, Duration::from_secs(seconds)).await;
    }
    harness.advance(MINUTE);
    assert_eq!(keys(&claim(harness, Light, 3).await), ["b", "c", "a"]);
}

/// What waits and what is held, by class, and for how long the oldest has been due.
pub async fn the_backlog_says_how_much_waits_and_since_when(harness: &Harness) {
    let backlog = async |class| harness.store.backlog(class).await.unwrap();
    assert_eq!(backlog(Build).await, Backlog::default());
    for key in ["a", "b"] {
        schedule(harness, key, Build, NOW).await;
        harness.advance(MINUTE);
    }
    schedule(harness, "sleeping", Build, MINUTE).await;
    schedule(harness, "light", Light, NOW).await;
    let found = backlog(Build).await;
    assert_eq!((found.waiting, found.held), (2, 0));
    // Where time goes on by itself, it is a little more.
    assert!(found.oldest >= 2 * MINUTE && found.oldest < 3 * MINUTE, "{found:?}");
    let lease = claim(harness, Build, 1).await.leases.pop().unwrap();
    let found = backlog(Build).await;
    assert_eq!((found.waiting, found.held), (1, 1));
    assert!(found.oldest >= MINUTE && found.oldest < 2 * MINUTE, "{found:?}");
    assert_eq!(backlog(Light).await.waiting, 1);
    release(harness, &lease, None).await.unwrap();
    let lease = claim(harness, Build, 1).await.leases.pop().unwrap();
    assert_eq!(backlog(Build).await, Backlog { waiting: 0, held: 1, oldest: NOW });
    release(harness, &lease, None).await.unwrap();
}

/// How much is ahead of each, held work included.
pub async fn count_gives_queue_positions(harness: &Harness) {
    for key in ["a", "b", "c"] {
        schedule(harness, key, Build, NOW).await;
        harness.advance(Duration::from_secs(1));
    }
    schedule(harness, "sleeping", Build, MINUTE).await;
    schedule(harness, "light", Light, NOW).await;
    let count = async |key: Option<&str>| harness.store.count(Build, key.map(str::to_owned)).await.unwrap();
    assert_eq!(count(None).await, 3);
    for (key, ahead) in [("a", 0), ("b", 1), ("c", 2), ("sleeping", 0), ("light", 0), ("unknown", 0)] {
        assert_eq!(count(Some(key)).await, ahead, "{key}");
    }
    let lease = claim(harness, Build, 1).await.leases.pop().unwrap();
    for (key, ahead) in [("a", 0), ("b", 1), ("c", 2)] {
        assert_eq!(count(Some(key)).await, ahead, "{key}");
    }
    release(harness, &lease, None).await.unwrap();
    assert_eq!(count(None).await, 2);
    assert_eq!(count(Some("c")).await, 1);
    // Another org's single piece of work is not behind all of it.
    change(harness, scheduled(&org(2), "d", Build, NOW)).await.unwrap();
    assert!(count(Some("d")).await <= 1);
}
