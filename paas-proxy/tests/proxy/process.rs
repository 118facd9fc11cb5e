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
use tokio::net::{UnixListener, UnixStream};
use tokio::process::Command;

use crate::support::{Client, Instance, config, context, get, host, name, publish, route};

/// A process that ends with the test.
pub(crate) struct Running {
    pub(crate) client: Arc<ProxyClient>,
    pub(crate) address: SocketAddr,
    pub(crate) process: Pid,
    directory: Directory,
}

/// A directory; every process that was started for it ends with the test.
struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let directory = self.path().to_string_lossy().into_owned();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(number) = entry.file_name().to_string_lossy().parse() else { continue };
            let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&arguments).contains(&directory) {
                let _ = kill_process(pid(number), Signal::KILL);
            }
        }
    }
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

/// An address that a process has again when it is started again: not one of those that clients are given.
fn free_address() -> SocketAddr {
    let first = 20_000 + std::process::id() % 5_000;
    (first..30_000)
        .map(|port| SocketAddr::from(([127, 0, 0, 1], u16::try_from(port).unwrap())))
        .find(|address| std::net::TcpListener::bind(address).is_ok())
        .unwrap()
}

impl Running {
    pub(crate) async fn start() -> Self {
        Self::with(config()).await
    }

    /// One that has the same port when it is started again.
    async fn on_its_port() -> Self {
        Self::with(ProxyConfig { listen: free_address(), ..config() }).await
    }

    async fn with(config: ProxyConfig) -> Self {
        let directory = Directory::new();
        let config = ProxyConfig { directory: Some(directory.path().to_owned()), ..config };
        let client = Arc::new(ProxyClient::connect_or_spawn(config, launcher()).await.unwrap());
        let (address, process) = client.describe().await.unwrap();
        Self { client, address, process: pid(process), directory }
    }

    /// Kills the process, and returns when it is gone.
    async fn kill(&self) {
        kill_process(self.process, Signal::KILL).unwrap();
        while test_kill_process(self.process).is_ok() {
            tokio::task::yield_now().await;
        }
    }
}

