//! Where a server keeps its state: a file of its own, or a PostgreSQL database.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use paas_core::{Clock, Error, Kind, Metrics, Result, StateStore, error};
use paas_store::{PostgresOptions, PostgresStore, SqliteOptions, SqliteStore};
use rustix::fs::{FlockOperation, flock};

use super::ServerConfig;

/// An open store that knows how to be closed. One server has the data directory for itself while it is open.
#[derive(Clone, Debug)]
pub(super) enum Database {
    /// Its file is the lock.
    Sqlite(Arc<SqliteStore>),
    Postgres {
        store: Arc<PostgresStore>,
        /// Let go of when the program ends, however it ends.
        _lock: Arc<File>,
    },
}

impl Database {
    pub(super) async fn open(
        config: &ServerConfig,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let directory = &config.data_directory;
        let Some(url) = &config.database_url else {
            let options = SqliteOptions { metrics, ..SqliteOptions::default() };
            let store = SqliteStore::open_with(directory.join("paas.db"), options, clock).await?;
            return Ok(Self::Sqlite(Arc::new(store)));
        };
        let lock = lock(directory)?;
        let options = PostgresOptions { metrics, ..PostgresOptions::default() };
        let store = Arc::new(PostgresStore::open_with(url.expose(), options, clock).await?);
        Ok(Self::Postgres { store, _lock: Arc::new(lock) })
    }

    pub(super) fn store(&self) -> Arc<dyn StateStore> {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Postgres { store, .. } => store.clone(),
        }
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(store) => store.close().await,
            Self::Postgres { store, .. } => store.close().await,
        }
    }
}

fn lock(directory: &Path) -> Result<File> {
    const OPERATION: &str = "server.lock";
    let file = File::create(directory.join("lock")).map_err(error::map(OPERATION))?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).map_err(|cause| {
        let message = format!("another server has the data directory {}", directory.display());
        Error::new(Kind::Unavailable, OPERATION, message)
            .hint("stop it, or give this one a directory of its own")
            .source(cause)
    })?;
    Ok(file)
}
