//! A real PostgreSQL, with a database for each test.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)] // test code, of which each test uses a part

pub mod proxy;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use paas_core::Clock;
use paas_store::{PostgresOptions, PostgresStore};
use tokio_postgres::{Client, NoTls};

/// The server's port, and a part of its socket's name.
pub const PORT: u16 = 54320;

/// The folder of the server's socket and certificate; see `examples/setup/postgres.sh`.
pub fn folder() -> PathBuf {
    let named = std::env::var_os("PAAS_TEST_POSTGRES").map(PathBuf::from);
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let usual = [Some("/var/lib/paas-postgres".into()), cache.map(|cache| cache.join("paas/postgres"))];
    let mut folders = named.into_iter().chain(usual.into_iter().flatten());
    match folders.find(|folder| socket(folder).exists()) {
        Some(folder) => folder,
        None => panic!("no PostgreSQL for tests runs here: start it with examples/setup/postgres.sh"),
    }
}

/// The server's socket in its folder.
pub fn socket(folder: &Path) -> PathBuf {
    folder.join(format!(".s.PGSQL.{PORT}"))
}

fn url_of(database: &str) -> String {
    format!("host={} port={PORT} user=postgres dbname={database}", folder().display())
}

/// An own connection, beside the store's.
pub async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap_or_else(|error| {
        panic!("PostgreSQL for tests does not answer ({error}): start it with examples/setup/postgres.sh")
    });
    tokio::spawn(connection);
    client
}

/// A new database, dropped with this.
#[derive(Debug)]
pub struct Database {
    pub name: String,
}

impl Database {
    pub async fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{}_{number}", std::process::id());
        let server = connect(&url_of("postgres")).await;
        // Left behind by a process of the same number that was killed.
        server.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await.unwrap();
        server.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE template0")).await.unwrap();
        Self { name }
    }

    pub fn url(&self) -> String {
        url_of(&self.name)
    }

    /// A connection to it.
    pub async fn connect(&self) -> Client {
        connect(&self.url()).await
    }

    /// A store on it, by the database's time.
    pub async fn store(&self, clock: Arc<dyn Clock>) -> PostgresStore {
        PostgresStore::open(&self.url(), clock).await.unwrap()
    }

    /// A store on it, by the clock's time.
    pub async fn store_with_own_time(&self, clock: Arc<dyn Clock>) -> PostgresStore {
        let options = PostgresOptions { own_time: true, ..PostgresOptions::default() };
        PostgresStore::open_with(&self.url(), options, clock).await.unwrap()
    }
}

impl Drop for Database {
    /// On a thread of its own: the test's runtime may be ending.
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                connect(&url_of("postgres")).await.batch_execute(&sql).await.unwrap();
            });
        });
        // A test that fails says why by itself.
        let _ = dropping.join();
    }
}
