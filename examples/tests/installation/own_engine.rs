//! A Docker engine of the test's own: it can be killed, held and restarted while other work goes on at the machine's.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::root::{as_root, run_as_root};

/// The base image that apps of these tests are made from.
const IMAGE: &str = "paas/static:1";
/// How long it may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Containers keep running while it is away, as with the engine that `examples/setup/engine.sh` sets up. When it is
/// dropped, they are gone.
pub struct OwnEngine {
    folder: tempfile::TempDir,
    bridge: Bridge,
    process: Mutex<Child>,
}

impl OwnEngine {
    /// Starts one, which knows no image but one base image.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), "{}").unwrap();
        let bridge = Bridge::new();
        let engine = Self { process: Mutex::new(spawn(&folder, &bridge)), folder, bridge };
        engine.wait_until_it_answers();
        let mut saving = Command::new("docker").args(["save", IMAGE]).stdout(Stdio::piped()).spawn().unwrap();
        let loading = engine.docker(&["load"]).stdin(saving.stdout.take().unwrap()).output().unwrap();
        assert!(saving.wait().unwrap().success() && loading.status.success(), "{IMAGE}: {loading:?}");
        engine
    }

    /// Where it listens.
    pub fn host(&self) -> String {
        host(&self.folder)
    }

    /// A command of its command line.
    pub fn docker(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(self.host()).args(arguments);
        command
    }

    /// SIGKILL: it is gone on return, its containers are not.
    pub fn kill(&self) {
        self.signal("-KILL");
        self.wait_until_it_is_gone();
    }

    /// SIGTERM: it ends in order.
    pub fn stop(&self) {
        self.signal("-TERM");
        self.wait_until_it_is_gone();
    }

    /// It neither answers nor ends until it is let go on.
    pub fn hold(&self) {
        self.signal("-STOP");
    }

    pub fn let_go_on(&self) {
        self.signal("-CONT");
    }

    /// Starts it after it has ended.
    pub fn start_again(&self) {
        *self.process.lock().unwrap() = spawn(&self.folder, &self.bridge);
        self.wait_until_it_answers();
    }

    fn signal(&self, signal: &str) {
        let id = std::fs::read_to_string(self.folder.path().join("pid")).unwrap();
        run_as_root(&["kill", signal, id.trim()]);
    }

    fn answers(&self) -> bool {
        self.docker(&["version"]).output().unwrap().status.success()
    }

    fn wait_until_it_answers(&self) {
        let until = Instant::now() + PATIENCE;
        while !self.answers() {
            let log = self.folder.path().join("log");
            assert!(Instant::now() < until, "{}", std::fs::read_to_string(log).unwrap());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn has_ended(&self) -> bool {
        self.process.lock().unwrap().try_wait().unwrap().is_some()
    }

    /// Also what it started goes, which the next one would take for its own.
    fn wait_until_it_is_gone(&self) {
        let until = Instant::now() + PATIENCE;
        let id = std::fs::read_to_string(self.folder.path().join("run/containerd/containerd.pid"));
        let process = Path::new("/proc").join(id.unwrap_or_default().trim());
        while !self.has_ended() || (process != Path::new("/proc/") && process.exists()) {
            assert!(Instant::now() < until, "the engine does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn containers(&self) -> Vec<String> {
        let listed = self.docker(&["ps", "--all", "--quiet"]).output().unwrap();
        String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect()
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        // A test that failed may have left it in any state.
        if self.has_ended() {
            self.start_again();
        } else {
            self.let_go_on();
        }
        let _ = self.docker(&["rm", "--force", "--volumes"]).args(self.containers()).output();
        self.stop();
        let data = self.folder.path().join("data");
        run_as_root(&["umount", "--recursive", "--lazy", data.to_str().unwrap()]);
        // What belongs to root is in the way of who is not.
        run_as_root(&["rm", "-r", self.folder.path().to_str().unwrap()]);
    }
}

fn host(folder: &tempfile::TempDir) -> String {
    format!("unix://{}", folder.path().join("socket").display())
}

/// A network bridge. Without one of its own, an engine takes the machine's engine's, or takes it away.
struct Bridge(String);

impl Bridge {
    fn new() -> Self {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let bridge = Self(format!("paas-test-{high:x}{low:02x}"));
        run_as_root(&["ip", "link", "add", &bridge.0, "type", "bridge"]);
        let address = format!("10.{}.{low}.1/24", 240 + (high & 0x0f));
        run_as_root(&["ip", "address", "add", &address, "dev", &bridge.0]);
        bridge
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        run_as_root(&["ip", "link", "delete", &self.0]);
    }
}

fn spawn(folder: &tempfile::TempDir, bridge: &Bridge) -> Child {
    let option = |name: &str, file: &str| format!("--{name}={}", folder.path().join(file).display());
    let log = File::options().create(true).append(true).open(folder.path().join("log")).unwrap();
    let group = format!("--group={}", rustix::process::getgid().as_raw());
    as_root(&["dockerd", "--live-restore", "--iptables=false", "--ip6tables=false", &group])
        .arg(format!("--bridge={}", bridge.0))
        .arg(option("config-file", "config.json"))
        .arg(option("data-root", "data"))
        .arg(option("exec-root", "run"))
        .arg(option("pidfile", "pid"))
        .arg(format!("--host={}", host(folder)))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .expect("the Docker engine is installed: run examples/setup/engine.sh")
}
