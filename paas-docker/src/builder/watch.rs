//! A build while it runs: its progress, its limits, and its end.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bollard::errors::Error as EngineError;
use bollard::models::{BuildInfo, BuildInfoAux};
use bollard::query_parameters::BuildImageOptions;
use bollard::{Docker, body_try_stream};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Fuse};
use futures::stream::{BoxStream, StreamExt};
use paas_core::{BuildLimits, Clock, Context, Error, Failure, Kind, Result};

use super::progress::Progress;
use super::{context as build_context, failure};
use crate::engine::{DockerEngine, Endpoint, failed};
use crate::http;

const OPERATION: &str = "docker.build";
/// How long the engine may take to end a build that is no longer wanted. It takes tenths of a second.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// How often it is told so: a build that has not begun yet cannot hear it.
const END_INTERVAL: Duration = Duration::from_millis(200);

/// Runs a build under the id of its session, and answers the digest of the image.
pub(super) async fn run(
    engine: DockerEngine,
    context: Context,
    limits: BuildLimits,
    id: String,
    session: BoxFuture<'static, ()>,
    options: BuildImageOptions,
    body: BoxStream<'static, io::Result<Bytes>>,
) -> Result<String> {
    // The engine answers when BuildKit reports for the first time, which may be after the whole upload.
    let docker = with_session(engine.docker(), &id).with_timeout(limits.total);
    let mut build = Build {
        endpoint: engine.endpoint().clone(),
        id,
        messages: docker.build_image(options, None, Some(body_try_stream(body))).boxed(),
        session: session.fuse(),
        progress: Progress::new(limits.log_bytes),
        digest: None,
    };
    let result = build.watch(&context, &limits).await;
    build.progress.finish(&context);
    result
}

/// The client speaks of BuildKit only where it also serves a session, which would serve no secrets: the request
/// is rewritten to name ours.
fn with_session(docker: &Docker, id: &str) -> Docker {
    let id = id.to_owned();
    docker.clone().with_request_modifier(move |mut request| {
        let uri = request.uri().to_string();
        if uri.contains("/build?") {
            let uri = uri.replace("version=1", "version=2");
            if let Ok(uri) = format!("{uri}&session={id}&buildid={id}").parse() {
                *request.uri_mut() = uri;
            }
        }
        request
    })
}

struct Build<'a> {
    endpoint: Endpoint,
    /// Of the session and the build.
    id: String,
    messages: BoxStream<'a, Result<BuildInfo, EngineError>>,
    session: Fuse<BoxFuture<'static, ()>>,
    progress: Progress,
    digest: Option<String>,
}

impl Build<'_> {
    async fn watch(&mut self, context: &Context, limits: &BuildLimits) -> Result<String> {
        let clock = context.clock();
        let started = clock.elapsed();
        let mut last_activity = started;
        loop {
            let now = clock.elapsed();
            let rest = limits.total.saturating_sub(now - started);
            let silence = limits.silence.saturating_sub(now - last_activity);
            let message = tokio::select! {
                biased;
                () = context.cancellation().cancelled() => return self.end(context, Error::cancelled(OPERATION)).await,
                () = deadline(context) => {
                    let error = Error::new(Kind::Timeout, OPERATION, "the build took longer than the deployment may");
                    return self.end(context, error).await;
                }
                () = clock.sleep(rest) => {
                    let text = format!("the build took longer than {} s", limits.total.as_secs());
                    return self.end_at_limit(context, text).await;
                }
                () = clock.sleep(silence) => {
                    let text = format!("the build wrote nothing for {} s", limits.silence.as_secs());
                    return self.end_at_limit(context, text).await;
                }
                () = &mut self.session => continue,
                message = self.messages.next() => message,
            };
            match message {
                Some(Ok(info)) => {
                    if self.take(context, info) {
                        last_activity = clock.elapsed();
                    }
                }
                Some(Err(error)) => return Err(self.failure(error)),
                None => {
                    return self.digest.take().ok_or_else(|| {
                        Error::new(Kind::Unavailable, OPERATION, "the container engine broke the build off")
                    });
                }
            }
        }
    }

    /// True if the build did something.
    fn take(&mut self, context: &Context, info: BuildInfo) -> bool {
        match info.aux {
            Some(BuildInfoAux::BuildKit(report)) => self.progress.take(context, report),
            Some(BuildInfoAux::Default(image)) => {
                self.digest = image.id.or(self.digest.take());
                true
            }
            None => false,
        }
    }

    fn failure(&self, error: EngineError) -> Error {
        match error {
            EngineError::DockerStreamError { error } => failure::of(&error, self.progress.failed_step()),
            error => match build_context::cause(&error) {
                // The tree could not be read: that is what happened, not that the engine lost its body.
                Some(cause) => Error::from(&Failure::from(cause)),
                None => failed(OPERATION)(error),
            },
        }
    }

    async fn end_at_limit(&mut self, context: &Context, text: String) -> Result<String> {
        let error = Error::new(Kind::BuildFailed, OPERATION, text).code("build_limit");
        let evidence = self.progress.running_step_lines();
        self.end(context, error.evidence(evidence)).await
    }

    /// Ends the build on the engine, and answers `reason` once nothing of it runs.
    ///
    /// The engine closes its answer only when BuildKit has returned, and BuildKit only when the processes of the
    /// step have ended: the end of the stream is the proof.
    async fn end(&mut self, context: &Context, reason: Error) -> Result<String> {
        let clock = context.clock().clone();
        let mut expired = clock.sleep(END_TIMEOUT);
        let mut telling = tell_to_end(self.endpoint.clone(), self.id.clone(), clock.clone()).boxed();
        loop {
            tokio::select! {
                biased;
                message = self.messages.next() => match message {
                    Some(Ok(_)) => {}
                    // How the engine ends the progress of a build that it ended.
                    Some(Err(EngineError::DockerStreamError { .. })) | None => return Err(reason),
                    Some(Err(error)) => return Err(unproven(&reason).source(error)),
                },
                () = &mut self.session => {}
                () = &mut telling => {}
                () = &mut expired => return Err(unproven(&reason).source(reason)),
            }
        }
    }
}

/// The error of a build of which it is not known that it ended.
fn unproven(reason: &Error) -> Error {
    let text = format!("{reason}, but the container engine did not confirm that the build ended");
    Error::new(Kind::Unavailable, OPERATION, text)
        .code("end_unproven")
        .evidence(reason.evidence_lines().iter().cloned())
}

/// Tells the engine to end a build, again and again.
async fn tell_to_end(endpoint: Endpoint, id: String, clock: Arc<dyn Clock>) {
    let path = format!("/build/cancel?id={id}");
    loop {
        if let Err(error) = http::post(&endpoint, "docker.cancel_build", &path).await {
            tracing::debug!(?error, "the engine was not told to end a build");
        }
        clock.sleep(END_INTERVAL).await;
    }
}

/// Comes when the call is out of time.
async fn deadline(context: &Context) {
    match context.remaining() {
        Some(remaining) => context.clock().sleep(remaining).await,
        None => std::future::pending().await,
    }
}
