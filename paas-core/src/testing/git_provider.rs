//! What every [`GitProvider`] and [`SourceTree`] promises, one test each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt as _;

use crate::memory::MemoryFiles;
use crate::{
    Clock as _, CommitId, Context, EntryKind, Error, Fault, GitProvider, GitRef, GitUrl, Kind, OrgId,
    PathFilter, Reference, Repository, Result, RootDirectory, Secret, SourceTree, SystemClock,
};

/// A server with repositories, and the provider that reads them.
///
/// The provider has to be allowed to call this server, and no other local address.
#[async_trait]
pub trait GitHarness: Send + Sync {
    /// The provider under test.
    fn provider(&self) -> Arc<dyn GitProvider>;

    /// Where a repository is, or would be.
    fn url(&self, name: &str) -> GitUrl;

    /// Makes an empty repository.
    async fn create(&self, name: &str);

    /// Adds a commit of these files, all of them, to a branch. The first branch is the default one.
    async fn commit(&self, name: &str, branch: &str, files: MemoryFiles) -> CommitId;

    /// Points a tag at a commit.
    async fn tag(&self, name: &str, tag: &str, commit: &CommitId);

    /// Hides a repository from those who don't bring this token.
    async fn require_token(&self, name: &str, token: &str);

    /// Lets the next request for a repository fail as a server in trouble does.
    async fn break_once(&self, name: &str);

    /// While true, requests for a repository are not answered.
    async fn stall(&self, name: &str, is_stalled: bool);

    /// How many requests the server got for a repository.
    fn requests(&self, name: &str) -> u64;
}

fn context() -> Context {
    Context::new(Arc::new(SystemClock::new()))
}

fn repository(harness: &dyn GitHarness, name: &str) -> Repository {
    Repository { org: OrgId::default_org(), url: harness.url(name), token: None }
}

fn with_token(harness: &dyn GitHarness, name: &str, token: &str) -> Repository {
    Repository { token: Some(Secret::from(token)), ..repository(harness, name) }
}

fn named(name: &str) -> Reference {
    Reference::Named(reference(name))
}

fn reference(name: &str) -> GitRef {
    name.parse().unwrap()
}

async fn fetch(harness: &dyn GitHarness, name: &str, commit: &CommitId) -> Result<Arc<dyn SourceTree>> {
    fetch_below(harness, name, commit, "").await
}

async fn fetch_below(
    harness: &dyn GitHarness,
    name: &str,
    commit: &CommitId,
    root: &str,
) -> Result<Arc<dyn SourceTree>> {
    let root: RootDirectory = root.parse().unwrap();
    harness.provider().fetch(&context(), &repository(harness, name), commit, &root).await
}

async fn tree_of(harness: &dyn GitHarness, name: &str, files: impl Into<MemoryFiles>) -> Arc<dyn SourceTree> {
    let commit = harness.commit(name, "main", files.into()).await;
    fetch(harness, name, &commit).await.unwrap()
}

async fn paths(tree: &dyn SourceTree) -> Vec<String> {
    tree.entries().await.unwrap().iter().map(|entry| entry.path.clone()).collect()
}

async fn text(tree: &dyn SourceTree, path: &str) -> Option<String> {
    let bytes = tree.read(path, 1 << 20).await.unwrap();
    bytes.map(|bytes| String::from_utf8(bytes.to_vec()).unwrap())
}

#[track_caller]
fn assert_not_found<T: Debug>(result: Result<T>, code: &str) -> Error {
    let error = result.expect_err("it does not exist");
    assert_eq!((error.kind(), error.whose()), (Kind::NotFound, Fault::User), "{error:?}");
    assert_eq!(error.reason(), Some(code), "{error:?}");
    error
}

