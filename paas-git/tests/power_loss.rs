//! After a loss of power every commit can be fetched, whatever is left of the mirrors.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{context, provider};
use fallible_disk::Disk;
use paas_core::memory::MemoryFiles;
use paas_core::{CommitId, GitProvider as _, OrgId, Repository, Result};
use paas_git::testing::GitServer;
use paas_git::{GitLimits, GixProvider};

const PAGES: usize = 40;

#[test]
fn disk_process() {
    fallible_disk::process();
}

fn page(page: usize, number: usize) -> (String, String) {
    // Most pages stay from one commit to the next.
    let number = if page.is_multiple_of(10) { number } else { 0 };
    (format!("pages/{page}"), format!("page {page} of {number} {}", "text ".repeat(page * 7)))
}

async fn fetch(provider: &GixProvider, server: &GitServer, commit: &CommitId, number: usize) -> Result<()> {
    let repository = Repository { org: OrgId::default_org(), url: server.url("app"), token: None };
    let tree = provider.fetch(&context(), &repository, commit, &"".parse().unwrap()).await?;
    for index in 0..PAGES {
        let (path, text) = page(index, number);
        assert_eq!(tree.read(&path, 10_000).await?.expect("it is there"), text);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_are_fetched_again_whatever_is_left_of_the_mirror() {
    let server = GitServer::temporary().await.unwrap();
    let mut commits = Vec::new();
    for number in 0..6 {
        let files: MemoryFiles = (0..PAGES).map(|index| page(index, number)).collect();
        commits.push(server.commit("app", "main", files).await.unwrap());
    }
    let mut cuts = 0;
    for seed in 0..5 {
        let disk = Disk::mount().unwrap();
        let mirrors = disk.path().join("mirrors");
        for (number, commit) in commits.iter().enumerate() {
            let provider = provider(&mirrors, &server, GitLimits::default());
            disk.cut_after((seed * 7 + number as u64 * 5) % 23, seed * 100 + number as u64);
            let fetched = fetch(&provider, &server, commit, number).await;
            assert!(fetched.is_ok() || disk.is_cut(), "{fetched:?}");
            cuts += u32::from(disk.is_cut());
            disk.cut(seed);
            disk.restore();
            // All that came before, too: the mirror may have one part of it and not the other.
            for (number, commit) in commits.iter().enumerate().take(number + 1) {
                let provider = common::provider(&mirrors, &server, GitLimits::default());
                let fetched = fetch(&provider, &server, commit, number).await;
                fetched.unwrap_or_else(|error| panic!("seed {seed}, commit {number}: {error:?}"));
            }
        }
    }
    assert!(cuts > 10, "{cuts}");
}
