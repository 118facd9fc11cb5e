//! Lists, page by page.

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::LINK;
use http::{HeaderValue, StatusCode};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::problem::{Refusal, Result};

/// The most items of a page; the most log lines have a bound of their own.
const MAX_ITEMS: usize = 200;
const DEFAULT_ITEMS: usize = 50;

/// How many items at most. Any number is understood, also one that no machine counts to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit(usize);

impl Limit {
    /// The limit within its bound; 0 asks for the default.
    pub(crate) fn within(limit: Option<Self>, default: usize, most: usize) -> usize {
        limit.map(|limit| limit.0).filter(|limit| *limit > 0).unwrap_or(default).min(most)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(D::Error::custom("limit must be a number that is not negative"));
        }
        Ok(Self(text.parse().unwrap_or(usize::MAX)))
    }
}

/// Which page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// How many items at most; more than 200 are cut to that.
    #[param(value_type = Option<u64>, default = 50)]
    limit: Option<Limit>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
}

impl Paging {
    pub(crate) fn limit(&self) -> usize {
        Limit::within(self.limit, DEFAULT_ITEMS, MAX_ITEMS)
    }

    pub(crate) fn cursor(&self) -> Result<Option<paas_core::Cursor>> {
        self.cursor.as_deref().map(decode).transpose()
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// The items.
    items: Vec<T>,
    /// The cursor of the next page; `null` at the end.
    next_cursor: Option<String>,
    #[serde(skip)]
    limit: usize,
}

impl<T> Page<T> {
    pub(crate) fn of<Item>(
        page: paas_core::Page<Item>,
        limit: usize,
        convert: impl FnMut(Item) -> T,
    ) -> Self {
        let next_cursor = page.next.as_ref().map(encode);
        Self { items: page.items.into_iter().map(convert).collect(), next_cursor, limit }
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        let mut response = axum::Json(&self).into_response();
        if let Some(cursor) = &self.next_cursor {
            link_next(&mut response, &format!("?limit={}&cursor={cursor}", self.limit));
        }
        response
    }
}

/// Says where the next page is.
pub(crate) fn link_next(response: &mut Response, reference: &str) {
    if let Ok(value) = HeaderValue::from_str(&format!("<{reference}>; rel=\"next\"")) {
        response.headers_mut().insert(LINK, value);
    }
}

/// A cursor as clients see it.
pub(crate) fn encode<T: Serialize>(cursor: &T) -> String {
    // Cursors are plain structs of texts and numbers: they always have a JSON form.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(cursor).unwrap_or_default())
}

/// Reads a cursor that came back; a forged one is a 400.
pub(crate) fn decode<T: DeserializeOwned>(text: &str) -> Result<T> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).ok_or_else(bad_cursor)
}

pub(crate) fn bad_cursor() -> Refusal {
    Refusal::of_request(StatusCode::BAD_REQUEST, "cursor", "the cursor is not from this list")
        .hint("take it from the page before, or begin without one")
}