/// The default branch is found without being named.
pub async fn resolve_finds_the_default_branch(harness: &dyn GitHarness) {
    let first = harness.commit("app", "trunk", [("a", "1")].into()).await;
    harness.commit("app", "other", [("a", "2")].into()).await;
    let resolve = harness.provider();
    let found = resolve.resolve(&context(), &repository(harness, "app"), &Reference::Default).await.unwrap();
    assert_eq!((found.commit, found.branch), (first, Some(reference("trunk"))));
}

/// A branch is found by its whole name, not by the start of it.
pub async fn resolve_finds_a_branch_by_name(harness: &dyn GitHarness) {
    harness.commit("app", "main", [("a", "1")].into()).await;
    harness.commit("app", "feature/long-name", [("a", "2")].into()).await;
    let commit = harness.commit("app", "feature/long", [("a", "3")].into()).await;
    let asked = repository(harness, "app");
    let found = harness.provider().resolve(&context(), &asked, &named("feature/long")).await.unwrap();
    assert_eq!((found.commit, found.branch), (commit, Some(reference("feature/long"))));
    let missing = harness.provider().resolve(&context(), &asked, &named("feature/lon")).await;
    assert_not_found(missing, "branch_not_found");
}

/// A tag is found where no branch has its name; a branch comes first.
pub async fn resolve_finds_a_tag_after_a_branch(harness: &dyn GitHarness) {
    let first = harness.commit("app", "main", [("a", "1")].into()).await;
    let second = harness.commit("app", "main", [("a", "2")].into()).await;
    harness.tag("app", "v1", &first).await;
    harness.tag("app", "main", &first).await;
    let asked = repository(harness, "app");
    let provider = harness.provider();
    assert_eq!(provider.resolve(&context(), &asked, &named("v1")).await.unwrap().commit, first);
    assert_eq!(provider.resolve(&context(), &asked, &named("main")).await.unwrap().commit, second);
}

/// A commit resolves to itself; the server is not asked.
pub async fn resolve_of_a_commit_asks_nobody(harness: &dyn GitHarness) {
    let commit: CommitId = "1".repeat(40).parse().unwrap();
    let asked = Reference::Commit(commit.clone());
    let found = harness.provider().resolve(&context(), &repository(harness, "none"), &asked).await.unwrap();
    assert_eq!((found.commit, found.branch), (commit, None));
    assert_eq!(harness.requests("none"), 0);
}

/// A branch that has moved resolves to where it is now.
pub async fn resolve_is_never_stale(harness: &dyn GitHarness) {
    let asked = repository(harness, "app");
    for content in ["1", "2", "3"] {
        let commit = harness.commit("app", "main", [("a", content)].into()).await;
        let found = harness.provider().resolve(&context(), &asked, &named("main")).await.unwrap();
        assert_eq!(found.commit, commit);
    }
}

/// All branches are listed, with the default one.
pub async fn branches_are_listed(harness: &dyn GitHarness) {
    let main = harness.commit("app", "main", [("a", "1")].into()).await;
    let other = harness.commit("app", "fix/one", [("a", "2")].into()).await;
    harness.tag("app", "v1", &main).await;
    let found = harness.provider().branches(&context(), &repository(harness, "app")).await.unwrap();
    assert_eq!(found.default, Some(reference("main")));
    assert_eq!(found.branches, BTreeMap::from([(reference("main"), main), (reference("fix/one"), other)]));
}

/// An empty repository has no branch, and no default one.
pub async fn an_empty_repository_has_no_branch(harness: &dyn GitHarness) {
    harness.create("empty").await;
    let asked = repository(harness, "empty");
    let found = harness.provider().branches(&context(), &asked).await.unwrap();
    assert_eq!((found.default, found.branches.len()), (None, 0));
    let resolved = harness.provider().resolve(&context(), &asked, &Reference::Default).await;
    assert_not_found(resolved, "branch_not_found");
}

