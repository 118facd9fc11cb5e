//! State and log stores for paas-core: SQLite, PostgreSQL and plain files.
//!
//! [`SqliteStore`] is for one server, and needs nothing but a file; [`PostgresStore`] is for several that share one
//! database. Each is behind a feature of its name, `sqlite` and `postgres`; both are on unless they are turned off.
//!
//! ```
//! use std::sync::Arc;
//!
//! use paas_core::{Batch, Expect, Keys, Scope, StateStore, SystemClock, Write};
//! use paas_store::SqliteStore;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> paas_core::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! let store = SqliteStore::open(folder.path().join("paas.db"), Arc::new(SystemClock::new())).await?;
//! let note = Write::Put {
//!     scope: Scope::System,
//!     kind: "note",
//!     id: "first".to_owned(),
//!     expect: Expect::Absent,
//!     keys: Keys::default(),
//!     body: b"kept".to_vec(),
//! };
//! store.commit(Batch { writes: vec![note], ..Batch::default() }).await?;
//! let note = store.get(&Scope::System, "note", "first").await?;
//! assert_eq!(note.map(|note| note.body), Some(b"kept".to_vec()));
//! # Ok(())
//! # }
//! ```

#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod convert;
#[cfg(any(feature = "sqlite", feature = "postgres"))]
mod grouped;
mod logs;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use logs::{FileLogOptions, FileLogStore};
#[cfg(all(feature = "postgres", feature = "sqlite"))]
pub use postgres::Imported;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresOptions, PostgresStore};
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteOptions, SqliteStore};
