//! Records: versions, keys, owners, expiry.

use std::time::Duration;

use super::{Harness, append, named, org, put, put_with, refused, remove, update};
use crate::error::Kind;
use crate::store::{
    Batch, Expect, Keys, LeaseChange, Position, Record, Scope, UniqueReach, WorkClass, Write,
};

/// Body, owner, kind, id and version come back, whatever the bytes.
pub async fn a_record_is_read_back_as_written(harness: &Harness) {
    let mut body: Vec<u8> = (0..=255).collect();
    body.resize(Batch::MAX_BODY_BYTES, 0);
    let id = "odd\0'\"%\u{1f600}";
    let write = Write::Put {
        scope: org(1),
        kind: "thing",
        id: id.to_owned(),
        expect: Expect::Absent,
        keys: Keys::default(),
        body: body.clone(),
    };
    assert_eq!(harness.write(write).await.unwrap(), 1);
    let record = Record { scope: org(1), kind: "thing", id: id.to_owned(), version: 1, body };
    assert_eq!(harness.get(id).await, Some(record));
}

/// Nothing is made up.
pub async fn a_missing_record_is_none(harness: &Harness) {
    assert_eq!(harness.get("a").await, None);
    assert_eq!(harness.find(&Scope::System, "a").await, None);
}

/// Two kinds may have the same id, and their own unique keys.
pub async fn ids_are_unique_within_a_kind(harness: &Harness) {
    let keys = named("n", UniqueReach::Store);
    harness.write(put_with(&org(1), "a", Expect::Absent, keys.clone(), "thing")).await.unwrap();
    let (scope, id, body) = (org(1), "a".to_owned(), b"other".to_vec());
    let other = Write::Put { scope, kind: "other", id, expect: Expect::Absent, keys, body };
    assert_eq!(harness.write(other).await.unwrap(), 1);
    assert_eq!(harness.get("a").await.unwrap().body, b"thing");
    let found = harness.store.find(&Scope::System, "other", "name", "n").await.unwrap();
    assert_eq!(found.unwrap().body, b"other");
}

/// 1 when it is made, one more at each change, 0 for a removal.
pub async fn versions_count_the_changes(harness: &Harness) {
    assert_eq!(harness.write(put("a", Expect::Absent, "1")).await.unwrap(), 1);
    assert_eq!(harness.write(put("a", Expect::Version(1), "2")).await.unwrap(), 2);
    assert_eq!(harness.write(update("a", Expect::Version(2), "3")).await.unwrap(), 3);
    assert_eq!(harness.write(update("a", Expect::Any, "4")).await.unwrap(), 4);
    let record = harness.get("a").await.unwrap();
    assert_eq!((record.version, record.body.as_slice()), (4, b"4".as_slice()));
    assert_eq!(harness.write(remove("a", Expect::Version(4))).await.unwrap(), 0);
    assert_eq!(harness.write(put("a", Expect::Absent, "5")).await.unwrap(), 1);
}

/// `Expect::Absent` makes, and never replaces.
pub async fn absent_refuses_an_existing_record(harness: &Harness) {
    harness.write(put("a", Expect::Absent, "first")).await.unwrap();
    refused(harness.write(put("a", Expect::Absent, "second")).await, Kind::Conflict);
    refused(harness.write(update("a", Expect::Absent, "second")).await, Kind::Conflict);
    refused(harness.write(remove("a", Expect::Absent)).await, Kind::Conflict);
    assert_eq!(harness.get("a").await.unwrap().body, b"first");
}

/// Older and newer versions than the present one are refused, for every kind of write.
pub async fn a_stale_version_is_a_conflict(harness: &Harness) {
    harness.write(put("a", Expect::Absent, "1")).await.unwrap();
    harness.write(put("a", Expect::Version(1), "2")).await.unwrap();
    for version in [0, 1, 3] {
        let expect = Expect::Version(version);
        refused(harness.write(put("a", expect, "x")).await, Kind::Conflict);
        refused(harness.write(update("a", expect, "x")).await, Kind::Conflict);
        refused(harness.write(remove("a", expect)).await, Kind::Conflict);
    }
    assert_eq!(harness.get("a").await.unwrap().body, b"2");
}

/// A compare-and-set on what is not there is a conflict, not an insert.
pub async fn an_expected_version_never_makes_a_record(harness: &Harness) {
    for version in [0, 1] {
        let expect = Expect::Version(version);
        refused(harness.write(put("a", expect, "x")).await, Kind::Conflict);
        refused(harness.write(update("a", expect, "x")).await, Kind::Conflict);
        refused(harness.write(remove("a", expect)).await, Kind::Conflict);
    }
    assert_eq!(harness.get("a").await, None);
}

