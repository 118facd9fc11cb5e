//! The table on disk: one line for each change, rewritten when most of them are out of date.
//!
//! The first line names the format; every other is a JSON object with a host, a generation and its route, or `null`
//! after a withdrawal. A change is on stable storage when it is answered; those that come at once share one sync.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use paas_core::{Error, Generation, Host, Kind, Result, Route, Serving};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::lock::locked;
use crate::service::Shared;
use crate::table::Table;

const FILE: &str = "routes.journal";
const WRITE: &str = "proxy.write_table";

const HEAD: &str = r#"{"format":"paas-proxy routes","version":1}"#;

/// How many changes share one sync at most.
const MAX_BATCH: usize = 256;

/// Lines beyond twice the number of hosts before the file is rewritten.
const SLACK_LINES: usize = 4096;

#[derive(Serialize, Deserialize)]
struct Line {
    host: Host,
    generation: Generation,
    route: Option<Route>,
}

/// Where changes are written down, by a thread of its own.
#[derive(Debug)]
pub(crate) struct Journal {
    /// None once it is closed.
    sender: Mutex<Option<mpsc::Sender<Request>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Request {
    /// Nothing to wait for what came before only.
    line: Vec<u8>,
    done: oneshot::Sender<io::Result<()>>,
}

/// A place in the queue: taken before a change is made, so that a call that is dropped has either made no change or
/// has it written down.
#[derive(Debug)]
pub(crate) struct Slot(mpsc::OwnedPermit<Request>);

impl Journal {
    /// Reads the table from `directory` and goes on writing there. What can't be read is said in the log, and kept
    /// aside where that is the whole file.
    ///
    /// # Errors
    /// `Unavailable`: the directory can't be read or written.
    pub(crate) fn open(directory: &Path, lock: Arc<File>, shared: Arc<Shared>) -> Result<Self> {
        let unusable = |error: io::Error| {
            Error::new(Kind::Unavailable, "proxy.open_table", "the proxy's directory can't be used")
                .hint("the directory must exist, be writable and have free space")
                .context("directory", directory.display())
                .source(error)
        };
        let path = directory.join(FILE);
        let found = load(&path, &shared.table).map_err(unusable)?;
        let mut writer = Writer { path, file: None, lines: found.lines, shared, _lock: lock };
        if found.is_intact {
            writer.file = Some(OpenOptions::new().append(true).open(&writer.path).map_err(unusable)?);
        } else {
            writer.rewrite().map_err(unusable)?;
        }
        let (sender, receiver) = mpsc::channel(MAX_BATCH);
        let thread = std::thread::Builder::new()
            .name("proxy-journal".to_owned())
            .spawn(move || writer.run(receiver))
            .map_err(unusable)?;
        Ok(Self { sender: Mutex::new(Some(sender)), thread: Mutex::new(Some(thread)) })
    }

    /// Waits for a place in the queue.
    pub(crate) async fn slot(&self) -> Result<Slot> {
        let sender = locked(&self.sender).clone().ok_or_else(closed)?;
        sender.reserve_owned().await.map(Slot).map_err(|_| closed())
    }

