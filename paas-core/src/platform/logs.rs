//! Reading the logs of apps and of their operations.

use std::sync::Arc;

use futures::stream::BoxStream;

use super::{AppRef, Apps, DeploymentHandle};
use crate::error::Result;
use crate::logs::{LogLine, LogPage, LogQuery, LogStore, follow_logs};

impl Apps {
    /// An app's log lines. The query's app is set by this call.
    ///
    /// # Errors
    /// `NotFound`; the log store's.
    pub async fn logs(&self, app: impl Into<AppRef> + Send, query: LogQuery) -> Result<LogPage> {
        let app = self.find(app.into()).await?.value.id;
        self.log_store().read(&LogQuery { app, ..query }).await
    }

    /// An app's log lines and those to come: it does not end by itself. The query's app is set by this call.
    ///
    /// # Errors
    /// `NotFound`; the log store's, in the stream.
    pub async fn follow_logs(
        &self,
        app: impl Into<AppRef> + Send,
        query: LogQuery,
    ) -> Result<BoxStream<'static, Result<LogLine>>> {
        let app = self.find(app.into()).await?.value.id;
        Ok(follow_logs(self.log_store(), LogQuery { app, ..query }))
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

    /// The same and those to come: it does not end by itself.
    ///
    /// # Errors
    /// `NotFound`; the log store's, in the stream.
    pub async fn follow_logs(&self, query: LogQuery) -> Result<BoxStream<'static, Result<LogLine>>> {
        Ok(follow_logs(self.apps().log_store(), self.own(query).await?))
    }

    async fn own(&self, query: LogQuery) -> Result<LogQuery> {
        let app = self.get().await?.app;
        Ok(LogQuery { app, deployment: Some(self.id().clone()), ..query })
    }
}
