//! One batch, as statements on the writing connection.

use std::collections::HashMap;

use jiff::Timestamp;
use paas_core::{
    Agenda, Append, Batch, Committed, Error, Expect, Keys, Kind, LeaseChange, Position, Scope, StreamId,
    UniqueReach, Work, WorkKey, Write,
};
use rusqlite::{Connection, OptionalExtension, Statement, params};

use super::convert::{Owner, Time, bounded, nanoseconds};

const COMMIT: &str = "sqlite.commit";
/// How many streams' last versions are remembered, so that a further append need not look them up.
const HEADS: usize = 10_000;

/// Why a batch did not happen.
pub(super) enum Failure {
    /// A condition does not hold: this batch alone is taken back.
    Refused(Error),
    /// The database failed: the whole transaction is lost.
    Lost(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Lost(error)
    }
}

type Result<T, E = Failure> = std::result::Result<T, E>;

/// The statements, prepared once, and what is known without asking the database.
pub(super) struct Session<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    savepoint: Statement<'c>,
    release: Statement<'c>,
    select_record: Statement<'c>,
    insert_record: Statement<'c>,
    replace_record: Statement<'c>,
    update_body: Statement<'c>,
    delete_record: Statement<'c>,
    insert_unique: Statement<'c>,
    insert_index: Statement<'c>,
    delete_unique: Statement<'c>,
    delete_index: Statement<'c>,
    select_holder: Statement<'c>,
    select_head: Statement<'c>,
    insert_event: Statement<'c>,
    upsert_work: Statement<'c>,
    delete_work: Statement<'c>,
    connection: &'c Connection,
    heads: HashMap<StreamId, (u64, Scope)>,
    pub(super) agenda: Agenda,
    /// What the agenda was before each change of this transaction.
    undo: Vec<(WorkKey, Option<Work>)>,
}

/// A record's row.
struct Row {
    record: i64,
    scope: Scope,
    version: u64,
    is_expired: bool,
}