/// `Expect::Any` does not look.
pub async fn any_makes_or_replaces(harness: &Harness) {
    assert_eq!(harness.write(put("a", Expect::Any, "1")).await.unwrap(), 1);
    assert_eq!(harness.write(put("a", Expect::Any, "2")).await.unwrap(), 2);
    assert_eq!(harness.get("a").await.unwrap().body, b"2");
}

/// An update changes the document only.
pub async fn an_update_keeps_the_keys(harness: &Harness) {
    let keys = Keys { expires_at: Some(harness.after(60)), ..named("n", UniqueReach::Store) };
    harness.write(put_with(&org(1), "a", Expect::Absent, keys, "1")).await.unwrap();
    harness.write(update("a", Expect::Version(1), "2")).await.unwrap();
    assert_eq!(harness.find(&Scope::System, "n").await.unwrap().body, b"2");
    harness.advance(Duration::from_secs(61));
    assert_eq!(harness.get("a").await, None);
}

/// An update never makes a record, nor touches another org's.
pub async fn an_update_of_nothing_is_not_found(harness: &Harness) {
    refused(harness.write(update("a", Expect::Any, "x")).await, Kind::NotFound);
    refused(harness.write(update("a", Expect::Absent, "x")).await, Kind::Conflict);
    harness.write(put_with(&org(2), "b", Expect::Absent, Keys::default(), "theirs")).await.unwrap();
    refused(harness.write(update("b", Expect::Any, "x")).await, Kind::NotFound);
    refused(harness.write(update("b", Expect::Version(1), "x")).await, Kind::Conflict);
    assert_eq!(harness.get("b").await.unwrap().body, b"theirs");
}

/// What a put does not name again no longer finds the record.
pub async fn a_put_replaces_all_keys(harness: &Harness) {
    let first = named("old", UniqueReach::Store);
    harness.write(put_with(&org(1), "a", Expect::Absent, first, "1")).await.unwrap();
    let second = named("new", UniqueReach::Store);
    harness.write(put_with(&org(1), "a", Expect::Version(1), second.clone(), "2")).await.unwrap();
    assert_eq!(harness.find(&Scope::System, "old").await, None);
    assert_eq!(harness.find(&Scope::System, "new").await.unwrap().id, "a");
    // Keeping a key is not taking it from oneself.
    harness.write(put_with(&org(1), "a", Expect::Version(2), second, "3")).await.unwrap();
    assert_eq!(harness.find(&Scope::System, "new").await.unwrap().body, b"3");
    harness
        .write(put_with(&org(1), "b", Expect::Absent, named("old", UniqueReach::Store), ""))
        .await
        .unwrap();
}

/// A removed record is found by nothing, and its unique keys are free.
pub async fn a_removed_record_is_gone_with_its_keys(harness: &Harness) {
    let keys = named("n", UniqueReach::Store);
    harness.write(put_with(&org(1), "a", Expect::Absent, keys.clone(), "")).await.unwrap();
    harness.write(remove("a", Expect::Any)).await.unwrap();
    assert_eq!(harness.get("a").await, None);
    assert_eq!(harness.find(&Scope::System, "n").await, None);
    harness.write(put_with(&org(1), "b", Expect::Absent, keys, "")).await.unwrap();
}

/// Removing twice is removing once; another org's record is as good as absent.
pub async fn removing_what_is_absent_succeeds(harness: &Harness) {
    assert_eq!(harness.write(remove("a", Expect::Any)).await.unwrap(), 0);
    assert_eq!(harness.write(remove("a", Expect::Absent)).await.unwrap(), 0);
    harness.write(put_with(&org(2), "b", Expect::Absent, Keys::default(), "")).await.unwrap();
    assert_eq!(harness.write(remove("b", Expect::Any)).await.unwrap(), 0);
    refused(harness.write(remove("b", Expect::Version(1))).await, Kind::Conflict);
    assert!(harness.get("b").await.is_some());
}

/// No write takes a record over, not even the system's.
pub async fn an_owner_never_changes(harness: &Harness) {
    harness.write(put("a", Expect::Absent, "mine")).await.unwrap();
    for thief in [org(2), Scope::System] {
        for expect in [Expect::Any, Expect::Absent, Expect::Version(1)] {
            let write = put_with(&thief, "a", expect, Keys::default(), "stolen");
            refused(harness.write(write).await, Kind::Conflict);
        }
    }
    assert_eq!(harness.get("a").await.unwrap().body, b"mine");
}

