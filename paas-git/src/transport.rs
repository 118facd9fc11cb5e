//! gix's HTTP, carried by our own client: its addresses, limits, redirects and cancellation are ours.

use std::cell::RefCell;
use std::io::{self, BufRead, Cursor, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Buf as _, Bytes};
use gix_transport::client::blocking_io::http::{GetResponse, Http, PostBodyDataKind, PostResponse};
use paas_core::{Error, Repository, Result, Secret};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::{Method, Response};
use tokio::runtime::Handle;
use url::{Origin, Url};

use crate::call::Call;
use crate::client::HttpClient;
use crate::errors;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;
/// The user of a bare token: GitLab asks for this one, GitHub and Gitea take any.
const TOKEN_USER: &str = "oauth2";

/// The HTTP of one call. It blocks, so it lives on a blocking thread.
pub(crate) struct HttpTransport {
    link: Rc<Link>,
    /// Where the first request was redirected to, without git's own part of the path.
    redirected: Option<String>,
}

struct Link {
    client: HttpClient,
    runtime: Handle,
    call: Arc<Call>,
    token: Option<Secret>,
    /// The only place that the token is sent to.
    origin: Origin,
}

impl HttpTransport {
    pub(crate) fn new(client: HttpClient, runtime: Handle, call: Arc<Call>, repository: &Repository) -> Self {
        let origin = repository.url.to_url().origin();
        let link = Link { client, runtime, call, token: repository.token.clone(), origin };
        Self { link: Rc::new(link), redirected: None }
    }

    /// Asks for the refs, following redirects, each of which is checked like the first address.
    fn discover(&mut self, url: &str, base: &str, headers: HeaderMap) -> Result<Response> {
        let operation = self.link.call.operation();
        let tail = url.strip_prefix(base).unwrap_or_default();
        let mut target = Url::parse(url).map_err(paas_core::error::map(operation))?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.link.send(Method::GET, &target, headers.clone(), None)?;
            if !response.status().is_redirection() {
                let is_moved = target.as_str() != url;
                self.redirected = target.as_str().strip_suffix(tail).filter(|_| is_moved).map(str::to_owned);
                return Ok(response);
            }
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.and_then(|location| target.join(location).ok());
            // A host's page for signing in is where hidden repositories lead to.
            let next = next
                .filter(|next| next.as_str().ends_with(tail))
                .ok_or_else(|| errors::repository_not_found(operation))?;
            let is_downgraded = target.scheme() == "https" && next.scheme() != "https";
            if is_downgraded || self.link.client.for_url(&next).is_err() {
                return Err(errors::denied(operation));
            }
            target = next;
        }
        Err(errors::repository_not_found(operation))
    }
}

impl Link {
    /// Sends a request and waits for the head of a successful answer, or of a redirect.
    fn send(
        &self,
        method: Method,
        url: &Url,
        mut headers: HeaderMap,
        body: Option<Vec<u8>>,
    ) -> Result<Response> {
        let operation = self.call.operation();
        if let Some(token) = &self.token
            && url.origin() == self.origin
        {
            headers.insert(AUTHORIZATION, authorization(operation, token)?);
        }
        let mut request = self.client.for_url(url)?.request(method, url.clone()).headers(headers);
        if let Some(body) = body {
            request = request.body(body);
        }
        let response = self
            .runtime
            .block_on(self.call.wait(request.send()))?
            .map_err(|error| errors::from_connection(operation, error))?;
        if response.status().is_success() || response.status().is_redirection() {
            return Ok(response);
        }
        Err(errors::from_status(operation, response.status(), response.headers()))
    }

    /// The next bytes of an answer; none at its end.
    fn chunk(&self, response: &mut Response) -> Result<Option<Bytes>> {
        let chunk = self
            .runtime
            .block_on(self.call.wait(response.chunk()))?
            .map_err(|error| errors::from_connection(self.call.operation(), error))?;
        self.call.count(chunk.as_ref().map_or(0, |chunk| chunk.len() as u64))?;
        Ok(chunk)
    }
}

/// Basic authentication. A token with a colon brings its own user name, as deploy tokens need.
fn authorization(operation: &'static str, token: &Secret) -> Result<HeaderValue> {
    let (user, password) = token.expose().split_once(':').unwrap_or((TOKEN_USER, token.expose()));
    let text = format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")));
    let mut value =
        HeaderValue::try_from(text).map_err(|_| Error::invalid(operation, "this is not a token"))?;
    value.set_sensitive(true);
    Ok(value)
}

impl Http for HttpTransport {
    type Headers = Head;
    type ResponseBody = Body;
    type PostBody = Upload;

