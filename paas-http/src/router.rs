//! The router: which endpoint is where, and what lies around all of them.

use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::middleware::{from_fn, from_fn_with_state, map_response};
use paas_core::{Apps, Clock, Health, Platform};
use tokio_util::sync::CancellationToken;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::access::{Access, guard};
use crate::api::deployments::Goal;
use crate::api::logs::LogGap;
use crate::api::operations::RecentHealth;
use crate::api::types::{LogDirection, LogSource};
use crate::api::{apps, deployments, logs, operations};
use crate::requests::{as_problem, identify, nothing_here, refuse_unknown_parameters, wrong_method};
use crate::streams::{StreamEnd, Streams};

/// What a router needs beside the platform.
#[derive(Clone, Debug)]
pub struct Options {
    /// Who may call.
    pub access: Access,
    /// How many streams and waiting requests may be open at once.
    pub streams: usize,
    /// Ends all of them when it is cancelled: a server that stops cancels it first.
    pub closing: CancellationToken,
}

impl Options {
    /// The defaults, for those whom `access` lets in.
    #[must_use]
    pub fn new(access: Access) -> Self {
        Self { access, streams: 512, closing: CancellationToken::new() }
    }
}

/// What the endpoints work with.
#[derive(Clone, Debug)]
pub(crate) struct Frontend {
    platform: Platform,
    access: Access,
    streams: Streams,
    health: Arc<RecentHealth>,
}

impl Frontend {
    pub(crate) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// The apps that the caller may see.
    pub(crate) fn apps(&self) -> Apps {
        self.platform.apps()
    }

    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Whether the platform could do its work a moment ago.
    pub(crate) async fn health(&self) -> Health {
        self.health.of(&self.platform).await
    }

    pub(crate) fn streams(&self) -> &Streams {
        &self.streams
    }
}

impl FromRef<Frontend> for Arc<dyn Clock> {
    fn from_ref(frontend: &Frontend) -> Self {
        frontend.platform.clock().clone()
    }
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "PaaS",
        description = "A git repository goes in, a verified live URL comes out.\n\nClients must tolerate fields and \
                       words that they do not know: more will come.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    components(schemas(StreamEnd, LogGap, Goal, LogDirection, LogSource)),
    security(("token" = [])),
    modifiers(&BearerToken),
)]
struct Description;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

fn guarded() -> OpenApiRouter<Frontend> {
    OpenApiRouter::new()
        .routes(routes!(apps::check_name))
        .routes(routes!(apps::list, apps::create))
        .routes(routes!(apps::get, apps::update, apps::delete))
        .routes(routes!(apps::status))
        .routes(routes!(apps::restart))
        .routes(routes!(apps::stop))
        .routes(routes!(apps::start))
        .routes(routes!(apps::releases))
        .routes(routes!(apps::rollback))
        .routes(routes!(deployments::list, deployments::create))
        .routes(routes!(deployments::get))
        .routes(routes!(deployments::wait))
        .routes(routes!(deployments::cancel))
        .routes(routes!(deployments::abandon))
        .routes(routes!(deployments::events))
        .routes(routes!(deployments::stream_events))
        .routes(routes!(logs::app_page))
        .routes(routes!(logs::app_stream))
        .routes(routes!(logs::deployment_page))
        .routes(routes!(logs::deployment_stream))
        .routes(routes!(operations::metrics))
        .routes(routes!(operations::version))
}

fn open() -> OpenApiRouter<Frontend> {
    OpenApiRouter::new()
        .routes(routes!(operations::live))
        .routes(routes!(operations::ready))
        .routes(routes!(operations::health))
}

/// The description of the API (OpenAPI 3.1), as `/openapi.json` answers it.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    OpenApiRouter::with_openapi(Description::openapi()).merge(guarded()).merge(open()).into_openapi()
}

/// The API of a platform.
///
/// # Guarantees
/// Without the token nothing is reached but `/livez`, `/readyz`, `/health`, `/openapi.json` and `/docs`, which tell
/// nothing about what the platform does. Every answer has a `Request-Id`; every error is `application/problem+json`.
pub fn router(platform: Platform, options: Options) -> Router {
    let Options { access, streams, closing } = options;
    let ids = platform.ids().clone();
    let streams = Streams::new(streams, closing);
    let frontend = Frontend { platform, access: access.clone(), streams, health: Arc::default() };
    let guarded: Router<Frontend> = guarded().into();
    let open: Router<Frontend> = open().into();
    let pages: Router<Frontend> = SwaggerUi::new("/docs").url("/openapi.json", openapi()).into();
    guarded
        .fallback(nothing_here)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn(refuse_unknown_parameters))
        .layer(from_fn_with_state(access, guard))
        .merge(open.method_not_allowed_fallback(wrong_method))
        .merge(pages.layer(map_response(as_problem)))
        .layer(from_fn_with_state(ids, identify))
        .with_state(frontend)
}
