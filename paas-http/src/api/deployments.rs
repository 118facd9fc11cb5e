//! Deployments: making them, watching them, ending them.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode};
use paas_core::{DeployOptions, DeploymentHandle, WaitFor};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::apps::{expecting, repeatable};
use super::bodies::NewDeployment;
use super::events::{Event, EventPage};
use super::types::{Deployment, Waited};
use crate::json::Json;
use crate::paging::{Limit, Page, Paging, bad_cursor, link_next};
use crate::problem::{Problem, Result};
use crate::query::{Parameters, Segment};
use crate::router::Frontend;
use crate::streams::resume_at;

/// The most events of a page.
const MAX_EVENTS: usize = 1000;
/// The longest that a request waits.
const MAX_WAIT_SECONDS: u64 = 300;

/// 202: the deployment is the operation, and says where it can be watched.
pub(crate) async fn accepted(handle: &DeploymentHandle) -> Result<Response> {
    let deployment = Deployment::from(handle.get().await?);
    let location = format!("/v1/deployments/{}", handle.id());
    Ok((StatusCode::ACCEPTED, [("location", location)], axum::Json(deployment)).into_response())
}

impl Frontend {
    pub(crate) async fn deployment(&self, id: &Segment) -> Result<DeploymentHandle> {
        Ok(self.apps().deployment(&id.deployment()?).await?)
    }
}