impl<'c> Session<'c> {
    pub(super) fn new(connection: &'c Connection, agenda: Agenda) -> rusqlite::Result<Self> {
        let prepare = |sql| connection.prepare(sql);
        Ok(Self {
            begin: prepare("BEGIN IMMEDIATE")?,
            commit: prepare("COMMIT")?,
            savepoint: prepare("SAVEPOINT batch")?,
            release: prepare("RELEASE batch")?,
            select_record: prepare(
                "SELECT record, scope, version, expires_at FROM records WHERE kind = ?1 AND id = ?2",
            )?,
            insert_record: prepare(
                "INSERT INTO records (kind, id, scope, version, expires_at, body) VALUES (?1, ?2, ?3, 1, ?4, ?5)",
            )?,
            replace_record: prepare(
                "UPDATE records SET version = ?2, expires_at = ?3, body = ?4 WHERE record = ?1",
            )?,
            update_body: prepare(
                "UPDATE records SET version = ?4 + 1, body = ?5
                WHERE kind = ?1 AND id = ?2 AND scope = ?3 AND version = ?4
                    AND (expires_at IS NULL OR expires_at > ?6)",
            )?,
            delete_record: prepare("DELETE FROM records WHERE record = ?1")?,
            insert_unique: prepare(
                "INSERT INTO unique_keys (kind, name, value, reach, record) VALUES (?1, ?2, ?3, ?4, ?5)
                ON CONFLICT DO NOTHING",
            )?,
            insert_index: prepare(
                "INSERT INTO index_keys (kind, name, value, id, scope, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                ON CONFLICT DO NOTHING",
            )?,
            delete_unique: prepare("DELETE FROM unique_keys WHERE record = ?1")?,
            delete_index: prepare("DELETE FROM index_keys WHERE record = ?1")?,
            select_holder: prepare(
                "SELECT record, expires_at FROM unique_keys JOIN records USING (record)
                WHERE unique_keys.kind = ?1 AND name = ?2 AND value = ?3 AND reach = ?4",
            )?,
            select_head: prepare(
                "SELECT version, scope FROM events WHERE stream = ?1 ORDER BY version DESC LIMIT 1",
            )?,
            insert_event: prepare(
                "INSERT INTO events (stream, version, scope, at, body) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?,
            upsert_work: prepare(
                "INSERT INTO work (key, scope, class, due_at, again_class, again_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                ON CONFLICT (key) DO UPDATE SET class = ?3, due_at = ?4, again_class = ?5, again_at = ?6",
            )?,
            delete_work: prepare("DELETE FROM work WHERE key = ?1")?,
            connection,
            heads: HashMap::new(),
            agenda,
            undo: Vec::new(),
        })
    }

    pub(super) fn begin(&mut self) -> rusqlite::Result<()> {
        self.begin.execute([]).map(drop)
    }

    pub(super) fn commit(&mut self) -> rusqlite::Result<()> {
        self.commit.execute([])?;
        self.undo.clear();
        Ok(())
    }

    /// Takes the whole transaction back.
    pub(super) fn roll_back(&mut self) -> rusqlite::Result<()> {
        self.heads.clear();
        self.restore_agenda(0);
        // SQLite itself rolls back on some failures.
        if self.connection.is_autocommit() { Ok(()) } else { self.connection.execute_batch("ROLLBACK") }
    }

    /// Applies a batch within the transaction, all of it or nothing.
    pub(super) fn apply(&mut self, batch: &Batch, now: Timestamp) -> Result<Committed> {
        self.check(batch, now)?;
        if is_decided_by_its_first_change(batch) {
            return self.apply_parts(batch, now);
        }
        self.savepoint.execute([])?;
        let undo_mark = self.undo.len();
        let result = self.apply_parts(batch, now);
        match &result {
            Ok(_) => {}
            // The savepoint went with the transaction.
            Err(Failure::Lost(_)) => return result,
            Err(Failure::Refused(_)) => {
                for append in &batch.appends {
                    self.heads.remove(&append.stream);
                }
                self.restore_agenda(undo_mark);
                self.connection.execute_batch("ROLLBACK TO batch")?;
            }
        }
        self.release.execute([])?;
        result
    }

    /// Checks the conditions that need no change: the fence, and the first append and lease change.
    fn check(&mut self, batch: &Batch, now: Timestamp) -> Result<()> {
        let released = batch.leases.first().and_then(|change| match change {
            LeaseChange::Release { lease, .. } => Some(lease),
            LeaseChange::Schedule { .. } => None,
        });
        if batch.fence.iter().chain(released).any(|lease| !self.agenda.holds(lease, now)) {
            return Err(Failure::Refused(fenced(COMMIT)));
        }
        if let Some(append) = batch.appends.first() {
            self.head(append)?;
        }
        Ok(())
    }

    /// Removes expired records.
    pub(super) fn sweep(&mut self, limit: usize, now: Timestamp) -> Result<usize> {
        const SQL: &str = "DELETE FROM records WHERE record IN
            (SELECT record FROM records WHERE expires_at <= ?1 LIMIT ?2)";
        Ok(self.connection.prepare_cached(SQL)?.execute(params![nanoseconds(now), bounded(limit as u64)])?)
    }

    /// Writes something.
    pub(super) fn ping(&mut self) -> Result<()> {
        self.connection.execute("UPDATE counters SET value = value + 1 WHERE name = 'pinged'", [])?;
        Ok(())
    }

    fn restore_agenda(&mut self, mark: usize) {
        for (key, before) in self.undo.drain(mark..).rev() {
            self.agenda.restore(&key, before);
        }
    }

    fn apply_parts(&mut self, batch: &Batch, now: Timestamp) -> Result<Committed> {
        let mut committed = Committed {
            versions: Vec::with_capacity(batch.writes.len()),
            positions: Vec::with_capacity(batch.appends.len()),
        };
        for write in &batch.writes {
            committed.versions.push(self.write(write, now)?);
        }
        for append in &batch.appends {
            committed.positions.push(self.append(append)?);
        }
        for change in &batch.leases {
            self.change_lease(change, now)?;
        }
        Ok(committed)
    }

    fn write(&mut self, write: &Write, now: Timestamp) -> Result<u64> {
        match write {
            Write::Put { scope, kind, id, expect, keys, body } => {
                self.put((kind, id, scope), *expect, keys, body, now)
            }
            Write::Update { scope, kind, id, expect, body } => {
                let version = match *expect {
                    Expect::Version(version) => version,
                    Expect::Absent => return Err(changed_meanwhile()),
                    Expect::Any => match self.row(kind, id, now)? {
                        Some(row) if !row.is_expired && row.scope == *scope => row.version,
                        _ => {
                            let error = Error::not_found(COMMIT, "there is nothing to update");
                            return Err(Failure::Refused(error));
                        }
                    },
                };
                let parameters = params![kind, id, scope.as_str(), bounded(version), body, nanoseconds(now)];
                match self.update_body.execute(parameters)? {
                    0 => Err(changed_meanwhile()),
                    _ => Ok(version + 1),
                }
            }
            Write::Remove { scope, kind, id, expect } => {
                let row = self.row(kind, id, now)?.filter(|row| !row.is_expired && row.scope == *scope);
                require(*expect, row.as_ref())?;
                if let Some(row) = row {
                    self.delete_record.execute([row.record])?;
                }
                Ok(0)
            }
        }
    }

    fn put(
        &mut self,
        (kind, id, scope): (&str, &str, &Scope),
        expect: Expect,
        keys: &Keys,
        body: &[u8],
        now: Timestamp,
    ) -> Result<u64> {
        let mut row = self.row(kind, id, now)?;
        if let Some(expired) = row.take_if(|row| row.is_expired) {
            self.delete_record.execute([expired.record])?;
        }
        require(expect, row.as_ref())?;
        let expires_at = keys.expires_at.map(nanoseconds);
        let (record, version) = match row {
            Some(row) if row.scope != *scope => return Err(changed_meanwhile()),
            Some(row) => {
                self.replace_record.execute(params![row.record, row.version + 1, expires_at, body])?;
                self.delete_unique.execute([row.record])?;
                self.delete_index.execute([row.record])?;
                (row.record, row.version + 1)
            }
            None => (self.insert_record.insert(params![kind, id, scope.as_str(), expires_at, body])?, 1),
        };
        for (name, value, reach) in &keys.unique {
            let reach = match reach {
                UniqueReach::Org => scope.as_str(),
                UniqueReach::Store => "",
            };
            self.take_unique((kind, name, value, reach), record, now)?;
        }
        for (name, value) in &keys.index {
            self.insert_index.execute(params![kind, name, value, id, scope.as_str(), record])?;
        }
        Ok(version)
    }

    /// Gives a unique key to `record`; a holder that expired lets go of it.
    fn take_unique(
        &mut self,
        key @ (kind, name, value, reach): (&str, &str, &str, &str),
        record: i64,
        now: Timestamp,
    ) -> Result<()> {
        if self.insert_unique.execute(params![kind, name, value, reach, record])? == 1 {
            return Ok(());
        }
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        let (holder, expires_at): (i64, Option<Time>) = self.select_holder.query_row(key, read)?;
        if holder == record {
            return Ok(());
        }
        if expires_at.is_none_or(|Time(at)| at > now) {
            let error = Error::new(Kind::AlreadyExists, COMMIT, format!("`{value}` is taken"));
            return Err(Failure::Refused(error.code(name.to_owned())));
        }
        self.delete_record.execute([holder])?;
        self.insert_unique.execute(params![kind, name, value, reach, record])?;
        Ok(())
    }

    fn row(&mut self, kind: &str, id: &str, now: Timestamp) -> Result<Option<Row>> {
        let read = |row: &rusqlite::Row<'_>| {
            Ok(Row {
                record: row.get(0)?,
                scope: row.get::<_, Owner>(1)?.0,
                version: row.get(2)?,
                is_expired: row.get::<_, Option<Time>>(3)?.is_some_and(|Time(at)| at <= now),
            })
        };
        Ok(self.select_record.query_row([kind, id], read).optional()?)
    }

