//! Goal 5: a build of 10,000 files, unchanged and with one file changed, against the engine's own command line.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use paas_core::memory::{MemoryFile, MemoryFiles};
use paas_core::{
    AppId, BuildLimits, BuildPlan, BuildRequest, Clock, DeploymentId, Dockerfile, GitProvider, ImageBuilder,
    OrgId, RandomIds, Reference, Repository, RootDirectory, Selector, SystemClock,
};
use paas_docker::DockerBuilder;
use paas_git::GixProvider;
use paas_git::testing::GitServer;
use tokio::process::Command;

use crate::contest::{Contest, Turn};
use crate::installation::{BASE, DOCKERFILE, context, engine, provider, site};
use crate::report::{Report, Target};
use crate::{Effort, Result, peers};

const FILES: usize = 10_000;
const OURS: &str = "builder";
const COMMAND: &str = "docker build (BuildKit)";
const TAG: &str = "paas-bench-build";

pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let (folder, clock) = (tempfile::tempdir()?, SystemClock::new());
    let docker = peers::docker().await?;
    let context = context();
    let builder = DockerBuilder::new(engine().await?);
    let (server, provider) = (GitServer::temporary().await?, provider(&folder.path().join("mirrors"))?);
    let ids = RandomIds::new(SystemClock::new());
    let app = AppId::generate(&ids);
    let work = folder.path().join("work");
    write(&work, &site(FILES, 0)).await?;

    let (mut unchanged, mut changed) = (Contest::default(), Contest::default());
    for round in 0..=effort.rounds {
        let request = request(&server, &provider, &app, &ids, round).await?;
        tokio::fs::write(work.join("index.html"), format!("<h1>version {round}</h1>\n")).await?;

        let begun = clock.elapsed();
        let key = builder.key(&context, &request).await?;
        builder.build(&context, &request, &key).await?;
        let ours_changed = clock.elapsed() - begun;
        let theirs_changed = command(&docker, &work).await?;

        let begun = clock.elapsed();
        let key = builder.key(&context, &request).await?;
        builder.find(&context, &key).await?.ok_or("what was built is not found again")?;
        let ours_unchanged = clock.elapsed() - begun;
        let theirs_unchanged = command(&docker, &work).await?;
        // The first builds fill the caches.
        if round > 0 {
            changed.add(OURS, Turn::of_time(ours_changed));
            changed.add(COMMAND, Turn::of_time(theirs_changed));
            unchanged.add(OURS, Turn::of_time(ours_unchanged));
            unchanged.add(COMMAND, Turn::of_time(theirs_unchanged));
        }
    }
    for image in builder.list(&context, &Selector::of_app(&OrgId::default_org(), &app)).await? {
        builder.remove(&context, &image.digest).await?;
    }
    Command::new(&docker).args(["image", "rm", TAG]).stdout(Stdio::null()).status().await?;
    let row = |what, contest, target| (what, contest, [(COMMAND, Some(Target::AtMost(target)))]);
    for (what, contest, peers) in [
        row("build, 10,000 files, unchanged", &unchanged, 0.05),
        row("build, 10,000 files, one changed", &changed, 0.1),
    ] {
        report.contest(5, what, "ms", contest, OURS, &peers);
    }
    Ok(())
}

async fn request(
    server: &GitServer,
    provider: &GixProvider,
    app: &AppId,
    ids: &RandomIds<SystemClock>,
    round: usize,
) -> Result<BuildRequest> {
    server.commit("site", "main", site(FILES, round)).await?;
    let repository = Repository { org: OrgId::default_org(), url: server.url("site"), token: None };
    let context = context();
    let revision = provider.resolve(&context, &repository, &Reference::Default).await?;
    let tree = provider.fetch(&context, &repository, &revision.commit, &RootDirectory::default()).await?;
    Ok(BuildRequest {
        org: OrgId::default_org(),
        app: app.clone(),
        deployment: DeploymentId::generate(ids),
        tree,
        plan: BuildPlan {
            recipe: "dockerfile".to_owned(),
            version: None,
            framework: None,
            reasons: Vec::new(),
            install: Vec::new(),
            build: Vec::new(),
            start: Vec::new(),
            port: None,
            dockerfile: Dockerfile::Generated { text: DOCKERFILE.to_owned(), files: BTreeMap::new() },
            base_images: vec![BASE.to_owned()],
        },
        no_cache: false,
        limits: BuildLimits::default(),
    })
}

/// Writes the files to disk, where the engine's command line takes them from.
async fn write(folder: &Path, files: &MemoryFiles) -> Result<()> {
    for (path, file) in files.iter() {
        if let MemoryFile::File { bytes, .. } = file {
            let path = folder.join(path);
            tokio::fs::create_dir_all(path.parent().unwrap_or(folder)).await?;
            tokio::fs::write(path, bytes).await?;
        }
    }
    Ok(())
}

async fn command(docker: &Path, folder: &Path) -> Result<Duration> {
    let clock = SystemClock::new();
    let status = Command::new(docker)
        .args(["build", "--quiet", "--tag", TAG])
        .arg(folder)
        .env("DOCKER_BUILDKIT", "1")
        .stdout(Stdio::null())
        .status()
        .await?;
    if !status.success() {
        return Err("docker build failed".into());
    }
    Ok(clock.elapsed())
}
