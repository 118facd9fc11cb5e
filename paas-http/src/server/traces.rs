//! Deployments and their steps as OpenTelemetry traces.

mod export;
mod fields;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::InstrumentationScope;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{
    BatchSpanProcessor, IdGenerator, RandomIdGenerator, SpanData, SpanEvents, SpanLinks, SpanProcessor,
};
use paas_core::{Clock, Result, SystemClock};
use sha2::{Digest, Sha256};
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{FilterFn, Filtered, filter_fn};
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use fields::Fields;

/// How long the last spans may take to be sent.
const CLOSE_PATIENCE: Duration = Duration::from_secs(3);

/// Exports the spans of deployments and their steps to a collector, by OTLP over HTTP.
///
/// ```no_run
/// use paas_http::Traces;
/// use tracing_subscriber::layer::SubscriberExt;
/// use tracing_subscriber::util::SubscriberInitExt;
///
/// # fn main() -> paas_core::Result<()> {
/// let traces = Traces::to("http://127.0.0.1:4318/v1/traces")?;
/// tracing_subscriber::registry().with(traces.layer()).init();
/// // … a platform works …
/// traces.close();
/// # Ok(()) }
/// ```
///
/// # Guarantees
/// - A deployment is one trace, whose id follows from the deployment's: also when it goes on after a restart, or on
///   another server.
/// - Nobody waits for the collector. What it does not take in time is dropped: 2,048 spans wait at most.
/// - Attributes are what the engine names its spans by: ids, kinds, steps, outcomes.
#[derive(Clone, Debug)]
pub struct Traces(Arc<Exporter>);

#[derive(Debug)]
struct Exporter {
    processor: BatchSpanProcessor,
    scope: InstrumentationScope,
    ids: RandomIdGenerator,
    clock: SystemClock,
}

/// A span that is open.
struct Open {
    context: SpanContext,
    parent: SpanId,
    began: SystemTime,
    fields: Fields,
}

impl Traces {
    /// To the collector that the variables `OTEL_EXPORTER_OTLP_ENDPOINT` or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` name;
    /// `None` if neither is set, or `OTEL_SDK_DISABLED` is `true`.
    ///
    /// # Errors
    /// As [`to`](Self::to).
    pub fn from_environment() -> Result<Option<Self>> {
        let set = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let is_named = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
        let is_disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if is_disabled || is_named.into_iter().all(|name| set(name).is_none()) {
            return Ok(None);
        }
        export::exporter(None).map(|exporter| Some(Self::with(exporter)))
    }

    /// To the collector at a URL, path included. `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES` and
    /// `OTEL_EXPORTER_OTLP_HEADERS` count, too.
    ///
    /// # Errors
    /// `Invalid` for a URL that is none; `Internal` when encryption can't be set up.
    pub fn to(endpoint: &str) -> Result<Self> {
        export::exporter(Some(endpoint)).map(Self::with)
    }

    fn with(exporter: opentelemetry_otlp::SpanExporter) -> Self {
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        let resource = Resource::builder();
        let resource = match std::env::var_os("OTEL_SERVICE_NAME") {
            Some(_) => resource,
            None => resource.with_service_name("paas"),
        };
        processor.set_resource(&resource.build());
        let scope = InstrumentationScope::builder("paas").with_version(env!("CARGO_PKG_VERSION")).build();
        let (ids, clock) = (RandomIdGenerator::default(), SystemClock::new());
        Self(Arc::new(Exporter { processor, scope, ids, clock }))
    }

    /// The layer that sees the spans: for a program that has a subscriber of its own.
    #[must_use]
    pub fn layer<S>(&self) -> Filtered<impl Layer<S> + use<S>, FilterFn, S>
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
    {
        TraceLayer(self.0.clone()).with_filter(filter_fn(is_exported as fn(&Metadata<'_>) -> bool))
    }

    /// Sends what is left, for three seconds at most, and ends: later spans are dropped.
    pub fn close(&self) {
        if let Err(error) = self.0.processor.shutdown_with_timeout(CLOSE_PATIENCE) {
            tracing::warn!(%error, "the last traces could not be exported");
        }
    }
}

/// The engine's spans of operations, and what is within them.
fn is_exported(metadata: &Metadata<'_>) -> bool {
    metadata.is_span()
        && metadata.target().starts_with("paas_core::engine")
        && matches!(metadata.name(), "operation" | "step" | "undo")
}

struct TraceLayer(Arc<Exporter>);

impl<S> Layer<S> for TraceLayer
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let above = span
            .parent()
            .and_then(|parent| parent.extensions().get::<Open>().map(|open| open.context.clone()));
        let (trace, parent) = match (above, fields.get("deployment")) {
            (Some(above), _) => (above.trace_id(), above.span_id()),
            (None, Some(deployment)) => (trace_of(deployment), SpanId::INVALID),
            (None, None) => return,
        };
        let id = self.0.ids.new_span_id();
        let context = SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default());
        let began = self.0.clock.now().into();
        span.extensions_mut().insert(Open { context, parent, began, fields });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        if let Some(open) = span.extensions_mut().get_mut::<Open>() {
            values.record(&mut open.fields);
        }
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(open) = span.extensions_mut().remove::<Open>() else { return };
        self.0.processor.on_end(SpanData {
            name: name(span.name(), &open.fields),
            status: status(&open.fields),
            attributes: open.fields.into_attributes(),
            span_context: open.context,
            parent_span_id: open.parent,
            parent_span_is_remote: false,
            span_kind: SpanKind::Internal,
            start_time: open.began,
            end_time: self.0.clock.now().into(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            instrumentation_scope: self.0.scope.clone(),
        });
    }
}

/// The trace of a deployment.
fn trace_of(deployment: &str) -> TraceId {
    let mut id = [0; 16];
    id.copy_from_slice(&Sha256::digest(deployment)[..16]);
    TraceId::from_bytes(id)
}

/// What people look for: the kind of the operation, or the step.
fn name(span: &'static str, fields: &Fields) -> Cow<'static, str> {
    match (span, fields.get("kind"), fields.get("step")) {
        ("operation", Some(kind), _) => Cow::Owned(kind.to_owned()),
        ("step", _, Some(step)) => Cow::Owned(step.to_owned()),
        (_, _, Some(step)) => Cow::Owned(format!("{span} {step}")),
        _ => Cow::Borrowed(span),
    }
}

fn status(fields: &Fields) -> Status {
    match fields.get("outcome") {
        None => Status::Unset,
        Some("ok" | "succeeded") => Status::Ok,
        Some(outcome) => Status::error(outcome.to_owned()),
    }
}