/// What does not exist is the user's to mend.
pub async fn what_is_missing_is_not_found(harness: &dyn GitHarness) {
    harness.commit("app", "main", [("a", "1")].into()).await;
    let (app, none) = (repository(harness, "app"), repository(harness, "none"));
    let provider = harness.provider();
    let commit: CommitId = "1".repeat(40).parse().unwrap();
    let root = RootDirectory::default();
    assert_not_found(provider.branches(&context(), &none).await, "repository_not_found");
    assert_not_found(provider.resolve(&context(), &none, &named("main")).await, "repository_not_found");
    assert_not_found(provider.fetch(&context(), &none, &commit, &root).await, "repository_not_found");
    assert_not_found(provider.resolve(&context(), &app, &named("mian")).await, "branch_not_found");
    assert_not_found(provider.fetch(&context(), &app, &commit, &root).await, "commit_not_found");
}

/// A private repository is read with its token, and otherwise looks as if it did not exist. No error has the token.
pub async fn a_private_repository_needs_its_token(harness: &dyn GitHarness) {
    let commit = harness.commit("private", "main", [("a", "1")].into()).await;
    harness.require_token("private", "s3cr3t-right").await;
    let (provider, root) = (harness.provider(), RootDirectory::default());
    for asked in [repository(harness, "private"), with_token(harness, "private", "s3cr3t-wrong")] {
        let errors = [
            assert_not_found(provider.branches(&context(), &asked).await, "repository_not_found"),
            assert_not_found(
                provider.resolve(&context(), &asked, &named("main")).await,
                "repository_not_found",
            ),
            assert_not_found(
                provider.fetch(&context(), &asked, &commit, &root).await,
                "repository_not_found",
            ),
        ];
        for error in errors {
            assert!(!format!("{error:?} {error} {:?}", error.hinted()).contains("s3cr3t"));
        }
    }
    let asked = with_token(harness, "private", "s3cr3t-right");
    assert_eq!(provider.resolve(&context(), &asked, &named("main")).await.unwrap().commit, commit);
    let tree = provider.fetch(&context(), &asked, &commit, &root).await.unwrap();
    assert_eq!(text(&*tree, "a").await.as_deref(), Some("1"));
    assert!(!format!("{provider:?} {tree:?}").contains("s3cr3t"));
}

/// What was fetched with a token is not shown without it, nor to another org.
pub async fn what_one_fetched_is_not_shown_to_another(harness: &dyn GitHarness) {
    let commit = harness.commit("private", "main", [("a", "1")].into()).await;
    harness.require_token("private", "s3cr3t").await;
    let (provider, root) = (harness.provider(), RootDirectory::default());
    let owner = with_token(harness, "private", "s3cr3t");
    provider.fetch(&context(), &owner, &commit, &root).await.unwrap();
    let org: OrgId = format!("org_{}", "1".repeat(26)).parse().unwrap();
    let without = Repository { token: None, ..owner.clone() };
    let other = Repository { org, ..without.clone() };
    for asked in [without, other] {
        assert_not_found(provider.fetch(&context(), &asked, &commit, &root).await, "repository_not_found");
    }
}

/// A tree has every file, link, directory and submodule, sorted by path.
pub async fn a_tree_has_every_entry(harness: &dyn GitHarness) {
    let files = MemoryFiles::from([("b/two.txt", "22"), ("a-b", "x"), ("a/deep/er/one", "")])
        .executable("run.sh", "#!/bin/sh")
        .symlink("link", "b/two.txt")
        .submodule("vendor/lib");
    let tree = tree_of(harness, "app", files).await;
    let entries = tree.entries().await.unwrap();
    let kinds: Vec<_> = entries.iter().map(|entry| (entry.path.as_str(), entry.kind.clone())).collect();
    let file = |size| EntryKind::File { size, executable: false };
    let expected = [
        ("a", EntryKind::Directory),
        ("a-b", file(1)),
        ("a/deep", EntryKind::Directory),
        ("a/deep/er", EntryKind::Directory),
        ("a/deep/er/one", file(0)),
        ("b", EntryKind::Directory),
        ("b/two.txt", file(2)),
        ("link", EntryKind::Symlink { target: "b/two.txt".into() }),
        ("run.sh", EntryKind::File { size: 9, executable: true }),
        ("vendor", EntryKind::Directory),
        ("vendor/lib", EntryKind::Submodule),
    ];
    assert_eq!(kinds, expected);
}

