//! What each wrapper promises, over mocks and on paused time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cache;
mod chaos;
mod observe;
mod retry;
mod timeout;
mod together;

use std::sync::Arc;
use std::time::Duration;

use paas_core::mock::MockSourceTree;
use paas_core::{
    Clock, CommitId, Context, DnsService, Error, Host, Kind, OrgId, RecordCursor, RecordPage, RecordSet,
    RecordType, Repository, Result, RootDirectory, Secret, SourceTree, TestClock, TreeId,
};

/// Some way for a call to end: what a stub does with the context that reaches it.
type Script = Box<dyn Fn(Context, usize) -> futures::future::BoxFuture<'static, Result<()>> + Send + Sync>;

/// A DNS service whose `set` follows a script; the plainest call that has a context.
struct Scripted {
    script: Script,
    calls: std::sync::atomic::AtomicUsize,
}

impl std::fmt::Debug for Scripted {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Scripted")
    }
}

impl Scripted {
    /// The script gets the context and the number of the call, from 1.
    fn new<F>(script: impl Fn(Context, usize) -> F + Send + Sync + 'static) -> Arc<Self>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let script: Script = Box::new(move |context, call| Box::pin(script(context, call)));
        Arc::new(Self { script, calls: 0.into() })
    }

    fn calls(&self) -> usize {
        self.calls.load(std::sync::atomic::Ordering::SeqCst)
    }
}

#[async_trait::async_trait]
impl DnsService for Scripted {
    async fn desired(&self, _: &Context, _: &Host) -> Result<Vec<RecordSet>> {
        Ok(Vec::new())
    }

    async fn get(&self, _: &Context, _: &Host, _: RecordType) -> Result<Option<RecordSet>> {
        Ok(None)
    }

    async fn list(&self, _: &Context, _: &RecordCursor) -> Result<RecordPage> {
        Ok(RecordPage::default())
    }

    async fn set(&self, context: &Context, _: &RecordSet) -> Result<()> {
        let call = self.calls.fetch_add(1, std::sync::atomic::Ordering::SeqCst) + 1;
        (self.script)(context.clone(), call).await
    }

    async fn remove(&self, _: &Context, _: &Host, _: RecordType) -> Result<()> {
        Ok(())
    }
}

fn context() -> Context {
    Context::new(Arc::new(TestClock::new()))
}

fn records() -> RecordSet {
    RecordSet {
        host: "hello.localhost".parse().unwrap(),
        record_type: RecordType::A,
        values: ["127.0.0.1".to_owned()].into(),
        ttl_seconds: 60,
    }
}

fn unavailable() -> Error {
    Error::new(Kind::Unavailable, "dns.set", "the provider does not answer")
}

fn seconds(context: &Context) -> u64 {
    context.clock().elapsed().as_secs()
}

fn repository(token: Option<&str>) -> Repository {
    Repository {
        org: OrgId::default_org(),
        url: "https://example.com/team/app.git".parse().unwrap(),
        token: token.map(Secret::from),
    }
}

fn commit(digit: char) -> CommitId {
    String::from(digit).repeat(40).parse().unwrap()
}

fn root(text: &str) -> RootDirectory {
    text.parse().unwrap()
}

/// A tree that says only its id.
fn tree(digit: char) -> Arc<dyn SourceTree> {
    let id: TreeId = String::from(digit).repeat(40).parse().unwrap();
    let mut tree = MockSourceTree::new();
    tree.expect_id().return_const(id);
    Arc::new(tree)
}

const SECOND: Duration = Duration::from_secs(1);
