//! What travels into every call.

use std::sync::Arc;
use std::time::Duration;

use paas_core::{Context, Error, Kind, Result, TestClock};

const SECOND: Duration = Duration::from_secs(1);

fn context() -> Context {
    Context::new(Arc::new(TestClock::new()))
}

async fn never() -> Result<()> {
    std::future::pending().await
}

#[test]
fn cancelling_goes_down_and_not_up() {
    let parent = context();
    let (cancelled, sibling) = (parent.child(), parent.child());
    cancelled.cancel();
    assert!(cancelled.is_cancelled() && !parent.is_cancelled() && !sibling.is_cancelled());
    parent.cancel();
    assert!(sibling.is_cancelled() && sibling.with_budget(SECOND).is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_budget_only_shrinks() {
    let context = context();
    assert_eq!(context.remaining(), None);
    let minute = context.with_budget(60 * SECOND);
    assert_eq!(minute.with_budget(3600 * SECOND).remaining(), Some(60 * SECOND));
    assert_eq!(minute.with_budget(SECOND).remaining(), Some(SECOND));
    tokio::time::advance(61 * SECOND).await;
    assert_eq!(minute.remaining(), Some(Duration::ZERO));
    assert_eq!(context.with_budget(Duration::MAX).remaining().map(|left| left > SECOND), Some(true));
}

#[tokio::test(start_paused = true)]
async fn work_ends_with_the_budget_or_the_cancellation() {
    let context = context();
    let error = context.with_budget(SECOND).run("test.work", never()).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (Kind::Timeout, "test.work"));
    assert_eq!(context.clock().elapsed(), SECOND);

    let cancelled = context.child();
    cancelled.cancel();
    let error = cancelled.run("test.work", never()).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (Kind::Cancelled, "test.work"));
}

#[tokio::test(start_paused = true)]
async fn work_that_is_done_within_the_budget_answers() {
    let context = context().with_budget(2 * SECOND);
    assert_eq!(context.run("test.work", async { Ok(7) }).await.unwrap(), 7);
    let error =
        context.run("test.work", async { Err::<(), _>(Error::invalid("inner", "bad")) }).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (Kind::Invalid, "inner"));
    context.sleep("test.sleep", SECOND).await.unwrap();
    assert_eq!(context.sleep("test.sleep", SECOND + SECOND).await.unwrap_err().kind(), Kind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn a_wall_clock_that_is_set_neither_hurries_nor_stalls_a_wait() {
    let clock = Arc::new(TestClock::new());
    let context = Context::new(clock.clone()).with_budget(10 * SECOND);
    clock.jump(1_000_000);
    context.sleep("test.sleep", SECOND).await.expect("the budget is not spent");
    clock.jump(-2_000_000);
    context.sleep("test.sleep", SECOND).await.expect("the wait is not longer");
    assert_eq!(context.remaining(), Some(8 * SECOND));
}
