//! Log lines.

use jiff::Timestamp;
use paas_core::{AppId, Apps, LogQuery};
use pyo3::prelude::*;

use crate::error::word;
use crate::stream::{Stream, items_of};

/// A stored line of an app's log. Its time identifies it within the app.
#[pyclass(frozen, module = "paas")]
pub(crate) struct LogLine(paas_core::LogLine);

impl LogLine {
    pub(crate) fn time(&self) -> Timestamp {
        self.0.at
    }
}

/// The stored lines that match, oldest first, to the end of what is stored now.
pub(crate) fn read(apps: Apps, query: LogQuery) -> Stream {
    let pages = futures::stream::try_unfold(Some(query), move |query| {
        let apps = apps.clone();
        async move {
            let Some(mut query) = query else { return Ok(None) };
            let page = apps.logs(query.app.clone(), query.clone()).await?;
            query.after = page.lines.last().map(|line| line.at).or(query.after);
            let next = page.has_more.then_some(query);
            Ok(Some((page.lines.into_iter().map(LogLine).collect(), next)))
        }
    });
    Stream::new(items_of(Box::pin(pages)))
}

/// Every line of `app` behind `after`.
pub(crate) fn query(app: AppId, after: Option<&LogLine>) -> LogQuery {
    LogQuery { after: after.map(LogLine::time), ..LogQuery::of(app) }
}

#[pymethods]
impl LogLine {
    /// When it was written.
    #[getter]
    fn at(&self) -> Timestamp {
        self.0.at
    }

    /// Its number within the app, from 1, without gaps.
    #[getter]
    fn sequence(&self) -> u64 {
        self.0.sequence
    }

    /// Who wrote it: `"build"`, `"app"` or `"system"`.
    #[getter]
    fn source(&self) -> String {
        word(&self.0.source)
    }

    /// To which output: `"stdout"` or `"stderr"`.
    #[getter]
    fn stream(&self) -> String {
        word(&self.0.stream)
    }

    /// The id of the deployment it belongs to.
    #[getter]
    fn deployment(&self) -> Option<String> {
        self.0.deployment.as_ref().map(ToString::to_string)
    }

    /// The text, without its line end.
    #[getter]
    fn text(&self) -> &str {
        &self.0.text
    }

    fn __str__(&self) -> &str {
        &self.0.text
    }

    fn __repr__(&self) -> String {
        format!("<paas.LogLine {} {} {:?}>", self.0.at, word(&self.0.source), self.0.text)
    }
}
