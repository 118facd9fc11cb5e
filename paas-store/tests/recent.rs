//! What the store answers from memory is what is in its file.
#![cfg(feature = "sqlite")]
#![allow(clippy::unwrap_used)] // test code

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use paas_core::memory::MemoryStore;
use paas_core::{
    Append, Batch, Clock, Expect, Keys, Scope, StateStore, StreamId, SystemClock, TestClock, Write,
};
use paas_store::SqliteStore;
use proptest::prelude::*;

const KIND: &str = "thing";
/// Some of these are more than is remembered of all records together.
const LARGE: usize = 600_000;

#[derive(Clone, Debug)]
enum Change {
    Put { id: u8, is_large: bool, expires: bool },
    Update { id: u8, version: u64 },
    Remove { id: u8 },
    Append { stream: u8, expect: u64, count: usize },
    Read { id: u8, stream: u8, after: u64, limit: usize },
}

fn changes() -> impl Strategy<Value = Vec<Vec<Change>>> {
    let change = prop_oneof![
        (0..9u8, any::<bool>(), any::<bool>()).prop_map(|(id, is_large, expires)| Change::Put {
            id,
            is_large,
            expires
        }),
        (0..9u8, 1..4u64).prop_map(|(id, version)| Change::Update { id, version }),
        (0..9u8).prop_map(|id| Change::Remove { id }),
        (0..3u8, 0..6u64, 0..3usize).prop_map(|(stream, expect, count)| Change::Append {
            stream,
            expect,
            count
        }),
        (0..9u8, 0..3u8, 0..6u64, 1..4usize).prop_map(|(id, stream, after, limit)| Change::Read {
            id,
            stream,
            after,
            limit
        }),
    ];
    prop::collection::vec(prop::collection::vec(change, 1..4), 1..60)
}

/// What a batch is made of.
fn batch(changes: &[Change], round: usize, clock: &TestClock) -> Batch {
    let mut batch = Batch::default();
    for change in changes {
        match *change {
            Change::Put { id, is_large, expires } => {
                let expires_at = expires.then(|| clock.now() + jiff::SignedDuration::from_secs(3));
                batch.writes.push(Write::Put {
                    scope: Scope::System,
                    kind: KIND,
                    id: id.to_string(),
                    expect: Expect::Any,
                    keys: Keys { expires_at, ..Keys::default() },
                    body: vec![round as u8; if is_large { LARGE } else { 10 }],
                });
            }
            Change::Update { id, version } => batch.writes.push(Write::Update {
                scope: Scope::System,
                kind: KIND,
                id: id.to_string(),
                expect: if version == 3 { Expect::Any } else { Expect::Version(version) },
                body: format!("updated in {round}").into(),
            }),
            Change::Remove { id } => batch.writes.push(Write::Remove {
                scope: Scope::System,
                kind: KIND,
                id: id.to_string(),
                expect: Expect::Any,
            }),
            Change::Append { stream, expect, count } => batch.appends.push(Append {
                scope: Scope::System,
                stream: StreamId::new(stream.to_string()),
                expect,
                at: clock.now(),
                events: vec![vec![round as u8; 100_000]; count],
            }),
            Change::Read { .. } => {}
        }
    }
    batch
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Beside a store that never forgets, whatever is changed and read in between.
    #[test]
    fn reads_are_those_of_a_simple_store(rounds in changes()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let clock = Arc::new(TestClock::new());
            let store = SqliteStore::open(folder.path().join("state.db"), clock.clone()).await.unwrap();
            let simple = MemoryStore::new(clock.clone());
            for (round, changes) in rounds.iter().enumerate() {
                let batch = batch(changes, round, &clock);
                let (real, expected) = (store.commit(batch.clone()).await, simple.commit(batch).await);
                assert_eq!(real.map(|done| done.versions).ok(), expected.map(|done| done.versions).ok());
                for change in changes {
                    if let Change::Read { id, stream, after, limit } = change {
                        let (id, stream) = (id.to_string(), StreamId::new(stream.to_string()));
                        let real = store.get(&Scope::System, KIND, &id).await.unwrap();
                        assert_eq!(real, simple.get(&Scope::System, KIND, &id).await.unwrap());
                        let real = store.events(&Scope::System, &stream, *after, *limit).await.unwrap();
                        let expected = simple.events(&Scope::System, &stream, *after, *limit).await.unwrap();
                        let told = |events: Vec<paas_core::StoredEvent>| -> Vec<_> {
                            events.into_iter().map(|event| (event.version, event.body)).collect()
                        };
                        assert_eq!(told(real), told(expected));
                    }
                }
                clock.jump(1);
            }
            store.close().await;
            assert!(store.get(&Scope::System, KIND, "1").await.is_err(), "it is closed");
        });
    }
}

/// One task makes, changes and removes a record over and over, with a number that grows; no reader sees it shrink, nor
/// fewer events than it saw before.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_reader_is_taken_back_in_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path().join("state.db"), Arc::new(SystemClock::new()));
    let store = Arc::new(store.await.unwrap());
    let is_over = Arc::new(AtomicBool::new(false));
    let stream = StreamId::new("stream");
    let readers: Vec<_> = (0..4)
        .map(|_| {
            let (store, is_over, stream) = (store.clone(), is_over.clone(), stream.clone());
            tokio::spawn(async move {
                let (mut number, mut count) = (0, 0);
                while !is_over.load(Ordering::Relaxed) {
                    if let Some(record) = store.get(&Scope::System, KIND, "one").await.unwrap() {
                        let seen: u64 = String::from_utf8(record.body).unwrap().parse().unwrap();
                        assert!(seen >= number, "{seen} after {number}");
                        number = seen;
                    }
                    let fed = store.feed(&Scope::System, Default::default(), 10_000).await.unwrap().len();
                    let events = store.events(&Scope::System, &stream, 0, 10_000).await.unwrap().len();
                    assert!(fed >= count && events >= fed, "{count} {fed} {events}");
                    count = events;
                }
                number
            })
        })
        .collect();
    for number in 0..900_u64 {
        let (scope, id, body) = (Scope::System, "one".to_owned(), number.to_string().into_bytes());
        let write = match number % 3 {
            0 => Write::Put { scope, kind: KIND, id, expect: Expect::Absent, keys: Keys::default(), body },
            1 => Write::Update { scope, kind: KIND, id, expect: Expect::Version(1), body },
            _ => Write::Remove { scope, kind: KIND, id, expect: Expect::Version(2) },
        };
        let append = Append {
            scope: Scope::System,
            stream: stream.clone(),
            expect: number,
            at: SystemClock::new().now(),
            events: vec![b"x".to_vec()],
        };
        let batch = Batch { writes: vec![write], appends: vec![append], ..Batch::default() };
        store.commit(batch).await.unwrap();
        // What was answered is there, at once.
        let found = store.get(&Scope::System, KIND, "one").await.unwrap();
        assert_eq!(found.is_some(), number % 3 != 2, "{number}");
    }
    is_over.store(true, Ordering::Relaxed);
    let seen: Vec<u64> = join_all(readers).await.into_iter().collect::<Result<_, _>>().unwrap();
    assert!(seen.iter().any(|number| *number > 0), "nobody read anything: {seen:?}");
}