/// The deployments of an app, newest first.
#[utoipa::path(
    get,
    path = "/v1/apps/{app}/deployments",
    tag = "deployments",
    operation_id = "list_deployments",
    params(("app" = String, Path, description = "Its id or name"), Paging),
    responses(
        (status = 200, description = "A page of deployments", body = Page<Deployment>),
        (status = 404, description = "There is no such app", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(frontend): State<Frontend>,
    Segment(app): Segment,
    Parameters(paging): Parameters<Paging>,
) -> Result<Page<Deployment>> {
    let limit = paging.limit();
    let page = frontend.apps().deployments(app.as_str(), limit, paging.cursor()?).await?;
    Ok(Page::of(page, limit, Deployment::from))
}

/// Deploys an app: the newest commit of its branch, or the commit it is pinned to.
#[utoipa::path(
    post,
    path = "/v1/apps/{app}/deployments",
    tag = "deployments",
    operation_id = "create_deployment",
    params(
        ("app" = String, Path, description = "Its id or name"),
        ("If-Match" = Option<String>, Header, description = "Only if the app's ETag is still this one"),
        ("Idempotency-Key" = Option<String>, Header, description = "Repeating a request with the same key has one effect"),
    ),
    request_body = Option<NewDeployment>,
    responses(
        (status = 202, description = "The deployment", body = Deployment),
        (status = 404, description = "There is no such app", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "The app is being deleted", body = Problem, content_type = "application/problem+json"),
        (status = 429, description = "Too many of the app are waiting", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Somebody changed it meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(frontend): State<Frontend>,
    Segment(app): Segment,
    headers: HeaderMap,
    Json(wanted, asked): Json<NewDeployment>,
) -> Result<Response> {
    let options = DeployOptions { no_cache: wanted.no_cache };
    let apps = repeatable(expecting(&frontend, &headers)?, &headers, &["deploy", &app, asked.as_str()])?;
    accepted(&apps.deploy(app.as_str(), options).await?).await
}

/// A deployment. That it failed is an answer, not an error.
#[utoipa::path(
    get,
    path = "/v1/deployments/{deployment}",
    tag = "deployments",
    operation_id = "get_deployment",
    params(("deployment" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "The deployment", body = Deployment),
        (status = 404, description = "There is no such deployment", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(State(frontend): State<Frontend>, id: Segment) -> Result<axum::Json<Deployment>> {
    let handle = frontend.deployment(&id).await?;
    let deployment = Deployment::from(handle.get().await?).queued_at(handle.queue_position().await?);
    Ok(axum::Json(deployment))
}

/// What to wait for.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    /// It will not change any more.
    #[default]
    Settled,
    /// It did what was asked.
    Running,
}

/// What to wait for, and how long.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Waiting {
    #[serde(rename = "for", default)]
    #[param(value_type = Option<Goal>)]
    goal: Goal,
    /// In seconds, at most 300.
    #[param(default = 60)]
    timeout: Option<u64>,
}

/// Waits for a deployment. That the time is up is an answer, not an error.
#[utoipa::path(
    get,
    path = "/v1/deployments/{deployment}/wait",
    tag = "deployments",
    operation_id = "wait_for_deployment",
    params(("deployment" = String, Path, description = "Its id"), Waiting),
    responses(
        (status = 200, description = "The deployment, and whether what was waited for came", body = Waited),
        (status = 404, description = "There is no such deployment", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn wait(
    State(frontend): State<Frontend>,
    id: Segment,
    Parameters(waiting): Parameters<Waiting>,
) -> Result<axum::Json<Waited>> {
    let handle = frontend.deployment(&id).await?;
    let goal = match waiting.goal {
        Goal::Settled => WaitFor::Settled,
        Goal::Running => WaitFor::Success,
    };
    let timeout = Duration::from_secs(waiting.timeout.unwrap_or(60).min(MAX_WAIT_SECONDS));
    let _place = frontend.streams().place()?;
    let waited = tokio::select! {
        biased;
        waited = handle.wait(goal, timeout) => waited?,
        // The server is stopping: the same answer as when the time is up.
        () = frontend.streams().closing().cancelled() => handle.wait(goal, Duration::ZERO).await?,
    };
    Ok(axum::Json(Waited { deployment: waited.deployment.into(), reached: waited.reached }))
}

/// Asks a deployment to stop. It says `cancelled` once nothing of it goes on.
#[utoipa::path(
    post,
    path = "/v1/deployments/{deployment}/actions/cancel",
    tag = "deployments",
    operation_id = "cancel_deployment",
    params(("deployment" = String, Path, description = "Its id")),
    responses(
        (status = 202, description = "The deployment, which is being cancelled", body = Deployment),
        (status = 404, description = "There is no such deployment", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is too late", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn cancel(State(frontend): State<Frontend>, id: Segment) -> Result<Response> {
    let handle = frontend.deployment(&id).await?;
    handle.cancel().await?;
    accepted(&handle).await
}

/// Gives up a deployment that is `stuck`: its journal holds what this version of the server can't read. Running the version
/// that wrote it, or a newer one, is better. It says `failed` once the app's route leads to what is live; the app can be
/// deployed again. Abandoning what was abandoned succeeds.
#[utoipa::path(
    post,
    path = "/v1/deployments/{deployment}/actions/abandon",
    tag = "deployments",
    operation_id = "abandon_deployment",
    params(("deployment" = String, Path, description = "Its id")),
    responses(
        (status = 202, description = "The deployment, which is being given up", body = Deployment),
        (status = 404, description = "There is no such deployment", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "It is not stuck", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn abandon(State(frontend): State<Frontend>, id: Segment) -> Result<Response> {
    let handle = frontend.deployment(&id).await?;
    handle.abandon().await?;
    accepted(&handle).await
}

/// Which events of a deployment.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventPaging {
    /// How many at most; more than 1,000 are cut to that.
    #[param(value_type = Option<u64>, default = 1000)]
    limit: Option<Limit>,
    /// Only events behind this one: the `version` of an event.
    cursor: Option<String>,
}

/// The version that a cursor or `Last-Event-ID` stands for.
fn version(cursor: Option<&str>) -> Result<u64> {
    cursor.map_or(Ok(0), |cursor| cursor.parse().map_err(|_| bad_cursor()))
}

/// The events of a deployment so far, oldest first.
#[utoipa::path(
    get,
    path = "/v1/deployments/{deployment}/events",
    tag = "deployments",
    operation_id = "list_deployment_events",
    params(("deployment" = String, Path, description = "Its id"), EventPaging),
    responses(
        (status = 200, description = "A page of events", body = EventPage),
        (status = 404, description = "There is no such deployment", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn events(
    State(frontend): State<Frontend>,
    id: Segment,
    Parameters(paging): Parameters<EventPaging>,
) -> Result<Response> {
    let after = version(paging.cursor.as_deref())?;
    let limit = Limit::within(paging.limit, MAX_EVENTS, MAX_EVENTS);
    let mut events = frontend.deployment(&id).await?.history(after).await?;
    let has_more = events.len() > limit;
    events.truncate(limit);
    let cursor = events.last().map_or(after, |last| last.version).to_string();
    let items = events.into_iter().map(Event::from).collect();
    let next = has_more.then(|| format!("?limit={limit}&cursor={cursor}"));
    let page = EventPage { items, next_cursor: has_more.then(|| cursor.clone()), cursor };
    let mut response = axum::Json(page).into_response();
    if let Some(next) = next {
        link_next(&mut response, &next);
    }
    Ok(response)
}

/// Where a stream of events begins.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventStreaming {
    /// Only events behind this one: the `cursor` of a page of events.
    cursor: Option<String>,
}

/// The events of a deployment as they happen, as server-sent events, until it has ended.
#[utoipa::path(
    get,
    path = "/v1/deployments/{deployment}/events/stream",
    tag = "deployments",
    operation_id = "stream_deployment_events",
    params(
        ("deployment" = String, Path, description = "Its id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last id that was received"),
        EventStreaming,
    ),
    responses(
        (status = 200, description = "Frames with an `Event` each; the last is of type `end` with a `StreamEnd`", body = Event, content_type = "text/event-stream"),
        (status = 404, description = "There is no such deployment", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn stream_events(
    State(frontend): State<Frontend>,
    id: Segment,
    headers: HeaderMap,
    Parameters(streaming): Parameters<EventStreaming>,
) -> Result<Response> {
    let after = version(resume_at(&headers, streaming.cursor.as_deref())?.as_deref())?;
    let handle = frontend.deployment(&id).await?;
    frontend.streams().send(handle.events(after), Event::frame)
}
