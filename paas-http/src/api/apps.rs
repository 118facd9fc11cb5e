//! Apps: what people ask for, and what they do with it.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header::{ETAG, IF_MATCH};
use http::{HeaderMap, HeaderValue, StatusCode};
use paas_core::{AppView, Apps, DeploymentHandle, Error, Kind, ReleaseNumber};

use super::bodies::{AppPatch, NewApp, NewRollback};
use super::deployments::accepted;
use super::types::{App, AppStatus, Deployment, NameCheck, Release, UpdatedApp};
use crate::json::Json;
use crate::paging::{Page, Paging};
use crate::problem::{Problem, Result};
use crate::query::{Parameters, Segment};
use crate::router::Frontend;

/// Whether a name can be had.
#[utoipa::path(
    get,
    path = "/v1/app-names/{name}",
    tag = "apps",
    params(("name" = String, Path, description = "The name")),
    responses(
        (status = 200, description = "Whether it can be had, and if not why", body = NameCheck),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn check_name(
    State(frontend): State<Frontend>,
    Segment(name): Segment,
) -> Result<axum::Json<NameCheck>> {
    let check = frontend.apps().check_name(&name).await?;
    Ok(axum::Json(NameCheck::of(name, check)))
}

/// The apps, oldest first.
#[utoipa::path(
    get,
    path = "/v1/apps",
    tag = "apps",
    params(Paging),
    responses(
        (status = 200, description = "A page of apps", body = Page<App>),
        (status = 400, description = "A bad limit or cursor", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn list(
    State(frontend): State<Frontend>,
    Parameters(paging): Parameters<Paging>,
) -> Result<Page<App>> {
    let limit = paging.limit();
    let page = frontend.apps().list(limit, paging.cursor()?).await?;
    Ok(Page::of(page, limit, App::from))
}

/// Makes an app, and unless told otherwise deploys it.
#[utoipa::path(
    post,
    path = "/v1/apps",
    tag = "apps",
    params((
        "Idempotency-Key" = Option<String>, Header, description = "Repeating a request with the same key has one effect",
    )),
    request_body = NewApp,
    responses(
        (status = 201, description = "The app, with its first deployment", body = App),
        (status = 409, description = "The name is taken", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value breaks a rule", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn create(
    State(frontend): State<Frontend>,
    headers: HeaderMap,
    Json(new, asked): Json<NewApp>,
) -> Result<Response> {
    let apps = repeatable(frontend.apps(), &headers, &["create", asked.as_str()])?;
    // Nothing is read any more: an app that is made is answered as made.
    let view = apps.create(new.into_core()?).await?.view();
    let location = format!("/v1/apps/{}", view.app.id);
    let tag = entity_tag(view.version);
    Ok((StatusCode::CREATED, [("location", location)], [(ETAG, tag)], axum::Json(App::from(view)))
        .into_response())
}

/// An app.
#[utoipa::path(
    get,
    path = "/v1/apps/{app}",
    tag = "apps",
    params(("app" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, description = "The app", body = App),
        (status = 404, description = "There is no such app", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn get(State(frontend): State<Frontend>, Segment(app): Segment) -> Result<Response> {
    Ok(shown(frontend.apps().get(app.as_str()).await?))
}

fn shown(view: AppView) -> Response {
    ([(ETAG, entity_tag(view.version))], axum::Json(App::from(view))).into_response()
}

/// Changes an app; what runs follows by itself.
#[utoipa::path(
    patch,
    path = "/v1/apps/{app}",
    tag = "apps",
    params(
        ("app" = String, Path, description = "Its id or name"),
        ("If-Match" = Option<String>, Header, description = "Only if the app's ETag is still this one"),
    ),
    request_body(content = AppPatch, content_type = "application/merge-patch+json"),
    responses(
        (status = 200, description = "The changed app, and what the change sets off", body = UpdatedApp),
        (status = 404, description = "There is no such app", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Somebody changed it meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A value breaks a rule", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn update(
    State(frontend): State<Frontend>,
    Segment(app): Segment,
    headers: HeaderMap,
    Json(patch, _): Json<AppPatch>,
) -> Result<Response> {
    let apps = frontend.apps();
    let updated = apps.update(app.as_str(), patch.into_core()?, expected_version(&headers)?).await?;
    let deployment = match &updated.deployment {
        Some(handle) => Some(handle.get().await?),
        None => None,
    };
    let view = apps.get(&updated.app.value).await?;
    let tag = entity_tag(view.version);
    let body = UpdatedApp {
        app: view.into(),
        effects: updated.effects.into(),
        deployment: deployment.map(Deployment::from),
    };
    Ok(([(ETAG, tag)], axum::Json(body)).into_response())
}

/// The version of an app as its entity tag.
fn entity_tag(version: u64) -> HeaderValue {
    // Digits and quotes are a header value.
    HeaderValue::from_str(&format!("\"{version}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

/// The version that the caller expects. Of several the newest: an app only ever had versions up to its present one.
fn expected_version(headers: &HeaderMap) -> Result<Option<u64>> {
    let mut tags =
        headers.get_all(IF_MATCH).iter().flat_map(|value| value.to_str().unwrap_or("").split(',')).peekable();
    if tags.peek().is_none() {
        return Ok(None);
    }
    let mut newest = None;
    for tag in tags.map(str::trim) {
        if tag == "*" {
            return Ok(None);
        }
        newest = newest.max(tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')?.parse().ok()));
    }
    let foreign = || Error::new(Kind::Conflict, "apps.update", "the app never had this ETag").code("version");
    newest.map(Some).ok_or_else(|| foreign().into())
}

/// Deletes an app with everything it has.
#[utoipa::path(
    delete,
    path = "/v1/apps/{app}",
    tag = "apps",
    params(
        ("app" = String, Path, description = "Its id or name"),
        ("If-Match" = Option<String>, Header, description = "Only if the app's ETag is still this one"),
    ),
    responses(
        (status = 202, description = "The deletion", body = Deployment),
        (status = 404, description = "There is no such app", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Somebody changed it meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn delete(
    State(frontend): State<Frontend>,
    Segment(app): Segment,
    headers: HeaderMap,
) -> Result<Response> {
    accept(expecting(&frontend, &headers)?.delete(app.as_str()).await).await
}

/// The apps for an operation that the caller may have bound to a version.
pub(crate) fn expecting(frontend: &Frontend, headers: &HeaderMap) -> Result<Apps> {
    let apps = frontend.apps();
    Ok(match expected_version(headers)? {
        Some(version) => apps.expecting(version),
        None => apps,
    })
}

/// The same for a request that may come twice.
pub(crate) fn repeatable(apps: Apps, headers: &HeaderMap, asked: &[&str]) -> Result<Apps> {
    let Some(key) = headers.get("idempotency-key") else { return Ok(apps) };
    // What is no text is no key either.
    Ok(apps.repeatable(key.to_str().unwrap_or_default().parse()?, asked))
}

async fn accept(handle: paas_core::Result<DeploymentHandle>) -> Result<Response> {
    accepted(&handle?).await
}

/// What is happening to an app.
#[utoipa::path(
    get,
    path = "/v1/apps/{app}/status",
    tag = "apps",
    params(("app" = String, Path, description = "Its id or name")),
    responses(
        (status = 200, description = "Its state, with observations", body = AppStatus),
        (status = 404, description = "There is no such app", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn status(
    State(frontend): State<Frontend>,
    Segment(app): Segment,
) -> Result<axum::Json<AppStatus>> {
    Ok(axum::Json(frontend.apps().get(app.as_str()).await?.into()))
}

/// Replaces the running container by a fresh one of the same release.
#[utoipa::path(
    post,
    path = "/v1/apps/{app}/actions/restart",
    tag = "control",
    params(
        ("app" = String, Path, description = "Its id or name"),
        ("If-Match" = Option<String>, Header, description = "Only if the app's ETag is still this one"),
        ("Idempotency-Key" = Option<String>, Header, description = "Repeating a request with the same key has one effect"),
    ),
    responses(
        (status = 202, description = "The restart", body = Deployment),
        (status = 409, description = "It does not run", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Somebody changed it meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn restart(
    State(frontend): State<Frontend>,
    Segment(app): Segment,
    headers: HeaderMap,
) -> Result<Response> {
    let apps = repeatable(expecting(&frontend, &headers)?, &headers, &["restart", &app])?;
    accept(apps.restart(app.as_str()).await).await
}

/// Stops an app; it keeps its name, releases and logs.
#[utoipa::path(
    post,
    path = "/v1/apps/{app}/actions/stop",
    tag = "control",
    params(
        ("app" = String, Path, description = "Its id or name"),
        ("If-Match" = Option<String>, Header, description = "Only if the app's ETag is still this one"),
        ("Idempotency-Key" = Option<String>, Header, description = "Repeating a request with the same key has one effect"),
    ),
    responses(
        (status = 202, description = "The stop", body = Deployment),
        (status = 409, description = "It is stopped already", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Somebody changed it meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn stop(
    State(frontend): State<Frontend>,
    Segment(app): Segment,
    headers: HeaderMap,
) -> Result<Response> {
    let apps = repeatable(expecting(&frontend, &headers)?, &headers, &["stop", &app])?;
    accept(apps.stop(app.as_str()).await).await
}

/// Starts a stopped app.
#[utoipa::path(
    post,
    path = "/v1/apps/{app}/actions/start",
    tag = "control",
    params(
        ("app" = String, Path, description = "Its id or name"),
        ("If-Match" = Option<String>, Header, description = "Only if the app's ETag is still this one"),
        ("Idempotency-Key" = Option<String>, Header, description = "Repeating a request with the same key has one effect"),
    ),
    responses(
        (status = 202, description = "The start", body = Deployment),
        (status = 409, description = "It is not stopped", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Somebody changed it meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn start(
    State(frontend): State<Frontend>,
    Segment(app): Segment,
    headers: HeaderMap,
) -> Result<Response> {
    let apps = repeatable(expecting(&frontend, &headers)?, &headers, &["start", &app])?;
    accept(apps.start(app.as_str()).await).await
}

/// The releases of an app, newest first.
#[utoipa::path(
    get,
    path = "/v1/apps/{app}/releases",
    tag = "releases",
    params(("app" = String, Path, description = "Its id or name"), Paging),
    responses(
        (status = 200, description = "A page of releases", body = Page<Release>),
        (status = 404, description = "There is no such app", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn releases(
    State(frontend): State<Frontend>,
    Segment(app): Segment,
    Parameters(paging): Parameters<Paging>,
) -> Result<Page<Release>> {
    let limit = paging.limit();
    let page = frontend.apps().releases(app.as_str(), limit, paging.cursor()?).await?;
    Ok(Page::of(page, limit, Release::from))
}

/// Runs an old release again: its code and its configuration, as a new release.
#[utoipa::path(
    post,
    path = "/v1/apps/{app}/rollbacks",
    tag = "releases",
    params(
        ("app" = String, Path, description = "Its id or name"),
        ("If-Match" = Option<String>, Header, description = "Only if the app's ETag is still this one"),
        ("Idempotency-Key" = Option<String>, Header, description = "Repeating a request with the same key has one effect"),
    ),
    request_body = NewRollback,
    responses(
        (status = 202, description = "The rollback", body = Deployment),
        (status = 404, description = "There is no such app or release", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The image of the release is gone", body = Problem, content_type = "application/problem+json"),
        (status = 412, description = "Somebody changed it meanwhile", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn rollback(
    State(frontend): State<Frontend>,
    Segment(app): Segment,
    headers: HeaderMap,
    Json(wanted, asked): Json<NewRollback>,
) -> Result<Response> {
    let apps = repeatable(expecting(&frontend, &headers)?, &headers, &["rollback", &app, asked.as_str()])?;
    accept(apps.rollback(app.as_str(), ReleaseNumber(wanted.release)).await).await
}
