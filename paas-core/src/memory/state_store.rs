//! A state store in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::broadcast;

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};
use crate::store::{
    Agenda, Append, Backlog, Batch, Change, Claim, Claimed, Committed, Cursor, Expect, Keys, Lease,
    LeaseChange, Page, Position, Record, Scan, Scope, StateStore, StoredEvent, StreamId, UniqueReach, Work,
    WorkClass, WorkKey, Write,
};

/// How many hints a slow receiver may be behind before it loses some.
const HINTS: usize = 1024;

/// A [`StateStore`] that keeps everything in memory: it keeps every promise but that it ends with the process.
#[derive(Debug)]
pub struct MemoryStore {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    changes: broadcast::Sender<Change>,
}

impl MemoryStore {
    /// An empty store that expires leases and records by `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let state = State {
            records: BTreeMap::new(),
            unique: BTreeMap::new(),
            index: BTreeMap::new(),
            events: Vec::new(),
            streams: BTreeMap::new(),
            agenda: Agenda::new(0),
        };
        Self { clock, state: Mutex::new(state), changes: broadcast::channel(HINTS).0 }
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        // Nothing that can panic runs between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type RecordId = (&'static str, String);
/// Kind, name and value, and the org it is unique in, or none for the whole store.
type UniqueKey = (&'static str, &'static str, String, Option<Scope>);

#[derive(Debug)]
struct State {
    records: BTreeMap<RecordId, Stored>,
    unique: BTreeMap<UniqueKey, String>,
    /// Value and record id, by kind and name.
    index: BTreeMap<(&'static str, &'static str), BTreeSet<(String, String)>>,
    /// The event at position n is at n - 1.
    events: Vec<(Scope, StoredEvent)>,
    /// Where the events of each stream are in `events`.
    streams: BTreeMap<StreamId, Vec<usize>>,
    agenda: Agenda,
}

#[derive(Clone, Debug)]
struct Stored {
    scope: Scope,
    version: u64,
    keys: Keys,
    body: Vec<u8>,
}

impl Stored {
    fn is_alive(&self, now: Timestamp) -> bool {
        self.keys.expires_at.is_none_or(|at| at > now)
    }

    fn unique(&self, kind: &'static str) -> impl Iterator<Item = UniqueKey> {
        self.keys.unique.iter().map(move |(name, value, reach)| {
            (kind, *name, value.clone(), (*reach == UniqueReach::Org).then(|| self.scope.clone()))
        })
    }
}

/// How one change is taken back.
enum Undo {
    Record(RecordId, Option<Stored>),
    Event,
    Work(WorkKey, Option<Work>),
}

impl State {
    fn apply(&mut self, batch: Batch, now: Timestamp, undo: &mut Vec<Undo>) -> Result<Committed> {
        let mut committed = Committed::default();
        if batch.fence.is_some_and(|lease| !self.agenda.holds(&lease, now)) {
            return Err(fenced("store.commit"));
        }
        for write in batch.writes {
            committed.versions.push(self.write(write, now, undo)?);
        }
        for append in batch.appends {
            committed.positions.push(self.append(append, undo)?);
        }
        for change in batch.leases {
            self.change_lease(change, now, undo)?;
        }
        Ok(committed)
    }

    fn take_back(&mut self, undo: Vec<Undo>) {
        for step in undo.into_iter().rev() {
            match step {
                Undo::Record(id, before) => drop(self.set(id, before)),
                Undo::Work(key, before) => self.agenda.restore(&key, before),
                Undo::Event => {
                    if let Some((_, event)) = self.events.pop()
                        && let Some(places) = self.streams.get_mut(&event.stream)
                    {
                        places.pop();
                    }
                }
            }
        }
    }

