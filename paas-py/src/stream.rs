//! What is iterated: events, log lines, pages of apps. One class for `for` and `async for`.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::BoxStream;
use paas_core::{Cursor, Page, Result};
use pyo3::IntoPyObjectExt;
use pyo3::exceptions::PyStopAsyncIteration;
use pyo3::prelude::*;
use pyo3_async_runtimes::tokio::future_into_py;
use tokio::sync::Mutex;

use crate::call::wait;
use crate::error::raise;

/// How many records are read at a time.
const PAGE: usize = 100;

/// Makes an item's Python object.
type Item = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;

/// Items that are read as they are asked for: with `for`, or with `async for`.
///
/// Leaving the loop early is fine: nothing that happens depends on being watched.
#[pyclass(frozen, generic, module = "paas")]
pub(crate) struct Stream {
    items: Arc<Mutex<BoxStream<'static, Result<Item>>>>,
}

impl Stream {
    pub(crate) fn new<T>(items: BoxStream<'static, Result<T>>) -> Self
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        let items = items.map(|item| {
            let make = |item: T| -> Item { Box::new(move |py| item.into_py_any(py)) };
            item.map(make)
        });
        Self { items: Arc::new(Mutex::new(items.boxed())) }
    }

    /// The items of every page; `read` reads the page at a cursor.
    pub(crate) fn of_pages<T, F>(read: impl Fn(usize, Option<Cursor>) -> F + Send + 'static) -> Self
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
        F: Future<Output = Result<Page<T>>> + Send + 'static,
    {
        // The first page has no cursor, the last none behind it.
        let pages = futures::stream::try_unfold(Some(None), move |cursor: Option<Option<Cursor>>| {
            let page = cursor.map(|cursor| read(PAGE, cursor));
            async move {
                let Some(page) = page else { return Ok(None) };
                let page = page.await?;
                Ok(Some((page.items, page.next.map(Some))))
            }
        });
        Self::new(items_of(pages.boxed()))
    }
}

/// The items of each page, in order.
pub(crate) fn items_of<T: Send + 'static>(
    pages: BoxStream<'static, Result<Vec<T>>>,
) -> BoxStream<'static, Result<T>> {
    pages
        .flat_map(|page| {
            let items: Vec<Result<T>> = match page {
                Ok(items) => items.into_iter().map(Ok).collect(),
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(items)
        })
        .boxed()
}

#[pymethods]
impl Stream {
    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let item = wait(py, async { self.items.lock().await.next().await.transpose() })?;
        item.map(|make| make(py)).transpose()
    }

    fn __aiter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __anext__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let items = self.items.clone();
        future_into_py(py, async move {
            match items.lock().await.next().await {
                Some(Ok(make)) => Python::attach(make),
                Some(Err(error)) => Err(raise(&error)),
                None => Err(PyStopAsyncIteration::new_err(())),
            }
        })
    }
}
