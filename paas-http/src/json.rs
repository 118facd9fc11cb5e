//! Request bodies: strict JSON, within bounds.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRef, FromRequest, Request};
use http::StatusCode;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use paas_core::Clock;
use serde::de::{DeserializeOwned, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::problem::{Refusal, Result};

/// The longest body.
const MAX_BYTES: usize = 1024 * 1024;
/// How much of a field's name is repeated.
const MAX_NAME_BYTES: usize = 128;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(30);

/// A JSON body. No body at all is read as `{}`.
///
/// Bad UTF-8, duplicate keys and values nested deeper than 128 are 400, more than 1 MiB is 413, a value of the wrong
/// type and a field that is not known are 422. No answer repeats a value: it may be a secret.
#[derive(Debug)]
pub(crate) struct Json<T>(pub T, pub Asked);

/// A body as it was understood, in one way of writing it: what tells two requests apart.
pub(crate) struct Asked(String);

impl Asked {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// It may hold secrets.
impl fmt::Debug for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Asked")
    }
}

impl<S, T> FromRequest<S> for Json<T>
where
    S: Send + Sync,
    T: DeserializeOwned,
    Arc<dyn Clock>: FromRef<S>,
{
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self> {
        let is_json = is_json(&request);
        let clock = Arc::<dyn Clock>::from_ref(state);
        let bytes = tokio::select! {
            biased;
            bytes = collect(request.into_body()) => bytes?,
            () = clock.sleep(PATIENCE) => {
                let detail = "the body did not arrive in time";
                return Err(Refusal::of_request(StatusCode::REQUEST_TIMEOUT, "body_timeout", detail));
            }
        };
        if bytes.is_empty() {
            return Self::of(Value::Object(Map::new()));
        }
        if !is_json {
            let detail = "the body must be JSON";
            return Err(Refusal::of_request(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not_json", detail)
                .hint("send the header `Content-Type: application/json`"));
        }
        Self::of(parse(&bytes)?)
    }
}

impl<T: DeserializeOwned> Json<T> {
    fn of(value: Value) -> Result<Self> {
        let asked = Asked(value.to_string());
        typed(value).map(|value| Self(value, asked))
    }
}

fn is_json(request: &Request) -> bool {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.eq_ignore_ascii_case("application/merge-patch+json")
}

async fn collect(body: Body) -> Result<Vec<u8>> {
    match Limited::new(body, MAX_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => {
            let detail = "the body is longer than 1 MiB";
            Err(Refusal::of_request(StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", detail))
        }
        Err(_) => Err(malformed("the body ended before it was complete")),
    }
}

fn malformed(detail: impl Into<String>) -> Refusal {
    Refusal::of_request(StatusCode::BAD_REQUEST, "malformed_json", detail)
}

fn parse(bytes: &[u8]) -> Result<Value> {
    let text = std::str::from_utf8(bytes).map_err(|_| malformed("the body is not UTF-8"))?;
    serde_json::from_str::<Unique>(text).map(|unique| unique.0).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        let problem = match error.classify() {
            // The only error of ours.
            serde_json::error::Category::Data => "a key is there twice",
            _ => "the body is not JSON, or nested too deeply",
        };
        malformed(format!("{problem} (line {line}, column {column})"))
    })
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let (field, detail) = explain(&path, &error.inner().to_string());
        Refusal::of_request(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail).field(field)
    })
}

/// What is shown of a name that the caller chose: what does not belong into one may be (or lead to) a value.
fn shown(name: &str) -> &str {
    let is_foreign = |letter: char| !letter.is_ascii_alphanumeric() && !"_-.[]".contains(letter);
    let name = name.split(is_foreign).next().unwrap_or_default();
    name.get(..MAX_NAME_BYTES).unwrap_or(name)
}

/// The field that is wrong and what is wrong with it, without the value.
fn explain(path: &str, message: &str) -> (String, String) {
    let path = shown(path);
    let quoted = shown(message.split('`').nth(1).unwrap_or_default());
    let below = if path == "." { quoted.to_owned() } else { format!("{path}.{quoted}") };
    if message.starts_with("unknown field") {
        // serde's path ends with the unknown field itself.
        let field = if path.rsplit('.').next() == Some(quoted) { path.to_owned() } else { below };
        let known = message.split_once(", ").map_or("", |(_, known)| known);
        return (field, format!("there is no field {quoted:?} here, {known}"));
    }
    if message.starts_with("missing field") {
        return (below.clone(), format!("the field {below:?} is missing"));
    }
    let expected = message.rsplit_once("expected ").map_or("something else", |(_, expected)| expected);
    let field = if path == "." { "the body" } else { path };
    (field.to_owned(), format!("{field} must be {expected}"))
}

/// A JSON value in which no object has a key twice: two readers would disagree on what it says.
struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UniqueVisitor;

        impl<'de> Visitor<'de> for UniqueVisitor {
            type Value = Value;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_string<E>(self, value: String) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(Unique(value)) = items.next_element()? {
                    values.push(value);
                }
                Ok(Value::Array(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let mut values = Map::new();
                while let Some((key, Unique(value))) = entries.next_entry::<String, Unique>()? {
                    if values.insert(key, value).is_some() {
                        return Err(A::Error::custom("duplicate key"));
                    }
                }
                Ok(Value::Object(values))
            }
        }

        deserializer.deserialize_any(UniqueVisitor).map(Self)
    }
}

/// Reads a field of a merge patch: absent, `null`, or a value.
pub(crate) fn present<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
