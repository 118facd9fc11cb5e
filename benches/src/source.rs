//! Goal 6: one new commit, until its whole tree was read, against `git clone --depth 1`.

use std::process::Stdio;

use futures::TryStreamExt;
use paas_core::{Clock, GitProvider, OrgId, PathFilter, Reference, Repository, RootDirectory, SystemClock};
use paas_git::testing::GitServer;
use tokio::process::Command;

use crate::contest::{Contest, Turn};
use crate::installation::{context, provider, site};
use crate::report::{Report, Target};
use crate::{Effort, Result};

const OURS: &str = "mirror fetch, tree streamed as a tar";
const CLONE: &str = "git clone --depth 1";

pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<()> {
    for count in [500, 10_000] {
        let contest = measure(effort, count).await?;
        let what = format!("one new commit of {count} files");
        report.contest(6, &what, "ms", &contest, OURS, &[(CLONE, Some(Target::AtMost(0.5)))]);
    }
    Ok(())
}

async fn measure(effort: Effort, count: usize) -> Result<Contest> {
    let (folder, clock) = (tempfile::tempdir()?, SystemClock::new());
    let (server, provider) = (GitServer::temporary().await?, provider(&folder.path().join("mirrors"))?);
    let repository = Repository { org: OrgId::default_org(), url: server.url("site"), token: None };
    let context = context();
    let mut contest = Contest::default();
    for round in 0..=effort.rounds {
        server.commit("site", "main", site(count, round)).await?;

        let begun = clock.elapsed();
        let revision = provider.resolve(&context, &repository, &Reference::Default).await?;
        let root = RootDirectory::default();
        let tree = provider.fetch(&context, &repository, &revision.commit, &root).await?;
        let read =
            tree.archive(PathFilter::all()).try_fold(0, |sum, part| async move { Ok(sum + part.len()) });
        let bytes = read.await?;
        let ours = clock.elapsed() - begun;
        if bytes < count * 100 {
            return Err(format!("only {bytes} bytes of {count} files were read").into());
        }

        let begun = clock.elapsed();
        let status = Command::new("git")
            .args(["clone", "--quiet", "--depth", "1", repository.url.as_str()])
            .arg(folder.path().join(format!("clone-{round}")))
            .stdin(Stdio::null())
            .status()
            .await?;
        let theirs = clock.elapsed() - begun;
        if !status.success() {
            return Err("git clone failed".into());
        }
        // The first fetch fills the mirror: what an app's first deployment takes, not its later ones.
        if round > 0 {
            contest.add(OURS, Turn::of_time(ours));
            contest.add(CLONE, Turn::of_time(theirs));
        }
    }
    Ok(contest)
}
