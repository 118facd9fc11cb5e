//! The in-memory git provider keeps every promise of the trait.
#![cfg(feature = "testing")]
#![allow(clippy::unwrap_used)]

mod wrapped;

use std::sync::Arc;

use async_trait::async_trait;
use paas_core::memory::{MemoryFiles, MemoryGit};
use paas_core::testing::git_provider::GitHarness;
use paas_core::wrap::{Cache, Timeout, TimeoutPolicy};
use paas_core::{CommitId, Error, Fault, GitProvider, GitUrl, Kind};
use wrapped::observed;

/// A git server, and what the suite asks: its provider, or that one wrapped.
struct Memory(MemoryGit, Arc<dyn GitProvider>);

impl Memory {
    fn plain() -> Self {
        let git = MemoryGit::new();
        Self(git.clone(), Arc::new(git))
    }

    /// Without `Retry`: the suite looks at errors that it would try again.
    fn wrapped() -> Self {
        let Self(git, provider) = Self::plain();
        let provider = Timeout::new(provider, TimeoutPolicy::default());
        Self(git, Arc::new(observed(Cache::trees(provider, 16))))
    }
}

#[async_trait]
impl GitHarness for Memory {
    fn provider(&self) -> Arc<dyn GitProvider> {
        self.1.clone()
    }

    fn url(&self, name: &str) -> GitUrl {
        format!("https://git.test/{name}").parse().unwrap()
    }

    async fn create(&self, name: &str) {
        self.0.create(&self.url(name));
    }

    async fn commit(&self, name: &str, branch: &str, files: MemoryFiles) -> CommitId {
        self.0.commit(&self.url(name), &branch.parse().unwrap(), files)
    }

    async fn tag(&self, name: &str, tag: &str, commit: &CommitId) {
        self.0.tag(&self.url(name), &tag.parse().unwrap(), commit);
    }

    async fn require_token(&self, name: &str, token: &str) {
        self.0.require_token(&self.url(name), token);
    }

    async fn break_once(&self, name: &str) {
        let error = Error::new(Kind::Unavailable, "git.fetch", "out of order").fault(Fault::Upstream);
        self.0.fail(&self.url(name), &error, 1);
    }

    async fn stall(&self, _name: &str, is_stalled: bool) {
        if is_stalled { self.0.hold() } else { self.0.release() }
    }

    fn requests(&self, name: &str) -> u64 {
        self.0.requests(&self.url(name))
    }
}

mod plain {
    use super::*;
    paas_core::conformance!(git_provider, || async { Memory::plain() });
}

mod in_wrappers {
    use super::*;
    paas_core::conformance!(git_provider, || async { Memory::wrapped() });
}