/// When the last part of a batch is refused, none of the others happened.
pub async fn a_failed_batch_changes_nothing(harness: &Harness) {
    harness.write(put_with(&org(1), "a", Expect::Absent, named("n", UniqueReach::Store), "1")).await.unwrap();
    harness.append(append("s", 0, harness.now(), &["1"])).await.unwrap();
    let batch = Batch {
        fence: None,
        writes: vec![
            put_with(&org(1), "a", Expect::Version(1), named("m", UniqueReach::Store), "2"),
            put_with(&org(1), "b", Expect::Absent, named("n", UniqueReach::Store), "2"),
            update("a", Expect::Version(2), "3"),
            remove("a", Expect::Version(3)),
        ],
        appends: vec![
            append("s", 1, harness.now(), &["2", "3"]),
            append("t", 0, harness.now(), &["1"]),
            append("s", 1, harness.now(), &["again"]),
        ],
        leases: vec![LeaseChange::Schedule {
            key: "k".to_owned(),
            scope: org(1),
            class: WorkClass::Light,
            after: Duration::ZERO,
        }],
    };
    refused(harness.store.commit(batch).await, Kind::Conflict);
    let record = harness.get("a").await.unwrap();
    assert_eq!((record.version, record.body.as_slice()), (1, b"1".as_slice()));
    assert_eq!(harness.get("b").await, None);
    assert_eq!(harness.find(&Scope::System, "n").await.unwrap().id, "a");
    assert_eq!(harness.find(&Scope::System, "m").await, None);
    let feed = harness.store.feed(&Scope::System, Position(0), 10).await.unwrap();
    assert_eq!(feed.len(), 1);
    assert_eq!(harness.store.count(WorkClass::Light, None).await.unwrap(), 0);
}

/// Writes apply in their order.
pub async fn a_part_of_a_batch_sees_those_before_it(harness: &Harness) {
    let writes = vec![
        put("a", Expect::Absent, "1"),
        update("a", Expect::Version(1), "2"),
        remove("a", Expect::Version(2)),
        put("a", Expect::Absent, "3"),
    ];
    let committed = harness.store.commit(Batch { writes, ..Batch::default() }).await.unwrap();
    assert_eq!(committed.versions, [1, 2, 0, 1]);
    assert_eq!(harness.get("a").await.unwrap().body, b"3");
}

/// A key that reaches over the store is refused to every org; the error's code is the key's name.
pub async fn a_unique_key_is_held_once_in_the_store(harness: &Harness) {
    let keys = named("n", UniqueReach::Store);
    harness.write(put_with(&org(1), "a", Expect::Absent, keys.clone(), "")).await.unwrap();
    for scope in [org(1), org(2), Scope::System] {
        let write = put_with(&scope, "b", Expect::Absent, keys.clone(), "");
        let error = refused(harness.write(write).await, Kind::AlreadyExists);
        assert_eq!(error.reason(), Some("name"));
    }
    assert_eq!(harness.get("b").await, None);
}

/// A key that reaches over the org is refused there only, and each org finds its own.
pub async fn a_unique_key_is_held_once_in_an_org(harness: &Harness) {
    let keys = named("n", UniqueReach::Org);
    for (number, id) in [(1, "a"), (2, "b")] {
        harness.write(put_with(&org(number), id, Expect::Absent, keys.clone(), "")).await.unwrap();
    }
    let error =
        refused(harness.write(put_with(&org(1), "c", Expect::Absent, keys, "")).await, Kind::AlreadyExists);
    assert_eq!(error.reason(), Some("name"));
    assert_eq!(harness.find(&org(1), "n").await.unwrap().id, "a");
    assert_eq!(harness.find(&org(2), "n").await.unwrap().id, "b");
    assert_eq!(harness.find(&org(3), "n").await, None);
    assert_eq!(harness.find(&Scope::System, "n").await.unwrap().id, "a");
}

/// A name that one write gives up is free for the next.
pub async fn a_unique_key_can_change_hands_within_a_batch(harness: &Harness) {
    let keys = named("n", UniqueReach::Store);
    harness.write(put_with(&org(1), "a", Expect::Absent, keys.clone(), "")).await.unwrap();
    let writes = vec![put("a", Expect::Version(1), ""), put_with(&org(2), "b", Expect::Absent, keys, "")];
    harness.store.commit(Batch { writes, ..Batch::default() }).await.unwrap();
    assert_eq!(harness.find(&Scope::System, "n").await.unwrap().id, "b");
}

