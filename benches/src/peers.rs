//! Peers that are programs of their own, with lock files of their own: their dependencies clash with the platform's.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;

use crate::Result;

/// A peer's program.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    program: PathBuf,
    /// What it is told first: a script.
    script: Option<PathBuf>,
}

impl Peer {
    /// Starts it; it takes a folder and a time, and prints a turn, as our own contestants do.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.script);
        command
    }
}

/// Builds the apalis-sqlite peer, if that was not done before.
pub(crate) async fn apalis() -> Result<Peer> {
    let folder = source("apalis");
    // Beside this program, so that everything that was compiled lies below one folder.
    let target = std::env::current_exe()?.with_file_name("peers");
    let status = Command::new("cargo")
        .args(["build", "--quiet", "--release", "--locked", "--manifest-path"])
        .arg(folder.join("Cargo.toml"))
        .env("CARGO_TARGET_DIR", &target)
        .status()
        .await?;
    if !status.success() {
        return Err("its program can't be built".into());
    }
    Ok(Peer { program: target.join("release/apalis-peer"), script: None })
}

/// Installs graphile-worker with npm, if that was not done before.
pub(crate) async fn graphile() -> Result<Peer> {
    let (source, folder) = (source("graphile"), installed("graphile")?);
    for file in ["package.json", "package-lock.json", "main.mjs"] {
        tokio::fs::copy(source.join(file), folder.join(file)).await?;
    }
    if !folder.join("node_modules/graphile-worker").exists() {
        let mut npm = Command::new("npm");
        npm.args(["ci", "--silent", "--no-audit", "--no-fund"]).current_dir(&folder);
        succeed(npm).await?;
    }
    Ok(Peer { program: "node".into(), script: Some(folder.join("main.mjs")) })
}

/// Installs DBOS with pip, if that was not done before.
pub(crate) async fn dbos() -> Result<Peer> {
    let (source, folder) = (source("dbos"), installed("dbos")?);
    if !folder.join("bin/dbos").exists() {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv"]).arg(&folder);
        succeed(venv).await?;
        let mut pip = Command::new(folder.join("bin/pip"));
        pip.args(["install", "--quiet", "--requirement"]).arg(source.join("requirements.txt"));
        succeed(pip).await?;
    }
    Ok(Peer { program: folder.join("bin/python"), script: Some(source.join("main.py")) })
}

/// Where the peer's program is written.
fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name)
}

/// Where what it needs is installed: beside this program.
fn installed(name: &str) -> Result<PathBuf> {
    let folder = std::env::current_exe()?.with_file_name("peers").join(name);
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}

async fn succeed(mut command: Command) -> Result<()> {
    let status = command.status().await?;
    if status.success() { Ok(()) } else { Err(format!("it can't be installed: {status}").into()) }
}

/// The first of the engine's command lines on the path that builds with BuildKit: up to version 22 by itself, later with
/// a plug-in.
pub(crate) async fn docker() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    for program in
        std::env::split_paths(&path).map(|folder| folder.join("docker")).filter(|file| file.exists())
    {
        let plugin =
            Command::new(&program).args(["buildx", "version"]).stderr(Stdio::null()).output().await?;
        let version =
            Command::new(&program).args(["version", "--format", "{{.Client.Version}}"]).output().await?;
        let version = String::from_utf8_lossy(&version.stdout);
        let major: u32 = version.split('.').next().and_then(|major| major.parse().ok()).unwrap_or(u32::MAX);
        if plugin.status.success() || major < 23 {
            return Ok(program);
        }
    }
    Err("no `docker` on the path builds with BuildKit: install its buildx plug-in".into())
}
