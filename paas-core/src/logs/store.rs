//! The trait of log stores.

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{BoxStream, StreamExt};
use jiff::Timestamp;

use super::{LogLine, LogSource, NewLogLine};
use crate::domain::{AppId, DeploymentId, InstanceName};
use crate::error::Result;

/// In which order a page is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogDirection {
    /// Oldest first.
    #[default]
    Forward,
    /// Newest first.
    Backward,
}

/// Which lines of an app to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogQuery {
    /// The app.
    pub app: AppId,
    /// Not older than this, itself included.
    pub from: Option<Timestamp>,
    /// Only what came after this, itself excluded: the last timestamp that the reader has.
    pub after: Option<Timestamp>,
    /// Not newer than this, itself included.
    pub to: Option<Timestamp>,
    /// Only what came before this, itself excluded: for the next page backward.
    pub before: Option<Timestamp>,
    /// The most lines to answer.
    pub limit: usize,
    /// The order.
    pub direction: LogDirection,
    /// Only lines of this source.
    pub source: Option<LogSource>,
    /// Only lines of this deployment.
    pub deployment: Option<DeploymentId>,
    /// Only lines of this instance.
    pub instance: Option<InstanceName>,
    /// Only lines whose text contains this.
    pub contains: Option<String>,
}

impl LogQuery {
    /// The most lines that a page holds, whatever its limit.
    pub const MAX_LIMIT: usize = 5_000;

    /// Every line of `app`, oldest first, 1000 at a time.
    #[must_use]
    pub fn of(app: AppId) -> Self {
        Self {
            app,
            from: None,
            after: None,
            to: None,
            before: None,
            limit: 1000,
            direction: LogDirection::Forward,
            source: None,
            deployment: None,
            instance: None,
            contains: None,
        }
    }

    /// True if `line` is asked for; the limit is not looked at.
    #[must_use]
    pub fn matches(&self, line: &LogLine) -> bool {
        self.from.is_none_or(|from| line.at >= from)
            && self.after.is_none_or(|after| line.at > after)
            && self.to.is_none_or(|to| line.at <= to)
            && self.before.is_none_or(|before| line.at < before)
            && self.source.is_none_or(|source| line.source == source)
            && self.deployment.as_ref().is_none_or(|id| line.deployment.as_ref() == Some(id))
            && self.instance.as_ref().is_none_or(|name| line.instance.as_ref() == Some(name))
            && self.contains.as_ref().is_none_or(|text| line.text.contains(text.as_str()))
    }
}

/// Lines in the order asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// The lines.
    pub lines: Vec<LogLine>,
    /// True if there are more in this direction.
    pub has_more: bool,
}

/// Keeps log lines by app and time.
///
/// # Flow
/// The platform appends lines in batches as they come; readers page by time or wait for more.
///
/// # Guarantees
/// - Stored times are strictly increasing within an app: a line not later than the one before it gets that one's
///   time plus a nanosecond. So a time identifies a line, and "after the last one I have" neither repeats nor loses.
/// - What [`append`](Self::append) returned for is read back by every later read, also by another process after
///   this one is killed (not after a loss of power).
/// - Lines leave only by retention, oldest first.
/// - Text is stored as given, but for line ends, which become visible escapes, and the cut of overlong lines, which is marked.
///
/// # Assumptions
/// One process writes an app's lines at a time.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait LogStore: Debug + Send + Sync + 'static {
    /// Stores lines in the given order.
    async fn append(&self, app: &AppId, lines: Vec<NewLogLine>) -> Result<()>;

    /// Reads a page. The store answers at most [`LogQuery::MAX_LIMIT`] lines; an unknown app has no lines.
    async fn read(&self, query: &LogQuery) -> Result<LogPage>;

    /// Returns once `app` has a line after `after` (any line, when `None`).
    async fn wait(&self, app: &AppId, after: Option<Timestamp>) -> Result<()>;

    /// The newest time, by the engine's clock (as given in [`NewLogLine::at`]), of any stored line of `instance`:
    /// where to resume collecting.
    async fn last_of(&self, app: &AppId, instance: &InstanceName) -> Result<Option<Timestamp>>;

    /// Removes everything of `app`.
    async fn remove(&self, app: &AppId) -> Result<()>;
}

/// Conveniences on every [`LogStore`].
pub trait LogStoreExt: LogStore {
    /// The lines that match from now on and, if the query reaches back, those that are there already; it does not
    /// end by itself.
    fn follow(&self, query: LogQuery) -> BoxStream<'_, Result<LogLine>>;
}

impl<T: LogStore + ?Sized> LogStoreExt for T {
    fn follow(&self, query: LogQuery) -> BoxStream<'_, Result<LogLine>> {
        follow(self, query)
    }
}

/// [`LogStoreExt::follow`] for those who keep the stream longer than a reference to the store.
pub fn follow_logs(store: Arc<dyn LogStore>, query: LogQuery) -> BoxStream<'static, Result<LogLine>> {
    follow(store, query)
}

fn follow<'a, S>(store: S, mut query: LogQuery) -> BoxStream<'a, Result<LogLine>>
where
    S: Deref<Target: LogStore> + Clone + Send + Sync + 'a,
{
    query.direction = LogDirection::Forward;
    let pages =
        futures::stream::try_unfold((store, query, false), |(store, mut query, waiting)| async move {
            // A filter may pass nothing for long: wait behind the newest line of the app, not of the filter.
            if waiting {
                store.wait(&query.app, query.after).await?;
            }
            let newest = newest_time(&*store, &query.app).await?;
            let page = store.read(&query).await?;
            let reached = if page.has_more { page.lines.last().map(|line| line.at) } else { newest };
            let last = page.lines.last().map(|line| line.at);
            query.after = query.after.max(reached).max(last);
            Ok(Some((page.lines, (store, query, !page.has_more))))
        });
    pages
        .map(|page: Result<Vec<LogLine>>| match page {
            Ok(lines) => futures::stream::iter(lines.into_iter().map(Ok).collect::<Vec<_>>()),
            Err(error) => futures::stream::iter(vec![Err(error)]),
        })
        .flatten()
        .boxed()
}

async fn newest_time<T: LogStore + ?Sized>(store: &T, app: &AppId) -> Result<Option<Timestamp>> {
    let query = LogQuery { limit: 1, direction: LogDirection::Backward, ..LogQuery::of(app.clone()) };
    Ok(store.read(&query).await?.lines.first().map(|line| line.at))
}
