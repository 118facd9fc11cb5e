//! Errors as answers: one mapping from kinds to statuses, one shape.

use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use paas_core::{Error, Failure, Kind, Retry};
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::types::Fault;

/// What went wrong (RFC 9457), whose fault it is, and what to do about it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// A URI for the kind of problem.
    #[serde(rename = "type")]
    kind: String,
    /// The status in words.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 100, maximum = 599)]
    status: u16,
    /// A machine-readable reason, such as `name_taken`.
    code: String,
    /// What happened, for people.
    detail: String,
    /// Whose fault it is.
    fault: Fault,
    /// The operation that failed, such as `apps.create`, or the step of a deployment.
    stage: String,
    /// Whether the same request may succeed later.
    retryable: bool,
    /// What to do about it.
    hint: Option<String>,
    /// The fields of the request that are wrong.
    errors: Vec<FieldError>,
    /// The last log lines before it, oldest first.
    evidence: Vec<String>,
    /// With `direction=backward`, the cursor of the deployment's log lines that lead up to it.
    log_cursor: Option<String>,
    /// The request that it answers, to quote to the operator.
    request_id: Option<String>,
    #[serde(skip)]
    retry_after_seconds: Option<u64>,
}

/// A field of the request that is wrong.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct FieldError {
    /// Which, such as `env.GREETING`.
    field: String,
    /// What is wrong with it.
    detail: String,
}

/// Why a request is refused: the [`Problem`] that it is answered with.
#[derive(Clone, Debug)]
pub(crate) struct Refusal(Box<Problem>);

pub(crate) type Result<T, E = Refusal> = std::result::Result<T, E>;

/// The one mapping of errors to statuses.
fn status(kind: Kind, code: Option<&str>) -> StatusCode {
    match (kind, code) {
        (Kind::NotFound, Some("image_gone")) => StatusCode::GONE,
        (Kind::Conflict, Some("version")) => StatusCode::PRECONDITION_FAILED,
        (Kind::PermissionDenied, Some("egress_denied")) => StatusCode::UNPROCESSABLE_ENTITY,
        (Kind::Invalid, Some("cursor")) => StatusCode::BAD_REQUEST,
        (Kind::Invalid | Kind::BuildFailed | Kind::Unhealthy, _) => StatusCode::UNPROCESSABLE_ENTITY,
        (Kind::NotFound, _) => StatusCode::NOT_FOUND,
        (Kind::AlreadyExists | Kind::Conflict | Kind::Cancelled, _) => StatusCode::CONFLICT,
        (Kind::Unauthenticated, _) => StatusCode::UNAUTHORIZED,
        (Kind::PermissionDenied, _) => StatusCode::FORBIDDEN,
        (Kind::RateLimited, _) => StatusCode::TOO_MANY_REQUESTS,
        (Kind::Unavailable, Some("storage_full")) => StatusCode::INSUFFICIENT_STORAGE,
        (Kind::Unavailable, _) => StatusCode::SERVICE_UNAVAILABLE,
        (Kind::Timeout, _) => StatusCode::GATEWAY_TIMEOUT,
        (Kind::Unsupported, _) => StatusCode::NOT_IMPLEMENTED,
        // `Kind` may grow: what is not known here is a defect here.
        (_, _) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl Refusal {
    /// A problem of the request itself, which reached no operation.
    pub(crate) fn of_request(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let error = Error::invalid("request", detail).code(code);
        let problem = Problem::from(Failure::from(&error));
        Self(Box::new(Problem { status: status.as_u16(), title: title(status), ..problem }))
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: &str) -> Self {
        self.0.hint = Some(hint.to_owned());
        self
    }

    /// Names the field that is wrong.
    #[must_use]
    pub(crate) fn field(mut self, field: impl Into<String>) -> Self {
        let detail = self.0.detail.clone();
        self.0.errors.push(FieldError { field: field.into(), detail });
        self
    }

    /// The answer, for one request.
    pub(crate) fn into_answer(self, request_id: &str) -> Response {
        self.0.into_answer(request_id)
    }
}

impl Problem {
    #[must_use]
    pub(crate) fn log_cursor(mut self, cursor: String) -> Self {
        self.log_cursor = Some(cursor);
        self
    }

    #[must_use]
    pub(crate) fn stage(mut self, stage: impl Into<String>) -> Self {
        self.stage = stage.into();
        self
    }

    fn into_answer(mut self, request_id: &str) -> Response {
        self.request_id = Some(request_id.to_owned());
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&self)).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(RETRY_AFTER, seconds.into());
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

fn title(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or("Unknown").to_owned()
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let status = status(failure.kind, failure.code.as_deref());
        let code = failure.code.unwrap_or_else(|| failure.kind.as_str().to_owned());
        Self {
            kind: format!("urn:paas:problem:{code}"),
            title: title(status),
            status: status.as_u16(),
            code,
            detail: failure.message,
            fault: failure.fault.into(),
            stage: failure.operation,
            retryable: failure.retryable,
            hint: failure.hint,
            errors: Vec::new(),
            evidence: failure.evidence,
            log_cursor: None,
            request_id: None,
            retry_after_seconds: None,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let mut problem = Problem::from(Failure::from(&error));
        if problem.status >= 500 {
            tracing::error!(?error, "a request failed");
        }
        if let Retry::Transient { after } = error.retryable() {
            // At least a second: a client that comes back at once helps nobody.
            problem.retry_after_seconds = Some(after.map_or(1, |after| after.as_secs().saturating_add(1)));
        }
        Self(Box::new(problem))
    }
}

/// Left in the response for the layer that knows the request's id: see [`crate::requests`].
impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_and_codes_have_their_statuses() {
        let statuses = [
            (Kind::Invalid, None, 422),
            (Kind::Invalid, Some("cursor"), 400),
            (Kind::NotFound, None, 404),
            (Kind::NotFound, Some("image_gone"), 410),
            (Kind::AlreadyExists, Some("name_taken"), 409),
            (Kind::Conflict, None, 409),
            (Kind::Conflict, Some("state"), 409),
            (Kind::Conflict, Some("version"), 412),
            (Kind::Unauthenticated, None, 401),
            (Kind::PermissionDenied, None, 403),
            (Kind::PermissionDenied, Some("egress_denied"), 422),
            (Kind::RateLimited, None, 429),
            (Kind::Unavailable, None, 503),
            (Kind::Unavailable, Some("storage_full"), 507),
            (Kind::Timeout, None, 504),
            (Kind::Unsupported, None, 501),
            (Kind::BuildFailed, None, 422),
            (Kind::Unhealthy, None, 422),
            (Kind::Cancelled, None, 409),
            (Kind::Internal, None, 500),
        ];
        for (kind, code, expected) in statuses {
            assert_eq!(status(kind, code).as_u16(), expected, "{kind:?} {code:?}");
        }
    }
}
