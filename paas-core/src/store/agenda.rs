//! The order of due work and who holds it, for stores that one process owns.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{Backlog, Claim, Claimed, Lease, Scope, WorkClass, WorkKey};

/// Due work and the leases on it, in memory: what a [`StateStore`](super::StateStore) that only one process can open
/// needs besides its tables.
///
/// # Flow
/// The store loads what it kept with [`restore`](Self::restore), then mirrors each change of a key here and in its
/// tables. What a failed transaction takes back is put back with `restore` too. Leases need no table: nobody but
/// this process can hold one, so they end with it.
///
/// # Guarantees
/// Taking a lease costs the logarithm of the number of keys and orgs, however much work is due. Among the orgs
/// that have due work the one that holds the fewest leases of the class comes first, then the one that has waited
/// longest since its last turn; within one, what has been due longest. A clock that is set back makes no wait longer.
#[derive(Debug)]
pub struct Agenda {
    works: BTreeMap<WorkKey, Work>,
    /// What is not due yet, by when it will be.
    sleeping: BTreeSet<(Timestamp, WorkKey)>,
    /// What is held, by when the lease ends.
    held: BTreeSet<(Timestamp, WorkKey)>,
    queues: BTreeMap<WorkClass, Queue>,
    /// The number of the last lease.
    fence: u64,
    /// The latest time that was seen, to notice a clock that is set back.
    seen: Timestamp,
}

/// Work on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Work {
    /// The org that it is for.
    pub scope: Scope,
    /// Its class.
    pub class: WorkClass,
    /// When it is due, or was when it was claimed.
    pub due: Timestamp,
    /// As what and when it is due again after its release.
    pub again: Option<(WorkClass, Timestamp)>,
    state: State,
}

impl Work {
    /// Work that nobody holds.
    #[must_use]
    pub fn new(
        scope: Scope,
        class: WorkClass,
        due: Timestamp,
        again: Option<(WorkClass, Timestamp)>,
    ) -> Self {
        Self { scope, class, due, again, state: State::Sleeping }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Sleeping,
    Due,
    Held { fence: u64, expires_at: Timestamp },
}

/// Due and held work of one class.
#[derive(Debug, Default)]
struct Queue {
    /// Leases of all orgs.
    held: usize,
    lines: BTreeMap<Scope, Line>,
    /// The orgs with due work, the next one first: by leases held, then by turn.
    order: BTreeSet<(usize, u64, Scope)>,
    /// The last turn that was given.
    turn: u64,
}

/// One org's part of a queue.
#[derive(Debug, Default)]
struct Line {
    due: BTreeSet<(Timestamp, WorkKey)>,
    held: usize,
    turn: u64,
}

impl Queue {
    /// Changes an org's line and puts it where it belongs; with `to_back`, behind all that hold as few leases.
    fn update(&mut self, scope: &Scope, to_back: bool, change: impl FnOnce(&mut Line)) {
        let line = self.lines.entry(scope.clone()).or_default();
        self.order.remove(&(line.held, line.turn, scope.clone()));
        let held_before = line.held;
        let was_empty = line.due.is_empty();
        change(line);
        self.held = self.held + line.held - held_before;
        if line.due.is_empty() {
            if line.held == 0 {
                self.lines.remove(scope);
            }
            return;
        }
        if was_empty || to_back {
            self.turn += 1;
            line.turn = self.turn;
        }
        self.order.insert((line.held, line.turn, scope.clone()));
    }

    /// How much is held or will be claimed before `key`, if nothing changes.
    fn ahead(&self, scope: &Scope, due: Timestamp, key: &WorkKey) -> usize {
        let Some(own) = self.lines.get(scope) else { return self.held };
        let rank = own.due.range(..(due, key.clone())).count();
        // In the round in which this org has as many leases as it needs to reach the key, who else came before?
        let round = own.held + rank;
        let others = self.lines.iter().filter(|(other, _)| *other != scope).map(|(_, line)| {
            let rounds = (round + usize::from(line.turn < own.turn)).saturating_sub(line.held);
            line.due.len().min(rounds)
        });
        self.held + rank + others.sum::<usize>()
    }
}

impl Agenda {
    /// An empty agenda whose leases have numbers above `fence`.
    #[must_use]
    pub fn new(fence: u64) -> Self {
        Self {
            works: BTreeMap::new(),
            sleeping: BTreeSet::new(),
            held: BTreeSet::new(),
            queues: BTreeMap::new(),
            fence,
            seen: Timestamp::MIN,
        }
    }

    /// What is known of a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Work> {
        self.works.get(key)
    }

