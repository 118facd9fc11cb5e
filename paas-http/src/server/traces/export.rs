//! The way to a collector.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use paas_core::{Error, Result, error};
use reqwest::redirect::Policy;

const OPERATION: &str = "server.traces";
/// How long a collector gets to take one batch: what comes meanwhile waits in the queue, and nobody waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

/// An exporter to `endpoint`, or to where the environment says.
pub(super) fn exporter(endpoint: Option<&str>) -> Result<SpanExporter> {
    let builder = SpanExporter::builder().with_http().with_http_client(Collector::new()?);
    let builder = match endpoint {
        Some(endpoint) => builder.with_endpoint(endpoint),
        None => builder,
    };
    builder.build().map_err(|cause| {
        Error::invalid(OPERATION, "traces can't be exported to this collector")
            .hint("OTEL_EXPORTER_OTLP_ENDPOINT is a URL such as http://127.0.0.1:4318")
            .source(cause)
    })
}

/// A client that is called on the exporting thread alone, where nothing else runs: it waits there.
#[derive(Debug)]
struct Collector {
    client: reqwest::Client,
    is_away: AtomicBool,
}

impl Collector {
    fn new() -> Result<Self> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls()?)
            .redirect(Policy::none())
            .no_proxy()
            .timeout(PATIENCE)
            // Each export has a runtime of its own, which its connection ends with.
            .pool_max_idle_per_host(0)
            .build()
            .map_err(error::map(OPERATION))?;
        Ok(Self { client, is_away: AtomicBool::new(false) })
    }

    /// Says so when the collector goes away and when it is back, and not each time.
    fn note<T>(&self, answer: &Result<T, reqwest::Error>) {
        let was_away = self.is_away.swap(answer.is_err(), Ordering::Relaxed);
        match answer {
            Ok(_) if was_away => tracing::info!("traces are exported again"),
            Err(cause) if !was_away => {
                let cause: &dyn std::error::Error = cause;
                tracing::warn!(cause, "the collector takes no traces: they are dropped");
            }
            _ => {}
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(async {
            let request = reqwest::Request::try_from(request)?;
            self.client.execute(request).await?.error_for_status()
        });
        self.note(&answer);
        // What a collector says beside its status changes nothing, and is not read.
        Ok(Response::builder().status(answer?.status()).body(Bytes::new())?)
    }
}

fn tls() -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(error::map(OPERATION))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
