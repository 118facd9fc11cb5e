//! The git provider for paas-core: bare mirrors by gix, read without a checkout.
//!
//! ```
//! # #[cfg(feature = "testing")]
//! # fn main() -> paas_core::Result<()> {
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! use std::sync::Arc;
//! use paas_core::{Context, EgressPolicy, GitProvider as _, OrgId, Reference, Repository, SystemClock};
//! use paas_git::testing::GitServer;
//! use paas_git::{GitOptions, GixProvider};
//!
//! let server = GitServer::temporary().await?;
//! server.commit("hello", "main", [("index.html", "<h1>hello</h1>")]).await?;
//!
//! let mirrors = tempfile::tempdir().unwrap();
//! let egress = EgressPolicy::default().allowing("127.0.0.1");
//! let git = GixProvider::open(mirrors.path(), GitOptions { egress, ..GitOptions::default() })?;
//!
//! let context = Context::new(Arc::new(SystemClock::new()));
//! let repository = Repository { org: OrgId::default_org(), url: server.url("hello"), token: None };
//! let revision = git.resolve(&context, &repository, &Reference::Default).await?;
//! let tree = git.fetch(&context, &repository, &revision.commit, &"".parse()?).await?;
//! assert_eq!(tree.read("index.html", 1024).await?.unwrap(), "<h1>hello</h1>");
//! # Ok(()) }) }
//! # #[cfg(not(feature = "testing"))]
//! # fn main() {}
//! ```
//!
//! # How it works
//! A repository has a mirror for each org and token: git objects and nothing else, no working tree, no configuration
//! that could be attacked. [`fetch`](paas_core::GitProvider::fetch) asks for one commit without its history and
//! tells the server which commits are here already, so that only what is new is moved. Trees are read and
//! streamed straight from the packs.
//!
//! # Limits of it
//! Repositories with SHA-256 ids are refused. Files kept in LFS stay pointers, and submodules stay empty.

mod archive;
mod call;
mod client;
mod errors;
mod mirror;
mod options;
mod pack;
mod provider;
mod remote;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod tree;

pub use options::{GitLimits, GitOptions};
pub use provider::GixProvider;