/// Fetching the same again gives the same tree, and moves nothing.
pub async fn a_second_fetch_is_the_same_and_moves_nothing(harness: &dyn GitHarness) {
    let commit = harness.commit("app", "main", [("a", "1"), ("b/c", "2")].into()).await;
    let first = fetch(harness, "app", &commit).await.unwrap();
    let before = harness.requests("app");
    let second = fetch(harness, "app", &commit).await.unwrap();
    assert_eq!(harness.requests("app"), before, "it is here already");
    assert_eq!((first.id(), first.commit()), (second.id(), commit));
    assert_eq!(first.entries().await.unwrap(), second.entries().await.unwrap());
    assert_eq!(archive(&*first, PathFilter::all()).await, archive(&*second, PathFilter::all()).await);
}

/// Every commit is fetched as it was, in any order.
pub async fn each_commit_has_its_own_files(harness: &dyn GitHarness) {
    let mut commits = Vec::new();
    for number in 0..4 {
        let files = [("same", "same".to_owned()), ("changing", number.to_string())];
        commits.push(harness.commit("app", "main", files.into()).await);
    }
    for number in [3, 0, 2, 1, 3] {
        let tree = fetch(harness, "app", &commits[number]).await.unwrap();
        assert_eq!(text(&*tree, "changing").await, Some(number.to_string()));
        assert_eq!(text(&*tree, "same").await.as_deref(), Some("same"));
    }
}

/// The id of a tree tells its contents, modes and names, and nothing else.
pub async fn the_same_files_have_the_same_id(harness: &dyn GitHarness) {
    let files = MemoryFiles::from([("a", "1"), ("b/c", "2")]);
    let tree = tree_of(harness, "app", files.clone()).await;
    tree_of(harness, "app", [("a", "other")]).await;
    let again = tree_of(harness, "app", files.clone()).await;
    assert_ne!(tree.commit(), again.commit());
    assert_eq!(tree.id(), again.id());
    let others = [
        files.clone().file("a", "2"),
        files.clone().executable("a", "1"),
        files.clone().symlink("a", "1"),
        files.clone().without("a").file("A", "1"),
        files.clone().file("d", ""),
    ];
    for (number, other) in others.into_iter().enumerate() {
        assert_ne!(tree_of(harness, "app", other).await.id(), tree.id(), "variant {number}");
    }
}

/// A root directory is a tree of its own: paths, id and bounds are those of the directory.
pub async fn a_root_directory_is_a_tree_of_its_own(harness: &dyn GitHarness) {
    let inner = [("index.html", "hello"), ("css/site.css", "body{}")];
    let alone = tree_of(harness, "alone", inner).await;
    let files = MemoryFiles::from([
        ("README", "outside"),
        ("apps/web/index.html", "hello"),
        ("apps/web/css/site.css", "body{}"),
        ("apps/webby", "not below"),
    ]);
    let commit = harness.commit("app", "main", files).await;
    let below = fetch_below(harness, "app", &commit, "apps/web").await.unwrap();
    assert_eq!(below.id(), alone.id());
    assert_eq!(paths(&*below).await, ["css", "css/site.css", "index.html"]);
    assert_eq!(text(&*below, "index.html").await.as_deref(), Some("hello"));
    assert_eq!(text(&*below, "README").await, None);
    assert_eq!(archive(&*below, PathFilter::all()).await, archive(&*alone, PathFilter::all()).await);
    for missing in ["apps/none", "README", "apps/web/index.html", "apps/we"] {
        let missing = fetch_below(harness, "app", &commit, missing).await;
        assert_not_found(missing, "root_directory_not_found");
    }
}

