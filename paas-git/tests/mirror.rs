//! What lies on disk: small steps, crashes, several at a time, and nothing that should not be there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{Real, context, files_below, provider};
use paas_core::memory::MemoryFiles;
use paas_core::{Clock as _, Fault, GitProvider as _, Kind, RootDirectory, SystemClock};
use paas_git::GitLimits;
use paas_git::testing::{GitFault, GitServer};

/// What the child of [`a_killed_fetch_hinders_nobody`] is told by.
const CHILD: &str = "PAAS_GIT_TEST_CHILD";

fn site(number: usize) -> MemoryFiles {
    let page =
        |page: usize| (format!("pages/{page}.html"), format!("page {page} {}", "text ".repeat(page * 7)));
    (0..300).map(page).collect::<MemoryFiles>().file("changing", number.to_string())
}

fn file_names(real: &Real) -> Vec<String> {
    let files = files_below(real.mirrors.path());
    files.iter().map(|file| file.file_name().unwrap().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_commit_moves_only_what_is_new() {
    let real = Real::new().await;
    let first = real.commit_files("app", site(1)).await;
    real.fetch("app", &first).await.unwrap();
    let all = real.server.bytes_sent("app");
    let second = real.commit_files("app", site(2)).await;
    real.fetch("app", &second).await.unwrap();
    let new = real.server.bytes_sent("app") - all;
    assert!(new * 5 < all, "{new} bytes after {all}");
}

/// A repository that stays open fails on its 33rd fetch; and a mirror does not grow for ever.
#[tokio::test(flavor = "multi_thread")]
async fn forty_commits_are_fetched_one_after_the_other() {
    for mirror_packs in [64, 10] {
        let real = Real::with(GitLimits { mirror_packs, ..GitLimits::default() }).await;
        for number in 0..40 {
            let commit = real.commit_files("app", [("n", number.to_string())]).await;
            let tree = real.fetch("app", &commit).await.unwrap();
            assert_eq!(tree.read("n", 10).await.unwrap().unwrap(), number.to_string());
        }
        let packs = file_names(&real).iter().filter(|name| name.ends_with(".pack")).count();
        assert!(packs <= mirror_packs, "{packs} packs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_providers_share_a_directory() {
    let real = Real::new().await;
    let other = provider(real.mirrors.path(), &real.server, GitLimits::default());
    let mut commits = Vec::new();
    for number in 0..8 {
        commits.push(real.commit_files("app", [("n", number.to_string())]).await);
    }
    let (context, root, repository) = (context(), RootDirectory::default(), real.repository("app"));
    let fetches = commits.iter().flat_map(|commit| {
        [&real.provider, &other].map(|provider| provider.fetch(&context, &repository, commit, &root))
    });
    for fetched in futures::future::join_all(fetches).await {
        fetched.unwrap();
    }
}

/// Numbers hardly compress: at the pace of a slow server, fetching them takes minutes.
fn large() -> String {
    (0..20_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()).collect()
}

/// Not a test by itself: the process that is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by a_killed_fetch_hinders_nobody"]
async fn child_that_fetches() {
    let told = std::env::var(CHILD).expect("run by a_killed_fetch_hinders_nobody");
    let [mirrors, url, commit] = told.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let egress = paas_core::EgressPolicy::default().allowing("127.0.0.1");
    let options = paas_git::GitOptions { egress, ..Default::default() };
    let provider = paas_git::GixProvider::open(mirrors, options).unwrap();
    let org = paas_core::OrgId::default_org();
    let repository = paas_core::Repository { org, url: url.parse().unwrap(), token: None };
    let _ = provider.fetch(&context(), &repository, &commit.parse().unwrap(), &"".parse().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_fetch_hinders_nobody() {
    let real = Real::new().await;
    let first = real.commit_files("app", site(1)).await;
    real.fetch("app", &first).await.unwrap();
    let second = real.commit_files("app", site(2).file("large", large())).await;
    real.server.fault("app", GitFault::Slow { bytes: 200, pause: Duration::from_millis(20) });
    let told = format!("{} {} {second}", real.mirrors.path().display(), real.server.url("app"));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child_that_fetches", "--exact", "--ignored"])
        .env(CHILD, told)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let clock = SystemClock::new();
    while !file_names(&real).iter().any(|name| name.starts_with(".tmp")) {
        assert!(child.try_wait().unwrap().is_none(), "it was to be in mid-fetch");
        clock.sleep(Duration::from_millis(5)).await;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(file_names(&real).contains(&"shallow.lock".to_owned()), "it left what blocks others");
    real.server.fault("app", None);
    let tree = real.fetch("app", &second).await.expect("the next fetch cleans up");
    assert_eq!(tree.read("changing", 10).await.unwrap().unwrap(), "2");
    let left = file_names(&real);
    assert!(!left.iter().any(|name| name.starts_with(".tmp") || name == "shallow.lock"), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_fetch_leaves_nothing_half_made() {
    let real = Real::new().await;
    let commit = real.commit_files("app", site(1).file("large", large())).await;
    real.server.fault("app", GitFault::Slow { bytes: 200, pause: Duration::from_millis(20) });
    let (context, repository, root) = (context(), real.repository("app"), RootDirectory::default());
    let cancel = async {
        while !file_names(&real).iter().any(|name| name.starts_with(".tmp")) {
            context.clock().sleep(Duration::from_millis(5)).await;
        }
        context.cancel();
    };
    let (fetched, ()) = tokio::join!(real.provider.fetch(&context, &repository, &commit, &root), cancel);
    assert_eq!(fetched.unwrap_err().kind(), paas_core::Kind::Cancelled);
    assert_eq!(file_names(&real), ["lock"], "the call had cleaned up when it returned");
}

/// Neither the caller's change of mind nor what the server says is the fault of what was fetched before.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_fetch_keeps_the_mirror() {
    let real = Real::new().await;
    let first = real.commit_files("app", site(1)).await;
    real.fetch("app", &first).await.unwrap();
    let kept = file_names(&real);
    let second = real.commit_files("app", site(2).file("large", large())).await;

    real.server.fault("app", GitFault::Pack("0010ERR go away\n".into()));
    let error = real.fetch("app", &second).await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::Unavailable, Fault::Upstream), "{error:?}");
    assert_eq!(file_names(&real), kept);

    real.server.fault("app", GitFault::Slow { bytes: 200, pause: Duration::from_millis(20) });
    let (context, repository, root) = (context(), real.repository("app"), RootDirectory::default());
    let cancel = async {
        while !file_names(&real).iter().any(|name| name.starts_with(".tmp")) {
            context.clock().sleep(Duration::from_millis(5)).await;
        }
        context.cancel();
    };
    let (fetched, ()) = tokio::join!(real.provider.fetch(&context, &repository, &second, &root), cancel);
    assert_eq!(fetched.unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(file_names(&real), kept);

    real.server.fault("app", None);
    let before = real.server.requests("app");
    real.fetch("app", &first).await.unwrap();
    assert_eq!(real.server.requests("app"), before, "it is still here");
}

/// Power loss left zeros in the middle of a file: it is found out when the file is read, and fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_fetched_again() {
    let real = Real::new().await;
    let large: String =
        (0..20_000_u64).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()).collect();
    let commit = real.commit_files("app", [("large", large.clone())]).await;
    real.fetch("app", &commit).await.unwrap();
    let files = files_below(real.mirrors.path());
    let pack = files.iter().find(|file| file.extension().is_some_and(|found| found == "pack")).unwrap();
    std::fs::set_permissions(pack, std::fs::Permissions::from_mode(0o600)).unwrap();
    let mut bytes = std::fs::read(pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 4096].fill(0);
    std::fs::write(pack, bytes).unwrap();
    let tree = real.fetch("app", &commit).await.expect("only its head is looked at");
    let error = tree.read("large", 1 << 20).await.unwrap_err();
    assert!(error.is_transient() && error.reason() == Some("mirror_damaged"), "{error:?}");
    let tree = real.fetch("app", &commit).await.unwrap();
    assert_eq!(tree.read("large", 1 << 20).await.unwrap().unwrap(), large);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_past_its_bytes_is_made_anew() {
    let real = Real::with(GitLimits { disk_bytes: 400_000, ..GitLimits::default() }).await;
    let mut state = 1_u64;
    for number in 0..6 {
        let file: String = (0..7000)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_string()
            })
            .collect();
        let commit = real.commit_files("app", [("file", file), ("n", number.to_string())]).await;
        real.fetch("app", &commit).await.unwrap();
        let held: u64 =
            files_below(real.mirrors.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
        assert!(held <= 400_000, "{held} bytes");
    }
}

/// Who waits for another fetch of the same repository does not blame the server.
#[tokio::test(flavor = "multi_thread")]
async fn waiting_for_another_fetch_is_not_the_servers_fault() {
    let real = Real::new().await;
    let commit = real.commit_files("app", site(1)).await;
    real.server.fault("app", GitFault::Stall);
    let limits = GitLimits { time: Duration::from_millis(300), ..GitLimits::default() };
    let impatient = provider(real.mirrors.path(), &real.server, limits);
    let (context, repository, root) = (context(), real.repository("app"), RootDirectory::default());
    let other = async {
        while !file_names(&real).contains(&"lock".to_owned()) || real.server.requests("app") == 0 {
            context.clock().sleep(Duration::from_millis(5)).await;
        }
        let error = impatient.fetch(&common::context(), &repository, &commit, &root).await.unwrap_err();
        context.cancel();
        error
    };
    let (_, error) = tokio::join!(real.provider.fetch(&context, &repository, &commit, &root), other);
    assert_eq!((error.kind(), error.whose()), (Kind::Timeout, Fault::Platform), "{error:?}");
}

#[test]
fn the_defaults_are_those_that_are_promised() {
    let limits = GitLimits::default();
    assert_eq!(limits.time, Duration::from_secs(5 * 60));
    assert_eq!((limits.disk_bytes, limits.pack_bytes), (2 << 30, 1 << 30));
}

/// Power loss, bit rot, a curious operator: what is broken is fetched again.
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_mirror_is_made_anew() {
    let real = Real::new().await;
    let commit = real.commit_files("app", site(1)).await;
    let damages: [fn(&std::path::Path); 4] = [
        |file| std::fs::write(file, "nonsense").unwrap(),
        |file| std::fs::remove_file(file).unwrap(),
        |file| {
            let length = file.metadata().unwrap().len();
            std::fs::OpenOptions::new().write(true).open(file).unwrap().set_len(length / 2).unwrap();
        },
        |file| std::fs::write(file, "").unwrap(),
    ];
    for extension in ["pack", "idx"] {
        for (number, damage) in damages.iter().enumerate() {
            real.fetch("app", &commit).await.unwrap();
            let files = files_below(real.mirrors.path());
            let file =
                files.iter().find(|file| file.extension().is_some_and(|found| found == extension)).unwrap();
            let mut permissions = file.metadata().unwrap().permissions();
            permissions.set_mode(0o600);
            std::fs::set_permissions(file, permissions).unwrap();
            damage(file);
            let fetched = real.fetch("app", &commit).await;
            let tree = fetched.unwrap_or_else(|error| panic!("{extension}, damage {number}: {error:?}"));
            assert_eq!(tree.read("changing", 10).await.unwrap().unwrap(), "1");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_in_no_file_and_only_we_can_look() {
    let real = Real::new().await;
    let commit = real.commit_files("private", site(1)).await;
    real.server.require_token("private", "s3cr3t-t0ken");
    let repository = real.with_token("private", "s3cr3t-t0ken");
    real.provider.fetch(&context(), &repository, &commit, &RootDirectory::default()).await.unwrap();
    for file in files_below(real.mirrors.path()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(12).any(|window| window == b"s3cr3t-t0ken"), "{file:?}");
        assert!(!file.to_string_lossy().contains("s3cr3t"));
        let mut directory = file.parent().unwrap();
        while directory != real.mirrors.path() {
            assert_eq!(directory.metadata().unwrap().permissions().mode() & 0o777, 0o700, "{directory:?}");
            directory = directory.parent().unwrap();
        }
    }
}

/// Tokens that last an hour do not fill the disk with mirrors.
#[tokio::test(flavor = "multi_thread")]
async fn mirrors_of_old_tokens_are_removed() {
    let real = Real::new().await;
    let commit = real.commit_files("app", site(1)).await;
    for number in 0..8 {
        let repository = real.with_token("app", &format!("token-{number}"));
        real.provider.fetch(&context(), &repository, &commit, &RootDirectory::default()).await.unwrap();
    }
    let packs = file_names(&real).iter().filter(|name| name.ends_with(".pack")).count();
    assert_eq!(packs, 4);
    let before = real.server.requests("app");
    let latest = real.with_token("app", "token-7");
    real.provider.fetch(&context(), &latest, &commit, &RootDirectory::default()).await.unwrap();
    assert_eq!(real.server.requests("app"), before, "the latest is still here");
}

#[tokio::test(flavor = "multi_thread")]
async fn forgetting_leaves_no_file() {
    let real = Real::new().await;
    let commit = real.commit_files("app", site(1)).await;
    real.fetch("app", &commit).await.unwrap();
    let org = paas_core::OrgId::default_org();
    real.provider.forget(&org, &real.server.url("app")).await.unwrap();
    assert_eq!(file_names(&real), Vec::<String>::new());
}

/// The tar is what other programs read, too.
#[tokio::test(flavor = "multi_thread")]
async fn the_archive_is_what_git_archives() {
    use futures::StreamExt as _;
    let real = Real::new().await;
    let long = format!("{}/{}", "d".repeat(150), "f".repeat(150));
    let files = site(1).executable("run", "x").symlink("link", "run").file(long, "long").file("größe", "ü");
    let commit = real.commit_files("app", files).await;
    let tree = real.fetch("app", &commit).await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut archive = tree.archive(paas_core::PathFilter::all());
    let ours = directory.path().join("ours.tar");
    let mut bytes = Vec::new();
    while let Some(chunk) = archive.next().await {
        bytes.extend(chunk.unwrap());
    }
    std::fs::write(&ours, bytes).unwrap();
    let theirs = directory.path().join("theirs.tar");
    real.server.git("app", &["archive", "-o", theirs.to_str().unwrap(), commit.as_str()], &[]).await.unwrap();
    let unpacked = |archive: &std::path::Path, name: &str| {
        let target = directory.path().join(name);
        std::fs::create_dir(&target).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("-xf").arg(archive).arg("-C").arg(&target);
        assert!(tar.status().expect("install tar: apt-get install tar").success());
        target
    };
    let (ours, theirs) = (unpacked(&ours, "ours"), unpacked(&theirs, "theirs"));
    let mut diff = Command::new("diff");
    diff.args(["-r", "--no-dereference"]).args([&ours, &theirs]);
    assert!(diff.status().expect("install diff: apt-get install diffutils").success());
    assert_eq!(std::fs::read_link(ours.join("link")).unwrap().to_str(), Some("run"));
    assert_eq!(ours.join("run").metadata().unwrap().permissions().mode() & 0o111, 0o111);
}

#[tokio::test(flavor = "multi_thread")]
async fn people_can_push_to_the_server() {
    let server = GitServer::temporary().await.unwrap();
    server.commit("app", "main", [("a", "1")]).await.unwrap();
    server.allow_push("app").await.unwrap();
    let work = tempfile::tempdir().unwrap();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.current_dir(work.path()).args(["-c", "user.name=a", "-c", "user.email=a@b"]).args(arguments);
        git.env("GIT_CONFIG_GLOBAL", "/dev/null");
        assert!(git.status().unwrap().success(), "{arguments:?}");
    };
    git(&["clone", "--quiet", server.url("app").as_str(), "."]);
    std::fs::write(work.path().join("noise"), vec![7; 3_000_000]).unwrap();
    git(&["add", "."]);
    git(&["commit", "--quiet", "-m", "more"]);
    git(&["push", "--quiet"]);
    let pushed = server.git("app", &["cat-file", "-s", "main:noise"], &[]).await.unwrap();
    assert_eq!(pushed, "3000000");
}