    /// Takes no more changes. The thread ends, and lets the directory go, when the last one is written.
    pub(crate) fn close(&self) -> Option<JoinHandle<()>> {
        locked(&self.sender).take();
        locked(&self.thread).take()
    }
}

impl Slot {
    /// Writes a change down, or waits for those before. The change is queued when this returns; what it returns ends
    /// when it is on stable storage.
    pub(crate) fn write(
        self,
        host: &Host,
        serving: Option<Serving>,
    ) -> impl Future<Output = Result<()>> + use<> {
        let line = serving.map_or(Ok(Vec::new()), |Serving { generation, route }| {
            let mut line = serde_json::to_vec(&Line { host: host.clone(), generation, route })?;
            line.push(b'\n');
            Ok::<_, serde_json::Error>(line)
        });
        let written = line.map(|line| {
            let (done, written) = oneshot::channel();
            self.0.send(Request { line, done });
            written
        });
        async move {
            let written = written.map_err(paas_core::error::map(WRITE))?;
            written.await.map_err(|_| closed())?.map_err(|error| {
                Error::new(Kind::Unavailable, WRITE, "the proxy can't write its table to disk")
                    .hint("is the disk full?")
                    .source(error)
            })
        }
    }
}

fn closed() -> Error {
    Error::new(Kind::Unavailable, WRITE, "the proxy is stopping")
}

struct Writer {
    path: PathBuf,
    /// None after a failure: what the file holds is then unknown, and it is rewritten.
    file: Option<File>,
    lines: usize,
    shared: Arc<Shared>,
    /// Held until the last change is written, so that no other proxy reads the file before.
    _lock: Arc<File>,
}

impl Writer {
    fn run(mut self, mut receiver: mpsc::Receiver<Request>) {
        let mut batch = Vec::new();
        while let Some(first) = receiver.blocking_recv() {
            batch.push(first);
            while batch.len() < MAX_BATCH
                && let Ok(next) = receiver.try_recv()
            {
                batch.push(next);
            }
            let result = self.write(&batch);
            if let Err(error) = &result {
                tracing::error!(%error, path = %self.path.display(), "the table can't be written to disk");
            }
            for request in batch.drain(..) {
                let result = result.as_ref().copied().map_err(|error| io::Error::from(error.kind()));
                // Whoever no longer waits does not want to know.
                let _ = request.done.send(result);
            }
        }
    }

    fn write(&mut self, batch: &[Request]) -> io::Result<()> {
        let bytes: Vec<u8> = batch.iter().flat_map(|request| request.line.iter().copied()).collect();
        let count = batch.iter().filter(|request| !request.line.is_empty()).count();
        let Some(file) = &mut self.file else { return self.rewrite() };
        if count == 0 {
            return Ok(());
        }
        if let Err(error) = file.write_all(&bytes).and_then(|()| file.sync_data()) {
            self.file = None;
            return Err(error);
        }
        self.lines += count;
        if self.lines > SLACK_LINES && self.lines > 2 * self.shared.table.len() + SLACK_LINES {
            return self.rewrite();
        }
        Ok(())
    }

    /// Writes the whole table anew: it holds every change that was asked to be written down.
    fn rewrite(&mut self) -> io::Result<()> {
        self.file = None;
        let temporary = self.path.with_extension("new");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut writer = BufWriter::new(options.open(&temporary)?);
        writeln!(writer, "{HEAD}")?;
        let all = self.shared.table.all();
        let lines = all.len();
        for (host, Serving { generation, route }) in all {
            serde_json::to_writer(&mut writer, &Line { host, generation, route })?;
            writer.write_all(b"\n")?;
        }
        let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&temporary, &self.path)?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)?.sync_all()?;
        }
        self.file = Some(OpenOptions::new().append(true).open(&self.path)?);
        self.lines = lines;
        Ok(())
    }
}

struct Found {
    lines: usize,
    /// The file can be appended to as it is.
    is_intact: bool,
}

fn load(path: &Path, table: &Table) -> io::Result<Found> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Found { lines: 0, is_intact: false });
        }
        Err(error) => return Err(error),
    };
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let aside = path.with_extension("damaged");
    if lines.next().is_none_or(|head| head.trim_ascii_end() != HEAD.as_bytes()) {
        fs::rename(path, &aside)?;
        tracing::warn!(kept = %aside.display(), "the table on disk is unreadable: starting with no routes");
        return Ok(Found { lines: 0, is_intact: false });
    }
    let (mut read, mut unreadable, mut is_cut) = (0, 0, false);
    for line in lines {
        match serde_json::from_slice::<Line>(line) {
            // The last line may have been cut by a crash: its change was never answered.
            _ if !line.ends_with(b"\n") => is_cut = true,
            Ok(Line { host, generation, route }) => {
                read += 1;
                // A later line of the same host is the newer change, unless two were written at once.
                let _ = table.change("proxy.open_table", &host, generation, route);
            }
            Err(_) => unreadable += 1,
        }
    }
    if unreadable > 0 {
        // A copy: the file itself is replaced in one step.
        fs::copy(path, &aside)?;
        let kept = aside.display();
        tracing::warn!(unreadable, read, %kept, "some lines of the table on disk are unreadable");
    }
    Ok(Found { lines: read, is_intact: unreadable == 0 && !is_cut })
}
