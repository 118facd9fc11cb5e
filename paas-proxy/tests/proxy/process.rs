//! The proxy as a process of its own.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use paas_core::{Generation, Ingress, Kind};
use paas_proxy::{Launcher, ProxyClient, ProxyConfig};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::support::{Client, Instance, config, context, get, host, name, publish, route};

/// A process that ends with the test.
pub(crate) struct Running {
    pub(crate) client: Arc<ProxyClient>,
    pub(crate) address: SocketAddr,
    pub(crate) process: Pid,
    directory: tempfile::TempDir,
}

fn launcher() -> Launcher {
    Launcher::Program(env!("CARGO_BIN_EXE_paas-proxy").into())
}

fn at(directory: &Path) -> ProxyConfig {
    ProxyConfig { directory: Some(directory.to_owned()), ..config() }
}

fn pid(number: u32) -> Pid {
    Pid::from_raw(i32::try_from(number).unwrap()).unwrap()
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::in_directory(tempfile::tempdir().unwrap()).await
    }

    async fn in_directory(directory: tempfile::TempDir) -> Self {
        let client = ProxyClient::connect_or_spawn(at(directory.path()), launcher()).await.unwrap();
        let (address, process) = client.describe().await.unwrap();
        Self { client: Arc::new(client), address, process: pid(process), directory }
    }

    /// Kills the process, and returns when it is gone.
    async fn kill(&self) {
        kill_process(self.process, Signal::KILL).unwrap();
        while ProxyClient::connect(at(self.directory.path())).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = kill_process(self.process, Signal::KILL);
    }
}

#[tokio::test]
async fn a_second_program_finds_the_process_that_runs() {
    let running = Running::start().await;
    let again = ProxyClient::connect_or_spawn(at(running.directory.path()), launcher()).await.unwrap();
    let (address, process) = again.describe().await.unwrap();
    assert_eq!((address, pid(process)), (running.address, running.process));
    let url = again.url(&host("app.localhost"));
    assert_eq!(url, format!("http://app.localhost:{}", running.address.port()));
}

#[tokio::test]
async fn programs_that_start_at_once_share_one_process() {
    let directory = tempfile::tempdir().unwrap();
    let starts = (0..4).map(|_| ProxyClient::connect_or_spawn(at(directory.path()), launcher()));
    let mut processes = Vec::new();
    for client in futures::future::join_all(starts).await {
        processes.push(client.unwrap().describe().await.unwrap().1);
    }
    let first = processes[0];
    kill_process(pid(first), Signal::KILL).unwrap();
    assert!(processes.iter().all(|process| *process == first), "{processes:?}");
}

#[tokio::test]
async fn the_process_serves_on_when_its_starter_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let instance = Instance::start(name()).await;
    // Another program starts the proxy, and is killed with its whole process group.
    let mut starter = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::starts_a_proxy_and_waits", "--ignored", "--nocapture"])
        .env("TEST_PROXY_DIRECTORY", directory.path())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(starter.stdout.take().unwrap()).lines();
    while !lines.next_line().await.unwrap().unwrap().contains("the proxy runs") {}
    let group = pid(starter.id().unwrap());
    rustix::process::kill_process_group(group, Signal::KILL).unwrap();
    starter.wait().await.unwrap();

    let client = ProxyClient::connect(at(directory.path())).await.unwrap();
    let (address, process) = client.describe().await.unwrap();
    publish(&client, &host("app.localhost"), &instance.target(), 1).await;
    let answer = get(address, "app.localhost", "/").await;
    kill_process(pid(process), Signal::KILL).unwrap();
    assert_eq!(answer.unwrap().status, 200);
}

