//! Serves git repositories over HTTP on 127.0.0.1, for demonstrations and tests.
//!
//! ```text
//! cargo run -p paas-git --features testing --example git_server -- \
//!     --directory DIR [--port PORT] [--repository NAME]... [--allow-push]
//! ```
//!
//! Makes the named repositories where they are missing, prints the URL of the server and of each of them, a line each,
//! and serves every `NAME.git` in the directory until it is ended. With `--allow-push` everybody on this machine may
//! push to the named ones.
#![allow(clippy::print_stdout)] // its output

use std::path::PathBuf;

use paas_core::{Error, Result};
use paas_git::testing::GitServer;

const USAGE: &str = "usage: git_server --directory DIR [--port PORT] [--repository NAME]... [--allow-push]";

#[derive(Default)]
struct Arguments {
    directory: PathBuf,
    /// 0 takes a free one.
    port: u16,
    repositories: Vec<String>,
    allow_push: bool,
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Option<Self> {
        let mut arguments = Self::default();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--directory" => arguments.directory = words.next()?.into(),
                "--port" => arguments.port = words.next()?.parse().ok()?,
                "--repository" => arguments.repositories.push(words.next()?),
                "--allow-push" => arguments.allow_push = true,
                _ => return None,
            }
        }
        (!arguments.directory.as_os_str().is_empty()).then_some(arguments)
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse(std::env::args().skip(1))
        .ok_or_else(|| Error::invalid("git_server.arguments", USAGE))?;
    let server = GitServer::start_on(&arguments.directory, arguments.port).await?;
    println!("http://{}", server.address());
    for name in &arguments.repositories {
        server.create(name).await?;
        if arguments.allow_push {
            server.allow_push(name).await?;
        }
        println!("{}", server.url(name));
    }
    tokio::signal::ctrl_c().await.map_err(paas_core::error::map("git_server.wait"))
}
