//! Reading the logs of apps and of their operations.

use std::sync::Arc;

use futures::stream::BoxStream;
use jiff::SignedDuration;

use super::{AppRef, Apps, DeploymentHandle};
use crate::domain::AppId;
use crate::error::{Kind, Result};
use crate::logs::{Followed, LogPage, LogQuery, LogStore, follow_logs};
use crate::store::StreamId;

/// How long after its time a line may take to be stored.
const STORING: SignedDuration = SignedDuration::from_secs(5);

impl Apps {
    /// An app's log lines. The query's app is set by this call.
    ///
    /// # Errors
    /// `NotFound`; the log store's.
    pub async fn logs(&self, app: impl Into<AppRef> + Send, query: LogQuery) -> Result<LogPage> {
        let app = self.find(app.into()).await?.value.id;
        self.log_store().read(&LogQuery { app, ..query }).await
    }

    /// An app's log lines and those to come, until the app is deleted or the query's `to` has passed. The query's app is
    /// set by this call.
    ///
    /// # Errors
    /// `NotFound`; the stores', in the stream.
    pub async fn follow_logs(
        &self,
        app: impl Into<AppRef> + Send,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Result<Followed>>> {
        let app = self.find(app.into()).await?.value.id;
        let apps = self.clone();
        Ok(self.followed(LogQuery { app: app.clone(), ..query }, async move { apps.gone(app).await }))
    }

    fn followed(
        &self,
        query: LogQuery,
        over: impl Future<Output = Result<()>> + Send + 'static,
    ) -> BoxStream<'static, Result<Followed>> {
        let (clock, to) = (self.platform().services().clock.clone(), query.to);
        let passed = async move {
            let Some(to) = to else { return std::future::pending().await };
            let left = to.duration_since(clock.now()).saturating_add(STORING);
            // Less than nothing is left of a time that is long past.
            clock.sleep(left.try_into().unwrap_or_default()).await;
        };
        follow_logs(self.log_store(), query, async move {
            tokio::select! {
                biased;
                over = over => over,
                () = passed => Ok(()),
            }
        })
    }

    /// Returns once there is no such app any more.
    async fn gone(&self, app: AppId) -> Result<()> {
        let mut news = self.platform().inner.hub.watch(StreamId::from(&app));
        loop {
            match self.find(AppRef::Id(app.clone())).await {
                Err(error) if error.kind() == Kind::NotFound => return Ok(()),
                found => found?,
            };
            self.pause(&mut news).await;
        }
    }

    /// Where log lines are kept.
    #[must_use]
    pub fn log_store(&self) -> Arc<dyn LogStore> {
        self.platform().services().logs.clone()
    }
}

impl DeploymentHandle {
    /// The log lines of this operation and of the instance that it made. The query's app and deployment are set by
    /// this call.
    ///
    /// # Errors
    /// `NotFound`; the log store's.
    pub async fn logs(&self, query: LogQuery) -> Result<LogPage> {
        let query = self.own(query).await?;
        self.apps().log_store().read(&query).await
    }

    /// The same and those to come, until it is settled or the query's `to` has passed. What its instance writes
    /// afterwards is in the app's log.
    ///
    /// # Errors
    /// `NotFound`; the stores', in the stream.
    pub async fn follow_logs(&self, query: LogQuery) -> Result<BoxStream<'static, Result<Followed>>> {
        let (query, handle) = (self.own(query).await?, self.clone());
        Ok(self.apps().followed(query, async move {
            match handle.settled().await {
                // It went with its app.
                Err(error) if error.kind() == Kind::NotFound => Ok(()),
                settled => settled.map(drop),
            }
        }))
    }

    async fn own(&self, query: LogQuery) -> Result<LogQuery> {
        let app = self.get().await?.app;
        Ok(LogQuery { app, deployment: Some(self.id().clone()), ..query })
    }
}
