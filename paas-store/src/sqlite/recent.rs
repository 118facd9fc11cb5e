//! What was written or read last, in memory: nearly every read is of what is being worked on.
//!
//! The file belongs to this process alone, so nothing else changes what is remembered. While a transaction commits,
//! nothing that it touches is remembered: such a read asks the database, which knows whether it is visible yet.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;
use paas_core::{Append, Batch, Committed, Position, Record, Scope, StoredEvent, StreamId, Write};

/// How many bytes of records, and how many of events, are remembered.
const MAX_BYTES: usize = 4 << 20;
/// How many bytes of one stream are remembered: its last events.
const MAX_STREAM_BYTES: usize = MAX_BYTES / 16;
/// What an entry takes beside its text.
const ENTRY_BYTES: usize = 200;
/// How many counters of changes there are; keys share them.
const COUNTERS: usize = 256;

/// A record's kind and id.
type Key = (&'static str, String);

/// Remembers records that never expire, and the last events of streams.
#[derive(Debug)]
pub(super) struct Recent(Mutex<Option<Memory>>);

#[derive(Debug)]
struct Memory {
    records: Bounded<Key, Known>,
    streams: Bounded<StreamId, Tail>,
    /// How often records changed, by the hash of their keys.
    changes: [u64; COUNTERS],
    /// How many of them are about to.
    changing: [usize; COUNTERS],
    hasher: RandomState,
}

#[derive(Debug)]
struct Known {
    scope: Scope,
    version: u64,
    body: Vec<u8>,
}

/// The last events of a stream, without gaps.
#[derive(Debug)]
struct Tail {
    scope: Scope,
    events: VecDeque<StoredEvent>,
    bytes: usize,
}

/// Allows to remember what the database is about to be asked for, if it does not change meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ticket {
    counter: usize,
    changes: u64,
}

/// What a transaction that commits touches.
#[derive(Debug, Default)]
pub(super) struct Pending {
    records: HashMap<Key, Option<Known>>,
    streams: HashMap<StreamId, Tail>,
}

