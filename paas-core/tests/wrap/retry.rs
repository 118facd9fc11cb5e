//! Trying again.

use std::sync::Arc;
use std::time::Duration;

use mockall::predicate::eq;
use paas_core::mock::{MockContainerRuntime, MockGitProvider};
use paas_core::wrap::{Retry, RetryPolicy};
use paas_core::{
    ContainerRuntime, Context, DnsService, Error, Fault, GitProvider, Ids, Kind, OrgId, RandomIds, TestClock,
    error,
};

use super::{SECOND, Scripted, context, records, repository, seconds, unavailable};

/// Randomness that always gives the longest wait.
#[derive(Debug)]
struct Longest;

impl Ids for Longest {
    fn next(&self) -> u128 {
        0
    }

    fn random(&self) -> u64 {
        u64::MAX
    }
}

fn retry<T>(inner: T, policy: RetryPolicy) -> Retry<T> {
    Retry::new(inner, policy, Arc::new(Longest))
}

#[tokio::test(start_paused = true)]
async fn a_transient_error_is_tried_again_until_it_works() {
    let dns = Scripted::new(async |_, call| if call < 3 { Err(unavailable()) } else { Ok(()) });
    let context = context();
    retry(dns.clone(), RetryPolicy::default()).set(&context, &records()).await.unwrap();
    assert_eq!(dns.calls(), 3);
    // Half a second and one second, less the part that jitter leaves off.
    assert_eq!((context.clock().elapsed().as_secs_f64() * 100.0).round(), 150.0);
}

#[tokio::test(start_paused = true)]
async fn what_it_gives_up_on_is_exhausted_and_otherwise_unchanged() {
    let dns = Scripted::new(async |_, _| Err(unavailable().code("down").fault(Fault::Upstream).hint("wait")));
    let error = retry(dns.clone(), RetryPolicy::default()).set(&context(), &records()).await.unwrap_err();
    assert_eq!(dns.calls(), 5);
    assert_eq!(error.retryable(), error::Retry::Exhausted);
    let rest = (error.kind(), error.reason(), error.whose(), error.hinted());
    assert_eq!(rest, (Kind::Unavailable, Some("down"), Fault::Upstream, Some("wait")));
}

#[tokio::test(start_paused = true)]
async fn two_retriers_on_one_path_do_not_multiply() {
    let dns = Scripted::new(async |_, _| Err(unavailable()));
    let twice = retry(retry(dns.clone(), RetryPolicy::default()), RetryPolicy::default());
    twice.set(&context(), &records()).await.unwrap_err();
    assert_eq!(dns.calls(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_permanent_or_exhausted_error_is_not_tried_again() {
    for error in [
        || Error::invalid("dns.set", "no such zone"),
        || Error::new(Kind::Internal, "dns.set", "broken"),
        || Error::cancelled("dns.set"),
        || unavailable().retry(error::Retry::Exhausted),
        || unavailable().retry(error::Retry::Permanent),
    ] {
        let dns = Scripted::new(move |_, _| std::future::ready(Err(error())));
        let failed =
            retry(dns.clone(), RetryPolicy::default()).set(&context(), &records()).await.unwrap_err();
        assert_eq!((dns.calls(), failed.retryable()), (1, error().retryable()));
    }
}

#[tokio::test(start_paused = true)]
async fn it_comes_back_no_earlier_than_it_was_asked_to() {
    let asked = error::Retry::Transient { after: Some(30 * SECOND) };
    let dns = Scripted::new(move |_, call| {
        std::future::ready(if call == 1 { Err(unavailable().retry(asked)) } else { Ok(()) })
    });
    let context = context();
    let zero = RandomIds::seeded(TestClock::new(), 1);
    Retry::new(dns, RetryPolicy::default(), Arc::new(zero)).set(&context, &records()).await.unwrap();
    assert_eq!(seconds(&context), 30);
}

#[tokio::test(start_paused = true)]
async fn no_attempt_begins_after_the_total() {
    let dns = Scripted::new(async |context: Context, _| {
        context.clock().sleep(9 * SECOND).await;
        Err(unavailable())
    });
    let policy = RetryPolicy { attempts: 100, total: 20 * SECOND, ..RetryPolicy::default() };
    let context = context();
    let error = retry(dns.clone(), policy).set(&context, &records()).await.unwrap_err();
    // They begin at 0, 9.5 and 19.5 seconds; a fourth would at 30.5.
    assert_eq!((dns.calls(), error.retryable()), (3, error::Retry::Exhausted));
    assert_eq!(seconds(&context), 28, "it does not wait for what it will not do");
}

#[tokio::test(start_paused = true)]
async fn it_does_not_wait_past_the_context_s_budget() {
    let dns = Scripted::new(async |_, _| Err(unavailable()));
    let context = context().with_budget(SECOND);
    let error = retry(dns.clone(), RetryPolicy::default()).set(&context, &records()).await.unwrap_err();
    assert_eq!((dns.calls(), error.retryable()), (2, error::Retry::Exhausted));
}

#[tokio::test(start_paused = true)]
async fn cancelling_ends_the_wait() {
    let dns = Scripted::new(async |_, _| {
        Err(unavailable().retry(error::Retry::Transient { after: Some(60 * SECOND) }))
    });
    let context = context();
    let cancelled = async {
        context.clock().sleep(SECOND).await;
        context.cancel();
    };
    let retry = retry(dns.clone(), RetryPolicy::default());
    let records = records();
    let (result, ()) = tokio::join!(retry.set(&context, &records), cancelled);
    assert_eq!((result.unwrap_err().kind(), dns.calls(), seconds(&context)), (Kind::Cancelled, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_not_tried_again() {
    let mut runtime = MockContainerRuntime::new();
    runtime.expect_ping().times(1).returning(|_| Err(unavailable()));
    let error = retry(runtime, RetryPolicy::default()).ping(&context()).await.unwrap_err();
    assert!(error.is_transient(), "nothing was exhausted");
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_context_is_passed_on_once() {
    let mut provider = MockGitProvider::new();
    let repository = repository(None);
    provider
        .expect_forget()
        .with(eq(OrgId::default_org()), eq(repository.url.clone()))
        .times(1)
        .returning(|_, _| Err(unavailable()));
    let error =
        retry(provider, RetryPolicy::default()).forget(&repository.org, &repository.url).await.unwrap_err();
    assert!(error.is_transient());
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_waits_the_same() {
    let waited = async |seed| {
        let dns = Scripted::new(async |_, _| Err(unavailable()));
        let context = context();
        let ids = Arc::new(RandomIds::seeded(TestClock::new(), seed));
        Retry::new(dns, RetryPolicy::default(), ids).set(&context, &records()).await.unwrap_err();
        context.clock().elapsed()
    };
    let first = waited(1).await;
    assert_eq!(first, waited(1).await);
    assert_ne!(first, waited(2).await);
    assert!(first > Duration::ZERO);
}