/// A file is read through links; what is no file is nothing.
pub async fn read_follows_links_to_files(harness: &dyn GitHarness) {
    let files = MemoryFiles::from([("lib/real.txt", "real")])
        .symlink("direct", "lib/real.txt")
        .symlink("app/lib", "../lib")
        .symlink("twice", "app/lib/real.txt")
        .symlink("dangling", "lib/none")
        .symlink("loop", "loop");
    let tree = tree_of(harness, "app", files).await;
    for path in ["lib/real.txt", "direct", "app/lib/real.txt", "twice"] {
        assert_eq!(text(&*tree, path).await.as_deref(), Some("real"), "{path}");
    }
    for path in ["lib", "none", "dangling", "loop", "lib/real.txt/x", "../app/lib/real.txt", ""] {
        assert_eq!(text(&*tree, path).await, None, "{path}");
    }
}

/// A file with more bytes than asked for is refused, one with exactly as many is not.
pub async fn read_is_bounded(harness: &dyn GitHarness) {
    let tree = tree_of(harness, "app", [("file", "12345")]).await;
    assert_eq!(tree.read("file", 5).await.unwrap().unwrap(), "12345");
    let error = tree.read("file", 4).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Invalid, Some("too_large")));
}

/// A link out of the tree fails the fetch and is named, in a later commit too, and if only a root directory is left.
pub async fn a_link_that_leaves_is_refused(harness: &dyn GitHarness) {
    tree_of(harness, "app", [("Dockerfile", "FROM scratch")]).await;
    let links = [
        ("Dockerfile", "/etc/shadow"),
        ("link", "../outside"),
        ("sub/link", "../../outside"),
        ("link", "inside/../../outside"),
    ];
    for (path, target) in links {
        let files = MemoryFiles::from([("inside/file", "x")]).symlink(path, target);
        let commit = harness.commit("app", "main", files).await;
        let error = fetch(harness, "app", &commit).await.expect_err(target);
        assert_eq!((error.kind(), error.reason()), (Kind::Invalid, Some("unsafe_path")), "{target}");
        assert!(error.message().contains(path), "{error}");
    }
    let files = MemoryFiles::from([("app/file", "x"), ("lib/file", "y")]).symlink("app/lib", "../lib");
    let commit = harness.commit("app", "main", files).await;
    fetch(harness, "app", &commit).await.expect("the link stays in the repository");
    let error = fetch_below(harness, "app", &commit, "app").await.expect_err("it leaves the directory");
    assert_eq!(error.reason(), Some("unsafe_path"));
}

/// The archive holds what was fetched, as POSIX tar, with long names and names beyond ASCII.
pub async fn the_archive_is_a_tar_of_the_tree(harness: &dyn GitHarness) {
    let long = format!("{}/{}/{}", "d".repeat(120), "e".repeat(90), "f".repeat(120));
    let target = "t".repeat(150);
    let files = MemoryFiles::from([("a.txt", "aaa"), (long.as_str(), "long"), ("größe", "ü")])
        .executable("bin/run", "x".repeat(1000))
        .symlink("link", target.clone())
        .submodule("vendor");
    let tree = tree_of(harness, "app", files).await;
    let members = unpack(&archive(&*tree, PathFilter::all()).await);
    let paths: Vec<_> = tree.entries().await.unwrap().iter().map(|entry| entry.path.clone()).collect();
    assert_eq!(members.iter().map(|member| member.path.clone()).collect::<Vec<_>>(), paths);
    let member = |path: &str| members.iter().find(|member| member.path == path).unwrap();
    assert_eq!(
        (member("a.txt").kind, member("a.txt").mode, &*member("a.txt").bytes),
        (b'0', 0o644, &b"aaa"[..])
    );
    assert_eq!((member("bin/run").mode, member("bin/run").bytes.len()), (0o755, 1000));
    assert_eq!(&*member(&long).bytes, b"long");
    assert_eq!(&*member("größe").bytes, "ü".as_bytes());
    assert_eq!((member("link").kind, &member("link").target), (b'2', &target));
    assert_eq!((member("bin").kind, member("vendor").kind), (b'5', b'5'));
    assert!(members.iter().all(|member| member.modified == 0));
}

