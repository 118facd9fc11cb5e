//! A log store in memory.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use jiff::Timestamp;

use crate::clock::Clock;
use crate::domain::{AppId, InstanceName};
use crate::error::Result;
use crate::logs::{LogDirection, LogLine, LogPage, LogQuery, LogStore, NewLogLine};
use crate::watch;

/// A [`LogStore`] that keeps the newest lines of each app in memory.
#[derive(Debug)]
pub struct MemoryLogStore {
    clock: Arc<dyn Clock>,
    apps: Mutex<BTreeMap<AppId, Lines>>,
}

#[derive(Debug, Default)]
struct Lines {
    /// Each with the engine's time.
    lines: VecDeque<(LogLine, Option<Timestamp>)>,
    last: Option<(Timestamp, u64)>,
    newest: watch::Sender<Option<Timestamp>>,
}

impl MemoryLogStore {
    /// How many lines of an app are kept.
    pub const MAX_LINES: usize = 100_000;

    /// An empty store; lines that come without a time get that of `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, apps: Mutex::new(BTreeMap::new()) }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<AppId, Lines>> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl LogStore for MemoryLogStore {
    async fn append(&self, app: &AppId, lines: Vec<NewLogLine>) -> Result<()> {
        let now = self.clock.now();
        let mut apps = self.locked();
        let kept = apps.entry(app.clone()).or_default();
        for line in lines {
            let by_engine = line.at;
            let line = line.into_stored(kept.last, now);
            kept.last = Some((line.at, line.sequence));
            kept.lines.push_back((line, by_engine));
        }
        let excess = kept.lines.len().saturating_sub(Self::MAX_LINES);
        kept.lines.drain(..excess);
        kept.newest.send(kept.last.map(|(at, _)| at));
        Ok(())
    }

    async fn read(&self, query: &LogQuery) -> Result<LogPage> {
        let apps = self.locked();
        let Some(kept) = apps.get(&query.app) else { return Ok(LogPage::default()) };
        let limit = query.limit.min(LogQuery::MAX_LIMIT);
        let matching = kept.lines.iter().map(|(line, _)| line).filter(|line| query.matches(line));
        // One more than asked for tells whether there are more.
        let mut lines: Vec<LogLine> = match query.direction {
            LogDirection::Forward => matching.take(limit + 1).cloned().collect(),
            LogDirection::Backward => matching.rev().take(limit + 1).cloned().collect(),
        };
        let has_more = lines.len() > limit;
        lines.truncate(limit);
        Ok(LogPage { lines, has_more })
    }

    async fn wait(&self, app: &AppId, after: Option<Timestamp>) -> Result<()> {
        let mut newest = self.locked().entry(app.clone()).or_default().newest.subscribe();
        newest.until(|newest| newest.is_some() && *newest > after).await;
        Ok(())
    }

    async fn last_of(&self, app: &AppId, instance: &InstanceName) -> Result<Option<Timestamp>> {
        let apps = self.locked();
        let lines = apps.get(app).into_iter().flat_map(|kept| &kept.lines);
        let of_instance = lines.filter(|(line, _)| line.instance.as_ref() == Some(instance));
        Ok(of_instance.filter_map(|(_, by_engine)| *by_engine).max())
    }

    async fn remove(&self, app: &AppId) -> Result<()> {
        let mut apps = self.locked();
        if let Some(kept) = apps.get_mut(app) {
            (kept.lines, kept.last) = (VecDeque::new(), None);
            // Whoever waits goes on waiting, for the first line after this.
            kept.newest.send(None);
            if kept.newest.receivers() == 0 {
                apps.remove(app);
            }
        }
        Ok(())
    }
}
