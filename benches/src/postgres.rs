//! A PostgreSQL of the suite's own, as durable as it comes: every commit is synced.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::Result;

/// The variable that tells a contestant which database is its own.
pub(crate) const VARIABLE: &str = "PAAS_BENCH_DATABASE";

/// A server. It is gone with this.
#[derive(Debug)]
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    databases: u32,
}

impl Cluster {
    /// Makes and starts one, on a port of this machine only.
    pub(crate) async fn start() -> Result<Self> {
        let programs = programs()?;
        let folder = tempfile::tempdir()?;
        if rustix::process::geteuid().is_root() {
            let status = Command::new("chown").arg("postgres").arg(folder.path()).status().await?;
            if !status.success() {
                return Err("there is no user `postgres`".into());
            }
        }
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let cluster = Self { folder, programs, port, databases: 0 };
        let data = format!("--pgdata={}", cluster.data());
        let own = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C"];
        cluster.run("initdb", &[&[data.as_str()], &own[..]].concat()).await?;
        let options = format!(
            "-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories= -c max_connections=200"
        );
        let log = format!("--log={}", cluster.folder.path().join("log").display());
        cluster.run("pg_ctl", &["start", "--wait", "--silent", &data, &log, "--options", &options]).await?;
        Ok(cluster)
    }

    /// The address of a new database.
    pub(crate) async fn database(&mut self) -> Result<String> {
        self.databases += 1;
        let (name, port) = (format!("turn_{}", self.databases), self.port.to_string());
        let server = ["--host=127.0.0.1", "--username=postgres", "--port", &port];
        self.run("createdb", &[&server[..], &[&name]].concat()).await?;
        Ok(format!("postgresql://postgres@127.0.0.1:{port}/{name}"))
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        let mut command = Command::from(as_server(&self.programs.join(program)));
        let status = command.args(arguments).stdout(Stdio::null()).status().await?;
        if status.success() { Ok(()) } else { Err(format!("{program} ended with {status}").into()) }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut command = as_server(&self.programs.join("pg_ctl"));
        let _ = command.args(["stop", "--silent", "--mode=immediate", "--pgdata", &self.data()]).status();
    }
}

/// The program, as somebody that it runs for: not as root.
fn as_server(program: &Path) -> std::process::Command {
    if !rustix::process::geteuid().is_root() {
        return std::process::Command::new(program);
    }
    let mut command = std::process::Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(program).current_dir("/");
    command
}

/// Where the newest version that Debian's packages brought keeps its programs.
fn programs() -> Result<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").map(|entries| entries.flatten().collect());
    let versions: Vec<std::fs::DirEntry> = versions.unwrap_or_default();
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.iter().map(std::fs::DirEntry::path).max_by_key(|path| number(path));
    Ok(newest.ok_or("it is not installed: examples/setup/postgres.sh installs it")?.join("bin"))
}
