//! Event streams, the feed over them, and hints.

use std::time::Duration;

use super::{Harness, append, org, put, refused};
use crate::error::Kind;
use crate::store::{
    Append, Batch, Change, Expect, LeaseChange, Position, Scope, StoredEvent, StreamId, WorkClass,
};

async fn events(
    harness: &Harness,
    scope: &Scope,
    stream: &str,
    after: u64,
    limit: usize,
) -> Vec<StoredEvent> {
    harness.store.events(scope, &StreamId::new(stream), after, limit).await.unwrap()
}

fn bodies(events: &[StoredEvent]) -> Vec<&str> {
    events.iter().map(|event| std::str::from_utf8(&event.body).unwrap()).collect()
}

/// Body, time, stream, number and place come back.
pub async fn events_are_read_back_as_written(harness: &Harness) {
    let at = harness.now();
    let body: Vec<u8> = (0..=255).collect();
    let events_in = vec![body.clone(), Vec::new()];
    let committed = harness.append(Append { events: events_in, ..append("s", 0, at, &[]) }).await.unwrap();
    let found = events(harness, &org(1), "s", 0, 10).await;
    let expected =
        StoredEvent { stream: StreamId::new("s"), version: 1, position: committed.positions[0], at, body };
    assert_eq!(found[0], expected);
    assert_eq!((found[1].version, found[1].body.len(), found.len()), (2, 0, 2));
}

/// After a version, at most so many, in order.
pub async fn events_are_paged_by_version(harness: &Harness) {
    harness.append(append("s", 0, harness.now(), &["1", "2", "3"])).await.unwrap();
    harness.append(append("t", 0, harness.now(), &["other"])).await.unwrap();
    harness.append(append("s", 3, harness.now(), &["4", "5"])).await.unwrap();
    assert_eq!(bodies(&events(harness, &org(1), "s", 0, 10).await), ["1", "2", "3", "4", "5"]);
    assert_eq!(bodies(&events(harness, &org(1), "s", 1, 3).await), ["2", "3", "4"]);
    assert!(events(harness, &org(1), "s", 5, 10).await.is_empty());
    assert!(events(harness, &org(1), "none", 0, 10).await.is_empty());
}

/// Fewer and more events than there are is a conflict, also for a stream that does not exist.
pub async fn an_append_expects_the_exact_version(harness: &Harness) {
    refused(harness.append(append("s", 1, harness.now(), &["x"])).await, Kind::Conflict);
    harness.append(append("s", 0, harness.now(), &["1", "2"])).await.unwrap();
    for wrong in [0, 1, 3] {
        refused(harness.append(append("s", wrong, harness.now(), &["x"])).await, Kind::Conflict);
        refused(harness.append(append("s", wrong, harness.now(), &["x", "y", "z"])).await, Kind::Conflict);
    }
    assert_eq!(bodies(&events(harness, &org(1), "s", 0, 10).await), ["1", "2"]);
}

/// It is a condition on a stream, without a change.
pub async fn an_append_without_events_checks_the_version(harness: &Harness) {
    harness.append(append("s", 0, harness.now(), &["1"])).await.unwrap();
    let committed = harness.append(append("s", 1, harness.now(), &[])).await.unwrap();
    assert_eq!(committed.positions, [Position(0)]);
    let batch = |expect| Batch {
        writes: vec![put("a", Expect::Any, "")],
        appends: vec![append("s", expect, harness.now(), &[])],
        ..Batch::default()
    };
    refused(harness.store.commit(batch(0)).await, Kind::Conflict);
    assert_eq!(harness.get("a").await, None);
    harness.store.commit(batch(1)).await.unwrap();
    assert!(harness.get("a").await.is_some());
}

/// Nobody else appends to it or reads it, but the system reads it.
pub async fn a_stream_has_one_owner(harness: &Harness) {
    harness.append(append("s", 0, harness.now(), &["1"])).await.unwrap();
    for scope in [org(2), Scope::System] {
        for events in [&["x"][..], &[]] {
            let foreign = Append { scope: scope.clone(), ..append("s", 1, harness.now(), events) };
            refused(harness.append(foreign).await, Kind::Conflict);
        }
    }
    assert!(events(harness, &org(2), "s", 0, 10).await.is_empty());
    assert_eq!(bodies(&events(harness, &Scope::System, "s", 0, 10).await), ["1"]);
}

