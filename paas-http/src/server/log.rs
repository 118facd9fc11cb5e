//! The log of a program that serves.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// What has to be kept until the program ends: dropping it sends the last traces, if any are exported, and takes three
/// seconds at most.
#[derive(Debug)]
#[must_use = "traces are exported until it is dropped"]
pub struct Log {
    #[cfg(feature = "opentelemetry")]
    traces: Option<super::traces::Traces>,
}

#[cfg(feature = "opentelemetry")]
impl Drop for Log {
    fn drop(&mut self) {
        if let Some(traces) = &self.traces {
            traces.close();
        }
    }
}

/// Writes the program's log to standard error: from `info` on, or as the variable `PAAS_LOG` says (`debug`,
/// `warn,paas_git=trace`), one line of text each, or of JSON where `PAAS_LOG_FORMAT` is `json`. A line tells which
/// operation and step it belongs to. A program that has a log already keeps it.
///
/// With the feature `opentelemetry`, and where `OTEL_EXPORTER_OTLP_ENDPOINT` is set, deployments are exported as traces.
pub fn log_to_stderr() -> Log {
    let filter = EnvFilter::try_from_env("PAAS_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match std::env::var("PAAS_LOG_FORMAT").as_deref() {
        Ok("json") => lines.json().with_filter(filter).boxed(),
        // Elsewhere, as in a service's journal, colours would be noise.
        _ => lines.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
    };
    start(lines)
}

type Lines = Box<dyn Layer<Registry> + Send + Sync>;

#[cfg(feature = "opentelemetry")]
fn start(lines: Lines) -> Log {
    let traces = super::traces::Traces::from_environment();
    let exported = traces.as_ref().ok().and_then(Option::as_ref).map(super::traces::Traces::layer);
    let layers: Vec<Lines> = [lines].into_iter().chain(exported.map(Layer::boxed)).collect();
    let _ = tracing_subscriber::registry().with(layers).try_init();
    let traces = traces.unwrap_or_else(|error| {
        tracing::error!(?error, "deployments are not exported as traces");
        None
    });
    Log { traces }
}

#[cfg(not(feature = "opentelemetry"))]
fn start(lines: Lines) -> Log {
    let _ = tracing_subscriber::registry().with(lines).try_init();
    if std::env::var_os("OTEL_EXPORTER_OTLP_ENDPOINT").is_some() {
        tracing::warn!("this program was built without the feature opentelemetry: it exports no traces");
    }
    Log {}
}
