//! The Python package `paas`: sync and async, in-process, over the same calls as Rust.
//!
//! This crate is the extension module `paas._paas`; `python/paas` holds what is plain Python: exceptions, events, the
//! words of the states, and the types. Every call that waits exists twice: `x()` blocks without holding the
//! interpreter and can be interrupted, `x_async()` answers an `asyncio.Future`. Both run the same future on one
//! tokio runtime of the process.

mod app;
mod apps;
mod arguments;
mod call;
mod deployment;
mod error;
mod event;
mod local;
mod logs;
mod memory;
mod platform;
mod release;
mod stream;

/// The extension module.
#[pyo3::pymodule]
mod _paas {
    #[pymodule_export]
    use crate::app::App;
    #[pymodule_export]
    use crate::apps::Apps;
    #[pymodule_export]
    use crate::deployment::Deployment;
    #[pymodule_export]
    use crate::logs::LogLine;
    #[pymodule_export]
    use crate::memory::{MemoryGit, MemoryHost};
    #[pymodule_export]
    use crate::platform::Platform;
    #[pymodule_export]
    use crate::release::Release;
    #[pymodule_export]
    use crate::stream::Stream;
}