/// Not a test: the starter of the test above.
#[tokio::test]
#[ignore = "the program that another test starts and kills"]
async fn starts_a_proxy_and_waits() {
    let directory = std::env::var_os("TEST_PROXY_DIRECTORY").unwrap();
    let _client = ProxyClient::connect_or_spawn(at(Path::new(&directory)), launcher()).await.unwrap();
    println!("the proxy runs");
    std::io::stdout().flush().unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_killed_process_comes_back_with_its_last_table() {
    let running = Running::start().await;
    let instance = Instance::start(name()).await;
    publish(&*running.client, &host("app.localhost"), &instance.target(), 7).await;
    running.kill().await;

    // Somebody starts the program again: it serves before anyone connects to it.
    let config = ProxyConfig { listen: running.address, ..at(running.directory.path()) };
    let mut restarted = tokio::process::Command::new(env!("CARGO_BIN_EXE_paas-proxy"))
        .args(["--run-paas-proxy", &serde_json::to_string(&config).unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(restarted.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "\"ready\"");
    assert_eq!(get(running.address, "app.localhost", "/").await.unwrap().body, instance.name.as_str());
    restarted.kill().await.unwrap();
}

#[tokio::test]
async fn a_client_starts_the_process_again_when_it_is_gone() {
    let running = Running::start().await;
    let instance = Instance::start(name()).await;
    publish(&*running.client, &host("app.localhost"), &instance.target(), 7).await;
    running.kill().await;
    let serving = running.client.serving(&context(), &host("app.localhost")).await.unwrap();
    assert_eq!(serving.unwrap().generation, Generation(7));
    let (address, process) = running.client.describe().await.unwrap();
    let answer = get(address, "app.localhost", "/").await;
    kill_process(pid(process), Signal::KILL).unwrap();
    assert_eq!(answer.unwrap().status, 200);
}

#[tokio::test]
async fn a_terminated_process_lets_requests_end() {
    let running = Running::start().await;
    let instance = Instance::start(name()).await;
    publish(&*running.client, &host("app.localhost"), &instance.target(), 1).await;
    let mut client = Client::connect(running.address).await;
    client.send("GET /hold HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    let held = instance.held().await;
    kill_process(running.process, Signal::TERM).unwrap();
    while tokio::net::TcpStream::connect(running.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    drop(held);
    assert_eq!(client.answer().await.unwrap().body, instance.name.as_str());
}

#[tokio::test]
async fn a_process_that_is_asked_to_stop_is_gone_afterwards() {
    let running = Running::start().await;
    running.client.stop().await.unwrap();
    running.client.stop().await.unwrap(); // nothing is left to stop
    let error = ProxyClient::connect(at(running.directory.path())).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.is_transient());
    let _ = test_kill_process(running.process);
}

#[tokio::test]
async fn a_taken_port_is_reported_to_the_starter() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let config = ProxyConfig { listen: taken.local_addr().unwrap(), ..at(directory.path()) };
    let error = ProxyClient::connect_or_spawn(config, launcher()).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Unavailable, Some("address_in_use")));
    assert!(error.hinted().is_some());
}

#[tokio::test]
async fn a_program_that_is_no_proxy_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    for program in ["/bin/true", "/nonexistent/paas-proxy"] {
        let launcher = Launcher::Program(program.into());
        let error = ProxyClient::connect_or_spawn(at(directory.path()), launcher).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (Kind::Unavailable, "proxy.start_process"));
    }
}

#[tokio::test]
async fn a_process_on_another_address_is_not_taken_for_the_wanted_one() {
    let running = Running::start().await;
    let config = ProxyConfig {
        listen: SocketAddr::from(([127, 0, 0, 1], running.address.port() ^ 1)),
        ..at(running.directory.path())
    };
    let error = ProxyClient::connect(config).await.unwrap_err();
    assert_eq!(error.reason(), Some("proxy_config"));
}

#[tokio::test]
async fn the_control_socket_is_its_owners_alone() {
    let running = Running::start().await;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&running.directory.path().join("control.sock")), 0o600);
}

#[tokio::test]
async fn garbage_on_the_control_socket_is_refused_and_harms_nobody() {
    let running = Running::start().await;
    let hello = "{\"call\":{\"name\":\"hello\",\"protocol\":1}}\n";
    let long = format!("{hello}{}\n", "x".repeat(2 * 1024 * 1024));
    let stranger = "{\"call\":{\"name\":\"hello\",\"protocol\":99}}\n{\"call\":{\"name\":\"ping\"}}\n";
    let unknown = format!("{hello}{{\"call\":{{\"name\":\"shutdown\"}}}}\n");
    for garbage in ["\0\u{1}\u{2}", "{}\n", "GET / HTTP/1.1\r\n\r\n", stranger, &unknown, &long] {
        let mut stream = UnixStream::connect(running.directory.path().join("control.sock")).await.unwrap();
        // It may hang up before it has read everything.
        let _ = stream.write_all(garbage.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert!(!String::from_utf8_lossy(&answer).contains("\"done\""), "{garbage:?}");
    }
    running.client.ping(&context()).await.unwrap();
    let route = route(&host("app.localhost"), &[]);
    running.client.publish(&context(), &route, Generation(1)).await.unwrap();
}

#[tokio::test]
async fn a_hung_process_is_a_timeout() {
    let running = Running::start().await;
    kill_process(running.process, Signal::STOP).unwrap();
    let context = context().with_budget(Duration::ZERO);
    let error = running.client.ping(&context).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Timeout);
}

#[tokio::test]
async fn a_call_can_be_cancelled() {
    let running = Running::start().await;
    let instance = Instance::start(name()).await;
    publish(&*running.client, &host("app.localhost"), &instance.target(), 1).await;
    let mut client = Client::connect(running.address).await;
    client.send("GET /hold HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    let held = instance.held().await;
    running.client.withdraw(&context(), &host("app.localhost"), Generation(2)).await.unwrap();
    let context = context();
    let (drained, ()) =
        tokio::join!(running.client.drain(&context, &instance.name, instance.address), async {
            context.cancel();
        });
    assert_eq!(drained.unwrap_err().kind(), Kind::Cancelled);
    drop(held);
    assert_eq!(client.answer().await.unwrap().status, 200);
}
