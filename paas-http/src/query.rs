//! Parameters in the address: paths and queries.

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query};
use http::StatusCode;
use http::request::Parts;
use paas_core::{DeploymentId, Error};
use serde::de::DeserializeOwned;

use crate::problem::{Refusal, Result};

/// The parameters behind the `?`. One that is not known is a 400: it may be a misspelled one.
#[derive(Debug)]
pub(crate) struct Parameters<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Parameters<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self> {
        Query::try_from_uri(&parts.uri).map(|Query(parameters)| Self(parameters)).map_err(
            |rejection: QueryRejection| {
                let detail = rejection.body_text();
                let detail =
                    detail.rsplit_once("query string: ").map_or(detail.as_str(), |(_, detail)| detail);
                Refusal::of_request(StatusCode::BAD_REQUEST, "invalid_parameter", detail)
            },
        )
    }
}

/// The one parameter of a path, as text: what it names is looked up.
#[derive(Debug)]
pub(crate) struct Segment(pub String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        // Bytes that are no text name nothing.
        let text =
            Path::<String>::from_request_parts(parts, state).await.map_or(String::new(), |Path(text)| text);
        Ok(Self(text))
    }
}

impl Segment {
    /// A text that can't be the id of a deployment is answered as an unknown one.
    pub(crate) fn deployment(&self) -> Result<DeploymentId> {
        let unknown = |_| Error::not_found("deployments.get", "there is no such deployment");
        self.0.parse().map_err(unknown).map_err(Refusal::from)
    }
}
