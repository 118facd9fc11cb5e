//! The HTTP API of a [`paas_core::Platform`].
//!
//! ```
//! use paas_core::Platform;
//! use paas_http::{Access, Options};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let platform = Platform::builder().start().await?;
//! let access = Access::bearer("a token that nobody guesses", platform.clock().clone());
//! let router = paas_http::router(platform, Options::new(access));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let served = async {
//! axum::serve(listener, router).await
//! # };
//! # drop(served);
//! # Ok(())
//! # }
//! ```
//!
//! [`Server`] puts a whole platform together, from a configuration file, on SQLite, git, Docker and the proxy; without
//! the feature `server` only the router is built.
//!
//! The router holds no logic: each endpoint reads a request, calls the platform, and writes its answer.
//! What exists is described by `/openapi.json`, with a page to try it at `/docs`.

mod access;
mod api;
mod json;
mod paging;
mod problem;
mod query;
mod requests;
mod router;
#[cfg(feature = "server")]
mod server;
mod streams;

pub use access::Access;
pub use router::{Options, openapi, router};
#[cfg(feature = "opentelemetry")]
pub use server::Traces;
#[cfg(feature = "server")]
pub use server::{Adapters, Log, Server, ServerConfig, log_to_stderr};
