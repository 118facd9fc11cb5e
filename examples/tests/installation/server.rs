//! The bundled server as a process of its own.

use std::ffi::OsString;
use std::net::TcpListener;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use super::api::Api;
use super::leftovers::Leftovers;
use super::own_engine::OwnEngine;
use paas_git::testing::GitServer;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// What `examples/setup/base-images.sh` brings.
const BASE_IMAGES: &str =
    r#"{ static = "paas/static:1", "python:3.11" = "paas/python:3.11", "node:20" = "paas/node:20" }"#;
/// The folder of the first server.
const FIRST: &str = "server";

/// A server that was started.
pub struct Server {
    process: Child,
    api: Api,
}

impl Deref for Server {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

/// What stays when a server is killed: its folder, its proxy, its containers, and the git server.
pub struct Machine {
    pub folder: tempfile::TempDir,
    pub git: GitServer,
    leftovers: Leftovers,
    pub proxy_port: u16,
    /// Where its servers keep their state, if not in a file.
    pub database_url: Option<String>,
    /// What its servers build and run with, if not the machine's engine.
    pub engine: Option<OwnEngine>,
    /// How far its servers' clock is off, if it can be set.
    clock: Option<PathBuf>,
    program: &'static str,
}

impl Machine {
    pub async fn new() -> Self {
        let proxy_port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        Self {
            folder: tempfile::tempdir().unwrap(),
            git: GitServer::temporary().await.unwrap(),
            leftovers: Leftovers(format!("server-{}", std::process::id())),
            proxy_port,
            database_url: None,
            engine: None,
            clock: None,
            program: env!("CARGO_BIN_EXE_http_server"),
        }
    }

    /// The same with servers that die where they are told to.
    pub fn fragile(mut self) -> Self {
        self.program = env!("CARGO_BIN_EXE_fragile_server");
        self
    }

    /// The same with an engine of its own.
    pub fn with_engine(mut self, engine: OwnEngine) -> Self {
        self.engine = Some(engine);
        self
    }

    /// The same with servers whose clock can be set.
    pub fn with_clock(mut self) -> Self {
        self.clock = Some(self.folder.path().join("clock"));
        self.set_clock(0);
        self
    }

    /// Sets the clock of its servers to so many seconds before or behind the machine's.
    pub fn set_clock(&self, seconds: i64) {
        let file = self.clock.as_ref().unwrap();
        std::fs::write(file.with_extension("new"), format!("{seconds:+}")).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    }