impl Recent {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Some(Memory {
            records: Bounded::new(),
            streams: Bounded::new(),
            changes: [0; COUNTERS],
            changing: [0; COUNTERS],
            hasher: RandomState::new(),
        })))
    }

    /// A record, or that a reader of this scope sees none.
    ///
    /// # Errors
    /// What to [`remember`](Self::remember) it with once the database was asked; `None` if it is just changing.
    pub(super) fn record(
        &self,
        scope: &Scope,
        kind: &'static str,
        id: &str,
    ) -> Result<Option<Record>, Option<Ticket>> {
        let mut locked = self.locked();
        let memory = locked.as_mut().ok_or(None)?;
        let key = (kind, id.to_owned());
        let Some(known) = memory.records.get(&key) else { return Err(memory.ticket(&key)) };
        Ok(scope.sees(&known.scope).then(|| Record {
            scope: known.scope.clone(),
            kind,
            id: id.to_owned(),
            version: known.version,
            body: known.body.clone(),
        }))
    }

    /// Remembers a record that never expires, unless it may have changed since the ticket was given.
    pub(super) fn remember(&self, ticket: Ticket, record: &Record) {
        let mut locked = self.locked();
        let Some(memory) = locked.as_mut().filter(|memory| memory.changes[ticket.counter] == ticket.changes)
        else {
            return;
        };
        let known = Known { scope: record.scope.clone(), version: record.version, body: record.body.clone() };
        memory.records.insert((record.kind, record.id.clone()), known);
    }

    /// The events of a stream with versions after `after`; `None` if the database has to be asked.
    pub(super) fn events(
        &self,
        scope: &Scope,
        stream: &StreamId,
        after: u64,
        limit: usize,
    ) -> Option<Vec<StoredEvent>> {
        let mut locked = self.locked();
        let tail = locked.as_mut()?.streams.get(stream)?;
        if !scope.sees(&tail.scope) {
            return Some(Vec::new());
        }
        let first = tail.events.front()?.version;
        let skipped = usize::try_from((after + 1).checked_sub(first)?).ok()?;
        Some(tail.events.iter().skip(skipped).take(limit).cloned().collect())
    }

    /// Forgets what a transaction touches that is about to commit.
    pub(super) fn begin<'a>(&self, batches: impl Iterator<Item = (&'a Batch, &'a Committed)>) -> Pending {
        let mut pending = Pending::default();
        if let Some(memory) = self.locked().as_mut() {
            for (batch, committed) in batches {
                for (write, version) in batch.writes.iter().zip(&committed.versions) {
                    memory.take_record(write, *version, &mut pending);
                }
                for (append, position) in batch.appends.iter().zip(&committed.positions) {
                    memory.take_stream(append, *position, &mut pending);
                }
            }
            for key in pending.records.keys() {
                let counter = memory.counter(key);
                memory.changes[counter] += 1;
                memory.changing[counter] += 1;
            }
        }
        pending
    }

    /// Remembers what a transaction made of it, which is visible now; nothing of it if the transaction was lost.
    pub(super) fn end(&self, pending: Pending, is_committed: bool) {
        let mut locked = self.locked();
        let Some(memory) = locked.as_mut() else { return };
        for (key, known) in pending.records {
            let counter = memory.counter(&key);
            memory.changing[counter] -= 1;
            if let Some(known) = known.filter(|_| is_committed) {
                memory.records.insert(key, known);
            }
        }
        for (stream, tail) in pending.streams.into_iter().filter(|_| is_committed) {
            memory.streams.insert(stream, tail);
        }
    }

    /// Forgets everything, for good.
    pub(super) fn close(&self) {
        *self.locked() = None;
    }

    fn locked(&self) -> MutexGuard<'_, Option<Memory>> {
        // Nothing that panics runs under this lock.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory {
    fn counter(&self, key: &Key) -> usize {
        // The remainder fits.
        (self.hasher.hash_one(key) % COUNTERS as u64) as usize
    }

    fn ticket(&self, key: &Key) -> Option<Ticket> {
        let counter = self.counter(key);
        (self.changing[counter] == 0).then(|| Ticket { counter, changes: self.changes[counter] })
    }

    fn take_record(&mut self, write: &Write, version: u64, pending: &mut Pending) {
        let (Write::Put { kind, id, .. } | Write::Update { kind, id, .. } | Write::Remove { kind, id, .. }) =
            write;
        let key = (*kind, id.clone());
        let before = self.records.remove(&key).or_else(|| pending.records.remove(&key).flatten());
        let after = match write {
            Write::Put { scope, keys, body, .. } if keys.expires_at.is_none() => Some((scope, body)),
            // Whether it expires is known of what was remembered only.
            Write::Update { scope, body, .. } if before.is_some() => Some((scope, body)),
            _ => None,
        };
        let after = after.map(|(scope, body)| Known { scope: scope.clone(), version, body: body.clone() });
        pending.records.insert(key, after);
    }

    fn take_stream(&mut self, append: &Append, position: Position, pending: &mut Pending) {
        if append.events.is_empty() {
            return;
        }
        let before = pending.streams.remove(&append.stream).or_else(|| self.streams.remove(&append.stream));
        let follows = |tail: &Tail| tail.events.back().is_some_and(|last| last.version == append.expect);
        let mut tail = before.filter(follows).unwrap_or_else(|| Tail {
            scope: append.scope.clone(),
            events: VecDeque::new(),
            bytes: 0,
        });
        for (offset, body) in (0..).zip(&append.events) {
            let event = StoredEvent {
                stream: append.stream.clone(),
                version: append.expect + 1 + offset,
                position: Position(position.0 + offset),
                at: append.at,
                body: body.clone(),
            };
            tail.bytes += event.bytes();
            tail.events.push_back(event);
        }
        while tail.bytes > MAX_STREAM_BYTES {
            let Some(first) = tail.events.pop_front() else { break };
            tail.bytes -= first.bytes();
        }
        pending.streams.insert(append.stream.clone(), tail);
    }
}

/// What an entry takes in memory, about.
trait Bytes {
    fn bytes(&self) -> usize;
}

impl Bytes for Known {
    fn bytes(&self) -> usize {
        self.body.len() + ENTRY_BYTES
    }
}

impl Bytes for StoredEvent {
    fn bytes(&self) -> usize {
        self.body.len() + ENTRY_BYTES
    }
}

impl Bytes for Tail {
    fn bytes(&self) -> usize {
        self.bytes + ENTRY_BYTES
    }
}

/// Keeps what was used last, up to [`MAX_BYTES`].
#[derive(Debug)]
struct Bounded<K, V> {
    entries: LruCache<K, V>,
    bytes: usize,
}

impl<K: Eq + Hash, V: Bytes> Bounded<K, V> {
    fn new() -> Self {
        Self { entries: LruCache::new_unbounded(), bytes: 0 }
    }

    fn get(&mut self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    fn insert(&mut self, key: K, value: V) {
        self.bytes += value.bytes();
        if let Some(before) = self.entries.insert(key, value) {
            self.bytes -= before.bytes();
        }
        while self.bytes > MAX_BYTES {
            let Some((_, oldest)) = self.entries.remove_lru() else { break };
            self.bytes -= oldest.bytes();
        }
    }

    fn remove(&mut self, key: &K) -> Option<V> {
        let value = self.entries.remove(key)?;
        self.bytes -= value.bytes();
        Some(value)
    }
}
