//! Not asking twice for what never changes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::join_all;
use paas_core::mock::MockGitProvider;
use paas_core::wrap::Cache;
use paas_core::{
    Branches, BuildKey, BuildRequest, CommitId, Context, Error, GitProvider, GitUrl, Image, ImageBuilder,
    Kind, OrgId, RandomIds, Reference, Repository, Result, Revision, RootDirectory, Selector, SourceTree,
    StoredImage, TestClock, error,
};
use tokio::sync::Notify;

use super::{SECOND, commit, context, repository, root, seconds, tree, unavailable};

/// A provider whose `fetch` takes ten seconds, heeds its context, and fails as told.
#[derive(Debug, Default)]
struct Provider {
    fetches: AtomicUsize,
    /// The first so many fetches fail.
    failures: usize,
}

impl Provider {
    fn fetches(&self) -> usize {
        self.fetches.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl GitProvider for Provider {
    async fn branches(&self, _: &Context, _: &Repository) -> Result<Branches> {
        unreachable!()
    }

    async fn resolve(&self, _: &Context, _: &Repository, _: &Reference) -> Result<Revision> {
        unreachable!()
    }

    async fn fetch(
        &self,
        context: &Context,
        _: &Repository,
        _: &CommitId,
        _: &RootDirectory,
    ) -> Result<Arc<dyn SourceTree>> {
        let fetch = self.fetches.fetch_add(1, Ordering::SeqCst);
        context.sleep("provider.fetch", 10 * SECOND).await?;
        if fetch < self.failures { Err(unavailable().code("down")) } else { Ok(tree('a')) }
    }

    async fn forget(&self, _: &OrgId, _: &GitUrl) -> Result<()> {
        Ok(())
    }
}

type Trees = Cache<Arc<Provider>, Arc<dyn SourceTree>>;

fn cached(provider: Provider) -> (Arc<Provider>, Trees) {
    let provider = Arc::new(provider);
    (provider.clone(), Cache::trees(provider, 8))
}

async fn fetch(cache: &impl GitProvider, context: &Context) -> Result<Arc<dyn SourceTree>> {
    cache.fetch(context, &repository(None), &commit('a'), &root("")).await
}

#[tokio::test(start_paused = true)]
async fn a_tree_is_fetched_once() {
    let (provider, cache) = cached(Provider::default());
    let context = context();
    let first = fetch(&cache, &context).await.unwrap();
    let second = fetch(&cache, &context).await.unwrap();
    assert!(Arc::ptr_eq(&first, &second));
    assert_eq!((provider.fetches(), seconds(&context)), (1, 10));
}

#[tokio::test(start_paused = true)]
async fn whatever_differs_is_fetched_apart() {
    let (provider, cache) = cached(Provider::default());
    let context = context();
    let org = OrgId::generate(&RandomIds::seeded(TestClock::new(), 1));
    let url: GitUrl = "https://example.com/team/other.git".parse().unwrap();
    let requests = [
        (repository(None), commit('a'), root("")),
        (repository(None), commit('b'), root("")),
        (repository(None), commit('a'), root("web")),
        (repository(Some("one")), commit('a'), root("")),
        (repository(Some("two")), commit('a'), root("")),
        (repository(Some("")), commit('a'), root("")),
        (Repository { org, ..repository(None) }, commit('a'), root("")),
        (Repository { url, ..repository(None) }, commit('a'), root("")),
    ];
    for round in 0..2 {
        for (repository, commit, root) in &requests {
            cache.fetch(&context, repository, commit, root).await.unwrap();
        }
        assert_eq!(provider.fetches(), requests.len(), "round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_at_once_fetch_once() {
    let (provider, cache) = cached(Provider::default());
    let context = context();
    let trees = join_all((0..20).map(|_| fetch(&cache, &context))).await;
    assert!(trees.iter().all(Result::is_ok));
    assert_eq!((provider.fetches(), seconds(&context)), (1, 10));
}

#[tokio::test(start_paused = true)]
async fn a_failure_goes_to_all_who_wait_and_is_not_kept() {
    let (provider, cache) = cached(Provider { failures: 1, ..Provider::default() });
    let context = context();
    for result in join_all((0..20).map(|_| fetch(&cache, &context))).await {
        let error = result.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (Kind::Unavailable, Some("down")));
        assert_eq!(error.retryable(), error::Retry::Transient { after: None });
    }
    assert_eq!((provider.fetches(), seconds(&context)), (1, 10), "an ailing server is asked once");
    fetch(&cache, &context).await.expect("the next one asks again");
    assert_eq!(provider.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn when_the_one_who_asks_is_cancelled_the_next_one_asks() {
    let (provider, cache) = cached(Provider::default());
    let (first, second) = (context(), context());
    let cancel = async {
        first.clock().sleep(SECOND).await;
        first.cancel();
    };
    let (one, two, ()) = tokio::join!(fetch(&cache, &first), fetch(&cache, &second), cancel);
    assert_eq!(one.unwrap_err().kind(), Kind::Cancelled);
    two.unwrap();
    assert_eq!((provider.fetches(), seconds(&second)), (2, 11));
}

#[tokio::test(start_paused = true)]
async fn when_the_one_who_asks_runs_out_of_time_the_next_one_asks() {
    let (provider, cache) = cached(Provider::default());
    let (first, second) = (context().with_budget(SECOND), context());
    let (one, two) = tokio::join!(fetch(&cache, &first), fetch(&cache, &second));
    assert_eq!(one.unwrap_err().kind(), Kind::Timeout);
    two.unwrap();
    assert_eq!(provider.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn when_the_one_who_asks_is_dropped_the_next_one_asks() {
    let (provider, cache) = cached(Provider::default());
    let context = context();
    let mut first = Box::pin(fetch(&cache, &context));
    let mut second = Box::pin(fetch(&cache, &context));
    assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
    assert_eq!(provider.fetches(), 1);
    drop(first);
    second.await.unwrap();
    assert_eq!((provider.fetches(), seconds(&context)), (2, 10));
}

#[tokio::test(start_paused = true)]
async fn who_waits_can_be_cancelled_alone() {
    let (provider, cache) = cached(Provider::default());
    let (first, second) = (context(), context());
    let cancel = async {
        second.clock().sleep(SECOND).await;
        second.cancel();
        seconds(&second)
    };
    let waiting = async {
        let result = fetch(&cache, &second).await;
        (result.map(|_| ()), seconds(&second))
    };
    let (one, (two, ended), _) = tokio::join!(fetch(&cache, &first), waiting, cancel);
    one.unwrap();
    assert_eq!((two.unwrap_err().kind(), ended, provider.fetches()), (Kind::Cancelled, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn forgetting_forgets_what_was_kept() {
    let (provider, cache) = cached(Provider::default());
    let context = context();
    fetch(&cache, &context).await.unwrap();
    cache.forget(&OrgId::default_org(), &repository(None).url).await.unwrap();
    fetch(&cache, &context).await.unwrap();
    assert_eq!(provider.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_being_fetched_while_it_is_forgotten_is_not_kept() {
    let (provider, cache) = cached(Provider::default());
    let context = context();
    let mut first = Box::pin(fetch(&cache, &context));
    assert!(first.as_mut().now_or_never().is_none());
    cache.forget(&OrgId::default_org(), &repository(None).url).await.unwrap();
    first.await.unwrap();
    fetch(&cache, &context).await.unwrap();
    assert_eq!(provider.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn it_keeps_no_more_than_it_may() {
    let provider = Arc::new(Provider::default());
    let cache = Cache::trees(provider.clone(), 1);
    let context = context();
    for digit in ['a', 'b', 'c', 'd', 'a'] {
        cache.fetch(&context, &repository(None), &commit(digit), &root("")).await.unwrap();
        cache.fetch(&context, &repository(None), &commit(digit), &root("")).await.unwrap();
    }
    assert_eq!(provider.fetches(), 5, "the newest is kept, the oldest is fetched again");
}

#[tokio::test(start_paused = true)]
async fn branches_are_asked_about_each_time() {
    let mut provider = MockGitProvider::new();
    provider.expect_branches().times(2).returning(|_, _| Ok(Branches::default()));
    provider
        .expect_resolve()
        .times(2)
        .returning(|_, _, _| Ok(Revision { commit: commit('a'), branch: None }));
    let cache = Cache::trees(provider, 8);
    for _ in 0..2 {
        cache.branches(&context(), &repository(None)).await.unwrap();
        cache.resolve(&context(), &repository(None), &Reference::Default).await.unwrap();
    }
}

/// A builder with at most one image; `remove` waits until it is let through.
#[derive(Debug, Default)]
struct Builder {
    image: std::sync::Mutex<Option<Image>>,
    finds: AtomicUsize,
    let_through: Notify,
}

impl Builder {
    fn with(digest: &str) -> Arc<Self> {
        let builder = Self::default();
        builder.put(digest);
        Arc::new(builder)
    }

    fn put(&self, digest: &str) {
        *self.image.lock().unwrap() = Some(Image { digest: digest.to_owned(), port: None });
    }

    fn finds(&self) -> usize {
        self.finds.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl ImageBuilder for Builder {
    async fn key(&self, _: &Context, _: &BuildRequest) -> Result<BuildKey> {
        unreachable!()
    }

    async fn find(&self, _: &Context, _: &BuildKey) -> Result<Option<Image>> {
        self.finds.fetch_add(1, Ordering::SeqCst);
        Ok(self.image.lock().unwrap().clone())
    }

    async fn build(&self, _: &Context, _: &BuildRequest, _: &BuildKey) -> Result<Image> {
        self.put("sha256:built");
        Ok(Image { digest: "sha256:built".to_owned(), port: None })
    }

    async fn remove(&self, _: &Context, _: &str) -> Result<()> {
        *self.image.lock().unwrap() = None;
        self.let_through.notified().await;
        Err(Error::new(Kind::Unavailable, "builder.remove", "the answer was lost"))
    }

    async fn list(&self, _: &Context, _: &Selector) -> Result<Vec<StoredImage>> {
        unreachable!()
    }

    async fn prune(&self, _: &Context, _: u64) -> Result<u64> {
        unreachable!()
    }
}

fn key(text: &str) -> BuildKey {
    BuildKey(text.to_owned())
}

#[tokio::test(start_paused = true)]
async fn an_image_that_was_found_is_not_looked_for_again() {
    let builder = Builder::with("sha256:one");
    let cache = Cache::images(builder.clone(), 8);
    let context = context();
    for _ in 0..3 {
        assert_eq!(cache.find(&context, &key("k")).await.unwrap().unwrap().digest, "sha256:one");
    }
    assert_eq!(builder.finds(), 1);
    cache.find(&context, &key("other")).await.unwrap();
    assert_eq!(builder.finds(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_not_there_is_looked_for_each_time() {
    let builder = Arc::new(Builder::default());
    let cache = Cache::images(builder.clone(), 8);
    assert_eq!(cache.find(&context(), &key("k")).await.unwrap(), None);
    builder.put("sha256:one");
    assert!(cache.find(&context(), &key("k")).await.unwrap().is_some());
    assert_eq!(builder.finds(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_removed_image_is_not_found_even_if_the_removal_failed_or_was_dropped() {
    let builder = Builder::with("sha256:one");
    let cache = Cache::images(builder.clone(), 8);
    let context = context();
    let image = cache.find(&context, &key("k")).await.unwrap().unwrap();
    builder.let_through.notify_one();
    cache.remove(&context, &image.digest).await.unwrap_err();
    assert_eq!(cache.find(&context, &key("k")).await.unwrap(), None);

    builder.put("sha256:one");
    cache.find(&context, &key("k")).await.unwrap().unwrap();
    assert!(cache.remove(&context, &image.digest).now_or_never().is_none(), "dropped on its way");
    assert_eq!(cache.find(&context, &key("k")).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn an_image_deleted_behind_its_back_is_missed_within_half_a_minute() {
    let builder = Builder::with("sha256:one");
    let cache = Cache::images(builder.clone(), 8);
    let context = context();
    cache.find(&context, &key("k")).await.unwrap().unwrap();
    *builder.image.lock().unwrap() = None;
    context.clock().sleep(Duration::from_secs(30)).await;
    assert_eq!(cache.find(&context, &key("k")).await.unwrap(), None);
}
