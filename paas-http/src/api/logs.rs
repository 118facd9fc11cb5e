//! Log lines: page by page without a gap or a repetition, and as they come.

use std::fmt::Write;

use axum::extract::State;
use axum::response::sse;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use jiff::{SignedDuration, Timestamp};
use paas_core::{AppId, DeploymentId, Followed, InstanceName, LogQuery};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::types::{LogDirection, LogSource, LogStream};
use crate::paging::{Limit, bad_cursor, decode, encode, link_next};
use crate::problem::{Problem, Refusal, Result};
use crate::query::{Parameters, Segment};
use crate::router::Frontend;
use crate::streams::{data, resume_at};

/// The most lines of a page, which is also the most that a log store answers.
const MAX_LINES: usize = 5000;
const DEFAULT_LINES: usize = 1000;
/// The longest text to search for.
const MAX_SEARCH_BYTES: usize = 1024;
/// How far an app's log reaches back when nothing else is asked for.
const DEFAULT_REACH: SignedDuration = SignedDuration::from_hours(1);

const LAST_LOG_NANO: HeaderName = HeaderName::from_static("x-last-log-nano");

/// Which log lines.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct LogParameters {
    /// Not older than this, itself included: `now`, `now-90s`, `now-1h` or RFC 3339. By default `now-1h` for an app and
    /// everything for a deployment. It counts where a reader begins, and no more once there is a cursor,
    /// `X-Last-Log-Nano` or `Last-Event-ID`: further pages keep the bounds of the first.
    from: Option<String>,
    /// Not newer than this, itself included. A stream ends when it has passed.
    to: Option<String>,
    /// How many at most; more than 5,000 are cut to that.
    #[param(value_type = Option<u64>, default = 1000)]
    limit: Option<Limit>,
    direction: Option<LogDirection>,
    source: Option<LogSource>,
    /// Only lines of this deployment.
    #[param(value_type = Option<String>)]
    deployment: Option<DeploymentId>,
    /// Only lines of this container.
    #[param(value_type = Option<String>)]
    instance: Option<InstanceName>,
    /// Only lines with this text.
    q: Option<String>,
    /// The `next_cursor` of the page before, or behind the `last_timestamp` of a page.
    cursor: Option<String>,
}

/// A log line.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogLine {
    /// Its time to the nanosecond, strictly increasing within an app.
    #[schema(format = DateTime)]
    ts: String,
    /// Its number within the app.
    seq: u64,
    stream: LogStream,
    source: LogSource,
    /// The container that wrote it.
    instance: Option<String>,
    deployment_id: Option<String>,
    text: String,
}

impl From<paas_core::LogLine> for LogLine {
    fn from(line: paas_core::LogLine) -> Self {
        Self {
            ts: format!("{:.9}", line.at),
            seq: line.sequence,
            stream: line.stream.into(),
            source: line.source.into(),
            instance: line.instance.map(|instance| instance.to_string()),
            deployment_id: line.deployment.map(Into::into),
            text: line.text,
        }
    }
}

/// Log lines in the order asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogPage {
    items: Vec<LogLine>,
    /// The newest time that the caller has now, in nanoseconds: the next `X-Last-Log-Nano`.
    last_timestamp: Option<String>,
    /// The cursor of the next page in this direction; `null` at the end.
    next_cursor: Option<String>,
    /// True if there are more in this direction.
    has_more: bool,
}

/// The line at which a page ended.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LogCursor {
    direction: LogDirection,
    /// In nanoseconds.
    at: String,
    /// How far the first page was to go: what is relative to its time must not move from page to page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bound: Option<String>,
}

/// Where a reader goes on.
#[derive(Debug)]
struct Position {
    direction: LogDirection,
    at: Timestamp,
    /// The last time that is asked for, in this direction.
    bound: Option<Timestamp>,
}

impl Position {
    /// Reads a cursor, or a time in nanoseconds, which is the cursor behind a line.
    fn read(text: &str) -> Result<Self> {
        if let Some(at) = nanoseconds(text) {
            return Ok(Self { direction: LogDirection::Forward, at, bound: None });
        }
        let LogCursor { direction, at, bound } = decode(text)?;
        let time = |text: String| nanoseconds(&text).ok_or_else(bad_cursor);
        Ok(Self { direction, at: time(at)?, bound: bound.map(time).transpose()? })
    }
}

fn cursor(direction: LogDirection, at: Timestamp, bound: Option<Timestamp>) -> String {
    let bound = bound.map(|bound| bound.as_nanosecond().to_string());
    encode(&LogCursor { direction, at: at.as_nanosecond().to_string(), bound })
}

/// The cursor of the lines before a moment, newest first.
pub(crate) fn cursor_before(at: Timestamp) -> String {
    cursor(LogDirection::Backward, at, None)
}