    fn append(&mut self, append: &Append) -> Result<Position> {
        let (stream, scope, at) = (append.stream.as_str(), append.scope.as_str(), nanoseconds(append.at));
        let mut version = self.head(append)?;
        let mut first = 0;
        for body in &append.events {
            version += 1;
            let position = self.insert_event.insert(params![stream, version, scope, at, body])?;
            if first == 0 {
                first = position;
            }
        }
        if let Some(head) = self.heads.get_mut(&append.stream) {
            *head = (version, append.scope.clone());
        }
        Ok(Position(first.unsigned_abs()))
    }

    /// The stream's last version, which is the expected one.
    fn head(&mut self, append: &Append) -> Result<u64> {
        if !self.heads.contains_key(&append.stream) {
            let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, Owner>(1)?.0));
            let head = self.select_head.query_row([append.stream.as_str()], read).optional()?;
            if self.heads.len() >= HEADS {
                self.heads.clear();
            }
            self.heads.insert(append.stream.clone(), head.unwrap_or_else(|| (0, append.scope.clone())));
        }
        match self.heads.get(&append.stream) {
            // An empty stream is anybody's.
            Some((version, owner))
                if *version == append.expect && (*version == 0 || *owner == append.scope) =>
            {
                Ok(*version)
            }
            _ => Err(changed_meanwhile()),
        }
    }

    fn change_lease(&mut self, change: &LeaseChange, now: Timestamp) -> Result<()> {
        let key = match change {
            LeaseChange::Schedule { key, .. } => key,
            LeaseChange::Release { lease, .. } => &lease.key,
        };
        let before = self.agenda.get(key).cloned();
        match change {
            LeaseChange::Schedule { scope, class, after, .. } => {
                self.agenda.schedule(key, scope, *class, *after, now);
            }
            LeaseChange::Release { lease, next } => {
                if !self.agenda.release(lease, *next, now) {
                    return Err(Failure::Refused(fenced(COMMIT)));
                }
            }
        }
        // Before the statement: if that is what fails, the change is taken back all the same.
        self.undo.push((key.clone(), before.clone()));
        match self.agenda.get(key) {
            Some(work) if before.as_ref() != Some(work) => {
                let again_class = work.again.map(|(class, _)| class.as_str());
                let again_at = work.again.map(|(_, at)| nanoseconds(at));
                self.upsert_work.execute(params![
                    key,
                    work.scope.as_str(),
                    work.class.as_str(),
                    nanoseconds(work.due),
                    again_class,
                    again_at,
                ])?;
            }
            Some(_) => {}
            None => {
                self.delete_work.execute([key])?;
            }
        }
        Ok(())
    }
}

/// True if only the first change can still be refused, once the conditions of [`Session::check`] hold: at most one
/// change of each sort, and no put, which may find its unique keys taken. Such a batch, every step of an operation,
/// needs no savepoint, for which SQLite would copy each page that it changes.
fn is_decided_by_its_first_change(batch: &Batch) -> bool {
    batch.writes.len() <= 1
        && batch.appends.len() <= 1
        && batch.leases.len() <= 1
        && !batch.writes.iter().any(|write| matches!(write, Write::Put { .. }))
}

fn require(expect: Expect, row: Option<&Row>) -> Result<()> {
    let holds = match expect {
        Expect::Absent => row.is_none(),
        Expect::Version(version) => row.is_some_and(|row| row.version == version),
        Expect::Any => true,
    };
    if holds { Ok(()) } else { Err(changed_meanwhile()) }
}

fn changed_meanwhile() -> Failure {
    let message = "it was changed by somebody else in the meantime";
    Failure::Refused(Error::new(Kind::Conflict, COMMIT, message).hint("read it again and repeat the change"))
}

/// The error for a lease that is no longer held.
pub(super) fn fenced(operation: &'static str) -> Error {
    Error::new(Kind::Conflict, operation, "the lease is no longer held").code("fenced")
}
