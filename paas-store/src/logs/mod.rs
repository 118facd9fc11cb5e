//! The log store on plain files.

mod app;
mod line;
mod segment;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use paas_core::error::{self, Result};
use paas_core::{AppId, Clock, Error, InstanceName, Kind, LogPage, LogQuery, LogStore, NewLogLine};
use tokio::sync::{OnceCell, Semaphore};

use app::AppLog;

/// How many appends, and how many reads, use files at once: the bound of open files, too.
const CONCURRENCY: usize = 16;

/// Settings of a [`FileLogStore`].
#[derive(Clone, Debug)]
pub struct FileLogOptions {
    /// How many bytes of an app's lines are kept; a segment more may be there.
    pub max_bytes: u64,
    /// How long an app's lines are kept. They leave by segments, when later lines come.
    pub max_age: Duration,
    /// After how many bytes a new segment begins.
    pub segment_bytes: u64,
}

impl Default for FileLogOptions {
    /// 200 MiB and 30 days, in segments of 8 MiB.
    fn default() -> Self {
        Self {
            max_bytes: 200 * 1024 * 1024,
            max_age: Duration::from_secs(30 * 24 * 60 * 60),
            segment_bytes: 8 * 1024 * 1024,
        }
    }
}

type Cell = Arc<OnceCell<Arc<AppLog>>>;

/// A [`LogStore`] in plain files: a folder for each app, in it segments of lines in the order of time.
///
/// # Flow
/// An append writes its lines at the end of the newest segment, and begins another where that is full. A read finds
/// its place by the segments' names and by halving, and goes on from there.
///
/// # Guarantees
/// - An append is in the operating system's hands when it returns: it survives this process, not a loss of power.
/// - A loss of power takes lines from the end only, and none of a segment that was full: what is left is whole, and the
///   platform collects again what the engine still has. What was removed stays removed.
/// - Appends to one app wait for each other, those to different apps do not; reads wait for neither.
/// - What a crash tore is cut off when its app is next used.
///
/// # Assumptions
/// One process appends to a folder. The files hold what the apps print: they can be read by their owner only.
#[derive(Debug)]
pub struct FileLogStore {
    root: PathBuf,
    options: FileLogOptions,
    clock: Arc<dyn Clock>,
    apps: Arc<Apps>,
    /// Reads may be long: no append waits for them.
    appends: Arc<Semaphore>,
    reads: Arc<Semaphore>,
}

impl FileLogStore {
    /// A store in the folder `root`, which is made if it is missing. Lines without a time get that of `clock`.
    ///
    /// # Errors
    /// `Unavailable` when the folder can't be made.
    pub async fn open(root: impl AsRef<Path>, clock: Arc<dyn Clock>) -> Result<Self> {
        Self::open_with(root, FileLogOptions::default(), clock).await
    }

    /// The same with other settings.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn open_with(
        root: impl AsRef<Path>,
        options: FileLogOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let root = root.as_ref().to_owned();
        let permits = || Arc::new(Semaphore::new(CONCURRENCY));
        let (appends, reads) = (permits(), permits());
        let store = Self { root: root.clone(), options, clock, apps: Arc::default(), appends, reads };
        let make = move || {
            DirBuilder::new().recursive(true).mode(0o700).create(&root)?;
            File::open(root.canonicalize()?.parent().unwrap_or(&root))?.sync_all()
        };
        off_the_runtime("logs.open", &store.appends, make).await?;
        Ok(store)
    }

    /// The app's files, looked through at the first use.
    async fn app(&self, operation: &'static str, app: &AppId) -> Result<Arc<AppLog>> {
        let cell = Arc::clone(self.apps.locked().entry(app.clone()).or_default());
        let load = || {
            let (folder, options) = (self.root.join(app.as_str()), self.options.clone());
            off_the_runtime(operation, &self.appends, move || AppLog::load(folder, options).map(Arc::new))
        };
        cell.get_or_try_init(load).await.cloned()
    }
}

/// The apps whose files were looked through.
#[derive(Debug, Default)]
struct Apps(Mutex<BTreeMap<AppId, Cell>>);

impl Apps {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<AppId, Cell>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets an app's files, unless others are known by now.
    fn forget(&self, app: &AppId, log: &Arc<AppLog>) {
        let mut apps = self.locked();
        if apps.get(app).and_then(|cell| cell.get()).is_some_and(|known| Arc::ptr_eq(known, log)) {
            apps.remove(app);
        }
    }
}

/// Does file work on a blocking thread, as many at once as there are permits. It runs to its end even when the caller
/// is gone.
async fn off_the_runtime<T: Send + 'static>(
    operation: &'static str,
    permits: &Arc<Semaphore>,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(error::map(operation))?;
    let task = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        work()
    });
    task.await.map_err(error::map(operation))?.map_err(|cause| unavailable(operation, cause))
}

/// Set when whoever asked is gone.
#[derive(Default)]
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn unavailable(operation: &'static str, cause: io::Error) -> Error {
    let error = Error::new(Kind::Unavailable, operation, "the log files can't be used");
    error.hint("check that the disk is not full and the folder belongs to the server").source(cause)
}

#[async_trait]
impl LogStore for FileLogStore {
    async fn append(&self, app: &AppId, lines: Vec<NewLogLine>) -> Result<()> {
        const OPERATION: &str = "logs.append";
        if lines.is_empty() {
            return Ok(());
        }
        loop {
            let log = self.app(OPERATION, app).await?;
            let writing = Arc::clone(&log.writing).lock_owned().await;
            if writing.is_removed {
                self.apps.forget(app, &log);
                continue;
            }
            let now = self.clock.now();
            let append = move || {
                let _writing = writing;
                log.append(lines, now)
            };
            return off_the_runtime(OPERATION, &self.appends, append).await;
        }
    }

    async fn read(&self, query: &LogQuery) -> Result<LogPage> {
        const OPERATION: &str = "logs.read";
        let (log, query) = (self.app(OPERATION, &query.app).await?, query.clone());
        let (stop, now) = (StopOnDrop::default(), self.clock.now());
        let is_stopped = Arc::clone(&stop.0);
        off_the_runtime(OPERATION, &self.reads, move || log.read(&query, now, &is_stopped)).await
    }

    async fn wait(&self, app: &AppId, after: Option<Timestamp>) -> Result<()> {
        loop {
            // Only the receiver is kept: it tells when the app is removed.
            let mut newest = self.app("logs.wait", app).await?.subscribe();
            if newest.wait_for(|newest| newest.is_some() && *newest > after).await.is_ok() {
                return Ok(());
            }
        }
    }

    async fn last_of(&self, app: &AppId, instance: &InstanceName) -> Result<Option<Timestamp>> {
        const OPERATION: &str = "logs.last_of";
        let (log, instance) = (self.app(OPERATION, app).await?, instance.clone());
        let writing = Arc::clone(&log.writing).lock_owned().await;
        let look = move || {
            let _writing = writing;
            log.last_of(&instance)
        };
        off_the_runtime(OPERATION, &self.reads, look).await
    }

    async fn remove(&self, app: &AppId) -> Result<()> {
        const OPERATION: &str = "logs.remove";
        let log = self.app(OPERATION, app).await?;
        let mut writing = Arc::clone(&log.writing).lock_owned().await;
        if writing.is_removed {
            return Ok(());
        }
        let (apps, app) = (Arc::clone(&self.apps), app.clone());
        let remove = move || {
            log.remove()?;
            writing.is_removed = true;
            apps.forget(&app, &log);
            Ok(())
        };
        off_the_runtime(OPERATION, &self.appends, remove).await
    }
}
