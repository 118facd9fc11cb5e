//! Log lines in memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::watch;

use crate::clock::Clock;
use crate::domain::{AppId, InstanceName};
use crate::error::Result;
use crate::logs::{LogDirection, LogLine, LogPage, LogQuery, LogStore, NewLogLine};

/// Keeps log lines in memory.
#[derive(Debug)]
pub struct MemoryLogStore {
    clock: Arc<dyn Clock>,
    apps: Mutex<BTreeMap<AppId, Vec<(LogLine, Option<Timestamp>)>>>,
    changed: watch::Sender<()>,
}

impl MemoryLogStore {
    /// An empty store.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, apps: Mutex::default(), changed: watch::Sender::new(()) }
    }
}

#[async_trait]
impl LogStore for MemoryLogStore {
    async fn append(&self, app: &AppId, lines: Vec<NewLogLine>) -> Result<()> {
        let now = self.clock.now();
        let mut apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = apps.entry(app.clone()).or_default();
        for line in lines {
            let least = stored.last().map(|(last, _)| last.at + SignedDuration::from_nanos(1));
            let at = line.at.unwrap_or(now);
            let at = least.map_or(at, |least| least.max(at));
            let sequence = stored.last().map_or(1, |(last, _)| last.sequence + 1);
            let (source, stream, instance, deployment, text) =
                (line.source, line.stream, line.instance, line.deployment, line.text);
            stored.push((LogLine { at, sequence, source, stream, instance, deployment, text }, line.at));
        }
        drop(apps);
        self.changed.send_replace(());
        Ok(())
    }

    async fn read(&self, query: &LogQuery) -> Result<LogPage> {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lines: Vec<_> =
            apps.get(&query.app).into_iter().flatten().map(|(line, _)| line).filter(|line| query.matches(line)).cloned().collect();
        if query.direction == LogDirection::Backward {
            lines.reverse();
        }
        let has_more = lines.len() > query.limit;
        lines.truncate(query.limit);
        Ok(LogPage { lines, has_more })
    }

    async fn wait(&self, app: &AppId, after: Option<Timestamp>) -> Result<()> {
        let mut changed = self.changed.subscribe();
        loop {
            let newest = {
                let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
                apps.get(app).and_then(|lines| lines.last()).map(|(line, _)| line.at)
            };
            if newest > after {
                return Ok(());
            }
            let _ = changed.changed().await;
        }
    }

    async fn last_of(&self, app: &AppId, instance: &InstanceName) -> Result<Option<Timestamp>> {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = apps.get(app).into_iter().flatten();
        Ok(lines.filter(|(line, _)| line.instance.as_ref() == Some(instance)).filter_map(|(_, at)| *at).max())
    }

    async fn remove(&self, app: &AppId) -> Result<()> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner).remove(app);
        Ok(())
    }
}