fn nanoseconds(text: &str) -> Option<Timestamp> {
    Timestamp::from_nanosecond(text.parse().ok()?).ok()
}

/// Reads `now`, `now-1h` or RFC 3339.
fn moment(name: &'static str, text: &str, now: Timestamp) -> Result<Timestamp> {
    let relative = text.strip_prefix("now").map(|rest| match rest.strip_prefix('-') {
        None if rest.is_empty() => Some(now),
        None => None,
        Some(reach) => {
            let (number, unit) = reach.split_at_checked(reach.len().saturating_sub(1))?;
            let seconds: i64 = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 60 * 60,
                "d" => 24 * 60 * 60,
                _ => return None,
            };
            let number = number.parse::<u32>().ok()?;
            now.checked_sub(SignedDuration::from_secs(seconds.checked_mul(number.into())?)).ok()
        }
    });
    relative.unwrap_or_else(|| text.parse().ok()).ok_or_else(|| {
        let detail =
            format!("{name} must be `now`, `now-1h` or a time such as 2026-01-01T00:00:00.123456789Z");
        Refusal::of_request(StatusCode::BAD_REQUEST, "invalid_parameter", detail).field(name)
    })
}

/// The last timestamp that the caller has.
fn last_seen(headers: &HeaderMap) -> Result<Option<Timestamp>> {
    let Some(value) = headers.get(LAST_LOG_NANO) else { return Ok(None) };
    value.to_str().ok().and_then(nanoseconds).map(Some).ok_or_else(|| {
        let detail = "X-Last-Log-Nano must be a time in nanoseconds: the `last_timestamp` of a page";
        Refusal::of_request(StatusCode::BAD_REQUEST, "invalid_parameter", detail)
    })
}

impl LogParameters {
    /// What is asked for. `position` is where the reader goes on, `seen` the last time that it has, and `reach` how far
    /// a first page goes back when nothing says it.
    fn query(
        &self,
        app: AppId,
        now: Timestamp,
        reach: Option<SignedDuration>,
        position: Option<Position>,
        seen: Option<Timestamp>,
    ) -> Result<LogQuery> {
        if self.q.as_ref().is_some_and(|text| text.len() > MAX_SEARCH_BYTES) {
            let detail = "q must have at most 1,024 bytes";
            return Err(Refusal::of_request(StatusCode::BAD_REQUEST, "invalid_parameter", detail).field("q"));
        }
        let from = self.from.as_deref().map(|from| moment("from", from, now)).transpose()?;
        let to = self.to.as_deref().map(|to| moment("to", to, now)).transpose()?;
        let query = LogQuery {
            from,
            after: seen,
            to,
            limit: Limit::within(self.limit, DEFAULT_LINES, MAX_LINES),
            direction: self.direction.unwrap_or(LogDirection::Forward).into(),
            source: self.source.map(Into::into),
            deployment: self.deployment.clone(),
            instance: self.instance.clone(),
            contains: self.q.clone(),
            ..LogQuery::of(app)
        };
        Ok(match position {
            None if seen.is_some() => LogQuery { from: None, ..query },
            None => {
                let default = || reach.and_then(|reach| now.checked_sub(reach).ok());
                LogQuery { from: from.or_else(default), ..query }
            }
            Some(Position { direction, .. }) if query.direction != direction.into() => {
                return Err(bad_cursor());
            }
            Some(Position { direction: LogDirection::Forward, at, bound }) => {
                LogQuery { from: None, after: seen.max(Some(at)), to: bound.or(to), ..query }
            }
            Some(Position { direction: LogDirection::Backward, at, bound }) => {
                LogQuery { from: bound.or(from), before: Some(at), to: None, ..query }
            }
        })
    }

    /// The query of a page.
    fn page_query(
        &self,
        app: AppId,
        now: Timestamp,
        headers: &HeaderMap,
        reach: Option<SignedDuration>,
    ) -> Result<LogQuery> {
        let position = self.cursor.as_deref().map(Position::read).transpose()?;
        self.query(app, now, reach, position, last_seen(headers)?)
    }

    /// The query of a stream, which goes forward only.
    fn stream_query(
        &self,
        app: AppId,
        now: Timestamp,
        headers: &HeaderMap,
        reach: Option<SignedDuration>,
    ) -> Result<LogQuery> {
        let position =
            resume_at(headers, self.cursor.as_deref())?.as_deref().map(Position::read).transpose()?;
        let query = self.query(app, now, reach, position, last_seen(headers)?)?;
        match query.direction {
            paas_core::LogDirection::Forward => Ok(query),
            paas_core::LogDirection::Backward => {
                let detail = "a stream goes forward";
                Err(Refusal::of_request(StatusCode::BAD_REQUEST, "invalid_parameter", detail)
                    .field("direction"))
            }
        }
    }
}

