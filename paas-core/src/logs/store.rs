//! The trait of log stores.

use std::fmt::Debug;
use std::ops::Deref;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::{LogLine, LogSource, NewLogLine};
use crate::domain::{AppId, DeploymentId, InstanceName};
use crate::error::{Error, Result};

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

/// What a follower gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// A line.
    Line(LogLine),
    /// Lines before this time left by retention before the follower could read them.
    Gap {
        /// The time of the oldest line that is still there.
        until: Timestamp,
    },
}

/// Conveniences on every [`LogStore`].
pub trait LogStoreExt: LogStore {
    /// The lines that match from now on and, if the query reaches back, those that are there already. It ends when a
    /// line behind the query's `to` is stored, and not otherwise.
    fn follow(&self, query: LogQuery) -> BoxStream<'_, Result<Followed>>;
}

impl<T: LogStore + ?Sized> LogStoreExt for T {
    fn follow(&self, query: LogQuery) -> BoxStream<'_, Result<Followed>> {
        follow(self, query, std::future::pending())
    }
}

/// [`LogStoreExt::follow`] for those who keep the stream longer than a reference to the store. It also ends once
/// `over` has returned and what was stored by then is read.
pub fn follow_logs(
    store: Arc<dyn LogStore>,
    query: LogQuery,
    over: impl Future<Output = Result<()>> + Send + 'static,
) -> BoxStream<'static, Result<Followed>> {
    follow(store, query, over)
}

fn follow<'a, S>(
    store: S,
    query: LogQuery,
    over: impl Future<Output = Result<()>> + Send + 'a,
) -> BoxStream<'a, Result<Followed>>
where
    S: Deref<Target: LogStore> + Send + Sync + 'a,
{
    let query = LogQuery { direction: LogDirection::Forward, ..query };
    let follower =
        Follower { store, query, over: over.boxed(), reached: None, is_behind: true, is_over: false };
    let pages = futures::stream::try_unfold(Some(follower), |follower| async {
        let Some(mut follower) = follower else { return Ok::<_, Error>(None) };
        let page = follower.next_page().await?;
        let next = if follower.is_done() { None } else { Some(follower) };
        Ok(Some((futures::stream::iter(page.into_iter().map(Ok)), next)))
    });
    pages.try_flatten().boxed()
}

struct Follower<'a, S> {
    store: S,
    query: LogQuery,
    over: BoxFuture<'a, Result<()>>,
    /// The newest line that was read or passed over.
    reached: Option<LogLine>,
    /// There are lines to read already.
    is_behind: bool,
    /// None comes any more.
    is_over: bool,
}

impl<S: Deref<Target: LogStore>> Follower<'_, S> {
    async fn next_page(&mut self) -> Result<Vec<Followed>> {
        if !self.is_behind {
            tokio::select! {
                biased;
                over = &mut self.over => {
                    over?;
                    self.is_over = true;
                }
                // A filter may pass nothing for long: wait behind the newest line of the app, not of the filter.
                news = self.store.wait(&self.query.app, self.query.after) => news?,
            }
        }
        let newest = self.outermost(LogDirection::Backward).await?;
        let page = self.store.read(&self.query).await?;
        let gap = self.gap(page.lines.first()).await?;
        self.is_behind = page.has_more;
        let last = page.lines.last().cloned();
        let passed = if page.has_more { None } else { newest };
        self.reached = [self.reached.take(), last, passed].into_iter().flatten().max_by_key(|line| line.at);
        self.query.after = self.query.after.max(self.reached.as_ref().map(|line| line.at));
        Ok(gap.into_iter().chain(page.lines.into_iter().map(Followed::Line)).collect())
    }

    /// Whether lines left between the last one that was reached and the first of the page behind it.
    async fn gap(&mut self, first: Option<&LogLine>) -> Result<Option<Followed>> {
        let expected = self.reached.as_ref().map(|line| line.sequence + 1);
        if expected.is_some() && first.map(|line| line.sequence) == expected {
            return Ok(None);
        }
        let Some(oldest) = self.outermost(LogDirection::Forward).await? else { return Ok(None) };
        let is_lost = match (expected, self.query.after) {
            (Some(expected), _) => oldest.sequence > expected,
            // One that comes back: whether that line was the last to leave is not known.
            (None, Some(after)) => oldest.sequence > 1 && oldest.at > after,
            (None, None) => false,
        };
        Ok(is_lost.then_some(Followed::Gap { until: oldest.at }))
    }

    fn is_done(&self) -> bool {
        let is_past = self.reached.as_ref().is_some_and(|line| self.query.to.is_some_and(|to| line.at > to));
        !self.is_behind && (self.is_over || is_past)
    }

    /// The app's oldest or newest line.
    async fn outermost(&mut self, direction: LogDirection) -> Result<Option<LogLine>> {
        let query = LogQuery { limit: 1, direction, ..LogQuery::of(self.query.app.clone()) };
        Ok(self.store.read(&query).await?.lines.pop())
    }
}
