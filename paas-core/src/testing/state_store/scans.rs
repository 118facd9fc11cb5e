//! What is seen of records, and in which order.

use super::{Harness, named, org, put_with, remove};
use crate::store::{Batch, Expect, IndexRange, Keys, Page, Record, Scan, Scope, UniqueReach};

fn scan_of(scope: &Scope, index: &'static str) -> Scan {
    Scan {
        scope: scope.clone(),
        kind: "thing",
        index,
        range: IndexRange::all(),
        descending: false,
        limit: 1000,
        cursor: None,
    }
}

fn ids(page: &Page<Record>) -> Vec<&str> {
    page.items.iter().map(|record| record.id.as_str()).collect()
}

pub(super) async fn ids_of(harness: &Harness, scope: &Scope, index: &'static str) -> Vec<String> {
    let page = harness.store.scan(&scan_of(scope, index)).await.unwrap();
    page.items.into_iter().map(|record| record.id).collect()
}

/// Makes records of (org, id, value).
async fn fill(harness: &Harness, records: &[(u8, &str, &str)]) {
    let write = |(number, id, value): &(u8, &str, &str)| {
        // A second index under another name must not get into the way.
        let index = vec![("by", (*value).to_owned()), ("bystander", "x".to_owned())];
        put_with(&org(*number), id, Expect::Absent, Keys { index, ..Keys::default() }, value)
    };
    let batch = Batch { writes: records.iter().map(write).collect(), ..Batch::default() };
    harness.store.commit(batch).await.unwrap();
}

/// Collects all pages of a scan, `limit` records each.
async fn all_pages(harness: &Harness, mut scan: Scan, limit: usize) -> Vec<String> {
    scan.limit = limit;
    let mut found = Vec::new();
    loop {
        let page = harness.store.scan(&scan).await.unwrap();
        assert!(page.items.len() <= limit);
        found.extend(page.items.into_iter().map(|record| record.id));
        match page.next {
            Some(next) => scan.cursor = Some(next),
            None => return found,
        }
    }
}

/// One org's record is in no read of another.
pub async fn foreign_records_are_invisible(harness: &Harness) {
    for (owner, name) in [(org(1), "orgs"), (Scope::System, "systems")] {
        let keys = Keys { index: vec![("by", "v".to_owned())], ..named(name, UniqueReach::Store) };
        harness.write(put_with(&owner, name, Expect::Absent, keys, "")).await.unwrap();
        assert_eq!(harness.store.get(&org(2), "thing", name).await.unwrap(), None);
        assert_eq!(harness.find(&org(2), name).await, None);
        assert!(ids_of(harness, &org(2), "by").await.is_empty());
    }
    assert!(harness.store.get(&org(1), "thing", "orgs").await.unwrap().is_some());
    assert!(harness.find(&org(1), "orgs").await.is_some());
    assert_eq!(ids_of(harness, &org(1), "by").await, ["orgs"]);
}

/// A read with the system's scope is not bound to an org.
pub async fn the_system_sees_every_record(harness: &Harness) {
    fill(harness, &[(1, "a", "2"), (2, "b", "1"), (3, "c", "3")]).await;
    assert_eq!(ids_of(harness, &Scope::System, "by").await, ["b", "a", "c"]);
    assert_eq!(harness.get("c").await.unwrap().scope, org(3));
}

/// Ascending and descending, ties by id.
pub async fn a_scan_orders_by_value_and_id(harness: &Harness) {
    fill(harness, &[(1, "c", "1"), (1, "a", "2"), (1, "b", "1"), (1, "d", "3")]).await;
    for scope in [org(1), Scope::System] {
        let mut scan = scan_of(&scope, "by");
        let page = harness.store.scan(&scan).await.unwrap();
        assert_eq!(ids(&page), ["b", "c", "a", "d"]);
        assert_eq!(page.next, None);
        scan.descending = true;
        let page = harness.store.scan(&scan).await.unwrap();
        assert_eq!(ids(&page), ["d", "a", "c", "b"]);
        assert_eq!(page.next, None);
    }
}