    fn write(&mut self, write: Write, now: Timestamp, undo: &mut Vec<Undo>) -> Result<u64> {
        match write {
            Write::Put { scope, kind, id, expect, keys, body } => {
                let id = (kind, id);
                let before = self.alive(&id, now);
                if before.is_some_and(|before| before.scope != scope) || !meets(expect, before) {
                    return Err(changed_meanwhile());
                }
                let version = before.map_or(0, |before| before.version) + 1;
                let stored = Stored { scope, version, keys, body };
                for key in stored.unique(kind) {
                    self.free(&key, &id, now, undo)?;
                }
                let before = self.set(id.clone(), Some(stored));
                undo.push(Undo::Record(id, before));
                Ok(version)
            }
            Write::Update { scope, kind, id, expect, body } => {
                let id = (kind, id);
                let before = self.alive(&id, now).filter(|before| before.scope == scope);
                let updated = match before {
                    None if expect == Expect::Any => {
                        return Err(Error::not_found("store.commit", "there is nothing to update"));
                    }
                    Some(before) if meets(expect, Some(before)) => {
                        Stored { version: before.version + 1, body, ..before.clone() }
                    }
                    _ => return Err(changed_meanwhile()),
                };
                let version = updated.version;
                let before = self.set(id.clone(), Some(updated));
                undo.push(Undo::Record(id, before));
                Ok(version)
            }
            Write::Remove { scope, kind, id, expect } => {
                let id = (kind, id);
                let before = self.alive(&id, now).filter(|before| before.scope == scope);
                if !meets(expect, before) {
                    return Err(changed_meanwhile());
                }
                if before.is_some() {
                    let before = self.set(id.clone(), None);
                    undo.push(Undo::Record(id, before));
                }
                Ok(0)
            }
        }
    }

    /// Makes sure that no other record than `id` holds a unique key; one that expired lets go of it.
    fn free(&mut self, key: &UniqueKey, id: &RecordId, now: Timestamp, undo: &mut Vec<Undo>) -> Result<()> {
        let Some(holder) = self.unique.get(key).map(|holder| (id.0, holder.clone())) else { return Ok(()) };
        if holder == *id {
            return Ok(());
        }
        if self.alive(&holder, now).is_some() {
            return Err(
                Error::new(Kind::AlreadyExists, "store.commit", format!("`{}` is taken", key.2)).code(key.1)
            );
        }
        let before = self.set(holder.clone(), None);
        undo.push(Undo::Record(holder, before));
        Ok(())
    }

    /// Replaces a record and everything by which it is found; answers what it was.
    fn set(&mut self, id: RecordId, stored: Option<Stored>) -> Option<Stored> {
        let before = self.records.remove(&id);
        for key in before.iter().flat_map(|before| before.unique(id.0)) {
            self.unique.remove(&key);
        }
        for (name, value) in before.iter().flat_map(|before| &before.keys.index) {
            self.entries(id.0, name).remove(&(value.clone(), id.1.clone()));
        }
        if let Some(stored) = stored {
            self.unique.extend(stored.unique(id.0).map(|key| (key, id.1.clone())));
            for (name, value) in &stored.keys.index {
                self.entries(id.0, name).insert((value.clone(), id.1.clone()));
            }
            self.records.insert(id, stored);
        }
        before
    }

    fn entries(&mut self, kind: &'static str, name: &'static str) -> &mut BTreeSet<(String, String)> {
        self.index.entry((kind, name)).or_default()
    }

    fn append(&mut self, append: Append, undo: &mut Vec<Undo>) -> Result<Position> {
        let places = self.streams.entry(append.stream.clone()).or_default();
        let is_foreign = places.first().is_some_and(|place| self.events[*place].0 != append.scope);
        if is_foreign || places.len() as u64 != append.expect {
            return Err(changed_meanwhile());
        }
        let first = if append.events.is_empty() { 0 } else { self.events.len() as u64 + 1 };
        for (number, body) in (append.expect + 1..).zip(append.events) {
            places.push(self.events.len());
            let event = StoredEvent {
                stream: append.stream.clone(),
                version: number,
                position: Position(self.events.len() as u64 + 1),
                at: append.at,
                body,
            };
            self.events.push((append.scope.clone(), event));
            undo.push(Undo::Event);
        }
        Ok(Position(first))
    }