    /// Makes a key what it was, or forgets it.
    pub fn restore(&mut self, key: &str, work: Option<Work>) {
        self.take(key);
        if let Some(work) = work {
            self.put(key.to_owned(), work);
        }
    }

    /// True if the lease is held now.
    #[must_use]
    pub fn holds(&self, lease: &Lease, now: Timestamp) -> bool {
        self.works.get(&lease.key).is_some_and(|work| {
            matches!(work.state, State::Held { fence, expires_at } if fence == lease.fence && expires_at > now)
        })
    }

    /// Makes a key due, as [`LeaseChange::Schedule`](super::LeaseChange::Schedule) says.
    pub fn schedule(
        &mut self,
        key: &WorkKey,
        scope: &Scope,
        class: WorkClass,
        after: Duration,
        now: Timestamp,
    ) {
        self.advance(now);
        let due = later(now, after);
        let Some(work) = self.works.get_mut(key) else {
            return self.put(key.clone(), Work::new(scope.clone(), class, due, None));
        };
        match work.state {
            State::Held { .. } => work.again = Some(merge(work.again, (class, due), now)),
            State::Due | State::Sleeping => {
                let before = work.due;
                let (class, due) = merge(Some((work.class, before)), (class, due), now);
                if work.state == State::Due && class == work.class {
                    work.due = due;
                    self.queues.entry(class).or_default().update(&work.scope, false, |line| {
                        line.due.remove(&(before, key.clone()));
                        line.due.insert((due, key.clone()));
                    });
                } else if let Some(mut work) = self.take(key) {
                    (work.class, work.due) = (class, due);
                    self.put(key.clone(), work);
                }
            }
        }
    }

    /// Gives a key back, as [`LeaseChange::Release`](super::LeaseChange::Release) says; false if it is not held.
    #[must_use]
    pub fn release(&mut self, lease: &Lease, next: Option<(WorkClass, Duration)>, now: Timestamp) -> bool {
        if !self.holds(lease, now) {
            return false;
        }
        if let Some(work) = self.take(&lease.key) {
            let next = match next {
                Some((class, after)) => Some(merge(work.again, (class, later(now, after)), now)),
                None => work.again,
            };
            if let Some((class, due)) = next {
                self.put(lease.key.clone(), Work::new(work.scope, class, due, None));
            }
        }
        true
    }

    /// Takes leases, as [`StateStore::claim`](super::StateStore::claim) says.
    pub fn claim(&mut self, claim: &Claim, now: Timestamp) -> Claimed {
        self.advance(now);
        let expires_at = later(now, claim.duration);
        let mut leases = Vec::new();
        for (&class, &limit) in &claim.limit {
            for _ in 0..limit {
                let Some(key) = self.next(class, claim.slots.get(&class).copied()) else { break };
                let Some(mut work) = self.take(&key) else { break };
                self.fence += 1;
                work.state = State::Held { fence: self.fence, expires_at };
                leases.push(Lease {
                    key: key.clone(),
                    scope: work.scope.clone(),
                    class,
                    fence: self.fence,
                    expires_at,
                });
                self.put(key, work);
            }
        }
        let first = |set: &BTreeSet<(Timestamp, WorkKey)>| set.first().map(|(at, _)| *at);
        let next_due = [first(&self.sleeping), first(&self.held)].into_iter().flatten().min();
        let until = |due: Timestamp| Duration::try_from(due.duration_since(now)).unwrap_or_default();
        Claimed { leases, next_due: next_due.map(until) }
    }

    /// Holds a lease for `duration` from now; `None` if it is not held.
    pub fn renew(&mut self, lease: &Lease, duration: Duration, now: Timestamp) -> Option<Lease> {
        if !self.holds(lease, now) {
            return None;
        }
        let work = self.works.get_mut(&lease.key)?;
        let State::Held { fence, expires_at: before } = work.state else { return None };
        let expires_at = later(now, duration);
        work.state = State::Held { fence, expires_at };
        self.held.remove(&(before, lease.key.clone()));
        self.held.insert((expires_at, lease.key.clone()));
        Some(Lease { expires_at, ..lease.clone() })
    }

    /// Counts, as [`StateStore::count`](super::StateStore::count) says.
    pub fn count(&mut self, class: WorkClass, key: Option<&WorkKey>, now: Timestamp) -> usize {
        self.advance(now);
        let Some(queue) = self.queues.get(&class) else { return 0 };
        match key {
            None => queue.held + queue.lines.values().map(|line| line.due.len()).sum::<usize>(),
            Some(key) => match self.works.get(key) {
                Some(work) if work.class == class && work.state == State::Due => {
                    queue.ahead(&work.scope, work.due, key)
                }
                _ => 0,
            },
        }
    }

