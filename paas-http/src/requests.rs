//! What every request gets: an id, a span in the log, and an answer with safe headers.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_LENGTH, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderName, HeaderValue, Method, StatusCode};
use paas_core::Ids;
use tracing::Instrument;

use crate::problem::{Refusal, Result};

const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");

/// Gives the request an id, and finishes its answer.
pub(crate) async fn identify(State(ids): State<Arc<dyn Ids>>, request: Request, next: Next) -> Response {
    let mut id = String::from("req_");
    // Writing to a string does not fail.
    let _ = write!(id, "{:032x}", ids.next());
    // The query is left out: people put secrets there.
    let span = tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());
    let mut response = next.run(request).instrument(span).await;
    if let Some(problem) = response.extensions_mut().remove::<Refusal>() {
        let mut answer = problem.into_answer(&id);
        // What the router said beside it, such as the allowed methods.
        response.headers_mut().remove(CONTENT_LENGTH);
        for (name, value) in response.headers() {
            answer.headers_mut().entry(name).or_insert_with(|| value.clone());
        }
        response = answer;
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The errors of pages that are not ours, as problems.
pub(crate) async fn as_problem(mut response: Response) -> Response {
    let problem = match response.status() {
        StatusCode::NOT_FOUND => Some(nothing_here().await),
        StatusCode::METHOD_NOT_ALLOWED => Some(wrong_method().await),
        _ => None,
    };
    if let Some(problem) = problem {
        response.extensions_mut().insert(problem);
    }
    response
}

/// No endpoint that changes something takes parameters in its address: one that is meant to change what happens is
/// refused rather than overlooked.
pub(crate) async fn refuse_unknown_parameters(request: Request, next: Next) -> Result<Response> {
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD);
    if changes && request.uri().query().is_some_and(|query| !query.is_empty()) {
        return Err(Refusal::of_request(
            StatusCode::BAD_REQUEST,
            "unknown_parameter",
            "this endpoint takes no parameters in its address",
        ));
    }
    Ok(next.run(request).await)
}

/// Nothing is at this path.
pub(crate) async fn nothing_here() -> Refusal {
    Refusal::of_request(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address")
        .hint("/openapi.json lists what there is")
}

/// The path is right, the method is not.
pub(crate) async fn wrong_method() -> Refusal {
    Refusal::of_request(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        "this address has no such method",
    )
}
