//! Servers and repositories that mean harm.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::Duration;

use common::{Real, context, files_below};
use paas_core::memory::MemoryFiles;
use paas_core::{
    CommitId, EgressPolicy, Error, Fault, GitProvider as _, GitUrl, Kind, Reference, Repository, Retry,
    RootDirectory,
};
use paas_git::testing::{GitFault, GitServer};
use paas_git::{GitLimits, GitOptions, GixProvider};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Writes an object that git itself would not write, and answers its id.
async fn object(server: &GitServer, kind: &str, bytes: &[u8]) -> String {
    server.git("evil", &["hash-object", "-t", kind, "--literally", "-w", "--stdin"], bytes).await.unwrap()
}

/// The bytes of a tree: mode, name and object of each entry.
fn tree_bytes(entries: &[(&str, &[u8], &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (mode, name, id) in entries {
        bytes.extend(mode.bytes());
        bytes.push(b' ');
        bytes.extend(*name);
        bytes.push(0);
        bytes.extend((0..20).map(|at| u8::from_str_radix(&id[at * 2..at * 2 + 2], 16).unwrap()));
    }
    bytes
}

fn commit_text(tree: &str) -> String {
    format!("tree {tree}\nauthor a <a@b> 1 +0000\ncommitter a <a@b> 1 +0000\n\nevil\n")
}

/// A commit of a tree that is written as it is.
async fn commit_of(server: &GitServer, tree: &str) -> CommitId {
    let commit = object(server, "commit", commit_text(tree).as_bytes()).await;
    server.git("evil", &["update-ref", "refs/heads/main", &commit], &[]).await.unwrap();
    commit.parse().unwrap()
}

#[track_caller]
fn assert_code(error: &Error, kind: Kind, code: &str) {
    assert_eq!((error.kind(), error.reason()), (kind, Some(code)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_git_would_follow_are_refused() {
    let real = Real::new().await;
    let blob = object(&real.server, "blob", b"evil").await;
    let names: [&[u8]; 13] = [
        b"..",
        b".",
        b".git",
        b".GIT",
        b".Git",
        b"git~1",
        b"GIT~1",
        b".git ",
        b".git.",
        b".git::$INDEX_ALLOCATION",
        ".g\u{200c}it".as_bytes(),
        b"..\\x",
        b"latin-\xe9",
    ];
    for name in names {
        for mode in ["100644", "40000"] {
            let inner = object(&real.server, "tree", &tree_bytes(&[("100644", b"hooks", &blob)])).await;
            let id = if mode == "40000" { &inner } else { &blob };
            let tree = object(&real.server, "tree", &tree_bytes(&[(mode, name, id)])).await;
            let commit = commit_of(&real.server, &tree).await;
            let error = real.fetch("evil", &commit).await.expect_err(&String::from_utf8_lossy(name));
            assert_code(&error, Kind::Invalid, "unsafe_path");
            assert_eq!(error.whose(), Fault::User);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_with_a_slash_and_a_name_twice_are_refused() {
    let real = Real::new().await;
    let blob = object(&real.server, "blob", b"evil").await;
    let trees = [
        tree_bytes(&[("100644", b"a/../../b", &blob)]),
        tree_bytes(&[("100644", b"/etc/passwd", &blob)]),
        tree_bytes(&[("120000", b"a", &blob), ("100644", b"a", &blob)]),
    ];
    for tree in trees {
        let tree = object(&real.server, "tree", &tree).await;
        let commit = commit_of(&real.server, &tree).await;
        assert_code(&real.fetch("evil", &commit).await.unwrap_err(), Kind::Invalid, "unsafe_path");
    }
}

/// A few small trees that contain each other ten times over make ten thousand million files.
#[tokio::test(flavor = "multi_thread")]
async fn a_tree_bomb_is_too_large() {
    let real = Real::new().await;
    let mut id = object(&real.server, "blob", b"boom").await;
    for level in 0..10 {
        let mode = if level == 0 { "100644" } else { "40000" };
        let names: Vec<String> = (0..10).map(|number| format!("n{number}")).collect();
        let entries: Vec<_> = names.iter().map(|name| (mode, name.as_bytes(), id.as_str())).collect();
        id = object(&real.server, "tree", &tree_bytes(&entries)).await;
    }
    let commit = commit_of(&real.server, &id).await;
    assert_code(&real.fetch("evil", &commit).await.unwrap_err(), Kind::Invalid, "too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_too_deep_are_too_large() {
    let real = Real::new().await;
    for depth in [200, 1500] {
        let path = format!("{}file", "d/".repeat(depth));
        let commit = real.commit_files("deep", [(path, "x")]).await;
        assert_code(&real.fetch("deep", &commit).await.unwrap_err(), Kind::Invalid, "too_large");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_files_are_too_large() {
    let files =
        || -> MemoryFiles { (0..100).map(|number| (format!("f{number}"), number.to_string())).collect() };
    // Told by the pack's head, before anything is stored; and by the tree, whatever the pack says.
    for limits in [
        GitLimits { pack_objects: 50, ..GitLimits::default() },
        GitLimits { entries: 50, ..GitLimits::default() },
    ] {
        let real = Real::with(limits).await;
        let commit = real.commit_files("many", files()).await;
        assert_code(&real.fetch("many", &commit).await.unwrap_err(), Kind::Invalid, "too_large");
    }
}

/// Bytes that do not compress.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_past_the_limit_is_cut_off_and_leaves_nothing() {
    let real = Real::with(GitLimits { pack_bytes: 100_000, ..GitLimits::default() }).await;
    let commit = real.commit_files("large", [("noise", noise(5_000_000))]).await;
    assert_code(&real.fetch("large", &commit).await.unwrap_err(), Kind::Invalid, "too_large");
    assert!(real.server.bytes_sent("large") < 2_000_000, "the transfer ended early");
    let left: u64 = files_below(real.mirrors.path()).iter().map(|file| file.metadata().unwrap().len()).sum();
    assert!(left < 1000, "{left} bytes are left");
}

/// Little to send, much to unpack.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_unpacks_past_the_limit_is_too_large() {
    let limits = GitLimits { object_bytes: 1 << 20, ..GitLimits::default() };
    let real = Real::with(limits).await;
    let commit = real.commit_files("bomb", [("zeros", vec![0; 5 << 20])]).await;
    assert_code(&real.fetch("bomb", &commit).await.unwrap_err(), Kind::Invalid, "too_large");
    assert!(real.server.bytes_sent("bomb") < 1 << 20);
}

/// The size of a delta's result is told by the delta alone.
#[tokio::test(flavor = "multi_thread")]
async fn a_delta_that_unpacks_past_the_limit_is_too_large() {
    let real = Real::with(GitLimits { object_bytes: 1000, ..GitLimits::default() }).await;
    let commit = real.commit_files("app", [("a", "1")]).await;
    let repeated = delta(500, 5000, &[(0, 500); 10]);
    real.server
        .fault("app", GitFault::Pack(pack(&[Object::Whole(BLOB, &[7; 500]), Object::Delta(1, &repeated)])));
    let error = real.fetch("app", &commit).await.unwrap_err();
    assert_code(&error, Kind::Invalid, "too_large");
    assert!(error.message().contains("a file of it"), "{error:?}");
}

/// The kinds of objects in a pack.
const COMMIT: u8 = 1;
const TREE: u8 = 2;
const BLOB: u8 = 3;

enum Object<'a> {
    Whole(u8, &'a [u8]),
    /// Made from the object that stands so many places before it.
    Delta(usize, &'a [u8]),
}

/// A number, seven bits at a time.
fn number(mut value: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Copies these ranges, each a start and a length of less than 65,536.
fn delta(base: usize, result: usize, copies: &[(u8, u16)]) -> Vec<u8> {
    let mut bytes = [number(base), number(result)].concat();
    for (start, length) in copies {
        bytes.extend([0b1011_0001, *start]);
        bytes.extend(length.to_le_bytes());
    }
    bytes
}

/// Zlib without compression.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut stream = vec![0x78, 0x01];
    let mut blocks = bytes.chunks(0xffff).peekable();
    while let Some(block) = blocks.next() {
        stream.push(u8::from(blocks.peek().is_none()));
        stream.extend((block.len() as u16).to_le_bytes());
        stream.extend((!(block.len() as u16)).to_le_bytes());
        stream.extend(block);
    }
    let (mut one, mut two) = (1_u32, 0_u32);
    for byte in bytes {
        one = (one + u32::from(*byte)) % 65_521;
        two = (two + one) % 65_521;
    }
    stream.extend((two << 16 | one).to_be_bytes());
    stream
}

/// What a server answers: a pack of these objects, with nothing before it.
fn pack(objects: &[Object<'_>]) -> bytes::Bytes {
    let mut pack = b"PACK\0\0\0\x02".to_vec();
    pack.extend((objects.len() as u32).to_be_bytes());
    let mut starts = Vec::new();
    for object in objects {
        let start = pack.len();
        let (kind, bytes) = match object {
            Object::Whole(kind, bytes) => (*kind, bytes),
            Object::Delta(_, bytes) => (6, bytes),
        };
        let mut size = bytes.len();
        let mut byte = kind << 4 | (size & 0xf) as u8;
        size >>= 4;
        while size > 0 {
            pack.push(byte | 0x80);
            byte = (size & 0x7f) as u8;
            size >>= 7;
        }
        pack.push(byte);
        if let Object::Delta(back, _) = object {
            let mut distance: usize = start - starts[starts.len() - back];
            let mut digits = vec![(distance & 0x7f) as u8];
            while distance > 0x7f {
                distance = (distance >> 7) - 1;
                digits.push(0x80 | (distance & 0x7f) as u8);
            }
            pack.extend(digits.iter().rev());
        }
        pack.extend(stored(bytes));
        starts.push(start);
    }
    pack.extend(gix_hash_of(&pack));
    let mut answer = b"000dpackfile\n".to_vec();
    for chunk in pack.chunks(60_000) {
        answer.extend(format!("{:04x}\x01", chunk.len() + 5).bytes());
        answer.extend(chunk);
    }
    answer.extend(b"0000");
    answer.into()
}

fn gix_hash_of(bytes: &[u8]) -> Vec<u8> {
    let mut hash = gix::hash::hasher(gix::hash::Kind::Sha1);
    hash.update(bytes);
    hash.try_finalize().unwrap().as_slice().to_vec()
}

/// Each object of the chain is small by itself. Together they would be held in memory.
#[tokio::test(flavor = "multi_thread")]
async fn chains_of_deltas_are_bounded() {
    let (base, same) = ([7; 5000], delta(5000, 5000, &[(0, 5000)]));
    let (tiny, long) = ([7; 1], delta(1, 1, &[(0, 1)]));
    let large = (10_000, &base[..], &same, 9);
    let deep = (1 << 20, &tiny[..], &long, 4096);
    for (object_bytes, base, step, steps) in [large, deep] {
        let real = Real::with(GitLimits { object_bytes, ..GitLimits::default() }).await;
        let commit = real.commit_files("app", [("a", "1")]).await;
        let mut objects = vec![Object::Whole(BLOB, base)];
        objects.extend((0..steps).map(|_| Object::Delta(1, step)));
        real.server.fault("app", GitFault::Pack(pack(&objects)));
        let error = real.fetch("app", &commit).await.unwrap_err();
        assert_code(&error, Kind::Invalid, "too_large");
        assert!(error.message().contains("packed too densely"), "{error:?}");
    }
}

/// Small objects, each of which is made from the same large one: reading them all takes for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_it_takes_to_read_a_pack_is_bounded() {
    let real = Real::with(GitLimits { disk_bytes: 10_000, ..GitLimits::default() }).await;
    let commit = real.commit_files("app", [("a", "1")]).await;
    let (base, first) = ([7; 5000], delta(5000, 1, &[(0, 1)]));
    let mut objects = vec![Object::Whole(BLOB, &base)];
    objects.extend((1..=80).map(|back| Object::Delta(back, &first)));
    real.server.fault("app", GitFault::Pack(pack(&objects)));
    let error = real.fetch("app", &commit).await.unwrap_err();
    assert_code(&error, Kind::Invalid, "too_large");
    assert!(error.message().contains("packed too densely"), "{error:?}");
}

/// A file that is nearly as large as it may be, changed a little: a delta of it needs room for both.
#[tokio::test(flavor = "multi_thread")]
async fn the_largest_file_can_be_changed() {
    let real = Real::with(GitLimits { object_bytes: 100_000, ..GitLimits::default() }).await;
    let mut file = noise(99_000);
    let first = real.commit_files("app", [("large", file.clone())]).await;
    real.fetch("app", &first).await.unwrap();
    file.extend(b"changed");
    let second = real.commit_files("app", [("large", file.clone()), ("copy", file[1..].to_vec())]).await;
    real.server.git("app", &["repack", "-adf", "--window=50", "--quiet"], &[]).await.unwrap();
    let tree = real.fetch("app", &second).await.unwrap();
    for (name, expected) in [("large", &file[..]), ("copy", &file[1..])] {
        assert_eq!(tree.read(name, 1 << 20).await.unwrap().unwrap(), expected);
    }
}

/// Trees that git itself would neither write nor send are the user's, and nothing is fetched again for them.
#[tokio::test(flavor = "multi_thread")]
async fn malformed_objects_are_the_users() {
    let real = Real::new().await;
    let blob = object(&real.server, "blob", b"evil").await;
    let inner = tree_bytes(&[("100644", b"a", &blob)]);
    let directory = object(&real.server, "tree", &inner).await;
    let entries =
        [("999999", "a mode", &blob), ("40000", "no directory", &blob), ("100644", "no file", &directory)];
    for (mode, name, id) in entries {
        let bytes = tree_bytes(&[(mode, name.as_bytes(), id)]);
        let tree = object(&real.server, "tree", &bytes).await;
        let commit = commit_of(&real.server, &tree).await;
        let text = commit_text(&tree);
        let objects = [(COMMIT, text.as_bytes()), (TREE, &bytes), (TREE, &inner), (BLOB, b"evil")];
        real.server
            .fault("evil", GitFault::Pack(pack(&objects.map(|(kind, bytes)| Object::Whole(kind, bytes)))));
        let before = real.server.requests("evil");
        let fetched = real.fetch("evil", &commit).await;
        let error = fetched.expect_err(name);
        assert!(real.server.requests("evil") - before <= 2, "{name}: it was fetched once: {error:?}");
        assert_code(&error, Kind::Invalid, "malformed_object");
    }
}

/// Many links that share one long target, each leading through the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_bomb_of_links_is_too_large() {
    let real = Real::new().await;
    let target = format!("{}l", "d/../".repeat(800));
    let link = object(&real.server, "blob", target.as_bytes()).await;
    let blob = object(&real.server, "blob", b"x").await;
    let directory = object(&real.server, "tree", &tree_bytes(&[("100644", b"x", &blob)])).await;
    let names: Vec<String> = (0..200).map(|number| format!("l{number:03}")).collect();
    let mut entries = vec![("40000", &b"d"[..], directory.as_str()), ("120000", b"l", &link)];
    entries.extend(names.iter().map(|name| ("120000", name.as_bytes(), link.as_str())));
    let tree = object(&real.server, "tree", &tree_bytes(&entries)).await;
    let commit = commit_of(&real.server, &tree).await;
    assert_code(&real.fetch("evil", &commit).await.unwrap_err(), Kind::Invalid, "too_large");
}

/// A few trees that contain each other under long names.
#[tokio::test(flavor = "multi_thread")]
async fn long_names_in_great_number_are_too_large() {
    let real = Real::new().await;
    let mut id = object(&real.server, "blob", b"x").await;
    for level in 0..4 {
        let (mode, width) = if level == 0 { ("100644", 40) } else { ("40000", 12) };
        let names: Vec<String> = (0..width).map(|number| format!("{number:03}{}", "n".repeat(900))).collect();
        let entries: Vec<_> = names.iter().map(|name| (mode, name.as_bytes(), id.as_str())).collect();
        id = object(&real.server, "tree", &tree_bytes(&entries)).await;
    }
    let commit = commit_of(&real.server, &id).await;
    let error = real.fetch("evil", &commit).await.unwrap_err();
    assert_code(&error, Kind::Invalid, "too_large");
    assert!(error.message().contains("names"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_too_large_together_are_refused() {
    let real = Real::with(GitLimits { disk_bytes: 1 << 20, ..GitLimits::default() }).await;
    // The same bytes again and again: one object, many files.
    let files: MemoryFiles = (0..20).map(|number| (format!("f{number}"), vec![0_u8; 100_000])).collect();
    let commit = real.commit_files("sum", files).await;
    assert_code(&real.fetch("sum", &commit).await.unwrap_err(), Kind::Invalid, "too_large");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_one_byte_a_second_times_out() {
    let slow = GitFault::Slow { bytes: 1, pause: Duration::from_secs(1) };
    for limits in [
        GitLimits { time: Duration::from_millis(500), ..GitLimits::default() },
        GitLimits { stall_window: Duration::from_millis(500), ..GitLimits::default() },
    ] {
        let real = Real::with(limits).await;
        let commit = real.commit_files("app", [("a", "1")]).await;
        real.server.fault("app", slow.clone());
        let error = real.fetch("app", &commit).await.unwrap_err();
        assert_code(&error, Kind::Timeout, "clone_timeout");
        assert_eq!(error.whose(), Fault::Upstream);
        real.server.fault("app", None);
        real.fetch("app", &commit).await.expect("the next try");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_never_answers_times_out() {
    let real =
        Real::with(GitLimits { stall_window: Duration::from_millis(300), ..GitLimits::default() }).await;
    real.commit_files("app", [("a", "1")]).await;
    real.server.fault("app", GitFault::Stall);
    let error = real.provider.branches(&context(), &real.repository("app")).await.unwrap_err();
    assert_code(&error, Kind::Timeout, "clone_timeout");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_cut_in_mid_pack_is_upstreams_fault() {
    let real = Real::new().await;
    let commit = real.commit_files("app", [("noise", noise(500_000))]).await;
    for after_bytes in [0, 5, 100, 100_000] {
        real.server.fault("app", GitFault::Cut { after_bytes });
        let error = real.fetch("app", &commit).await.unwrap_err();
        assert_eq!((error.kind(), error.whose()), (Kind::Unavailable, Fault::Upstream), "{error:?}");
        assert!(error.is_transient());
    }
    real.server.fault("app", None);
    real.fetch("app", &commit).await.expect("the next try");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_status_has_its_meaning() {
    let real = Real::new().await;
    real.commit_files("app", [("a", "1")]).await;
    let ask = async |status: u16, retry_after_seconds| {
        real.server.fault("app", GitFault::Status { status, times: 1, retry_after_seconds });
        real.provider.branches(&context(), &real.repository("app")).await.unwrap_err()
    };
    for status in [401, 403, 404, 410] {
        assert_code(&ask(status, None).await, Kind::NotFound, "repository_not_found");
    }
    for (status, seconds) in [(429, Some(7)), (403, Some(7))] {
        let error = ask(status, seconds).await;
        assert_eq!((error.kind(), error.whose()), (Kind::RateLimited, Fault::Upstream));
        assert_eq!(error.retryable(), Retry::Transient { after: Some(Duration::from_secs(7)) });
    }
    for status in [500, 502, 503, 504] {
        let error = ask(status, Some(3)).await;
        assert_eq!((error.kind(), error.whose()), (Kind::Unavailable, Fault::Upstream));
        assert_eq!(error.retryable(), Retry::Transient { after: Some(Duration::from_secs(3)) });
    }
    let error = ask(418, None).await;
    assert_eq!((error.whose(), error.retryable()), (Fault::Upstream, Retry::Permanent));
}

/// A server that answers every request with these bytes, and the bytes of the first request that it got.
async fn canned(answer: &'static str) -> (GitUrl, tokio::task::JoinHandle<String>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/app.git", listener.local_addr().unwrap()).parse().unwrap();
    let served = tokio::spawn(async move {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let length = connection.read(&mut request).await.unwrap();
        connection.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request[..length]).into_owned()
    });
    (url, served)
}

fn allowing(real: &Real, hosts: &[&GitUrl]) -> GixProvider {
    let mut egress = EgressPolicy::default().allowing(real.server.address().to_string());
    for url in hosts {
        let url = url.to_url();
        egress = egress.allowing(format!("{}:{}", url.host_str().unwrap(), url.port().unwrap()));
    }
    GixProvider::open(real.mirrors.path(), GitOptions { egress, ..GitOptions::default() }).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_is_no_repository_is_not_found() {
    let real = Real::new().await;
    let (url, _) = canned("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2\r\n\r\nhi").await;
    let repository = Repository { url: url.clone(), ..real.repository("app") };
    let error = allowing(&real, &[&url]).branches(&context(), &repository).await.unwrap_err();
    assert_code(&error, Kind::NotFound, "repository_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_there_is_upstreams_fault() {
    let real = Real::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url: GitUrl = format!("http://{}/app.git", listener.local_addr().unwrap()).parse().unwrap();
    drop(listener);
    let repository = Repository { url: url.clone(), ..real.with_token("app", "s3cr3t") };
    let error = allowing(&real, &[&url]).branches(&context(), &repository).await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::Unavailable, Fault::Upstream));
    assert!(error.is_transient() && !format!("{error:?}").contains("s3cr3t"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_a_private_address_is_denied() {
    let real = Real::new().await;
    let other = GitServer::temporary().await.unwrap();
    other.commit("app", "main", [("a", "1")]).await.unwrap();
    let targets =
        [other.url("app").to_string(), "http://169.254.169.254/app.git".into(), "https://[::1]/a".into()];
    for target in targets {
        real.server.fault("moved", GitFault::Redirect(target));
        let repository = real.with_token("moved", "s3cr3t");
        let error = real.provider.branches(&context(), &repository).await.unwrap_err();
        assert_code(&error, Kind::PermissionDenied, "egress_denied");
    }
    assert_eq!(other.requests("app"), 0, "nothing was sent there");
}

/// Only the first request may be redirected: what is asked for goes to nobody else.
#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_of_the_second_request_is_denied() {
    let real = Real::new().await;
    let other = GitServer::temporary().await.unwrap();
    other.commit("app", "main", [("a", "1")]).await.unwrap();
    let line = |text: &str| format!("{:04x}{text}", text.len() + 4);
    let lines = [line("# service=git-upload-pack\n"), "0000".into(), line("version 2\n"), line("ls-refs\n")];
    let listing = format!("{}{}0000", lines.concat(), line("fetch=shallow\n"));
    let kind = "content-type: application/x-git-upload-pack-advertisement\r\nconnection: close";
    let target = other.url("app");
    let answers = [
        format!("HTTP/1.1 200 OK\r\n{kind}\r\ncontent-length: {}\r\n\r\n{listing}", listing.len()),
        format!(
            "HTTP/1.1 307 Moved\r\nlocation: {target}/git-upload-pack\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        ),
    ];
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: GitUrl = format!("http://{}/app.git", listener.local_addr().unwrap()).parse().unwrap();
    let served = tokio::spawn(async move {
        for answer in answers {
            let (mut connection, _) = listener.accept().await.unwrap();
            let length = connection.read(&mut [0; 8192]).await.unwrap();
            assert!(length > 0);
            connection.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let repository = Repository { url: url.clone(), ..real.with_token("app", "s3cr3t") };
    // Not even to a host that may be called.
    let error = allowing(&real, &[&url, &target]).branches(&context(), &repository).await.unwrap_err();
    assert_code(&error, Kind::PermissionDenied, "egress_denied");
    served.await.expect("both requests came");
    assert_eq!(other.requests("app"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_to_an_allowed_host_is_followed_without_the_token() {
    let real = Real::new().await;
    let other = GitServer::temporary().await.unwrap();
    let commit = other.commit("app", "main", [("a", "1")]).await.unwrap();
    let provider = allowing(&real, &[&other.url("app")]);
    real.server.fault("moved", GitFault::Redirect(other.url("app").to_string()));
    let repository = real.with_token("moved", "s3cr3t");
    let revision = provider.resolve(&context(), &repository, &Reference::Default).await.unwrap();
    assert_eq!(revision.commit, commit);
    provider.fetch(&context(), &repository, &commit, &RootDirectory::default()).await.unwrap();
    assert!(real.server.authorized("moved") > 0, "the token went where it belongs");
    assert!(other.requests("app") > 0);
    assert_eq!(other.authorized("app"), 0, "and nowhere else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renamed_repository_is_found_with_its_token() {
    let real = Real::new().await;
    let commit = real.commit_files("new", [("a", "1")]).await;
    real.server.require_token("new", "s3cr3t");
    real.server.fault("old", GitFault::Redirect(real.server.url("new").to_string()));
    let repository = real.with_token("old", "s3cr3t");
    real.provider.fetch(&context(), &repository, &commit, &RootDirectory::default()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn redirects_without_end_and_to_other_pages_are_not_found() {
    let real = Real::new().await;
    real.server.fault("loop", GitFault::Redirect(real.server.url("loop").to_string()));
    let error = real.provider.branches(&context(), &real.repository("loop")).await.unwrap_err();
    assert_code(&error, Kind::NotFound, "repository_not_found");
    assert!(real.server.requests("loop") <= 6);
    let (url, _) =
        canned("HTTP/1.1 302 Found\r\nlocation: /users/sign_in\r\ncontent-length: 0\r\n\r\n").await;
    let repository = Repository { url: url.clone(), ..real.repository("app") };
    let error = allowing(&real, &[&url]).branches(&context(), &repository).await.unwrap_err();
    assert_code(&error, Kind::NotFound, "repository_not_found");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_sent_as_the_hosts_expect_it() {
    let real = Real::new().await;
    for (token, expected) in [("tok", "b2F1dGgyOnRvaw=="), ("deploy:tok", "ZGVwbG95OnRvaw==")] {
        let (url, served) = canned("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
        let repository = Repository { url: url.clone(), ..real.with_token("app", token) };
        allowing(&real, &[&url]).branches(&context(), &repository).await.unwrap_err();
        let request = served.await.unwrap();
        assert!(request.contains(&format!("Basic {expected}")), "{request}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_with_a_sha256_id_is_refused() {
    let real = Real::new().await;
    real.commit_files("app", [("a", "1")]).await;
    let error = real.fetch("app", &"a".repeat(64).parse().unwrap()).await.unwrap_err();
    assert_code(&error, Kind::Invalid, "unsupported_id");
}

/// The id of a blob, a tree or a tag is not one of a commit.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_no_commit_is_not_found() {
    let real = Real::new().await;
    real.commit_files("app", [("a", "1")]).await;
    for object in ["main^{tree}", "main:a"] {
        let id = real.server.git("app", &["rev-parse", object], &[]).await.unwrap();
        let error = real.fetch("app", &id.parse().unwrap()).await.unwrap_err();
        assert_eq!((error.kind(), error.whose()), (Kind::NotFound, Fault::User), "{object}: {error:?}");
    }
}

/// What is here may be gone there: history was rewritten, and the old one cleared away.
#[tokio::test(flavor = "multi_thread")]
async fn a_rewritten_history_is_fetched() {
    let real = Real::new().await;
    let first = real.commit_files("app", [("a", "1"), ("b", "2")]).await;
    real.fetch("app", &first).await.unwrap();
    real.server.git("app", &["update-ref", "-d", "refs/heads/main"], &[]).await.unwrap();
    let second = real.commit_files("app", [("a", "1"), ("b", "3")]).await;
    real.server.git("app", &["reflog", "expire", "--expire=now", "--all"], &[]).await.unwrap();
    real.server.git("app", &["gc", "--quiet", "--prune=now"], &[]).await.unwrap();
    real.server.git("app", &["cat-file", "-e", first.as_str()], &[]).await.expect_err("it was cleared away");
    let tree = real.fetch("app", &second).await.unwrap();
    assert_eq!(tree.read("b", 10).await.unwrap().unwrap(), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_of_the_old_protocol_is_understood() {
    let real = Real::new().await;
    real.server.fault("app", GitFault::OldProtocol);
    for number in 0..3 {
        let commit = real.commit_files("app", [("same", "same".into()), ("n", number.to_string())]).await;
        let repository = real.repository("app");
        let branches = real.provider.branches(&context(), &repository).await.unwrap();
        assert_eq!(branches.branches[&branches.default.unwrap()], commit);
        let main = Reference::Named("main".parse().unwrap());
        assert_eq!(real.provider.resolve(&context(), &repository, &main).await.unwrap().commit, commit);
        let tree = real.fetch("app", &commit).await.unwrap();
        assert_eq!(tree.read("n", 10).await.unwrap().unwrap(), number.to_string());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_asked_for_as_it_was_written() {
    let real = Real::new().await;
    let (url, served) = canned("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await;
    let written: GitUrl = url.as_str().replace("app.git", "~me/with%20space/%C3%BC+1.git").parse().unwrap();
    let repository = Repository { url: written, ..real.repository("app") };
    allowing(&real, &[&url]).branches(&context(), &repository).await.unwrap_err();
    let request = served.await.unwrap();
    assert!(
        request.starts_with("GET /~me/with%20space/%C3%BC+1.git/info/refs?service=git-upload-pack "),
        "{request}"
    );
}

/// Servers that never answer hold up nobody who reads what is here.
#[tokio::test(flavor = "multi_thread")]
async fn stalled_servers_leave_readers_alone() {
    let real = Real::with(GitLimits { readers: 1, ..GitLimits::default() }).await;
    let commit = real.commit_files("app", [("a", "1")]).await;
    let tree = real.fetch("app", &commit).await.unwrap();
    let context = context();
    real.server.fault("stalled", GitFault::Stall);
    let stalled = real.repository("stalled");
    let reads = async {
        real.fetch("app", &commit).await.unwrap();
        assert_eq!(tree.read("a", 10).await.unwrap().unwrap(), "1");
        context.cancel();
    };
    let calls = (0..10).map(|_| real.provider.branches(&context, &stalled));
    let (calls, ()) = tokio::join!(futures::future::join_all(calls), reads);
    assert!(calls.into_iter().all(|call| call.unwrap_err().kind() == Kind::Cancelled));
}