fn expiring(harness: &Harness, seconds: i64) -> Keys {
    Keys {
        index: vec![("by", "v".to_owned())],
        expires_at: Some(harness.after(seconds)),
        ..named("n", UniqueReach::Store)
    }
}

/// From its time on a record is found by nothing, swept or not.
pub async fn an_expired_record_is_gone(harness: &Harness) {
    harness.write(put_with(&org(1), "a", Expect::Absent, expiring(harness, 60), "")).await.unwrap();
    harness.advance(Duration::from_secs(30));
    assert!(harness.get("a").await.is_some());
    assert!(harness.find(&org(1), "n").await.is_some());
    assert_eq!(super::scans::ids_of(harness, &org(1), "by").await, ["a"]);
    harness.advance(Duration::from_secs(31));
    assert_eq!(harness.get("a").await, None);
    assert_eq!(harness.find(&org(1), "n").await, None);
    assert!(super::scans::ids_of(harness, &org(1), "by").await.is_empty());
}

/// What expired counts as absent for every write: its id, its versions and its unique keys are free.
pub async fn an_expired_record_makes_room(harness: &Harness) {
    harness.write(put_with(&org(1), "a", Expect::Absent, expiring(harness, 60), "1")).await.unwrap();
    harness.advance(Duration::from_secs(61));
    refused(harness.write(put("a", Expect::Version(1), "2")).await, Kind::Conflict);
    refused(harness.write(update("a", Expect::Version(1), "2")).await, Kind::Conflict);
    refused(harness.write(update("a", Expect::Any, "2")).await, Kind::NotFound);
    harness.write(put_with(&org(2), "b", Expect::Absent, named("n", UniqueReach::Store), "2")).await.unwrap();
    assert_eq!(harness.find(&Scope::System, "n").await.unwrap().id, "b");
    let write = put_with(&org(2), "a", Expect::Absent, Keys::default(), "3");
    assert_eq!(harness.write(write).await.unwrap(), 1);
    assert_eq!(harness.get("a").await.unwrap().body, b"3");
}

/// Sweeping answers how much it removed, at most as much as it may, and leaves the rest alone.
pub async fn sweep_removes_what_expired(harness: &Harness) {
    for number in 0..5 {
        let keys = Keys { expires_at: Some(harness.after(60)), ..Keys::default() };
        harness.write(put_with(&org(1), &format!("gone{number}"), Expect::Absent, keys, "")).await.unwrap();
    }
    let keys = Keys { expires_at: Some(harness.after(600)), ..Keys::default() };
    harness.write(put_with(&org(1), "later", Expect::Absent, keys, "")).await.unwrap();
    harness.write(put("ever", Expect::Absent, "")).await.unwrap();
    assert_eq!(harness.store.sweep(10).await.unwrap(), 0);
    harness.advance(Duration::from_secs(61));
    assert_eq!(harness.store.sweep(3).await.unwrap(), 3);
    assert_eq!(harness.store.sweep(3).await.unwrap(), 2);
    assert_eq!(harness.store.sweep(3).await.unwrap(), 0);
    assert!(harness.get("later").await.is_some());
    assert!(harness.get("ever").await.is_some());
}

/// Every bound of a batch is enforced.
pub async fn what_is_too_large_is_invalid(harness: &Harness) {
    let long = "x".repeat(Batch::MAX_KEY_BYTES + 1);
    let large = "x".repeat(Batch::MAX_BODY_BYTES + 1);
    let named = named(&long, UniqueReach::Org);
    let indexed = Keys { index: vec![("by", long.clone())], ..Keys::default() };
    for write in [
        put("a", Expect::Any, &large),
        update("a", Expect::Any, &large),
        put(&long, Expect::Any, ""),
        put("", Expect::Any, ""),
        put_with(&org(1), "a", Expect::Any, named, ""),
        put_with(&org(1), "a", Expect::Any, indexed, ""),
    ] {
        refused(harness.write(write).await, Kind::Invalid);
    }
    refused(harness.append(append("s", 0, harness.now(), &[large.as_str()])).await, Kind::Invalid);
    let many = vec!["x"; Batch::MAX_PARTS + 1];
    refused(harness.append(append("s", 0, harness.now(), &many)).await, Kind::Invalid);
    harness.append(append("s", 0, harness.now(), &many[1..])).await.unwrap();
}
