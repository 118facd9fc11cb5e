//! The process's log: its standard error, begun anew when it has grown, with one old file kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rustix::stdio::{dup2_stderr, stderr};
use tracing_subscriber::fmt::MakeWriter;

use crate::lock::locked;

const FILE: &str = "proxy.log";

/// The longest log; as much again is in the old one.
const MAX_BYTES: u64 = 10 * 1024 * 1024;

/// Opens the log of a directory, for its owner only.
pub(crate) fn open(directory: &Path) -> io::Result<File> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    OpenOptions::new().create(true).append(true).mode(0o600).open(directory.join(FILE))
}

/// Writes to standard error. Where that is the directory's log it stays bounded; where it is something else, as under
/// a supervisor that keeps logs itself, it is left alone.
#[derive(Debug)]
pub(crate) struct Log {
    /// The directory, and how long the log is.
    bounded: Option<(PathBuf, Mutex<u64>)>,
}

impl Log {
    pub(crate) fn new(directory: Option<&Path>) -> Self {
        let bounded = directory.and_then(|directory| {
            let file = fs::metadata(directory.join(FILE)).ok()?;
            let error = rustix::fs::fstat(stderr()).ok()?;
            let is_ours = (file.dev(), file.ino()) == (error.st_dev, error.st_ino);
            is_ours.then(|| (directory.to_owned(), Mutex::new(file.len())))
        });
        Self { bounded }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

impl Write for &Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some((directory, length)) = &self.bounded else { return io::stderr().write(bytes) };
        let mut length = locked(length);
        if *length >= MAX_BYTES && begin_anew(directory).is_ok() {
            *length = 0;
        }
        let written = io::stderr().write(bytes)?;
        *length += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// What panics write goes to the new file too: it takes the place of standard error.
fn begin_anew(directory: &Path) -> io::Result<()> {
    let path = directory.join(FILE);
    fs::rename(&path, path.with_extension("log.old"))?;
    dup2_stderr(open(directory)?)?;
    Ok(())
}