    fn change_lease(&mut self, change: LeaseChange, now: Timestamp, undo: &mut Vec<Undo>) -> Result<()> {
        let key = match &change {
            LeaseChange::Schedule { key, .. } => key.clone(),
            LeaseChange::Release { lease, .. } => lease.key.clone(),
        };
        let before = self.agenda.get(&key).cloned();
        undo.push(Undo::Work(key, before));
        match change {
            LeaseChange::Schedule { key, scope, class, after } => {
                self.agenda.schedule(&key, &scope, class, after, now);
                Ok(())
            }
            LeaseChange::Release { lease, next } if self.agenda.release(&lease, next, now) => Ok(()),
            LeaseChange::Release { .. } => Err(fenced("store.commit")),
        }
    }

    fn alive(&self, id: &RecordId, now: Timestamp) -> Option<&Stored> {
        self.records.get(id).filter(|stored| stored.is_alive(now))
    }

    fn read(&self, scope: &Scope, kind: &'static str, id: &str, now: Timestamp) -> Option<Record> {
        let stored = self.alive(&(kind, id.to_owned()), now).filter(|stored| scope.sees(&stored.scope))?;
        Some(Record {
            scope: stored.scope.clone(),
            kind,
            id: id.to_owned(),
            version: stored.version,
            body: stored.body.clone(),
        })
    }

    fn scan(&self, scan: &Scan, now: Timestamp) -> Page<Record> {
        let nothing = Page { items: Vec::new(), next: None };
        let Some(entries) = self.index.get(&(scan.kind, scan.index)) else { return nothing };
        let key = |value: &str, id: &str| (value.to_owned(), id.to_owned());
        let mut from = Bound::Included(key(scan.range.from.as_deref().unwrap_or_default(), ""));
        let mut to = scan.range.to.as_deref().map_or(Bound::Unbounded, |to| Bound::Excluded(key(to, "")));
        if let Some(cursor) = &scan.cursor {
            let end = if scan.descending { &mut to } else { &mut from };
            *end = Bound::Excluded(key(&cursor.value, &cursor.id));
        }
        if is_inverted(&from, &to) {
            return nothing;
        }
        // A made-up cursor must not reach beyond the range.
        let entries = entries.range((from, to)).filter(|(value, _)| scan.range.contains(value));
        let records = |(value, id): &(String, String)| {
            self.read(&scan.scope, scan.kind, id, now).map(|record| (value.clone(), record))
        };
        // One more than asked for tells whether there is a next page.
        let limit = scan.limit.saturating_add(1);
        let mut found: Vec<_> = if scan.descending {
            entries.rev().filter_map(records).take(limit).collect()
        } else {
            entries.filter_map(records).take(limit).collect()
        };
        let has_more = found.len() > scan.limit;
        found.truncate(scan.limit);
        let next = found
            .last()
            .filter(|_| has_more)
            .map(|(value, record)| Cursor { value: value.clone(), id: record.id.clone() });
        Page { items: found.into_iter().map(|(_, record)| record).collect(), next }
    }
}

fn is_inverted<T: Ord>(from: &Bound<T>, to: &Bound<T>) -> bool {
    match (from, to) {
        (Bound::Included(from) | Bound::Excluded(from), Bound::Included(to) | Bound::Excluded(to)) => {
            from >= to
        }
        _ => false,
    }
}

fn meets(expect: Expect, before: Option<&Stored>) -> bool {
    match expect {
        Expect::Absent => before.is_none(),
        Expect::Version(version) => before.is_some_and(|before| before.version == version),
        Expect::Any => true,
    }
}

fn changed_meanwhile() -> Error {
    Error::new(Kind::Conflict, "store.commit", "it was changed by somebody else in the meantime")
        .hint("read it again and repeat the change")
}

fn fenced(operation: &'static str) -> Error {
    Error::new(Kind::Conflict, operation, "the lease is no longer held").code("fenced")
}