/// Only the wanted paths are in the archive.
pub async fn the_archive_honours_its_filter(harness: &dyn GitHarness) {
    let tree =
        tree_of(harness, "app", [("keep/a", "1"), ("keep/b", "2"), ("drop/a", "3"), ("top", "4")]).await;
    let filter = PathFilter::new(|path| path.starts_with("keep") || path == "top");
    let members = unpack(&archive(&*tree, filter).await);
    let paths: Vec<_> = members.iter().map(|member| member.path.as_str()).collect();
    assert_eq!(paths, ["keep", "keep/a", "keep/b", "top"]);
    assert!(unpack(&archive(&*tree, PathFilter::new(|_| false)).await).is_empty());
}

/// A stream that is dropped half-way disturbs nothing.
pub async fn an_archive_may_be_dropped(harness: &dyn GitHarness) {
    let large = "x".repeat(200_000);
    let files: MemoryFiles = (0..20).map(|number| (format!("file{number:02}"), large.clone())).collect();
    let tree = tree_of(harness, "app", files).await;
    for _ in 0..20 {
        let mut stream = tree.archive(PathFilter::all());
        stream.next().await.unwrap().unwrap();
    }
    assert_eq!(unpack(&archive(&*tree, PathFilter::all()).await).len(), 20);
}

/// A server in trouble is upstream's fault, and worth another try.
pub async fn a_failing_server_is_upstreams_fault(harness: &dyn GitHarness) {
    let commit = harness.commit("app", "main", [("a", "1")].into()).await;
    let asked = repository(harness, "app");
    let provider = harness.provider();
    let assert_upstream = |error: Error| {
        assert_eq!((error.kind(), error.whose()), (Kind::Unavailable, Fault::Upstream), "{error:?}");
        assert!(error.is_transient());
    };
    harness.break_once("app").await;
    assert_upstream(provider.branches(&context(), &asked).await.unwrap_err());
    harness.break_once("app").await;
    assert_upstream(provider.resolve(&context(), &asked, &named("main")).await.unwrap_err());
    harness.break_once("app").await;
    assert_upstream(fetch(harness, "app", &commit).await.unwrap_err());
    fetch(harness, "app", &commit).await.expect("the next try");
}

/// Cancelling ends a call that waits for the server; afterwards the repository can be fetched.
pub async fn cancelling_ends_a_stalled_call(harness: &dyn GitHarness) {
    let commit = harness.commit("app", "main", [("a", "1")].into()).await;
    let (asked, root) = (repository(harness, "app"), RootDirectory::default());
    harness.stall("app", true).await;
    let context = context();
    let cancel = async {
        context.clock().sleep(Duration::from_millis(100)).await;
        context.cancel();
    };
    let provider = harness.provider();
    let (fetched, resolved, branches, ()) = tokio::join!(
        provider.fetch(&context, &asked, &commit, &root),
        provider.resolve(&context, &asked, &Reference::Default),
        provider.branches(&context, &asked),
        cancel
    );
    assert_eq!(fetched.unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(resolved.unwrap_err().kind(), Kind::Cancelled);
    assert_eq!(branches.unwrap_err().kind(), Kind::Cancelled);
    harness.stall("app", false).await;
    fetch(harness, "app", &commit).await.expect("the next try");
}

/// A call is over when its time is.
pub async fn a_deadline_ends_a_stalled_call(harness: &dyn GitHarness) {
    let commit = harness.commit("app", "main", [("a", "1")].into()).await;
    harness.stall("app", true).await;
    let context = context().with_budget(Duration::from_millis(100));
    let asked = repository(harness, "app");
    let error = harness.provider().fetch(&context, &asked, &commit, &"".parse().unwrap()).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Timeout, Some("clone_timeout")), "{error:?}");
    harness.stall("app", false).await;
    fetch(harness, "app", &commit).await.expect("the next try");
}

