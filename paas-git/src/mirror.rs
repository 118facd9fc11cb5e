//! What was fetched of a repository, on disk.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use gix::ObjectId;
use paas_core::{Context, GitUrl, OrgId, Repository, Result};
use sha2::{Digest as _, Sha256};

use crate::errors;
use crate::options::GitLimits;

/// How often a lock that somebody holds is tried again: quickly first, then with pauses.
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(100);
/// How many tokens a repository has a mirror for.
const MAX_MIRRORS: usize = 4;
/// The longest list of commits, all of which are told to the server at each fetch.
const MAX_LISTED_BYTES: u64 = 64 << 10;
/// The name of the lock, in the place of a repository. A mirror's name is longer.
const LOCK: &str = "lock";

/// All mirrors of one repository for one org: a lock, and a mirror for each token.
#[derive(Clone, Debug)]
pub(crate) struct Place(PathBuf);

/// Held while a place is written to, also against other processes. It ends with the process, however that ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Place {
    pub(crate) fn new(directory: &Path, org: &OrgId, url: &GitUrl) -> Self {
        Self(directory.join(org.as_str()).join(name_of(&[url.as_str()])))
    }

    /// The mirror of what this token sees. The token is only hashed, together with what it is for.
    pub(crate) fn mirror(&self, repository: &Repository) -> Mirror {
        let name = match &repository.token {
            Some(token) => name_of(&[repository.org.as_str(), repository.url.as_str(), token.expose()]),
            None => "public".to_owned(),
        };
        Mirror(self.0.join(name))
    }

    /// Waits for the lock.
    pub(crate) async fn lock(&self, context: &Context, operation: &'static str) -> Result<Lock> {
        let mut pause = FIRST_PAUSE;
        loop {
            let place = self.clone();
            let locked = tokio::task::spawn_blocking(move || place.try_lock());
            let locked = locked.await.map_err(paas_core::error::map(operation))?;
            if let Some(lock) = locked.map_err(|error| errors::disk(operation, error))? {
                return Ok(lock);
            }
            context.sleep(operation, pause).await?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    pub(crate) fn try_lock(&self) -> io::Result<Option<Lock>> {
        create_directory(&self.0)?;
        let path = self.0.join(LOCK);
        let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match opened {
            // Somebody removed the place in between: the next try makes it anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Ok(None),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        // A lock on a file that was removed, or replaced, protects nothing.
        let is_current = fs::metadata(&path).is_ok_and(|found| {
            file.metadata().is_ok_and(|held| (held.dev(), held.ino()) == (found.dev(), found.ino()))
        });
        Ok(is_current.then_some(Lock { _file: file }))
    }

    pub(crate) async fn exists(&self) -> bool {
        // What cannot be looked at is found out about when it is locked.
        tokio::fs::try_exists(&self.0).await.unwrap_or(true)
    }

    /// Removes all but the latest few mirrors: tokens are replaced, and nobody asks for what an old one saw.
    pub(crate) fn tidy(&self, _lock: &Lock) -> io::Result<()> {
        let mut mirrors = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                mirrors.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        mirrors.sort_unstable();
        let excess = mirrors.len().saturating_sub(MAX_MIRRORS);
        mirrors.drain(..excess).try_for_each(|(_, path)| remove_directory(&path))
    }

    /// Removes every mirror, under the lock. Trees that are being read keep what they have open.
    pub(crate) fn remove(&self, _lock: &Lock) -> io::Result<()> {
        // The lock is there as long as what it protects.
        clear(&self.0, |name| name == LOCK)?;
        fs::remove_file(self.0.join(LOCK))?;
        // Somebody may have begun anew already.
        let _ = fs::remove_dir(&self.0);
        // The org's directory goes with its last repository.
        let _ = self.0.parent().map(fs::remove_dir);
        Ok(())
    }
}

/// A bare repository of packs and a list of the commits whose history was left out.
#[derive(Clone, Debug)]
pub(crate) struct Mirror(PathBuf);

impl Mirror {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The objects as they are now. A store sees only so many packs that come later, so each call opens its own.
    pub(crate) fn objects(&self, limits: &GitLimits) -> io::Result<gix::odb::Handle> {
        let options = gix::odb::store::init::Options {
            alloc_limit_bytes: Some(alloc_limit(limits)),
            use_multi_pack_index: false,
            ..Default::default()
        };
        gix::odb::at_opts(self.0.join("objects"), gix::hash::Kind::Sha1, None, options)
    }

    /// The commits that the server called the ends of what it sent, each listed after its pack was stored. If one is not
    /// here for all that, what builds on it cannot be read, and everything comes again.
    pub(crate) fn commits(&self) -> Vec<ObjectId> {
        let listed = fs::read(self.0.join("shallow")).unwrap_or_default();
        lines(&listed).filter_map(|line| ObjectId::from_hex(line).ok()).collect()
    }

    /// False for a list that a loss of power tore: gix syncs it no more than git does, and refuses to read it then.
    fn is_list_whole(&self) -> io::Result<bool> {
        match fs::read(self.0.join("shallow")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            listed => Ok(lines(&listed?).all(|line| ObjectId::from_hex(line).is_ok())),
        }
    }

    /// Makes the mirror ready to be written to: clears away what a crash left, and all of it when it is damaged or has
    /// grown past its bounds. Answers how many bytes it holds.
    pub(crate) fn prepare(&self, limits: &GitLimits, lock: &Lock) -> io::Result<u64> {
        let packs = self.0.join("objects").join("pack");
        create_directory(&packs)?;
        clear(&self.0, |name| matches!(name, "objects" | "shallow"))?;
        clear(&self.0.join("objects"), |name| name == "pack")?;
        clear(&packs, |name| match name.rsplit_once('.') {
            Some((stem, "pack")) => packs.join(format!("{stem}.idx")).exists(),
            Some((stem, "idx")) => packs.join(format!("{stem}.pack")).exists(),
            _ => false,
        })?;
        let listed = self.0.join("shallow");
        let listed_bytes = listed.metadata().map_or(0, |listed| listed.len());
        let mut bytes = listed_bytes;
        let mut count = 0;
        for entry in fs::read_dir(&packs)? {
            bytes += entry?.metadata()?.len();
            count += 1;
        }
        // Two files make a pack.
        if count / 2 >= limits.mirror_packs
            || bytes > limits.disk_bytes / 2
            || listed_bytes > MAX_LISTED_BYTES
            || !self.is_list_whole()?
        {
            self.remove(lock)?;
            create_directory(&packs)?;
            return Ok(0);
        }
        Ok(bytes)
    }

    pub(crate) fn remove(&self, _lock: &Lock) -> io::Result<()> {
        remove_directory(&self.0)
    }
}

fn lines(listed: &[u8]) -> impl Iterator<Item = &[u8]> {
    listed.split(|byte| *byte == b'\n').filter(|line| !line.is_empty())
}

/// How much gix may allocate at once to read an object: a delta needs room for what it is made from, for what comes
/// out, and for the instructions.
pub(crate) fn alloc_limit(limits: &GitLimits) -> usize {
    limits.object_bytes.saturating_mul(3)
}

/// Removes what `keeps` does not hold for.
fn clear(directory: &Path, keeps: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(&keeps) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            remove_directory(&entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Makes a directory that only this user can enter.
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn remove_directory(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A name for what may not be a name itself, too long to be found by trying.
fn name_of(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // The length keeps the parts apart.
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
