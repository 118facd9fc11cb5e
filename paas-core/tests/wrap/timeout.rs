//! Bounding how long a call takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use paas_core::mock::{MockContainerRuntime, MockIngress};
use paas_core::wrap::{Timeout, TimeoutPolicy};
use paas_core::{
    Addressing, ContainerRuntime, Context, DeploymentId, DnsService, Error, Fault, Ingress, InstanceName,
    Kind, OutputOptions, RandomIds, TestClock,
};

use super::{SECOND, Scripted, context, records, seconds, unavailable};

fn timeout<T>(inner: T) -> Timeout<T> {
    Timeout::new(inner, TimeoutPolicy::default())
}

fn instance() -> InstanceName {
    InstanceName::of(&DeploymentId::generate(&RandomIds::seeded(TestClock::new(), 1)), 0)
}

/// Heeds its context and says so.
async fn until_cancelled(context: Context) -> Result<(), Error> {
    context.cancellation().cancelled().await;
    Err(Error::cancelled("dns.set"))
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_is_passed_on() {
    let dns = Scripted::new(async |context: Context, _| {
        context.clock().sleep(59 * SECOND).await;
        Ok(())
    });
    timeout(dns).set(&context(), &records()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_cancelled_and_names_its_operation() {
    let dns = Scripted::new(async |context, _| until_cancelled(context).await);
    let context = context();
    let error = timeout(dns).set(&context, &records()).await.unwrap_err();
    assert_eq!((error.kind(), error.operation(), seconds(&context)), (Kind::Timeout, "dns.set", 60));
    assert_eq!(error.whose(), Fault::Upstream);
    assert!(error.is_transient());
    assert!(error.message().contains("60 seconds"), "{error}");
    assert!(!context.is_cancelled(), "only this call is cancelled");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_call_gets_time_to_clean_up() {
    let cleaned = Arc::new(AtomicBool::new(false));
    let seen = cleaned.clone();
    let dns = Scripted::new(move |context: Context, _| {
        let cleaned = cleaned.clone();
        async move {
            context.cancellation().cancelled().await;
            context.clock().sleep(5 * SECOND).await;
            cleaned.store(true, Ordering::SeqCst);
            Err(Error::cancelled("dns.set"))
        }
    });
    let context = context();
    let error = timeout(dns).set(&context, &records()).await.unwrap_err();
    assert_eq!((error.kind(), seconds(&context)), (Kind::Timeout, 65));
    assert!(seen.load(Ordering::SeqCst));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_heeds_nothing_is_dropped_after_the_grace() {
    let dns = Scripted::new(async |_, _| std::future::pending().await);
    let context = context();
    let error = timeout(dns).set(&context, &records()).await.unwrap_err();
    assert_eq!((error.kind(), seconds(&context)), (Kind::Timeout, 70));
}

#[tokio::test(start_paused = true)]
async fn what_really_happened_wins_over_the_timeout() {
    let answer = |result: fn() -> Result<(), Error>| {
        Scripted::new(move |context: Context, _| async move {
            context.cancellation().cancelled().await;
            result()
        })
    };
    timeout(answer(|| Ok(()))).set(&context(), &records()).await.expect("it was done just then");
    let failed = || Err(Error::invalid("dns.set", "no such zone"));
    let error = timeout(answer(failed)).set(&context(), &records()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
}

#[tokio::test(start_paused = true)]
async fn the_caller_s_cancellation_is_no_timeout() {
    let dns = Scripted::new(async |context, _| until_cancelled(context).await);
    let context = context();
    let (timeout, records) = (timeout(dns), records());
    let cancel = async {
        context.clock().sleep(SECOND).await;
        context.cancel();
    };
    let (result, ()) = tokio::join!(timeout.set(&context, &records), cancel);
    assert_eq!((result.unwrap_err().kind(), seconds(&context)), (Kind::Cancelled, 1));
}

#[tokio::test(start_paused = true)]
async fn the_caller_s_cancellation_stays_one_when_cleaning_up_takes_long() {
    let dns = Scripted::new(async |context: Context, _| {
        context.cancellation().cancelled().await;
        context.clock().sleep(65 * SECOND).await;
        Err(Error::cancelled("dns.set"))
    });
    let context = context();
    context.cancel();
    let error = timeout(dns).set(&context, &records()).await.unwrap_err();
    assert_eq!((error.kind(), seconds(&context)), (Kind::Cancelled, 65));
}

#[tokio::test(start_paused = true)]
async fn an_adapter_s_own_error_is_passed_on() {
    let dns = Scripted::new(async |_, _| Err(unavailable().code("down")));
    let error = timeout(dns).set(&context(), &records()).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Unavailable, Some("down")));
}

/// A runtime whose `stop` and `output` take `SECOND`s of the context's clock.
#[derive(Debug)]
struct Slow {
    takes: Duration,
}

#[async_trait::async_trait]
impl ContainerRuntime for Slow {
    fn addressing(&self) -> Addressing {
        Addressing::Runtime
    }

    async fn ensure(
        &self,
        _: &Context,
        _: &paas_core::InstanceSpec,
    ) -> paas_core::Result<paas_core::Instance> {
        unreachable!()
    }

    async fn inspect(&self, _: &Context, _: &InstanceName) -> paas_core::Result<Option<paas_core::Instance>> {
        unreachable!()
    }

    async fn list(
        &self,
        _: &Context,
        _: &paas_core::Selector,
    ) -> paas_core::Result<Vec<paas_core::Instance>> {
        unreachable!()
    }

    async fn stop(&self, context: &Context, _: &InstanceName, _: Duration) -> paas_core::Result<()> {
        context.sleep("slow.stop", self.takes).await
    }

    async fn remove(&self, _: &Context, _: &InstanceName) -> paas_core::Result<()> {
        unreachable!()
    }

    async fn remove_network(&self, _: &Context, _: &paas_core::OrgId) -> paas_core::Result<()> {
        unreachable!()
    }

    async fn networks(&self, _: &Context) -> paas_core::Result<Vec<paas_core::OrgId>> {
        unreachable!()
    }

    async fn output(
        &self,
        context: &Context,
        _: &InstanceName,
        _: &OutputOptions,
    ) -> paas_core::Result<futures::stream::BoxStream<'static, paas_core::Result<paas_core::OutputLine>>>
    {
        let context = context.clone();
        let takes = self.takes;
        let silence = async move { context.sleep("slow.output", takes).await };
        Ok(futures::stream::once(silence).filter_map(async |result| result.err().map(Err)).boxed())
    }

    async fn endings(&self, _: &Context) -> paas_core::Result<futures::stream::BoxStream<'static, ()>> {
        unreachable!()
    }

    async fn ping(&self, _: &Context) -> paas_core::Result<()> {
        unreachable!()
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_may_take_its_grace_and_a_call_s_time() {
    let grace = 300 * SECOND;
    timeout(Slow { takes: 359 * SECOND }).stop(&context(), &instance(), grace).await.unwrap();
    let error = timeout(Slow { takes: 361 * SECOND }).stop(&context(), &instance(), grace).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.operation(), error.whose()),
        (Kind::Timeout, "runtime.stop", Fault::Platform)
    );
}

#[tokio::test(start_paused = true)]
async fn an_open_stream_may_be_silent_as_long_as_it_likes() {
    let runtime = timeout(Slow { takes: 3600 * SECOND });
    let context = context();
    let lines = runtime.output(&context, &instance(), &OutputOptions::default()).await.unwrap();
    let lines: Vec<_> = lines.collect().await;
    assert!(lines.is_empty(), "{lines:?}");
    assert_eq!(seconds(&context), 3600);
}

#[tokio::test(start_paused = true)]
async fn draining_has_the_context_s_budget_alone() {
    let mut ingress = MockIngress::new();
    ingress.expect_drain().times(1).returning(|context, _, _| {
        assert_eq!(context.remaining(), Some(7200 * SECOND));
        Ok(())
    });
    let context = context().with_budget(7200 * SECOND);
    timeout(ingress).drain(&context, &instance(), "127.0.0.1:80".parse().unwrap()).await.unwrap();
}

#[test]
fn what_does_not_wait_is_passed_through() {
    let mut runtime = MockContainerRuntime::new();
    runtime.expect_addressing().times(1).return_const(Addressing::Platform);
    assert_eq!(timeout(runtime).addressing(), Addressing::Platform);
}