/// A future that is dropped leaves nothing that hinders the next call.
pub async fn a_dropped_call_hinders_nobody(harness: &dyn GitHarness) {
    let commit = harness.commit("app", "main", [("a", "1")].into()).await;
    harness.stall("app", true).await;
    let clock = SystemClock::new();
    tokio::select! {
        biased;
        fetched = fetch(harness, "app", &commit) => panic!("the server is stalled: {fetched:?}"),
        () = clock.sleep(Duration::from_millis(100)) => {}
    }
    harness.stall("app", false).await;
    fetch(harness, "app", &commit).await.expect("the next try");
}

/// Fetches of one repository at the same time all succeed.
pub async fn concurrent_fetches_all_succeed(harness: &dyn GitHarness) {
    let mut commits = Vec::new();
    for number in 0..6 {
        commits.push(harness.commit("app", "main", [("n", number.to_string())].into()).await);
    }
    let all = (0..12).map(|number| {
        let commit = &commits[number % 6];
        async move {
            let tree = fetch(harness, "app", commit).await.unwrap();
            assert_eq!(text(&*tree, "n").await, Some((number % 6).to_string()));
        }
    });
    futures::future::join_all(all).await;
}

/// What was forgotten is asked for again; what never was is forgotten without complaint; a tree in use stays whole.
pub async fn forgetting_removes_what_was_fetched(harness: &dyn GitHarness) {
    let (provider, url) = (harness.provider(), harness.url("app"));
    provider.forget(&OrgId::default_org(), &url).await.expect("there is nothing yet");
    let tree = tree_of(harness, "app", [("a", "1"), ("b", "2")]).await;
    provider.forget(&OrgId::default_org(), &url).await.unwrap();
    assert_eq!(text(&*tree, "b").await.as_deref(), Some("2"), "it is in use");
    assert_eq!(unpack(&archive(&*tree, PathFilter::all()).await).len(), 2);
    let before = harness.requests("app");
    fetch(harness, "app", &tree.commit()).await.unwrap();
    assert!(harness.requests("app") > before, "nothing of it was here");
    provider.forget(&OrgId::default_org(), &url).await.unwrap();
    provider.forget(&OrgId::default_org(), &url).await.expect("doing it twice is doing it once");
}

/// An address that the operator has not allowed is refused before anything is sent.
pub async fn a_denied_address_is_refused(harness: &dyn GitHarness) {
    let provider = harness.provider();
    let commit: CommitId = "1".repeat(40).parse().unwrap();
    for url in
        ["https://127.0.0.1:1/app.git", "https://169.254.169.254/app.git", "https://[::ffff:127.0.0.1]/a"]
    {
        let asked = Repository { url: url.parse().unwrap(), ..repository(harness, "app") };
        let errors = [
            provider.branches(&context(), &asked).await.unwrap_err(),
            provider.resolve(&context(), &asked, &Reference::Default).await.unwrap_err(),
            provider.fetch(&context(), &asked, &commit, &RootDirectory::default()).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(
                (error.kind(), error.reason()),
                (Kind::PermissionDenied, Some("egress_denied")),
                "{url}"
            );
        }
    }
}

async fn archive(tree: &dyn SourceTree, filter: PathFilter) -> Vec<u8> {
    let chunks: Vec<_> = tree.archive(filter).collect().await;
    chunks.into_iter().flat_map(|chunk| chunk.unwrap().to_vec()).collect()
}

