//! Opening a database file, for this process alone.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use paas_core::{Agenda, Work};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::convert::{Class, Owner, Time};
use super::failure::{OpenFailure, Result};
use super::{SqliteOptions, schema};

/// 3.51.3: older ones can lose committed data when the write-ahead log is reset.
const OLDEST_SQLITE: i32 = 3_051_003;
/// The number of `synchronous=FULL`.
const FULL: i64 = 2;
/// Only the owner reads or writes what the platform keeps.
const MODE: u32 = 0o600;
/// The write-ahead log goes into the file when it has this many pages: often enough to stay small, seldom enough
/// to cost little.
const CHECKPOINT_PAGES: u32 = 8_000;
/// What is left of a large write-ahead log, in bytes.
const LOG_BYTES: u32 = 64 * 1024 * 1024;

/// An open file: the only connection that writes, others that read, and the lock that keeps everybody else out.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) writer: Connection,
    pub(super) readers: Vec<Connection>,
    pub(super) agenda: Agenda,
    pub(super) lock: File,
}

pub(super) fn open(path: &Path, options: &SqliteOptions, now: Timestamp) -> Result<Opened> {
    if !is_sound(rusqlite::version_number()) {
        return Err(OpenFailure::OldLibrary(rusqlite::version()));
    }
    // The file is locked, not one of its names.
    let path = &canonical(path)?;
    let lock = owned_file(&beside(path, ".lock"))?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => OpenFailure::Locked,
        TryLockError::Error(error) => OpenFailure::File(error),
    })?;
    refuse_foreign(path)?;
    // SQLite gives the files beside it the same mode.
    drop(owned_file(path)?);
    let mut writer = connect(path)?;
    make_durable(&writer)?;
    writer.pragma_update(None, "foreign_keys", true)?;
    writer.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    writer.pragma_update(None, "journal_size_limit", LOG_BYTES)?;
    if let Some(bytes) = options.max_bytes {
        let page: u64 = writer.pragma_query_value(None, "page_size", |row| row.get(0))?;
        writer.pragma_update(
            None,
            "max_page_count",
            i64::try_from(bytes / page.max(1)).unwrap_or(i64::MAX),
        )?;
    }
    schema::migrate(&mut writer)?;
    make_names_durable(path)?;
    let agenda = load(&writer, now)?;
    let readers = (0..options.readers.max(1)).map(|_| reader(path)).collect::<Result<_>>()?;
    Ok(Opened { writer, readers, agenda, lock })
}

fn is_sound(version: i32) -> bool {
    version >= OLDEST_SQLITE
}

/// The name without links on its way; the file itself need not be there.
fn canonical(path: &Path) -> Result<PathBuf> {
    match path.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        found => return Ok(found?),
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(OpenFailure::File(io::ErrorKind::NotFound.into()));
    };
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    Ok(folder.canonicalize()?.join(name))
}

/// Looks whose file it is before anything in it is changed.
fn refuse_foreign(path: &Path) -> Result<()> {
    if !path.metadata().is_ok_and(|file| file.len() > 0) {
        return Ok(());
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    match schema::version_of(&Connection::open_with_flags(path, flags)?) {
        // It has to be mended before it can be read.
        Err(OpenFailure::Sqlite(error)) if error.sqlite_error_code() == Some(ErrorCode::ReadOnly) => Ok(()),
        version => version.map(drop),
    }
}

/// A commit is on the disk when it is answered, and the file is whole after a loss of power.
fn make_durable(writer: &Connection) -> Result<()> {
    writer.pragma_update(None, "journal_mode", "wal")?;
    writer.pragma_update(None, "synchronous", "full")?;
    let mode: String = writer.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
    let synchronous: i64 = writer.pragma_query_value(None, "synchronous", |row| row.get(0))?;
    if mode == "wal" && synchronous == FULL {
        Ok(())
    } else {
        Err(OpenFailure::NotDurable { mode, synchronous })
    }
}

/// What is durable in a file has to be found: SQLite itself does not look whether the names of its files could be synced,
/// and whoever made the directories may not have done it.
fn make_names_durable(path: &Path) -> io::Result<()> {
    for directory in path.ancestors().skip(1) {
        match File::open(directory).and_then(|directory| directory.sync_all()) {
            // What this process can't open or change, it has not made; and not every file system syncs directories.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied
                        | io::ErrorKind::ReadOnlyFilesystem
                        | io::ErrorKind::InvalidInput
                        | io::ErrorKind::Unsupported
                ) => {}
            synced => synced?,
        }
    }
    Ok(())
}

fn owned_file(path: &Path) -> Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(MODE).open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != MODE {
        fs::set_permissions(path, fs::Permissions::from_mode(MODE))?;
    }
    Ok(file)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn connect(path: &Path) -> Result<Connection> {
    // Each connection stays on one thread at a time: SQLite need not lock it.
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    // Only this process has it open: what is busy is a checkpoint, for a moment.
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.set_prepared_statement_cache_capacity(32);
    // Plans that follow the statistics of each bound value would be made anew at each call.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(connection)
}

fn reader(path: &Path) -> Result<Connection> {
    let connection = connect(path)?;
    connection.pragma_update(None, "query_only", true)?;
    Ok(connection)
}

/// The work that is due or was held when the last process ended: its leases ended with it.
///
/// What was to wait is due now. Its worker looks again whether it has to: nobody knows how the clock was set meanwhile.
fn load(writer: &Connection, now: Timestamp) -> Result<Agenda> {
    writer.execute("UPDATE counters SET value = value + 1 WHERE name = 'opened'", [])?;
    let opened: u32 =
        writer.query_row("SELECT value FROM counters WHERE name = 'opened'", [], |row| row.get(0))?;
    // Above every fence of an earlier process, without a write for each claim.
    let mut agenda = Agenda::new(u64::from(opened) << 32);
    let mut statement =
        writer.prepare("SELECT key, scope, class, due_at, again_class, again_at FROM work")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (Ok(Owner(scope)), Ok(Class(class)), Ok(again)) =
            (row.get(1), row.get(2), row.get::<_, Option<Class>>(4))
        else {
            return Err(OpenFailure::UnknownWork);
        };
        let again = again.map(|Class(class)| row.get(5).map(|Time(at)| (class, at.min(now)))).transpose()?;
        let work = Work::new(scope, class, row.get::<_, Time>(3)?.0.min(now), again);
        agenda.restore(&row.get::<_, String>(0)?, Some(work));
    }
    Ok(agenda)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_that_lose_data_are_refused() {
        for (version, expected) in
            [(3_051_002, false), (3_050_999, false), (3_051_003, true), (3_052_000, true)]
        {
            assert_eq!(is_sound(version), expected, "{version}");
        }
    }

    #[test]
    fn the_writer_is_durable_and_nothing_less_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let opened =
            open(&folder.path().join("paas.db"), &SqliteOptions::default(), Timestamp::UNIX_EPOCH).unwrap();
        let text: String = opened.writer.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
        let number: i64 = opened.writer.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
        assert_eq!((text.as_str(), number), ("wal", FULL));
        // There is no write-ahead log of a database in memory.
        let error = make_durable(&Connection::open_in_memory().unwrap()).unwrap_err();
        assert!(matches!(error, OpenFailure::NotDurable { .. }), "{error:?}");
    }
}
