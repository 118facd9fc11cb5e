//! The real server while something that it needs is out: reads go on, writes say why they can't, apps keep serving, and
//! what was accepted goes on by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods)]

mod installation;

use std::fs::File;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use hyper::Method;
use installation::own_engine::OwnEngine;
use installation::registry::Registry;
use installation::root::run_as_root;
use installation::server::{Machine, Server};
use installation::visitor::{Hammer, client, get};
use jiff::Timestamp;
use paas_core::memory::MemoryFiles;
use paas_git::testing::GitFault;
use rustix::fs::{FallocateFlags, fallocate, statvfs};
use serde_json::{Value, json};
use tokio::task::block_in_place;

/// How long what goes on by itself may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// More than is left when the server calls its disk full.
const DISK_BYTES: u64 = 640 * 1024 * 1024;

/// A disk of its own for a server's data, in memory. Gone with this value.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf) -> Self {
        std::fs::create_dir(&at).unwrap();
        let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
        let options = format!("size={DISK_BYTES},mode=700,uid={},gid={}", user.as_raw(), group.as_raw());
        run_as_root(&["mount", "-t", "tmpfs", "-o", &options, "tmpfs", at.to_str().unwrap()]);
        Self(at)
    }

    /// Takes all that is left.
    fn fill(&self) {
        let filler = File::create(self.0.join("filler")).unwrap();
        loop {
            let left = statvfs(&self.0).unwrap();
            if left.f_bavail == 0 {
                return;
            }
            // The server may have written in between: then it is asked for too much, and asked again.
            let length = filler.metadata().unwrap().len();
            let _ = fallocate(&filler, FallocateFlags::empty(), length, left.f_bavail * left.f_frsize);
        }
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run_as_root(&["umount", "--lazy", self.0.to_str().unwrap()]);
    }
}

/// A page whose build takes so long, also on an engine that built the like before.
fn page(text: &str, seconds: u32) -> MemoryFiles {
    let now = Timestamp::now().as_nanosecond();
    let dockerfile = format!(
        "FROM paas/static:1\nENV BUILT={now}\nRUN [\"/bin/busybox\", \"sleep\", \"{seconds}\"]\n\
         COPY index.html /site/index.html\n\
         CMD [\"/bin/busybox\", \"sh\", \"-c\", \"exec /bin/busybox httpd -f -p $PORT -h /site\"]\n"
    );
    MemoryFiles::from([("Dockerfile", dockerfile), ("index.html", text.to_owned())])
}

/// What `/readyz` names, by part.
async fn trouble(server: &Server) -> Vec<String> {
    let (status, readiness) = server.call(Method::GET, "/readyz", Value::Null).await;
    let problems = readiness["problems"].as_array().unwrap_or_else(|| panic!("{readiness}")).clone();
    assert_eq!(status, if problems.is_empty() { 200 } else { 503 }, "{readiness}");
    problems.iter().map(|problem| problem["part"].as_str().unwrap().to_owned()).collect()
}