    fn get(
        &mut self,
        url: &str,
        base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> gix::Result<GetResponse<Head, Body>> {
        let response = self.discover(url, base_url, parsed(headers));
        let response = response.and_then(|response| checked(&self.link.call, response, "advertisement"));
        let response = response.map_err(|error| gix::Error::from_error(self.link.call.fail(error)))?;
        let exchange = Rc::new(RefCell::new(Exchange::Answered(response)));
        let head = Head { link: self.link.clone(), exchange: exchange.clone(), line: None };
        Ok(GetResponse { headers: head, body: Body::new(self.link.clone(), exchange) })
    }

    fn post(
        &mut self,
        url: &str,
        _base_url: &str,
        headers: impl IntoIterator<Item = impl AsRef<str>>,
        _kind: PostBodyDataKind,
    ) -> gix::Result<PostResponse<Head, Body, Upload>> {
        let request = Exchange::Asking { url: url.to_owned(), headers: parsed(headers), body: Vec::new() };
        let exchange = Rc::new(RefCell::new(request));
        let head = Head { link: self.link.clone(), exchange: exchange.clone(), line: None };
        let body = Body::new(self.link.clone(), exchange.clone());
        Ok(PostResponse { post_body: Upload(exchange), headers: head, body })
    }

    fn configure(&mut self, _config: &dyn std::any::Any) -> gix::Result<()> {
        Ok(())
    }

    fn redirected_base_url(&self) -> Option<String> {
        self.redirected.clone()
    }
}

/// gix's header lines, without its name: ours is the client's.
fn parsed(lines: impl IntoIterator<Item = impl AsRef<str>>) -> HeaderMap {
    let parse = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((HeaderName::try_from(name).ok()?, HeaderValue::try_from(value.trim()).ok()?))
    };
    let lines = lines.into_iter().filter_map(|line| parse(line.as_ref()));
    lines.filter(|(name, _)| name != reqwest::header::USER_AGENT).collect()
}

/// An answer that git's own protocol follows in.
fn checked(call: &Call, response: Response, what: &str) -> Result<Response> {
    if response.status().is_redirection() {
        return Err(errors::denied(call.operation()));
    }
    let wanted = format!("application/x-git-upload-pack-{what}");
    match response.headers().get(CONTENT_TYPE) {
        Some(found) if found.as_bytes() == wanted.as_bytes() => Ok(response),
        _ => Err(errors::repository_not_found(call.operation())),
    }
}

/// A request with its answer. gix writes the request's body first, then reads the answer's head, then its body.
enum Exchange {
    Asking { url: String, headers: HeaderMap, body: Vec<u8> },
    Answered(Response),
    Failed,
}

impl Exchange {
    /// The answer; the request is sent when it is first asked for.
    fn answer(&mut self, link: &Link) -> io::Result<&mut Response> {
        if let Self::Asking { url, headers, body } = self {
            let (url, headers, body) = (std::mem::take(url), std::mem::take(headers), std::mem::take(body));
            *self = Self::Failed;
            let answer = Url::parse(&url)
                .map_err(paas_core::error::map(link.call.operation()))
                .and_then(|url| link.send(Method::POST, &url, headers, Some(body)))
                .and_then(|response| checked(&link.call, response, "result"));
            *self = Self::Answered(answer.map_err(|error| link.call.fail(error))?);
        }
        match self {
            Self::Answered(response) => Ok(response),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

/// The body of a request: small, the list of what is wanted and what is here.
pub(crate) struct Upload(Rc<RefCell<Exchange>>);

impl Write for Upload {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut *self.0.borrow_mut() {
            Exchange::Asking { body, .. } => body.write(bytes),
            _ => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The one header that gix reads, as a line.
pub(crate) struct Head {
    link: Rc<Link>,
    exchange: Rc<RefCell<Exchange>>,
    line: Option<Cursor<Vec<u8>>>,
}

impl Head {
    fn line(&mut self) -> io::Result<&mut Cursor<Vec<u8>>> {
        if self.line.is_none() {
            let mut exchange = self.exchange.borrow_mut();
            let kind = exchange.answer(&self.link)?.headers().get(CONTENT_TYPE);
            let kind = kind.map(HeaderValue::as_bytes).unwrap_or_default();
            self.line = Some(Cursor::new([b"content-type:", kind, b"\n"].concat()));
        }
        self.line.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Read for Head {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.line()?.read(buffer)
    }
}

impl BufRead for Head {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.line()?.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Some(line) = &mut self.line {
            line.consume(amount);
        }
    }
}

/// The body of an answer, as it comes.
pub(crate) struct Body {
    link: Rc<Link>,
    exchange: Rc<RefCell<Exchange>>,
    chunk: Bytes,
}

impl Body {
    fn new(link: Rc<Link>, exchange: Rc<RefCell<Exchange>>) -> Self {
        Self { link, exchange, chunk: Bytes::new() }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(buffer.len());
        buffer[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.chunk.is_empty() {
            let mut exchange = self.exchange.borrow_mut();
            let response = exchange.answer(&self.link)?;
            match self.link.chunk(response).map_err(|error| self.link.call.fail(error))? {
                Some(chunk) => self.chunk = chunk,
                None => break,
            }
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk.advance(amount);
    }
}
