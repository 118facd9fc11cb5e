//! nginx: the peer of the proxy, and what answers behind both.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use paas_core::{Clock, SystemClock};
use tokio::process::{Child, Command};

use crate::Result;

/// A running nginx. It ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Nginx {
    pub(crate) configuration: PathBuf,
    pub(crate) address: String,
    process: Child,
}

/// A port that nobody listens on now.
pub(crate) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

impl Nginx {
    /// Starts it with what stands in its `http` block; `@PORT` there is the port it gets.
    pub(crate) async fn start(folder: &Path, workers: usize, http: &str) -> Result<Self> {
        tokio::fs::create_dir_all(folder).await?;
        let port = free_port()?;
        let (pid, log) = (folder.join("nginx.pid"), folder.join("error.log"));
        let mut text = format!("worker_processes {workers}; daemon off; pid {};\n", pid.display());
        let _ = writeln!(text, "error_log {}; events {{ worker_connections 4096; }}", log.display());
        let _ = writeln!(
            text,
            "http {{ access_log off; keepalive_requests 1000000000; keepalive_timeout 600s;\n{}\n}}",
            http.replace("@PORT", &port.to_string())
        );
        let configuration = folder.join("nginx.conf");
        tokio::fs::write(&configuration, text).await?;
        let process = Command::new("nginx")
            .arg("-c")
            .arg(&configuration)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("nginx can't be started ({error}): install it with apt"))?;
        let address = format!("127.0.0.1:{port}");
        let nginx = Self { configuration, address, process };
        nginx.wait().await?;
        Ok(nginx)
    }

    async fn wait(&self) -> Result<()> {
        let clock = SystemClock::new();
        while clock.elapsed() < Duration::from_secs(20) {
            if tokio::net::TcpStream::connect(&self.address).await.is_ok() {
                return Ok(());
            }
            clock.sleep(Duration::from_millis(20)).await;
        }
        Err(format!(
            "nginx does not listen; see {}",
            self.configuration.with_file_name("error.log").display()
        )
        .into())
    }

    /// Its main process and its workers.
    pub(crate) async fn processes(&self) -> Result<Vec<u32>> {
        let main = self.process.id().ok_or("nginx has ended")?;
        let children = tokio::fs::read_to_string(format!("/proc/{main}/task/{main}/children")).await?;
        Ok(std::iter::once(main)
            .chain(children.split_whitespace().filter_map(|id| id.parse().ok()))
            .collect())
    }

    /// Ends it and its workers.
    pub(crate) async fn stop(mut self) -> Result<()> {
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&self.configuration).args(["-s", "stop"]).stderr(Stdio::null());
        command.status().await?;
        self.process.wait().await?;
        Ok(())
    }
}