    /// What a program needs so that it reads another time. Waits and measured times stay as they are.
    fn clock_variables(&self) -> Vec<(&'static str, OsString)> {
        let Some(file) = &self.clock else { return Vec::new() };
        let library = std::fs::read_dir("/usr/lib")
            .unwrap()
            .map(|folder| folder.unwrap().path().join("faketime/libfaketimeMT.so.1"))
            .find(|path| path.exists())
            .expect("libfaketime is installed: run examples/setup/tools.sh");
        vec![
            ("LD_PRELOAD", library.into()),
            ("FAKETIME_TIMESTAMP_FILE", file.into()),
            ("FAKETIME_NO_CACHE", "1".into()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".into()),
        ]
    }

    /// Has its server die at a point.
    pub fn arm(&self, point: &str) {
        // In one step: a point that was read half would not be known.
        let (file, new) = (self.folder.path().join("point"), self.folder.path().join("point.new"));
        std::fs::write(&new, point).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    pub fn disarm(&self) {
        let _ = std::fs::remove_file(self.folder.path().join("point"));
    }

    /// Every point that its servers passed.
    pub fn points_passed(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.path().join("points")).unwrap();
        log.lines().map(str::to_owned).collect()
    }

    /// Starts a server that is killed while it starts, or soon after.
    pub async fn start_and_kill(&self, after: Duration) {
        let mut process = self.spawn(FIRST);
        tokio::time::sleep(after).await;
        process.kill().await.unwrap();
    }

    fn spawn(&self, name: &str) -> Child {
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let pool = format!("10.{}.{low}.0/24", 223 + (high & 0x0f));
        let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
        Command::new(self.program)
            .env("FAIL_POINT_FILE", self.folder.path().join("point"))
            .env("FAIL_POINT_LOG", self.folder.path().join("points"))
            .env("PAAS_DATA_DIRECTORY", self.folder.path().join(name))
            .env("PAAS_PROXY_DIRECTORY", self.proxy_directory())
            .env("PAAS_LISTEN", "127.0.0.1:0")
            .env("PAAS_PROXY_LISTEN", format!("127.0.0.1:{}", self.proxy_port))
            .env("PAAS_INSTALLATION", &self.leftovers.0)
            .env("PAAS_ADDRESS_POOL", pool)
            .env("PAAS_ALLOWED_HOSTS", format!("[\"{}\"]", self.git.address()))
            .env("PAAS_BASE_IMAGES", BASE_IMAGES)
            .envs(self.database_url.as_ref().map(|url| ("PAAS_DATABASE_URL", url)))
            .envs(self.engine.as_ref().map(|engine| ("DOCKER_HOST", engine.host())))
            .envs(self.clock_variables())
            .envs(authorities.exists().then_some(("PAAS_CA_BUNDLE", authorities)))
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap()
    }

    fn proxy_directory(&self) -> PathBuf {
        self.folder.path().join(FIRST).join("proxy")
    }

    pub async fn start(&self) -> Server {
        self.start_as(FIRST).await
    }

    /// Starts a server beside the first one: with its own folder, and the same key, token and proxy.
    pub async fn start_beside(&self, name: &str) -> Server {
        let folder = self.folder.path();
        std::fs::create_dir_all(folder.join(name)).unwrap();
        for file in ["master.key", "token"] {
            std::fs::copy(folder.join(FIRST).join(file), folder.join(name).join(file)).unwrap();
        }
        self.start_as(name).await
    }

    async fn start_as(&self, name: &str) -> Server {
        let mut process = self.spawn(name);
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = loop {
            let line = lines.next_line().await.unwrap().expect("the server starts");
            if let Some(address) = line.strip_prefix("API:") {
                break address.trim().to_owned();
            }
        };
        // What else it prints is read, so that it never waits for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let token =
            std::fs::read_to_string(self.folder.path().join(name).join("token")).unwrap().trim().to_owned();
        Server { process, api: Api::new(address, token) }
    }

    /// Sends a signal to the proxy.
    pub fn signal_proxy(&self, signal: Signal) {
        let [proxy] = self.proxies()[..] else { panic!("one proxy runs") };
        kill_process(proxy, signal).unwrap();
    }

    /// The ids of the processes that the directory of the proxy is an argument of.
    fn proxies(&self) -> Vec<Pid> {
        let directory = self.proxy_directory().display().to_string();
        let is_proxy = |process: &std::fs::DirEntry| {
            std::fs::read(process.path().join("cmdline"))
                .is_ok_and(|line| String::from_utf8_lossy(&line).contains(&directory))
        };
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let id =
            |process: std::fs::DirEntry| process.file_name().to_str()?.parse().ok().and_then(Pid::from_raw);
        processes.filter(is_proxy).filter_map(id).collect()
    }

    /// A command for the engine that its servers use.
    pub fn docker(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new("docker");
        command.envs(self.engine.as_ref().map(|engine| ("DOCKER_HOST", engine.host()))).args(arguments);
        command
    }

    /// The containers of an app, running or not.
    pub fn containers(&self, app: &str) -> Vec<String> {
        let of_app = format!("label=paas.app={app}");
        let arguments = ["ps", "--all", "--format", "{{.Names}}", "--filter", &of_app];
        let output = self.docker(&arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
    }
}

impl Drop for Machine {
    /// A proxy outlives its servers, and would outlive a test that failed.
    fn drop(&mut self) {
        for proxy in self.proxies() {
            let _ = kill_process(proxy, Signal::KILL);
        }
    }
}

impl Server {
    /// Where it is asked.
    pub fn api(&self) -> Api {
        self.api.clone()
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.process.id().and_then(|id| Pid::from_raw(id.cast_signed())).unwrap();
        kill_process(id, signal).unwrap();
    }

    /// True if it ends by itself.
    pub async fn dies_within(&mut self, patience: Duration) -> bool {
        tokio::time::timeout(patience, self.process.wait()).await.is_ok()
    }

    /// SIGTERM: answers how it ended, and after how long.
    pub async fn stop(mut self) -> (ExitStatus, Duration) {
        let began = Instant::now();
        self.signal(Signal::TERM);
        (self.process.wait().await.unwrap(), began.elapsed())
    }

    /// SIGKILL: nothing is flushed, nobody is told.
    pub async fn kill(mut self) {
        self.process.kill().await.unwrap();
    }
}
