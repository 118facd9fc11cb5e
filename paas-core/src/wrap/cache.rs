//! Not asking twice for what never changes.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};

use super::single_flight::{Key, SingleFlight};
use crate::context::Context;
use crate::domain::{CommitId, GitUrl, Image, OrgId, RootDirectory};
use crate::error::Result;
use crate::git::{Branches, GitProvider, Reference, Repository, Revision, SourceTree};
use crate::image::{BuildKey, BuildRequest, ImageBuilder, StoredImage};
use crate::runtime::Selector;

/// Keeps what immutable keys name: source trees by commit ([`Cache::trees`]), images by build key
/// ([`Cache::images`]). Branches are asked about each time.
///
/// # Guarantees
/// - At most as many entries as it was given; the least recently used one goes first.
/// - What is asked for by many at once is asked for once. Who waits has its own cancellation and budget; when the
///   one who asks is cancelled or dropped, the next in line asks. Failures are not kept.
/// - `forget` and `remove` make everything kept so far unreachable, also what is being brought at that moment.
///
/// # Assumptions
/// - A tree can be read as long as somebody holds it, whatever becomes of what it was fetched into. An adapter for
///   which this does not hold is not given this wrapper.
/// - Somebody else may delete an image behind the builder's back. So it is believed for at most
///   [`MAX_IMAGE_AGE`](Self::MAX_IMAGE_AGE), and `build` always asks the builder.
#[derive(Debug)]
pub struct Cache<T, V> {
    inner: T,
    entries: SingleFlight<V>,
    /// Part of every key: what is stored late, by a call that began before a removal, is not found after it.
    epoch: AtomicU64,
}

impl<T> Cache<T, Arc<dyn SourceTree>> {
    /// Keeps the last `capacity` trees of a [`GitProvider`]; each may hold the list of its entries.
    pub fn trees(inner: T, capacity: u64) -> Self {
        Self::new(inner, capacity)
    }
}

impl<T> Cache<T, Option<Image>> {
    /// Keeps the last `capacity` images that an [`ImageBuilder`] found.
    pub fn images(inner: T, capacity: u64) -> Self {
        Self::new(inner, capacity)
    }
}

impl<T, V: Clone + Send + Sync + 'static> Cache<T, V> {
    /// How long an image that was found is taken to be there still.
    pub const MAX_IMAGE_AGE: Duration = Duration::from_secs(30);

    fn new(inner: T, capacity: u64) -> Self {
        Self { inner, entries: SingleFlight::new(capacity), epoch: AtomicU64::new(0) }
    }

    /// A digest, so that no token stays in memory as a key; lengths keep the parts apart.
    fn key(&self, parts: &[&str]) -> Key {
        let mut digest = Sha256::new();
        digest.update(self.epoch.load(Ordering::SeqCst).to_be_bytes());
        for part in parts {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    /// Ends the epoch when the answer is dropped: after what may have removed something, however far it came.
    fn ending_epoch(&self) -> EndingEpoch<'_, T, V> {
        EndingEpoch(self)
    }
}

struct EndingEpoch<'a, T, V: Clone + Send + Sync + 'static>(&'a Cache<T, V>);

impl<T, V: Clone + Send + Sync + 'static> Drop for EndingEpoch<'_, T, V> {
    fn drop(&mut self) {
        self.0.epoch.fetch_add(1, Ordering::SeqCst);
        self.0.entries.clear();
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: GitProvider> GitProvider for Cache<T, Arc<dyn SourceTree>> {
    async fn branches(&self, context: &Context, repository: &Repository) -> Result<Branches> {
        self.inner.branches(context, repository).await
    }

    async fn resolve(
        &self,
        context: &Context,
        repository: &Repository,
        reference: &Reference,
    ) -> Result<Revision> {
        self.inner.resolve(context, repository, reference).await
    }

    async fn fetch(
        &self,
        context: &Context,
        repository: &Repository,
        commit: &CommitId,
        root: &RootDirectory,
    ) -> Result<Arc<dyn SourceTree>> {
        // Who has no token and who has an empty one are not the same.
        let (has_token, token) = match &repository.token {
            Some(token) => ("token", token.expose()),
            None => ("", ""),
        };
        let (org, url) = (repository.org.as_str(), repository.url.as_str());
        let key = self.key(&[org, url, has_token, token, commit.as_str(), root.as_str()]);
        let fetch = self.inner.fetch(context, repository, commit, root);
        self.entries.get(key, context, "git.fetch", fetch, |_| true).await
    }

    async fn forget(&self, org: &OrgId, url: &GitUrl) -> Result<()> {
        let _ending = self.ending_epoch();
        self.inner.forget(org, url).await
    }
}

#[deny(clippy::missing_trait_methods)]
#[async_trait]
impl<T: ImageBuilder> ImageBuilder for Cache<T, Option<Image>> {
    async fn key(&self, context: &Context, request: &BuildRequest) -> Result<BuildKey> {
        self.inner.key(context, request).await
    }

    async fn find(&self, context: &Context, key: &BuildKey) -> Result<Option<Image>> {
        // The period is part of the key: what was found in the one before is not found any more.
        let period = context.clock().elapsed().as_secs() / Self::MAX_IMAGE_AGE.as_secs();
        let entry = Self::key(self, &[&key.0, &period.to_string()]);
        let find = self.inner.find(context, key);
        self.entries.get(entry, context, "image.find", find, Option::is_some).await
    }

    async fn build(&self, context: &Context, request: &BuildRequest, key: &BuildKey) -> Result<Image> {
        // Building again on purpose puts another image under a key that has one.
        let _ending = request.no_cache.then(|| self.ending_epoch());
        self.inner.build(context, request, key).await
    }

    async fn remove(&self, context: &Context, digest: &str) -> Result<()> {
        let _ending = self.ending_epoch();
        self.inner.remove(context, digest).await
    }

    async fn list(&self, context: &Context, selector: &Selector) -> Result<Vec<StoredImage>> {
        self.inner.list(context, selector).await
    }

    async fn prune(&self, context: &Context, keep_bytes: u64) -> Result<u64> {
        self.inner.prune(context, keep_bytes).await
    }
}
