//! A file system for tests, whose power can be cut and whose syncs can fail.
//!
//! It is mounted with FUSE, so that real programs write to it, and it is as unkind as POSIX lets a disk be:
//! - What was written to a file is durable once the file was synced, and not before.
//! - That a name exists, is gone, or leads to another file is durable once its *directory* was synced. Syncing the file
//!   alone does not do it, as it would on ext4. A renaming is durable as a whole or not at all.
//! - After a loss of power, of what was not synced any part may be there, in any order, torn at sectors of 512 bytes.
//!
//! The answers are given by a process of its own: in one process, a thread that waits for a page of a mapped file would
//! keep the thread that answers from asking for memory. It is the test program once more, which therefore has this test:
//! ```text
//! #[test]
//! fn disk_process() {
//!     fallible_disk::process();
//! }
//! ```
//!
//! Kinder than a real disk it is in one thing: owners and permissions are durable at once.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // of use to tests only: what fails here fails them

mod filesystem;
mod lot;
mod power;
mod process;
mod sectors;
mod tree;

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

pub use process::process;

/// A mounted disk. It is unmounted, and its power cut, when this is dropped or its process ends.
///
/// # Flow
/// [`cut`](Self::cut) or [`cut_after`](Self::cut_after) takes the power away: from then on every call fails with
/// an I/O error, so that whoever still runs can change nothing. After [`restore`](Self::restore) there is what the
/// disk has. Files that were opened before stay dead.
///
/// # Guarantees
/// What a cut leaves follows from its seed and from what was done before, in the order in which it was done.
pub struct Disk {
    at: PathBuf,
    process: Child,
    /// Ends the process when it is closed.
    control: Option<Mutex<BufReader<UnixStream>>>,
    /// The mount's place, where nobody else named one.
    folder: Option<tempfile::TempDir>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Disk").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Disk {
    /// Mounts an empty disk in a temporary place.
    ///
    /// # Errors
    /// When FUSE is not there, or this user may not mount.
    pub fn mount() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut disk = Self::mount_at(folder.path())?;
        disk.folder = Some(folder);
        Ok(disk)
    }

    /// Mounts an empty disk over a directory.
    ///
    /// # Errors
    /// As [`mount`](Self::mount).
    pub fn mount_at(directory: &Path) -> io::Result<Self> {
        let at = directory.canonicalize()?;
        let (control, theirs) = UnixStream::pair()?;
        let process = Command::new(std::env::current_exe()?)
            .args(["--exact", "disk_process", "--nocapture"])
            .env(process::AT, &at)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        let disk = Self { at, process, control: Some(Mutex::new(BufReader::new(control))), folder: None };
        match disk.read()?.as_str() {
            process::DONE => Ok(disk),
            failure => Err(io::Error::other(format!(
                "no disk can be mounted: {failure}; /dev/fuse must be there, and others than root need fuse3 \
                 (examples/setup/tools.sh); the test program needs the test `disk_process`"
            ))),
        }
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Cuts the power. The seed decides what of the unsynced reached the disk.
    pub fn cut(&self, seed: u64) {
        self.ask(&format!("cut {seed}"));
    }

    /// Cuts the power in the middle of the change or sync that comes after so many others.
    pub fn cut_after(&self, count: u64, seed: u64) {
        self.ask(&format!("cut_after {count} {seed}"));
    }

    /// True from a cut to the next [`restore`](Self::restore).
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.ask("is_cut") == process::YES
    }

    /// Gives the power back. What was announced and did not happen is called off: a cut, and a sync that fails.
    pub fn restore(&self) {
        self.ask("restore");
    }

    /// Lets the sync of a file fail that comes after so many others. As on Linux, what it was to bring to the disk is
    /// then forgotten: the seed decides what arrived, and a later sync does not bring the rest.
    pub fn fail_sync_after(&self, count: u64, seed: u64) {
        self.ask(&format!("fail_sync_after {count} {seed}"));
    }

    /// From now on syncs do nothing, and say that they did: for tests of tests.
    pub fn ignore_syncs(&self) {
        self.ask("ignore_syncs");
    }

    fn ask(&self, command: &str) -> String {
        let control = self.control.as_ref().unwrap();
        writeln!(control.lock().unwrap().get_mut(), "{command}").unwrap();
        self.read().unwrap()
    }

    fn read(&self) -> io::Result<String> {
        let mut line = String::new();
        self.control.as_ref().unwrap().lock().unwrap().read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.control.take());
        let _ = self.process.wait();
        drop(self.folder.take());
    }
}
