//! A real server and a real provider.
#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(dead_code, unreachable_pub)] // each test binary uses its part of it

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use paas_core::memory::MemoryFiles;
use paas_core::testing::git_provider::GitHarness;
use paas_core::{
    CommitId, Context, EgressPolicy, GitProvider, GitUrl, OrgId, Repository, Result, Secret, SourceTree,
    SystemClock,
};
use paas_git::testing::{GitFault, GitServer};
use paas_git::{GitLimits, GitOptions, GixProvider};
use tempfile::TempDir;

/// A provider that may call the server beside it, and no other local address.
pub struct Real {
    pub server: GitServer,
    pub provider: GixProvider,
    pub mirrors: TempDir,
}

impl Real {
    pub async fn new() -> Self {
        Self::with(GitLimits::default()).await
    }

    pub async fn with(limits: GitLimits) -> Self {
        let server = GitServer::temporary().await.expect("install git: apt-get install git");
        let mirrors = tempfile::tempdir().unwrap();
        let provider = provider(mirrors.path(), &server, limits);
        Self { server, provider, mirrors }
    }

    pub fn repository(&self, name: &str) -> Repository {
        Repository { org: OrgId::default_org(), url: self.server.url(name), token: None }
    }

    pub fn with_token(&self, name: &str, token: &str) -> Repository {
        Repository { token: Some(Secret::from(token)), ..self.repository(name) }
    }

    pub async fn fetch(&self, name: &str, commit: &CommitId) -> Result<Arc<dyn SourceTree>> {
        self.provider.fetch(&context(), &self.repository(name), commit, &"".parse().unwrap()).await
    }

    pub async fn commit_files(&self, name: &str, files: impl Into<MemoryFiles>) -> CommitId {
        self.server.commit(name, "main", files).await.unwrap()
    }
}

pub fn provider(mirrors: &Path, server: &GitServer, limits: GitLimits) -> GixProvider {
    let egress = EgressPolicy::default().allowing(server.address().to_string());
    GixProvider::open(mirrors, GitOptions { egress, limits, ..GitOptions::default() }).unwrap()
}

pub fn context() -> Context {
    Context::new(Arc::new(SystemClock::new()))
}

/// Every file below a directory.
pub fn files_below(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

#[async_trait]
impl GitHarness for Real {
    fn provider(&self) -> Arc<dyn GitProvider> {
        Arc::new(self.provider.clone())
    }

    fn url(&self, name: &str) -> GitUrl {
        self.server.url(name)
    }

    async fn create(&self, name: &str) {
        self.server.create(name).await.unwrap();
    }

    async fn commit(&self, name: &str, branch: &str, files: MemoryFiles) -> CommitId {
        self.server.commit(name, branch, files).await.unwrap()
    }

    async fn tag(&self, name: &str, tag: &str, commit: &CommitId) {
        self.server.git(name, &["tag", tag, commit.as_str()], &[]).await.unwrap();
    }

    async fn require_token(&self, name: &str, token: &str) {
        self.server.require_token(name, token);
    }

    async fn break_once(&self, name: &str) {
        self.server.fault(name, GitFault::Status { status: 503, times: 1, retry_after_seconds: None });
    }

    async fn stall(&self, name: &str, is_stalled: bool) {
        self.server.fault(name, is_stalled.then_some(GitFault::Stall));
    }

    fn requests(&self, name: &str) -> u64 {
        self.server.requests(name)
    }
}
