//! git's own HTTP server, `git http-backend`, spoken to as a web server does (CGI, RFC 3875).

use std::convert::Infallible;
use std::path::Path;

use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::{Request, Response, StatusCode};
use paas_core::Result;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio_util::io::ReaderStream;

use super::repository;

/// What goes out: it may break off, as a real connection does.
pub(super) type Body = UnsyncBoxBody<Bytes, std::io::Error>;

const OPERATION: &str = "git_server.serve";

/// A whole answer of one line.
pub(super) fn answer(status: StatusCode, text: &'static str) -> Response<Body> {
    let never = |never: Infallible| match never {};
    let mut response =
        Response::new(Full::new(Bytes::from_static(text.as_bytes())).map_err(never).boxed_unsync());
    *response.status_mut() = status;
    response
}

/// Serves one request from the repositories in `root`. `user` is who authenticated, for git to let them push.
pub(super) async fn serve(
    root: &Path,
    request: Request<Incoming>,
    path: &str,
    user: Option<&str>,
) -> Result<Response<Body>> {
    let header = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let mut command = repository::git(root);
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", request.method().as_str())
        .env("PATH_INFO", path)
        .env("QUERY_STRING", request.uri().query().unwrap_or_default())
        .env("REMOTE_ADDR", "127.0.0.1");
    let variables = [
        ("CONTENT_TYPE", CONTENT_TYPE),
        ("CONTENT_LENGTH", CONTENT_LENGTH),
        ("HTTP_CONTENT_ENCODING", CONTENT_ENCODING),
        ("GIT_PROTOCOL", HeaderName::from_static("git-protocol")),
    ];
    for (variable, name) in variables {
        if let Some(value) = header(name) {
            command.env(variable, value);
        }
    }
    if let Some(user) = user {
        command.env("REMOTE_USER", user);
    }
    let mut child = command.stderr(std::process::Stdio::null()).spawn().map_err(repository::missing)?;
    if let Some(mut stdin) = child.stdin.take() {
        let mut body = request.into_body().into_data_stream();
        // It ends with the request's body, or when git has closed its end.
        tokio::spawn(async move {
            while let Some(Ok(bytes)) = body.next().await {
                if stdin.write_all(&bytes).await.is_err() {
                    break;
                }
            }
        });
    }
    let stdout =
        child.stdout.take().ok_or_else(|| paas_core::Error::internal(OPERATION, "git has no output"))?;
    let mut stdout = BufReader::new(stdout);
    let mut response = Response::new(());
    loop {
        let mut line = String::new();
        stdout.read_line(&mut line).await.map_err(paas_core::error::map(OPERATION))?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        if name.eq_ignore_ascii_case("status") {
            let code = value.split(' ').next().unwrap_or_default();
            *response.status_mut() = code.parse().unwrap_or(StatusCode::BAD_GATEWAY);
        } else if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().append(name, value);
        }
    }
    // The child travels with its output: dropping the answer ends it.
    let frames = ReaderStream::new(stdout).map(move |bytes| {
        let _ = &child;
        bytes.map(Frame::data)
    });
    Ok(response.map(|()| BodyExt::boxed_unsync(StreamBody::new(frames))))
}