/// The log lines of an app, in whatever state it is.
#[utoipa::path(
    get,
    path = "/v1/apps/{app}/logs",
    tag = "logs",
    operation_id = "list_app_logs",
    params(
        ("app" = String, Path, description = "Its id or name"),
        ("X-Last-Log-Nano" = Option<String>, Header, description = "The last timestamp that the caller has: only what came after it"),
        LogParameters,
    ),
    responses(
        (status = 200, description = "A page of lines; also as `text/plain` and `application/x-ndjson`, with `Link` and `X-Last-Log-Nano` in the headers", body = LogPage),
        (status = 404, description = "There is no such app", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn app_page(
    State(frontend): State<Frontend>,
    Segment(app): Segment,
    uri: Uri,
    headers: HeaderMap,
    Parameters(parameters): Parameters<LogParameters>,
) -> Result<Response> {
    let apps = frontend.apps();
    let app = apps.id_of(app.as_str()).await?;
    let query = parameters.page_query(app.clone(), apps.now(), &headers, Some(DEFAULT_REACH))?;
    let page = apps.logs(app, query.clone()).await?;
    Ok(answer(&uri, &headers, &query, page))
}

/// The log lines of a deployment and of the container that it made.
#[utoipa::path(
    get,
    path = "/v1/deployments/{deployment}/logs",
    tag = "logs",
    operation_id = "list_deployment_logs",
    params(
        ("deployment" = String, Path, description = "Its id"),
        ("X-Last-Log-Nano" = Option<String>, Header, description = "The last timestamp that the caller has: only what came after it"),
        LogParameters,
    ),
    responses(
        (status = 200, description = "A page of lines, as for an app", body = LogPage),
        (status = 404, description = "There is no such deployment", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn deployment_page(
    State(frontend): State<Frontend>,
    id: Segment,
    uri: Uri,
    headers: HeaderMap,
    Parameters(parameters): Parameters<LogParameters>,
) -> Result<Response> {
    let handle = frontend.deployment(&id).await?;
    let app = handle.get().await?.app;
    let query = parameters.page_query(app, frontend.apps().now(), &headers, None)?;
    let page = handle.logs(query.clone()).await?;
    Ok(answer(&uri, &headers, &query, page))
}

/// The log lines of an app as they come, as server-sent events, until it is deleted.
#[utoipa::path(
    get,
    path = "/v1/apps/{app}/logs/stream",
    tag = "logs",
    operation_id = "stream_app_logs",
    params(
        ("app" = String, Path, description = "Its id or name"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last id that was received"),
        LogParameters,
    ),
    responses(
        (status = 200, description = "Frames with a `LogLine` each; one of type `gap` with a `LogGap` where lines left before they were read; the last is of type `end` with a `StreamEnd`", body = LogLine, content_type = "text/event-stream"),
        (status = 404, description = "There is no such app", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn app_stream(
    State(frontend): State<Frontend>,
    Segment(app): Segment,
    headers: HeaderMap,
    Parameters(parameters): Parameters<LogParameters>,
) -> Result<Response> {
    let apps = frontend.apps();
    let app = apps.id_of(app.as_str()).await?;
    let query = parameters.stream_query(app.clone(), apps.now(), &headers, Some(DEFAULT_REACH))?;
    let lines = apps.follow_logs(app, query).await?;
    frontend.streams().send(lines, frame)
}

/// The log lines of a deployment as they come, until it is settled. What its container writes afterwards is in the
/// stream of the app.
#[utoipa::path(
    get,
    path = "/v1/deployments/{deployment}/logs/stream",
    tag = "logs",
    operation_id = "stream_deployment_logs",
    params(
        ("deployment" = String, Path, description = "Its id"),
        ("Last-Event-ID" = Option<String>, Header, description = "The last id that was received"),
        LogParameters,
    ),
    responses(
        (status = 200, description = "Frames with a `LogLine` each; one of type `gap` with a `LogGap` where lines left before they were read; the last is of type `end` with a `StreamEnd`", body = LogLine, content_type = "text/event-stream"),
        (status = 404, description = "There is no such deployment", body = Problem, content_type = "application/problem+json"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(crate) async fn deployment_stream(
    State(frontend): State<Frontend>,
    id: Segment,
    headers: HeaderMap,
    Parameters(parameters): Parameters<LogParameters>,
) -> Result<Response> {
    let handle = frontend.deployment(&id).await?;
    let app = handle.get().await?.app;
    let query = parameters.stream_query(app, frontend.apps().now(), &headers, None)?;
    let lines = handle.follow_logs(query).await?;
    frontend.streams().send(lines, frame)
}

/// Lines left by retention before this reader got them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LogGap {
    /// The time of the oldest line that is still there.
    until: String,
}

/// A line as a frame that a client can come back to, or a gap as one that it can't.
fn frame(followed: &Followed) -> sse::Event {
    match followed {
        Followed::Line(line) => {
            data(sse::Event::default().id(line.at.as_nanosecond().to_string()), &LogLine::from(line.clone()))
        }
        Followed::Gap { until } => {
            data(sse::Event::default().event("gap"), &LogGap { until: format!("{until:.9}") })
        }
    }
}

/// The page in the form that the caller accepts.
fn answer(uri: &Uri, headers: &HeaderMap, query: &LogQuery, page: paas_core::LogPage) -> Response {
    let newest = page.lines.iter().map(|line| line.at).max().max(query.after);
    let last_timestamp = newest.map(|at| at.as_nanosecond().to_string());
    let bound = match query.direction {
        paas_core::LogDirection::Forward => query.to,
        paas_core::LogDirection::Backward => {
            let behind_seen =
                query.after.and_then(|seen| seen.checked_add(SignedDuration::from_nanos(1)).ok());
            query.from.max(behind_seen)
        }
    };
    let last = page.lines.last().filter(|_| page.has_more);
    let next_cursor = last.map(|line| cursor(query.direction.into(), line.at, bound));
    let items: Vec<LogLine> = page.lines.into_iter().map(LogLine::from).collect();
    let next = next_cursor.as_ref().map(|cursor| next_reference(uri, cursor));
    let last_header = last_timestamp.as_deref().and_then(|at| HeaderValue::from_str(at).ok());
    let mut response = match Form::accepted(headers) {
        Form::Json => axum::Json(LogPage { items, last_timestamp, next_cursor, has_more: page.has_more })
            .into_response(),
        Form::Lines => ([(CONTENT_TYPE, "application/x-ndjson")], json_lines(&items)).into_response(),
        Form::Text => ([(CONTENT_TYPE, "text/plain; charset=utf-8")], plain(&items)).into_response(),
    };
    if let Some(next) = next {
        link_next(&mut response, &next);
    }
    if let Some(last) = last_header {
        response.headers_mut().insert(LAST_LOG_NANO, last);
    }
    response
}

/// The same address with another cursor.
fn next_reference(uri: &Uri, cursor: &str) -> String {
    let others = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="));
    let mut reference = String::from("?");
    for pair in others {
        reference.push_str(pair);
        reference.push('&');
    }
    reference + "cursor=" + cursor
}

/// In which form lines are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Lines,
    Text,
}

impl Form {
    /// The first form that the caller names; JSON for those who name none of ours.
    fn accepted(headers: &HeaderMap) -> Self {
        let ranges = headers.get_all(ACCEPT).iter().flat_map(|value| value.to_str().unwrap_or("").split(','));
        let essences =
            ranges.map(|range| range.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
        essences
            .filter_map(|essence| match essence.as_str() {
                "application/json" => Some(Self::Json),
                "application/x-ndjson" => Some(Self::Lines),
                "text/plain" => Some(Self::Text),
                _ => None,
            })
            .next()
            .unwrap_or(Self::Json)
    }
}

fn json_lines(lines: &[LogLine]) -> String {
    let mut text = String::new();
    for line in lines {
        // Lines are plain structs: they always have a JSON form.
        text.push_str(&serde_json::to_string(line).unwrap_or_default());
        text.push('\n');
    }
    text
}

/// Time and text, a line each; control characters are escaped, so that none reaches a terminal.
fn plain(lines: &[LogLine]) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(&line.ts);
        text.push(' ');
        for letter in line.text.chars() {
            if letter.is_control() && letter != '\t' {
                // Writing to a string does not fail.
                let _ = write!(text, "{}", letter.escape_default());
            } else {
                text.push(letter);
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_relative_or_absolute_and_never_overflow() {
        let now: Timestamp = "2026-01-02T00:00:00.5Z".parse().unwrap();
        let read = |text| moment("from", text, now).ok().map(|at| at.to_string());
        assert_eq!(read("now").as_deref(), Some("2026-01-02T00:00:00.5Z"));
        assert_eq!(read("now-1h").as_deref(), Some("2026-01-01T23:00:00.5Z"));
        assert_eq!(read("now-1d").as_deref(), Some("2026-01-01T00:00:00.5Z"));
        assert_eq!(read("2026-01-01T00:00:00.123456789Z").as_deref(), Some("2026-01-01T00:00:00.123456789Z"));
        for bad in [
            "",
            "now-",
            "now-h",
            "now-1w",
            "now+1h",
            "now-99999999999d",
            "now-4294967295d",
            "now-é",
            "yesterday",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }
}