/// The number of the last try of any step; 0 before the first.
async fn tries(server: &Server, deployment: &str) -> u64 {
    let path = format!("/v1/deployments/{deployment}/events?limit=100");
    let events = server.call(Method::GET, &path, Value::Null).await.1;
    let events = events["items"].as_array().unwrap_or_else(|| panic!("{events}"));
    events.iter().filter_map(|event| event["attempt"].as_u64()).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_reads_go_on_and_what_was_accepted_waits() {
    let machine = Machine::new().await;
    let disk = Disk::mount(machine.folder.path().join("server"));
    let server = machine.start().await;
    machine.git.commit("site", "main", page("one", 0)).await.unwrap();
    let (_, first) = server.create("site", &machine.git.url("site")).await;
    assert_eq!(server.settle(&first).await["state"], "running");
    assert_eq!(trouble(&server).await, [""; 0]);
    let hammer = Hammer::start(machine.proxy_port, "site", 1);

    machine.git.commit("site", "main", page("two", 3)).await.unwrap();
    let second = server.act(Method::POST, "/v1/apps/site/deployments").await;
    server.reach(&second, &["build"]).await;
    disk.fill();
    let wanted = json!({ "name": "late", "repository": machine.git.url("late").as_str() });
    let (status, problem) = server.call(Method::POST, "/v1/apps", wanted.clone()).await;
    assert_eq!((status, &problem["code"]), (507, &"storage_full".into()), "{problem}");
    assert!(problem["hint"].is_string(), "{problem}");
    assert_eq!(server.call(Method::GET, "/v1/apps/site", Value::Null).await.0, 200);
    // The build ends meanwhile. The database may have room for some of what follows in its log, but not for all.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let waiting = server.deployment(&second).await;
    assert!(waiting["settled_at"].is_null(), "{waiting}");
    assert!(trouble(&server).await.contains(&"disk".to_owned()));
    assert_eq!(visit(&machine).await, (200, "one".to_owned()));

    disk.free();
    assert_eq!(server.settle(&second).await["state"], "running");
    assert_eq!(tries(&server, &second).await, 1, "no try was counted");
    assert_eq!(visit(&machine).await, (200, "two".to_owned()));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(trouble(&server).await, [""; 0]);
    assert_eq!(server.call(Method::GET, "/v1/apps/late", Value::Null).await.0, 404, "it was refused");

    machine.git.commit("late", "main", page("late", 0)).await.unwrap();
    let (status, app) = server.call(Method::POST, "/v1/apps", wanted).await;
    assert_eq!(status, 201, "{app}");
    let late = app["deployment"]["id"].as_str().unwrap().to_owned();
    assert_eq!(server.settle(&late).await["state"], "running");
    let (answered, failures) = hammer.stop().await;
    assert_eq!(failures, [""; 0], "of {answered}");
    for name in ["site", "late"] {
        let deletion = server.act(Method::DELETE, &format!("/v1/apps/{name}")).await;
        assert_eq!(server.settle(&deletion).await["state"], "deleted");
    }
    assert!(server.stop().await.0.success());
}

/// How an engine can be away.
#[derive(Clone, Copy, Debug)]
enum Away {
    Killed,
    Restarted,
    Held,
}

impl Away {
    fn begin(self, engine: &OwnEngine) {
        match self {
            Self::Killed => engine.kill(),
            Self::Restarted => engine.stop(),
            Self::Held => engine.hold(),
        }
    }

    fn end(self, engine: &OwnEngine) {
        match self {
            Self::Killed | Self::Restarted => engine.start_again(),
            Self::Held => engine.let_go_on(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_engine_is_away_apps_answer_and_what_was_accepted_waits() {
    let machine = Machine::new().await.with_engine(block_in_place(OwnEngine::start));
    let engine = machine.engine.as_ref().unwrap();
    let server = machine.start().await;
    for name in ["site", "other"] {
        machine.git.commit(name, "main", page("0", 0)).await.unwrap();
        let (_, first) = server.create(name, &machine.git.url(name)).await;
        assert_eq!(server.settle(&first).await["state"], "running");
    }
    let hammer = Hammer::start(machine.proxy_port, "other", 1);
    for (number, away) in [(0, Away::Killed), (1, Away::Restarted), (2, Away::Held)] {
        let text = (number + 1).to_string();
        // Not as long as the build before: the engine would know the step.
        machine.git.commit("site", "main", page(&text, 3 + number)).await.unwrap();
        let building = server.act(Method::POST, "/v1/apps/site/deployments").await;
        server.reach(&building, &["build"]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        block_in_place(|| away.begin(engine));
        let accepted = server.act(Method::POST, "/v1/apps/other/actions/restart").await;
        until(&server, |parts| parts.contains(&"engine".to_owned())).await;
        for operation in [&building, &accepted] {
            let waiting = server.deployment(operation).await;
            assert!(waiting["settled_at"].is_null(), "{away:?}: {waiting}");
        }
        assert_eq!(visit(&machine).await, (200, number.to_string()), "{away:?}");
        block_in_place(|| away.end(engine));
        for operation in [&building, &accepted] {
            let settled = server.settle(operation).await;
            assert_eq!(settled["state"], "running", "{away:?}: {settled}");
            assert_eq!(tries(&server, operation).await, 1, "{away:?}: no try was counted");
        }
        assert_eq!(visit(&machine).await, (200, text), "{away:?}");
        until(&server, <[String]>::is_empty).await;
    }
    let (answered, failures) = hammer.stop().await;
    assert_eq!(failures, [""; 0], "of {answered}");
    assert!(server.stop().await.0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_git_server_that_is_away_is_waited_for() {
    let machine = Machine::new().await;
    let server = machine.start().await;
    machine.git.commit("site", "main", page("one", 0)).await.unwrap();
    machine.git.fault("site", GitFault::Status { status: 503, times: 1_000, retry_after_seconds: None });
    let (_, first) = server.create("site", &machine.git.url("site")).await;
    keeps_trying(&server, &first, "the git server has a problem").await;
    machine.git.fault("site", None);
    goes_on(&machine, server, &first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_away_is_waited_for() {
    let machine = Machine::new().await;
    let server = machine.start().await;
    let registry = Registry::away("paas/static:1");
    let dockerfile = format!(
        "FROM {}\nCOPY index.html /site/index.html\n\
         CMD [\"/bin/busybox\", \"sh\", \"-c\", \"exec /bin/busybox httpd -f -p $PORT -h /site\"]\n",
        registry.image()
    );
    let files = MemoryFiles::from([("Dockerfile", dockerfile), ("index.html", "one".to_owned())]);
    machine.git.commit("site", "main", files).await.unwrap();
    let (_, first) = server.create("site", &machine.git.url("site")).await;
    keeps_trying(&server, &first, "the registry of a base image cannot be reached").await;
    registry.come_back().await;
    goes_on(&machine, server, &first).await;
}

/// Waits until a deployment was tried more often than what fails for good, and looks whether its owner is told why.
async fn keeps_trying(server: &Server, deployment: &str, why: &str) {
    let began = Instant::now();
    while tries(server, deployment).await < 7 {
        assert!(began.elapsed() < PATIENCE, "{}", server.deployment(deployment).await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(server.deployment(deployment).await["settled_at"].is_null());
    assert_eq!(trouble(server).await, [""; 0], "it is none of the platform's");
    let log = server.call(Method::GET, "/v1/apps/site/logs?source=system", Value::Null).await.1.to_string();
    assert!(log.contains(&format!("{why}; it is tried again in")), "{log}");
}

/// What was waited for is there: the deployment ends, and the app answers.
async fn goes_on(machine: &Machine, server: Server, deployment: &str) {
    assert_eq!(server.settle(deployment).await["state"], "running");
    assert_eq!(visit(machine).await, (200, "one".to_owned()));
    let deletion = server.act(Method::DELETE, "/v1/apps/site").await;
    assert_eq!(server.settle(&deletion).await["state"], "deleted");
    assert!(server.stop().await.0.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_leaps_stalls_nothing() {
    let machine = Machine::new().await.with_clock();
    let server = machine.start().await;
    machine.git.commit("site", "main", page("0", 0)).await.unwrap();
    let (_, first) = server.create("site", &machine.git.url("site")).await;
    assert_eq!(server.settle(&first).await["state"], "running");
    let hammer = Hammer::start(machine.proxy_port, "site", 1);
    let hour = 60 * 60;
    let mut now = 0;
    for (seconds, leap) in [(3, hour), (4, -hour), (5, 24 * hour), (6, -24 * hour), (7, -24 * hour)] {
        let text = seconds.to_string();
        machine.git.commit("site", "main", page(&text, seconds)).await.unwrap();
        let deployment = server.act(Method::POST, "/v1/apps/site/deployments").await;
        server.reach(&deployment, &["build"]).await;
        now += leap;
        machine.set_clock(now);
        let began = Instant::now();
        let settled = server.settle(&deployment).await;
        assert_eq!(settled["state"], "running", "{leap}: {settled}");
        assert!(began.elapsed() < PATIENCE, "{leap}: it took {:?}", began.elapsed());
        assert_eq!(tries(&server, &deployment).await, 1, "{leap}");
        assert_eq!(visit(&machine).await, (200, text), "{leap}");
        let ended: Timestamp = settled["settled_at"].as_str().unwrap().parse().unwrap();
        let off = ended.duration_since(Timestamp::now()).as_secs();
        assert!(off.abs_diff(now) < 60, "the clock was set: {off} s, not {now} s");
    }
    let (answered, failures) = hammer.stop().await;
    assert_eq!(failures, [""; 0], "of {answered}");
    let deletion = server.act(Method::DELETE, "/v1/apps/site").await;
    assert_eq!(server.settle(&deletion).await["state"], "deleted");
    assert!(server.stop().await.0.success());
}

/// Waits until what `/readyz` names is so.
async fn until(server: &Server, is_so: impl Fn(&[String]) -> bool) {
    let began = Instant::now();
    loop {
        let parts = trouble(server).await;
        if is_so(&parts) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{parts:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn visit(machine: &Machine) -> (u16, String) {
    get(&client(), machine.proxy_port, "site", "/").await.unwrap()
}