/// No collation: capitals come first, and a longer text behind its beginning.
pub async fn a_scan_orders_values_byte_by_byte(harness: &Harness) {
    let values = ["", "\0", "10", "2", "Z", "a", "a\0b", "ab", "\u{e4}", "\u{1f600}"];
    let names: Vec<String> = (0..values.len()).map(|number| format!("id{number}")).collect();
    let records: Vec<_> = names.iter().zip(values).map(|(id, value)| (1, id.as_str(), value)).collect();
    fill(harness, &records).await;
    assert_eq!(ids_of(harness, &org(1), "by").await, names);
}

/// The lowest value is in, the highest is out, in both directions.
pub async fn a_scan_keeps_to_its_range(harness: &Harness) {
    fill(harness, &[(1, "1", "a"), (1, "2", "b"), (1, "3", "ba"), (1, "4", "b\0"), (1, "5", "c")]).await;
    let bounds = |from: Option<&str>, to: Option<&str>| IndexRange {
        from: from.map(str::to_owned),
        to: to.map(str::to_owned),
    };
    for (range, expected) in [
        (bounds(Some("b"), None), vec!["2", "4", "3", "5"]),
        (bounds(None, Some("b")), vec!["1"]),
        (bounds(Some("a"), Some("c")), vec!["1", "2", "4", "3"]),
        (bounds(Some("c"), Some("a")), vec![]),
        (bounds(Some("b"), Some("b\0")), vec!["2"]),
        (IndexRange::starting_with("b"), vec!["2", "4", "3"]),
    ] {
        let mut scan = Scan { range, ..scan_of(&org(1), "by") };
        assert_eq!(ids(&harness.store.scan(&scan).await.unwrap()), expected, "{scan:?}");
        scan.descending = true;
        let backward: Vec<_> = expected.into_iter().rev().collect();
        assert_eq!(ids(&harness.store.scan(&scan).await.unwrap()), backward, "{scan:?}");
    }
}

/// Every page size gives the same list, in both directions, also among equal values.
pub async fn a_scan_pages_without_gaps_or_repeats(harness: &Harness) {
    let records: Vec<(String, String)> =
        (0..23).map(|number| (format!("id{number:02}"), format!("{}", number % 3))).collect();
    let records: Vec<_> = records.iter().map(|(id, value)| (1, id.as_str(), value.as_str())).collect();
    fill(harness, &records).await;
    for descending in [false, true] {
        let scan = Scan {
            descending,
            range: IndexRange { from: Some("1".into()), to: None },
            ..scan_of(&org(1), "by")
        };
        let mut expected: Vec<_> = records.iter().filter(|(_, _, value)| *value >= "1").collect();
        expected.sort_by_key(|(_, id, value)| (*value, *id));
        if descending {
            expected.reverse();
        }
        let expected: Vec<_> = expected.into_iter().map(|(_, id, _)| *id).collect();
        for limit in [1, 2, 3, 7, 100] {
            assert_eq!(all_pages(harness, scan.clone(), limit).await, expected, "{limit} a page");
        }
    }
}

/// Others' records neither appear nor shorten a page.
pub async fn a_scan_pages_within_an_org(harness: &Harness) {
    let names: Vec<String> = (0..20).map(|number| format!("id{number:02}")).collect();
    let records: Vec<_> = names.iter().enumerate().map(|(at, id)| (at as u8 % 2, id.as_str(), "v")).collect();
    fill(harness, &records).await;
    let expected: Vec<_> = names.iter().skip(1).step_by(2).cloned().collect();
    let page = harness.store.scan(&Scan { limit: 4, ..scan_of(&org(1), "by") }).await.unwrap();
    assert_eq!(ids(&page), expected[..4]);
    assert_eq!(all_pages(harness, scan_of(&org(1), "by"), 4).await, expected);
}

/// A cursor whose record is gone still marks the place.
pub async fn a_scan_goes_on_where_records_were_removed(harness: &Harness) {
    fill(harness, &[(1, "a", "v"), (1, "b", "v"), (1, "c", "v")]).await;
    let mut scan = Scan { limit: 2, ..scan_of(&org(1), "by") };
    scan.cursor = harness.store.scan(&scan).await.unwrap().next;
    harness.write(remove("b", Expect::Any)).await.unwrap();
    assert_eq!(ids(&harness.store.scan(&scan).await.unwrap()), ["c"]);
}