    /// How much waits and is held, as [`StateStore::backlog`](super::StateStore::backlog) says.
    pub fn backlog(&mut self, class: WorkClass, now: Timestamp) -> Backlog {
        self.advance(now);
        let Some(queue) = self.queues.get(&class) else { return Backlog::default() };
        let oldest = queue.lines.values().filter_map(|line| line.due.first()).map(|(due, _)| *due).min();
        Backlog {
            waiting: queue.lines.values().map(|line| line.due.len() as u64).sum(),
            held: queue.held as u64,
            oldest: oldest.map_or(Duration::ZERO, |due| now.duration_since(due).unsigned_abs()),
        }
    }

    /// What of a class is claimed next, if a slot is free.
    fn next(&self, class: WorkClass, slots: Option<usize>) -> Option<WorkKey> {
        let queue = self.queues.get(&class)?;
        if slots.is_some_and(|slots| queue.held >= slots) {
            return None;
        }
        let (_, _, scope) = queue.order.first()?;
        queue.lines.get(scope)?.due.first().map(|(_, key)| key.clone())
    }

    /// Makes due what became due by `now`.
    fn advance(&mut self, now: Timestamp) {
        if now < self.seen {
            self.set_back(self.seen.duration_since(now));
        }
        self.seen = now;
        while let Some(key) = first_until(&self.sleeping, now).or_else(|| first_until(&self.held, now)) {
            let Some(mut work) = self.take(&key) else { return };
            work.state = State::Due;
            self.put(key, work);
        }
    }

    /// Keeps every wait as long as it was meant to be when the clock was set back.
    fn set_back(&mut self, by: SignedDuration) {
        let earlier = |at: Timestamp| at.checked_sub(by).unwrap_or(Timestamp::MIN);
        let waiting = self.sleeping.iter().chain(&self.held).map(|(_, key)| key.clone());
        for key in waiting.collect::<Vec<_>>() {
            let Some(mut work) = self.take(&key) else { continue };
            work.again = work.again.map(|(class, due)| (class, earlier(due)));
            match &mut work.state {
                State::Held { expires_at, .. } => *expires_at = earlier(*expires_at),
                State::Sleeping | State::Due => work.due = earlier(work.due),
            }
            self.put(key, work);
        }
    }

    fn take(&mut self, key: &str) -> Option<Work> {
        let (key, work) = self.works.remove_entry(key)?;
        match work.state {
            State::Sleeping => {
                self.sleeping.remove(&(work.due, key));
            }
            State::Due => self.queue(work.class).update(&work.scope, false, |line| {
                line.due.remove(&(work.due, key));
            }),
            State::Held { expires_at, .. } => {
                self.held.remove(&(expires_at, key));
                self.queue(work.class).update(&work.scope, false, |line| line.held -= 1);
            }
        }
        Some(work)
    }

    fn put(&mut self, key: WorkKey, work: Work) {
        match work.state {
            State::Sleeping => {
                self.sleeping.insert((work.due, key.clone()));
            }
            State::Due => self.queue(work.class).update(&work.scope, false, |line| {
                line.due.insert((work.due, key.clone()));
            }),
            State::Held { expires_at, .. } => {
                self.held.insert((expires_at, key.clone()));
                self.queue(work.class).update(&work.scope, true, |line| line.held += 1);
            }
        }
        self.works.insert(key, work);
    }

    fn queue(&mut self, class: WorkClass) -> &mut Queue {
        self.queues.entry(class).or_default()
    }
}

fn first_until(set: &BTreeSet<(Timestamp, WorkKey)>, now: Timestamp) -> Option<WorkKey> {
    set.first().filter(|(at, _)| *at <= now).map(|(_, key)| key.clone())
}

/// The earlier of two times, with its class; what is due by now as both is of the cheaper class.
fn merge(
    one: Option<(WorkClass, Timestamp)>,
    other: (WorkClass, Timestamp),
    now: Timestamp,
) -> (WorkClass, Timestamp) {
    let Some(one) = one else { return other };
    let (earlier, later) = if one.1 <= other.1 { (one, other) } else { (other, one) };
    let class = if later.1 <= now { earlier.0.min(later.0) } else { earlier.0 };
    (class, earlier.1)
}

fn later(now: Timestamp, duration: Duration) -> Timestamp {
    SignedDuration::try_from(duration)
        .ok()
        .and_then(|duration| now.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}