/// A member of a tar archive.
struct Member {
    path: String,
    kind: u8,
    mode: u64,
    modified: u64,
    target: String,
    bytes: Vec<u8>,
}

/// Reads a POSIX tar archive, pax headers included.
fn unpack(archive: &[u8]) -> Vec<Member> {
    let (mut members, mut at, mut records) = (Vec::new(), 0, BTreeMap::new());
    loop {
        let header = &archive[at..at + 512];
        if header.iter().all(|byte| *byte == 0) {
            assert_eq!(&archive[at..], [0; 1024], "two empty blocks end it");
            return members;
        }
        let text = |range: std::ops::Range<usize>| {
            let bytes = &header[range];
            let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        let number = |range| u64::from_str_radix(text(range).trim(), 8).unwrap();
        assert_eq!(&header[257..265], b"ustar\x0000");
        let sum: u64 = header.iter().map(|byte| u64::from(*byte)).sum();
        let own: u64 = header[148..156].iter().map(|byte| u64::from(*byte)).sum();
        assert_eq!(number(148..156), sum - own + 8 * 32);
        let size = usize::try_from(number(124..136)).unwrap();
        let bytes = archive[at + 512..at + 512 + size].to_vec();
        at += 512 + size.div_ceil(512) * 512;
        if header[156] == b'x' {
            records = pax_records(&bytes);
            continue;
        }
        let (prefix, name) = (text(345..500), text(0..100));
        let path = if prefix.is_empty() { name } else { format!("{prefix}/{name}") };
        members.push(Member {
            path: records.remove("path").unwrap_or(path).trim_end_matches('/').to_owned(),
            kind: header[156],
            mode: number(100..108),
            modified: number(136..148),
            target: records.remove("linkpath").unwrap_or_else(|| text(157..257)),
            bytes,
        });
    }
}

fn pax_records(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let text = std::str::from_utf8(bytes).unwrap();
        let (length, _) = text.split_once(' ').unwrap();
        let (record, rest) = bytes.split_at(length.parse().unwrap());
        let record = std::str::from_utf8(&record[length.len() + 1..]).unwrap();
        let (key, value) = record.strip_suffix('\n').unwrap().split_once('=').unwrap();
        records.insert(key.to_owned(), value.to_owned());
        bytes = rest;
    }
    records
}

/// Expands to one test for each promise of [`GitProvider`] and [`SourceTree`]. The harness's future answers a
/// [`GitHarness`](crate::testing::git_provider::GitHarness).
#[macro_export]
macro_rules! conformance_git_provider {
    ($harness:expr) => {
        $crate::conformance_tests!(
            git_provider,
            $harness,
            [
                resolve_finds_the_default_branch,
                resolve_finds_a_branch_by_name,
                resolve_finds_a_tag_after_a_branch,
                resolve_of_a_commit_asks_nobody,
                resolve_is_never_stale,
                branches_are_listed,
                an_empty_repository_has_no_branch,
                what_is_missing_is_not_found,
                a_private_repository_needs_its_token,
                what_one_fetched_is_not_shown_to_another,
                a_tree_has_every_entry,
                a_second_fetch_is_the_same_and_moves_nothing,
                each_commit_has_its_own_files,
                the_same_files_have_the_same_id,
                a_root_directory_is_a_tree_of_its_own,
                read_follows_links_to_files,
                read_is_bounded,
                a_link_that_leaves_is_refused,
                the_archive_is_a_tar_of_the_tree,
                the_archive_honours_its_filter,
                an_archive_may_be_dropped,
                a_failing_server_is_upstreams_fault,
                cancelling_ends_a_stalled_call,
                a_deadline_ends_a_stalled_call,
                a_dropped_call_hinders_nobody,
                concurrent_fetches_all_succeed,
                forgetting_removes_what_was_fetched,
                a_denied_address_is_refused,
            ]
        );
    };
}
