//! A file system for tests, whose power can be cut and whose syncs can fail.
//!
//! It is mounted with FUSE, so that real programs write to it, and it is as unkind as POSIX lets a disk be:
//! - What was written to a file is durable once the file was synced, and not before.
//! - That a name exists, is gone, or leads to another file is durable once its *directory* was synced. Syncing the file
//!   alone does not do it, as it would on ext4. A renaming is durable as a whole or not at all.
//! - After a loss of power, of what was not synced any part may be there, in any order, torn at sectors of 512 bytes.
//!
//! Kinder than a real disk it is in one thing: owners and permissions are durable at once.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // of use to tests only: what fails here fails them

mod filesystem;
mod lot;
mod power;
mod sectors;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::thread::JoinHandle;
use std::{fmt, io};

use fuser::{Config, MountOption, Session};
use rustix::mount::{UnmountFlags, unmount};

use filesystem::Served;
use power::Power;

/// A mounted disk. It is unmounted, and its power cut, when this is dropped.
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
    power: Arc<Mutex<Power>>,
    /// Ends the mount when it is dropped.
    mounted: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
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
        let power = Arc::new(Mutex::new(Power::on()));
        let (mounted, unmounting) = mpsc::channel();
        let (ready, outcome) = mpsc::channel();
        let (served, place) = (Served(Arc::clone(&power)), at.clone());
        let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(move || {
            let _ = ready.send(serve(served, &place));
            // Nothing comes: it ends when the disk is dropped.
            let _ = unmounting.recv();
            unmount_lazily(&place);
        })?;
        match outcome.recv().map_err(io::Error::other)? {
            Ok(()) => {}
            Err(error) => {
                let hint = "FUSE must be there: mount as root, or install fuse3 (examples/setup/tools.sh)";
                return Err(io::Error::new(error.kind(), format!("{error}; {hint}")));
            }
        }
        Ok(Self { at, power, mounted: Some(mounted), thread: Some(thread), folder: None })
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.at
    }

    /// Cuts the power. The seed decides what of the unsynced reached the disk.
    pub fn cut(&self, seed: u64) {
        self.power().cut(seed);
    }

    /// Cuts the power in the middle of the change or sync that comes after so many others.
    pub fn cut_after(&self, count: u64, seed: u64) {
        self.power().cut_after(count, seed);
    }

    /// True from a cut to the next [`restore`](Self::restore).
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.power().is_cut()
    }

    /// Gives the power back. A cut that was announced and did not happen is called off.
    pub fn restore(&self) {
        self.power().restore();
    }

    /// Lets the sync of a file fail that comes after so many others. As on Linux, what it was to bring to the disk is
    /// then forgotten: the seed decides what arrived, and a later sync does not bring the rest.
    pub fn fail_sync_after(&self, count: u64, seed: u64) {
        self.power().fail_sync_after(count, seed);
    }

    /// From now on syncs do nothing, and say that they did: for tests of tests.
    pub fn ignore_syncs(&self) {
        self.power().ignore_syncs();
    }

    fn power(&self) -> MutexGuard<'_, Power> {
        self.power.lock().unwrap()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Who still has a file open must not wait for an answer, nor find that a test goes on.
        self.power().cut(0);
        drop(self.mounted.take());
        let _ = self.thread.take().map(JoinHandle::join);
        drop(self.folder.take());
    }
}

/// Mounts, and answers from a thread of its own. The calling thread has files of its own from then on.
fn serve(served: Served, at: &Path) -> io::Result<()> {
    // Whoever waits for an answer of FUSE can't be killed. If a process that both asks and answers is killed, the kernel
    // has to see at once that nobody will answer: so only the threads that answer may have the connection open. Nor may
    // they keep open what others close.
    let closed = {
        #[allow(unsafe_code)]
        // SAFETY: with CLOSE_RANGE_UNSHARE this thread alone loses its files, and it has opened none so far.
        unsafe {
            libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE)
        }
    };
    if closed != 0 {
        return Err(io::Error::last_os_error());
    }
    let mut config = Config::default();
    config.mount_options = vec![MountOption::FSName("fallible-disk".to_owned())];
    let session = Session::new(served, at, &config)?;
    std::thread::Builder::new().name("disk-session".to_owned()).spawn(move || session.run())?;
    Ok(())
}

fn unmount_lazily(at: &Path) {
    if unmount(at, UnmountFlags::DETACH).is_err() {
        // Somebody other than root has mounted it with this program, too.
        let _ = Command::new("fusermount3").args(["-u", "-z"]).arg(at).status();
    }
}
