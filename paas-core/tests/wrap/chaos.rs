//! Seeded faults.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use paas_core::mock::{MockLogStore, MockStateStore};
use paas_core::testing::chaos::{Chaos, ChaosPlan, Mischief};
use paas_core::{
    AppId, Batch, Committed, DnsService, Kind, LogStore, RandomIds, StateStore, TestClock, WorkClass,
};

use super::{SECOND, Scripted, context, records, seconds};

fn chaos<T>(inner: T, seed: u64, plan: ChaosPlan) -> Chaos<T> {
    Chaos::new(inner, Arc::new(TestClock::new()), seed, plan)
}

fn working() -> Arc<Scripted> {
    Scripted::new(async |_, _| Ok(()))
}

#[tokio::test(start_paused = true)]
async fn a_calm_plan_does_nothing() {
    let dns = chaos(working(), 1, ChaosPlan::calm());
    for _ in 0..100 {
        dns.set(&context(), &records()).await.unwrap();
    }
    assert_eq!((dns.inner().calls(), dns.journal()), (100, vec![]));
}

#[tokio::test(start_paused = true)]
async fn the_nth_call_fails_before_its_effect() {
    let dns = chaos(working(), 1, ChaosPlan::calm().nth("dns.set", 2, Mischief::FailBefore));
    let context = context();
    dns.set(&context, &records()).await.unwrap();
    // Calls of other operations do not count.
    dns.desired(&context, &records().host).await.unwrap();
    let error = dns.set(&context, &records()).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.reason(), error.operation()),
        (Kind::Unavailable, Some("chaos"), "dns.set")
    );
    assert!(error.is_transient());
    assert_eq!(dns.inner().calls(), 1);
    dns.set(&context, &records()).await.unwrap();
    let journal: Vec<_> = dns.journal().iter().map(ToString::to_string).collect();
    assert_eq!(journal, ["dns.set #2: FailBefore"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_has_had_its_effect() {
    let dns = chaos(working(), 1, ChaosPlan::calm().nth("dns.set", 1, Mischief::LoseReply));
    let error = dns.set(&context(), &records()).await.unwrap_err();
    assert_eq!((error.kind(), dns.inner().calls()), (Kind::Unavailable, 1));
}

#[tokio::test(start_paused = true)]
async fn a_delay_comes_before_the_effect_and_can_be_cancelled() {
    let dns = chaos(
        working(),
        1,
        ChaosPlan::calm().nth("dns.set", 1, Mischief::Delay(5 * SECOND)).nth(
            "dns.set",
            2,
            Mischief::Delay(5 * SECOND),
        ),
    );
    let context = context();
    dns.set(&context, &records()).await.unwrap();
    assert_eq!((dns.inner().calls(), seconds(&context)), (1, 5));
    let hurried = context.with_budget(SECOND);
    assert_eq!(dns.set(&hurried, &records()).await.unwrap_err().kind(), Kind::Timeout);
    assert_eq!((dns.inner().calls(), seconds(&context)), (1, 6), "it never reached the adapter");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_ends_when_it_is_cancelled() {
    let dns = chaos(working(), 1, ChaosPlan::calm().nth("dns.set", 1, Mischief::Hang));
    let context = context();
    let cancel = async {
        context.clock().sleep(3600 * SECOND).await;
        context.cancel();
    };
    let records = records();
    let (result, ()) = tokio::join!(dns.set(&context, &records), cancel);
    assert_eq!((result.unwrap_err().kind(), dns.inner().calls()), (Kind::Cancelled, 0));
}

#[tokio::test(start_paused = true)]
async fn the_stores_meet_it_too() {
    let mut store = MockStateStore::new();
    store.expect_commit().times(2).returning(|_| Ok(Committed::default()));
    let plan = ChaosPlan::calm()
        .nth("store.commit", 1, Mischief::FailBefore)
        .nth("store.commit", 2, Mischief::LoseReply)
        .nth("store.count", 1, Mischief::Hang);
    let store = chaos(store, 1, plan);
    assert!(store.commit(Batch::default()).await.is_err());
    assert!(store.commit(Batch::default()).await.is_err());
    assert!(store.commit(Batch::default()).await.is_ok());
    assert!(store.count(WorkClass::Build, None).now_or_never().is_none());
    assert_eq!(store.journal().len(), 3);

    let mut logs = MockLogStore::new();
    logs.expect_append().never();
    let logs = chaos(logs, 1, ChaosPlan::calm().nth("log_store.append", 1, Mischief::FailBefore));
    let app = AppId::generate(&RandomIds::seeded(TestClock::new(), 1));
    assert!(logs.append(&app, Vec::new()).await.is_err());
}

async fn run(seed: u64, others: usize) -> Vec<String> {
    let plan = ChaosPlan {
        fail_before_percent: 20,
        lose_reply_percent: 20,
        delay_percent: 20,
        longest_delay: SECOND,
        ..ChaosPlan::calm()
    };
    let dns = chaos(working(), seed, plan);
    let context = context();
    for _ in 0..200 {
        let _ = dns.set(&context, &records()).await;
        for _ in 0..others {
            let _ = dns.desired(&context, &records().host).await;
        }
    }
    let journal = dns.journal();
    journal.iter().filter(|entry| entry.operation == "dns.set").map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn the_seed_decides_and_other_calls_do_not() {
    let first = run(1, 0).await;
    assert_eq!(first, run(1, 0).await);
    assert_eq!(first, run(1, 3).await, "calls of another operation change nothing");
    assert_ne!(first, run(2, 0).await);
}

#[tokio::test(start_paused = true)]
async fn it_happens_about_as_often_as_planned() {
    let journal = run(1, 0).await;
    let count = |what: &str| journal.iter().filter(|entry| entry.contains(what)).count();
    for what in ["FailBefore", "LoseReply", "Delay"] {
        assert!((20..=60).contains(&count(what)), "{what}: {} of 200", count(what));
    }
    assert_eq!(count("Hang"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_never_longer_than_planned() {
    let plan = ChaosPlan { longest_delay: SECOND, delay_percent: 100, ..ChaosPlan::calm() };
    let dns = chaos(working(), 1, plan);
    for _ in 0..50 {
        let context = context();
        dns.set(&context, &records()).await.unwrap();
        assert!(context.clock().elapsed() <= SECOND + Duration::from_millis(1));
    }
    assert_eq!(dns.journal().len(), 50);
}