/// Numbers within a stream have no gaps, whatever was refused.
pub async fn a_failed_append_leaves_no_gap(harness: &Harness) {
    harness.append(append("s", 0, harness.now(), &["1"])).await.unwrap();
    let appends = vec![append("s", 1, harness.now(), &["lost"]), append("t", 7, harness.now(), &["lost"])];
    refused(harness.store.commit(Batch { appends, ..Batch::default() }).await, Kind::Conflict);
    harness.append(append("s", 1, harness.now(), &["2"])).await.unwrap();
    let found = events(harness, &org(1), "s", 0, 10).await;
    assert_eq!(bodies(&found), ["1", "2"]);
    assert_eq!(found.iter().map(|event| event.version).collect::<Vec<_>>(), [1, 2]);
}

/// What a commit answers is where the feed has it, growing over all streams.
pub async fn positions_are_the_feed(harness: &Harness) {
    let appends = vec![
        append("s", 0, harness.now(), &["1", "2"]),
        append("t", 0, harness.now(), &["3"]),
        append("s", 2, harness.now(), &["4"]),
    ];
    let committed = harness.store.commit(Batch { appends, ..Batch::default() }).await.unwrap();
    let later = harness.append(append("t", 1, harness.now(), &["5"])).await.unwrap();
    let feed = harness.store.feed(&Scope::System, Position(0), 100).await.unwrap();
    assert_eq!(bodies(&feed), ["1", "2", "3", "4", "5"]);
    assert!(feed[0].position >= Position(1));
    assert!(feed.is_sorted_by(|one, next| one.position < next.position));
    assert_eq!(committed.positions, [feed[0].position, feed[2].position, feed[3].position]);
    assert_eq!(later.positions, [feed[4].position]);
}

/// After a position, at most so many.
pub async fn the_feed_is_paged_by_position(harness: &Harness) {
    for number in 0..10 {
        harness
            .append(append(&format!("s{number}"), 0, harness.now(), &[&number.to_string()]))
            .await
            .unwrap();
    }
    let mut after = Position(0);
    let mut found = Vec::new();
    loop {
        let page = harness.store.feed(&Scope::System, after, 3).await.unwrap();
        assert!(page.len() <= 3);
        let Some(last) = page.last() else { break };
        after = last.position;
        found.extend(page);
    }
    assert_eq!(bodies(&found), ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
}

/// An org's feed has its events only, and its pages are full of them.
pub async fn the_feed_of_an_org_is_its_own(harness: &Harness) {
    for number in 0..12 {
        let scope = if number % 4 == 3 { Scope::System } else { org(number % 4) };
        let event =
            Append { scope, ..append(&format!("s{number}"), 0, harness.now(), &[&number.to_string()]) };
        harness.append(event).await.unwrap();
    }
    let page = harness.store.feed(&org(1), Position(0), 2).await.unwrap();
    assert_eq!(bodies(&page), ["1", "5"]);
    assert_eq!(bodies(&harness.store.feed(&org(1), page[1].position, 2).await.unwrap()), ["9"]);
    assert_eq!(harness.store.feed(&Scope::System, Position(0), 100).await.unwrap().len(), 12);
}

/// Waits for a hint; it may come late, but must come when nobody lags.
async fn hinted(receiver: &mut tokio::sync::broadcast::Receiver<Change>, expected: &Change) {
    let arrives =
        async { while receiver.recv().await.expect("the store is open and nobody lags") != *expected {} };
    tokio::time::timeout(Duration::from_secs(30), arrives).await.expect("a hint");
}

/// Each stream that grew is named.
pub async fn new_events_are_hinted_at(harness: &Harness) {
    let mut changes = harness.store.changes();
    harness.append(append("s", 0, harness.now(), &["1"])).await.unwrap();
    hinted(&mut changes, &Change::Stream { stream: StreamId::new("s"), version: 1 }).await;
}

/// Scheduling and releasing both wake workers.
pub async fn new_work_is_hinted_at(harness: &Harness) {
    let mut changes = harness.store.changes();
    let (key, class, after) = ("k".to_owned(), WorkClass::Light, Duration::ZERO);
    let schedule = LeaseChange::Schedule { key, scope: org(1), class, after };
    harness.store.commit(Batch { leases: vec![schedule], ..Batch::default() }).await.unwrap();
    hinted(&mut changes, &Change::Work).await;
    let lease = super::leases::claimed_one(harness).await;
    let mut changes = harness.store.changes();
    let release = LeaseChange::Release { lease, next: None };
    harness.store.commit(Batch { leases: vec![release], ..Batch::default() }).await.unwrap();
    hinted(&mut changes, &Change::Work).await;
}