/// The status for `app.localhost`, once somebody listens.
async fn status_in_time(address: SocketAddr, wanted: u16) {
    loop {
        if tokio::net::TcpStream::connect(address).await.is_ok()
            && let Some(answer) = get(address, "app.localhost", "/").await
            && answer.status == wanted
        {
            return;
        }
        tokio::task::yield_now().await;
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
    let directory = Directory::new();
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
    let directory = Directory::new();
    let instance = Instance::start(name()).await;
    // Another program starts the proxy, and is killed with its whole process group.
    let mut starter = Command::new(std::env::current_exe().unwrap())
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
    let running = Running::on_its_port().await;
    let instance = Instance::start(name()).await;
    publish(&*running.client, &host("app.localhost"), &instance.target(), 7).await;
    // Nobody watches it any more.
    let Running { client, address, process, directory } = running;
    drop(client);
    tokio::task::yield_now().await;
    kill_process(process, Signal::KILL).unwrap();

    // Somebody starts the program again: it serves before anyone connects to it.
    let config = ProxyConfig { listen: address, ..at(directory.path()) };
    let mut restarted = loop {
        let mut restarted = Command::new(env!("CARGO_BIN_EXE_paas-proxy"))
            .args(["--run-paas-proxy", &serde_json::to_string(&config).unwrap()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(restarted.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().unwrap();
        if line == "\"ready\"" {
            break restarted;
        }
        // The killed one is not gone yet.
        assert!(line.contains("directory_in_use"), "{line}");
    };
    assert_eq!(get(address, "app.localhost", "/").await.unwrap().body, instance.name.as_str());
    restarted.kill().await.unwrap();
}

#[tokio::test]
async fn a_killed_process_is_started_again_without_a_call() {
    let running = Running::on_its_port().await;
    let instance = Instance::start(name()).await;
    publish(&*running.client, &host("app.localhost"), &instance.target(), 7).await;
    for _ in 0..3 {
        // It answers requests a moment before it answers calls.
        let process = loop {
            match running.client.describe().await {
                Ok((_, process)) => break process,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        kill_process(pid(process), Signal::KILL).unwrap();
        while running.client.describe().await.is_ok_and(|(_, running)| running == process) {
            tokio::task::yield_now().await;
        }
        status_in_time(running.address, 200).await;
    }
}

#[tokio::test]
async fn a_process_that_lost_its_table_is_told_again() {
    for table in [None, Some("garbage")] {
        let running = Running::on_its_port().await;
        let instance = Instance::start(name()).await;
        publish(&*running.client, &host("app.localhost"), &instance.target(), 7).await;
        publish(&*running.client, &host("gone.localhost"), &instance.target(), 7).await;
        running.client.withdraw(&context(), &host("gone.localhost"), Generation(8)).await.unwrap();
        // Held still, so that nobody starts the next one before the file is gone.
        kill_process(running.process, Signal::STOP).unwrap();
        let path = running.directory.path().join("routes.journal");
        match table {
            None => std::fs::remove_file(path).unwrap(),
            Some(text) => std::fs::write(path, text).unwrap(),
        }
        running.kill().await;
        status_in_time(running.address, 200).await;
        loop {
            let serving = running.client.serving(&context(), &host("gone.localhost")).await.unwrap();
            if serving.is_some_and(|serving| serving.generation == Generation(8) && serving.route.is_none()) {
                break;
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_published_while_the_process_is_killed_is_served() {
    const HOSTS: usize = 200;
    let running = Running::on_its_port().await;
    let instance = Instance::start(name()).await;
    let published = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let publishing: Vec<_> = (0..HOSTS)
        .map(|number| {
            let (client, target, published) = (running.client.clone(), instance.target(), published.clone());
            tokio::spawn(async move {
                let route = route(&host(&format!("app-{number}.localhost")), &[target]);
                // A call that the process dies under fails, and can be repeated.
                while let Err(error) = client.publish(&context(), &route, Generation(1)).await {
                    assert!(error.is_transient(), "{error:?}");
                }
                published.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            })
        })
        .collect();
    while published.load(std::sync::atomic::Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    running.kill().await;
    for publishing in publishing {
        publishing.await.unwrap();
    }
    for number in 0..HOSTS {
        let answer = get(running.address, &format!("app-{number}.localhost"), "/").await.unwrap();
        assert_eq!(answer.status, 200, "{number}");
    }
}

#[tokio::test]
async fn a_client_that_is_dropped_leaves_nothing_running() {
    let directory = Directory::new();
    let before = tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let client = ProxyClient::connect_or_spawn(at(directory.path()), launcher()).await.unwrap();
    drop(client);
    while tokio::runtime::Handle::current().metrics().num_alive_tasks() > before {
        tokio::task::yield_now().await;
    }
    ProxyClient::connect(at(directory.path())).await.unwrap();
}

#[tokio::test]
async fn a_stopped_process_makes_room_for_the_next_before_its_requests_have_ended() {
    let running = Running::on_its_port().await;
    let instance = Instance::start(name()).await;
    publish(&*running.client, &host("app.localhost"), &instance.target(), 1).await;
    let mut client = Client::connect(running.address).await;
    client.send("GET /hold HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    let held = instance.held().await;
    // An operator stops it while the client, as of a server, lives.
    let mut stopping = stop_program(running.directory.path()).spawn().unwrap();
    loop {
        match running.client.describe().await {
            Ok((_, process)) if pid(process) != running.process => break,
            _ => tokio::task::yield_now().await,
        }
    }
    status_in_time(running.address, 200).await;
    assert!(stopping.try_wait().unwrap().is_none(), "the old process ended under a request");
    drop(held);
    assert_eq!(client.answer().await.unwrap().body, instance.name.as_str());
    assert!(stopping.wait().await.unwrap().success());
}

fn stop_program(directory: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paas-proxy"));
    command.arg("--stop-paas-proxy").arg(directory).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn an_operator_can_stop_the_process() {
    let Running { client, directory, .. } = Running::start().await;
    drop(client);
    tokio::task::yield_now().await;
    for said in ["the proxy has stopped", "no proxy runs in this directory"] {
        let output = stop_program(directory.path()).output().await.unwrap();
        assert!(output.status.success());
        assert_eq!(String::from_utf8_lossy(&output.stderr).trim_end(), said);
    }
    assert!(ProxyClient::connect(at(directory.path())).await.is_err());
}

#[tokio::test]
async fn a_process_of_another_protocol_can_be_stopped_as_the_error_says() {
    let directory = Directory::new();
    let listener = UnixListener::bind(directory.path().join("control.sock")).unwrap();
    // It hangs up on whoever does not speak its protocol.
    let other = tokio::spawn(async move {
        loop {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            let hello = r#"{"hello":{"protocol":99,"version":"9.9.9","process_id":1,"address":"127.0.0.1:1","public_port":1}}"#;
            stream.write_all(format!("{hello}\n").as_bytes()).await.unwrap();
            if !line.contains(r#""protocol":99"#) {
                continue;
            }
            line.clear();
            stream.read_line(&mut line).await.unwrap();
            if line.contains("stop") {
                stream.write_all(b"\"done\"\n").await.unwrap();
                return; // and lets go of the socket
            }
        }
    });
    let error = ProxyClient::connect_or_spawn(at(directory.path()), launcher()).await.unwrap_err();
    assert_eq!(error.reason(), Some("proxy_version"));
    let hint = error.hinted().unwrap();
    let command = hint.split('`').nth(1).unwrap();
    let mut words = command.split(' ');
    let stopped = Command::new(words.next().unwrap()).args(words).status().await.unwrap();
    assert!(stopped.success());
    other.await.unwrap();
}

#[tokio::test]
async fn a_process_that_is_too_old_to_list_its_routes_is_not_asked_to() {
    let directory = Directory::new();
    let listener = UnixListener::bind(directory.path().join("control.sock")).unwrap();
    tokio::spawn(async move {
        let mut streams = Vec::new();
        loop {
            let mut stream = BufReader::new(listener.accept().await.unwrap().0);
            let hello = r#"{"hello":{"protocol":1,"version":"0.0.9","process_id":1,"address":"127.0.0.1:1","public_port":1}}"#;
            stream.write_all(format!("{hello}\n\"done\"\n").as_bytes()).await.unwrap();
            streams.push(stream);
        }
    });
    let client = ProxyClient::connect(at(directory.path())).await.unwrap();
    let refused = [
        client.digest(&context()).await.map(drop).unwrap_err(),
        client.list(&context(), 0).await.map(drop).unwrap_err(),
    ];
    for error in refused {
        assert_eq!(error.kind(), Kind::Unsupported, "{error:?}");
        assert!(error.hinted().is_some());
    }
    client.ping(&context()).await.unwrap();
}

#[tokio::test]
async fn a_client_starts_the_process_again_when_it_is_gone() {
    let running = Running::start().await;
    let instance = Instance::start(name()).await;
    publish(&*running.client, &host("app.localhost"), &instance.target(), 7).await;
    running.kill().await;
    let serving = running.client.serving(&context(), &host("app.localhost")).await.unwrap();
    assert_eq!(serving.unwrap().generation, Generation(7));
    let (address, _) = running.client.describe().await.unwrap();
    assert_eq!(get(address, "app.localhost", "/").await.unwrap().status, 200);
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
    let directory = Directory::new();
    let config = ProxyConfig { listen: taken.local_addr().unwrap(), ..at(directory.path()) };
    let error = ProxyClient::connect_or_spawn(config, launcher()).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Unavailable, Some("address_in_use")));
    assert!(error.hinted().is_some());
}

#[tokio::test]
async fn a_program_that_is_no_proxy_is_reported() {
    let directory = Directory::new();
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
async fn every_file_is_its_owners_alone_also_in_a_directory_that_others_read() {
    let directory = Directory::new();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let _client = ProxyClient::connect_or_spawn(at(directory.path()), launcher()).await.unwrap();
    for file in ["control.sock", "lock", "proxy.log", "routes.journal"] {
        let mode = std::fs::metadata(directory.path().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_directory_that_others_write_in_is_refused() {
    let directory = Directory::new();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = ProxyClient::connect_or_spawn(at(directory.path()), launcher()).await.unwrap_err();
    assert_eq!(error.reason(), Some("directory_open"));
    assert!(error.hinted().unwrap().contains("chmod go-w"));
}

#[tokio::test]
async fn the_log_is_begun_anew_when_it_has_grown() {
    let directory = Directory::new();
    let path = directory.path().join("proxy.log");
    std::fs::write(&path, vec![b'x'; 10 * 1024 * 1024]).unwrap();
    let _client = ProxyClient::connect_or_spawn(at(directory.path()), launcher()).await.unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains("the proxy serves"));
    let old = std::fs::metadata(directory.path().join("proxy.log.old")).unwrap();
    assert_eq!(old.len(), 10 * 1024 * 1024);
}

#[tokio::test]
async fn as_many_clients_are_let_in_as_there_are_file_descriptors_for() {
    // Each of these takes two while its request is in flight, and there are 256 in all.
    const CLIENTS: usize = 140;
    const AT_ONCE: usize = (256 - 64) / 2;
    let directory = Directory::new();
    let config = serde_json::to_string(&at(directory.path())).unwrap();
    let mut process = Command::new("prlimit")
        .args(["--nofile=256", env!("CARGO_BIN_EXE_paas-proxy"), "--run-paas-proxy", &config])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("prlimit is needed: apt-get install util-linux");
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "\"ready\"");
    let client = ProxyClient::connect(at(directory.path())).await.unwrap();
    let (address, _) = client.describe().await.unwrap();
    let instance = Instance::start(name()).await;
    publish(&client, &host("app.localhost"), &instance.target(), 1).await;
    let requests: Vec<_> =
        (0..CLIENTS).map(|_| tokio::spawn(get(address, "app.localhost", "/hold"))).collect();
    let mut held = Vec::new();
    for _ in 0..AT_ONCE {
        held.push(instance.held().await);
    }
    // The others come in as these leave.
    for _ in AT_ONCE..CLIENTS {
        held.pop();
        held.insert(0, instance.held().await);
    }
    held.clear();
    for request in requests {
        assert_eq!(request.await.unwrap().unwrap().status, 200);
    }
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
