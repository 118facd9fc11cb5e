//! apalis-sqlite as a peer of the pipeline: small jobs, 64 at once, as durable as ours.
//!
//! `apalis-peer FOLDER SECONDS` prints `{"value": jobs a second, "processor_micros": for each job}`. The jobs are in
//! the queue before the measuring begins, which spares it the cost of accepting them.

use std::error::Error;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_sqlite::{Config, SqliteStorage};
use futures::stream;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

const AT_ONCE: usize = 64;
/// More than it does in the time.
const JOBS_PER_SECOND: f64 = 6000.0;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut arguments = std::env::args().skip(1);
    let (folder, seconds) = (arguments.next(), arguments.next());
    let (folder, seconds) = (folder.ok_or("FOLDER SECONDS")?, seconds.ok_or("FOLDER SECONDS")?.parse::<f64>()?);
    let path = Path::new(&folder).join("jobs.db");

    // Its set-up switches syncs off on the connection that it uses: that pool is not the one that is measured.
    let pool = open(&path).await?;
    SqliteStorage::setup(&pool).await?;
    pool.close().await;
    let pool = open(&path).await?;

    let config = Config::default().queue("steps").batch_size(AT_ONCE);
    let backend = SqliteStorage::new(&pool).with_config(config).poll_with_interval(Duration::from_millis(1));
    let mut queue = backend.clone();
    let jobs = stream::iter(0..(seconds * JOBS_PER_SECOND) as u64);
    queue.push_stream(jobs).await?;

    let done = Arc::new(AtomicU64::new(0));
    let worker = WorkerBuilder::new("peer").backend(backend).concurrency(AT_ONCE).data(done.clone()).build(step);
    let (begun, processor) = (Instant::now(), processor_seconds()?);
    let working = tokio::spawn(async move { worker.run().await });
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let (jobs, elapsed) = (done.load(Ordering::Relaxed) as f64, begun.elapsed().as_secs_f64());
    let micros = (processor_seconds()? - processor) * 1e6 / jobs.max(1.0);
    working.abort();
    println!("{{\"value\": {}, \"processor_micros\": {micros}}}", jobs / elapsed);
    Ok(())
}

async fn open(path: &Path) -> Result<SqlitePool, Box<dyn Error + Send + Sync>> {
    let options = SqliteConnectOptions::from_str(&format!("sqlite://{}", path.display()))?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(10));
    Ok(SqlitePoolOptions::new().max_connections(4).connect_with(options).await?)
}

async fn step(_number: u64, done: Data<Arc<AtomicU64>>) -> Result<(), BoxDynError> {
    done.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

fn processor_seconds() -> Result<f64, Box<dyn Error + Send + Sync>> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> = text.rsplit_once(") ").ok_or("an unreadable /proc/self/stat")?.1.split(' ').collect();
    Ok((fields[11].parse::<f64>()? + fields[12].parse::<f64>()?) / 100.0)
}