#[async_trait]
impl StateStore for MemoryStore {
    async fn commit(&self, batch: Batch) -> Result<Committed> {
        batch.check("store.commit")?;
        let has_work = !batch.leases.is_empty();
        let grown = |append: &Append| Change::Stream {
            stream: append.stream.clone(),
            version: append.expect + append.events.len() as u64,
        };
        let streams: Vec<Change> = batch.appends.iter().map(grown).collect();
        let now = self.clock.now();
        let committed = {
            let mut state = self.locked();
            let mut undo = Vec::new();
            match state.apply(batch, now, &mut undo) {
                Ok(committed) => committed,
                Err(error) => {
                    state.take_back(undo);
                    return Err(error);
                }
            }
        };
        // Nobody may be listening.
        for change in streams {
            let _ = self.changes.send(change);
        }
        if has_work {
            let _ = self.changes.send(Change::Work);
        }
        Ok(committed)
    }

    async fn get(&self, scope: &Scope, kind: &'static str, id: &str) -> Result<Option<Record>> {
        Ok(self.locked().read(scope, kind, id, self.clock.now()))
    }

    async fn find(
        &self,
        scope: &Scope,
        kind: &'static str,
        key: &'static str,
        value: &str,
    ) -> Result<Option<Record>> {
        let (state, now) = (self.locked(), self.clock.now());
        let from: UniqueKey = (kind, key, value.to_owned(), None);
        let holders = state
            .unique
            .range(from..)
            .take_while(|((k, name, v, _), _)| (*k, *name, v.as_str()) == (kind, key, value));
        Ok(holders.map(|(_, id)| id).find_map(|id| state.read(scope, kind, id, now)))
    }

    async fn scan(&self, scan: &Scan) -> Result<Page<Record>> {
        Ok(self.locked().scan(scan, self.clock.now()))
    }

    async fn events(
        &self,
        scope: &Scope,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Result<Vec<StoredEvent>> {
        let state = self.locked();
        let places = state.streams.get(stream).map(Vec::as_slice).unwrap_or_default();
        let skipped = usize::try_from(after).unwrap_or(usize::MAX);
        let events = places.iter().skip(skipped).map(|place| &state.events[*place]);
        Ok(events
            .filter(|(owner, _)| scope.sees(owner))
            .map(|(_, event)| event.clone())
            .take(limit)
            .collect())
    }

    async fn feed(&self, scope: &Scope, after: Position, limit: usize) -> Result<Vec<StoredEvent>> {
        let state = self.locked();
        let skipped = usize::try_from(after.0).unwrap_or(usize::MAX);
        let events = state.events.iter().skip(skipped).filter(|(owner, _)| scope.sees(owner));
        Ok(events.map(|(_, event)| event.clone()).take(limit).collect())
    }

    async fn claim(&self, claim: &Claim) -> Result<Claimed> {
        Ok(self.locked().agenda.claim(claim, self.clock.now()))
    }

    async fn renew(&self, lease: &Lease, duration: Duration) -> Result<Lease> {
        self.locked().agenda.renew(lease, duration, self.clock.now()).ok_or_else(|| fenced("store.renew"))
    }

    async fn backlog(&self, class: WorkClass) -> Result<Backlog> {
        Ok(self.locked().agenda.backlog(class, self.clock.now()))
    }

    async fn count(&self, class: WorkClass, key: Option<WorkKey>) -> Result<u64> {
        Ok(self.locked().agenda.count(class, key.as_ref(), self.clock.now()) as u64)
    }

    fn changes(&self) -> broadcast::Receiver<Change> {
        self.changes.subscribe()
    }

    async fn sweep(&self, limit: usize) -> Result<usize> {
        let (mut state, now) = (self.locked(), self.clock.now());
        let expired =
            state.records.iter().filter(|(_, stored)| !stored.is_alive(now)).map(|(id, _)| id.clone());
        let expired: Vec<RecordId> = expired.take(limit).collect();
        let removed = expired.len();
        for id in expired {
            state.set(id, None);
        }
        Ok(removed)
    }

    async fn ping(&self) -> Result<()> {
        Ok(())
    }
}
