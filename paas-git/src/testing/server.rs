//! The server: repositories of a directory, over HTTP on 127.0.0.1.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures::StreamExt as _;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use paas_core::memory::MemoryFiles;
use paas_core::{Clock as _, CommitId, Error, GitUrl, Result, Secret, SystemClock};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::backend::{self, Body, answer};
use super::{GitFault, repository};

const OPERATION: &str = "git_server.start";

/// A git server over HTTP on 127.0.0.1, run by git's own `git http-backend`. It ends when it is dropped.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let server = paas_git::testing::GitServer::temporary().await?;
/// let first = server.commit("hello", "main", [("index.html", "hello")]).await?;
/// let second = server.commit("hello", "main", [("index.html", "hello again")]).await?;
/// assert_ne!(first, second);
/// println!("git clone {}", server.url("hello"));
/// # Ok::<(), paas_core::Error>(()) }).unwrap();
/// ```
#[derive(Debug)]
pub struct GitServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    stop: CancellationToken,
    /// Removed with the server.
    _temporary: Option<tempfile::TempDir>,
}

#[derive(Debug)]
struct Shared {
    directory: PathBuf,
    /// By repository name.
    served: Mutex<BTreeMap<String, Served>>,
}

#[derive(Clone, Debug, Default)]
struct Served {
    token: Option<Secret>,
    fault: Option<GitFault>,
    requests: u64,
    bytes_sent: u64,
    /// How many requests brought credentials.
    authorized: u64,
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl GitServer {
    /// A server of an empty directory that is removed with it, on a free port.
    ///
    /// # Errors
    /// `Internal` if the directory or the port can't be had.
    pub async fn temporary() -> Result<Self> {
        let directory = tempfile::tempdir().map_err(paas_core::error::map(OPERATION))?;
        let mut server = Self::start(directory.path()).await?;
        server._temporary = Some(directory);
        Ok(server)
    }

    /// A server of the bare repositories (`{name}.git`) in `directory`, on a free port.
    ///
    /// # Errors
    /// `Internal` if the directory or the port can't be had.
    pub async fn start(directory: impl AsRef<Path>) -> Result<Self> {
        Self::start_on(directory, 0).await
    }

    /// The same on this port of 127.0.0.1; 0 takes a free one.
    ///
    /// # Errors
    /// `Internal` if the directory or the port can't be had.
    pub async fn start_on(directory: impl AsRef<Path>, port: u16) -> Result<Self> {
        let directory = directory.as_ref();
        tokio::fs::create_dir_all(directory).await.map_err(paas_core::error::map(OPERATION))?;
        let directory = directory.canonicalize().map_err(paas_core::error::map(OPERATION))?;
        let listener =
            TcpListener::bind(("127.0.0.1", port)).await.map_err(paas_core::error::map(OPERATION))?;
        let address = listener.local_addr().map_err(paas_core::error::map(OPERATION))?;
        let shared = Arc::new(Shared { directory, served: Mutex::default() });
        let stop = CancellationToken::new();
        tokio::spawn(stop.clone().run_until_cancelled_owned(accept(listener, shared.clone(), stop.clone())));
        Ok(Self { shared, address, stop, _temporary: None })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a repository.
    ///
    /// # Panics
    /// If this is not a name that [`create`](Self::create) takes.
    #[allow(clippy::expect_used)]
    pub fn url(&self, name: &str) -> GitUrl {
        format!("http://{}/{name}.git", self.address).parse().expect("a repository's name fits in a URL")
    }

    /// Makes an empty repository, unless there is one.
    ///
    /// # Errors
    /// `Invalid` for a name with other than letters, digits, `-`, `_` and `.`; `Internal` if git fails.
    pub async fn create(&self, name: &str) -> Result<()> {
        repository::create(&self.shared.directory, name).await.map(|_| ())
    }

    /// Adds a commit with these files, all of them, to the end of a branch, and makes the repository and the
    /// branch where they are missing. The first branch is the default one.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn commit(&self, name: &str, branch: &str, files: impl Into<MemoryFiles>) -> Result<CommitId> {
        let path = repository::create(&self.shared.directory, name).await?;
        repository::commit(&path, &branch.parse()?, &files.into()).await
    }

    /// Runs `git` with these arguments in a repository, and answers what it printed: for all that has no method.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn git(&self, name: &str, arguments: &[&str], input: &[u8]) -> Result<String> {
        let path = repository::create(&self.shared.directory, name).await?;
        repository::run(&path, arguments, input).await
    }

    /// Lets everybody push who may read.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub async fn allow_push(&self, name: &str) -> Result<()> {
        self.git(name, &["config", "http.receivepack", "true"], &[]).await.map(|_| ())
    }

    /// Shows a repository only to those who bring this token as the password.
    pub fn require_token(&self, name: &str, token: impl Into<Secret>) {
        self.served(name, |served| served.token = Some(token.into()));
    }

    /// Lets the requests of a repository run into a fault; `None` ends it.
    pub fn fault(&self, name: &str, fault: impl Into<Option<GitFault>>) {
        self.served(name, |served| served.fault = fault.into());
    }

    /// How many requests came for a repository.
    pub fn requests(&self, name: &str) -> u64 {
        self.served(name, |served| served.requests)
    }

    /// How many bytes of bodies went out for a repository.
    pub fn bytes_sent(&self, name: &str) -> u64 {
        self.served(name, |served| served.bytes_sent)
    }

    /// How many requests for a repository brought credentials.
    pub fn authorized(&self, name: &str) -> u64 {
        self.served(name, |served| served.authorized)
    }

    fn served<T>(&self, name: &str, with: impl FnOnce(&mut Served) -> T) -> T {
        with(self.shared.locked().entry(name.to_owned()).or_default())
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Served>> {
        // A panic while it was held leaves the counters usable.
        self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request, and answers what is known of its repository. A fault that is for so many requests is
    /// one less afterwards.
    fn note(&self, name: &str, is_authorized: bool) -> Served {
        let mut served = self.locked();
        let served = served.entry(name.to_owned()).or_default();
        served.requests += 1;
        served.authorized += u64::from(is_authorized);
        let before = served.clone();
        if let Some(GitFault::Status { times, .. }) = &mut served.fault {
            *times = times.saturating_sub(1);
            if *times == 0 {
                served.fault = None;
            }
        }
        before
    }

    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Result<Response<Body>> {
        let path = request.uri().path().to_owned();
        let mut parts = path.trim_start_matches('/').splitn(2, '/');
        let (repository, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let name = repository.strip_suffix(".git").unwrap_or(repository).to_owned();
        let password = password(&request);
        let served = self.note(&name, password.is_some());
        match &served.fault {
            Some(GitFault::Status { status, retry_after_seconds, .. }) => {
                let status = StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                let mut response = answer(status, "an injected fault\n");
                if let Some(seconds) = retry_after_seconds {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(*seconds));
                }
                return Ok(response);
            }
            Some(GitFault::OldProtocol) => {
                request.headers_mut().remove("git-protocol");
            }
            Some(GitFault::Pack(bytes)) if rest == "git-upload-pack" => {
                let mut response = answer(StatusCode::OK, "");
                *response.body_mut() =
                    Full::new(bytes.clone()).map_err(|never| match never {}).boxed_unsync();
                let kind = HeaderValue::from_static("application/x-git-upload-pack-result");
                response.headers_mut().insert(CONTENT_TYPE, kind);
                return Ok(response);
            }
            Some(GitFault::Stall) => return std::future::pending().await,
            Some(GitFault::Redirect(target)) => {
                let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
                let mut response = answer(StatusCode::FOUND, "");
                let location = HeaderValue::try_from(format!("{target}/{rest}{query}"));
                response.headers_mut().insert(LOCATION, location.map_err(paas_core::error::map(OPERATION))?);
                return Ok(response);
            }
            _ => {}
        }
        if served.token.as_ref().is_some_and(|token| password.as_deref() != Some(token.expose())) {
            let mut response = answer(StatusCode::UNAUTHORIZED, "");
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"git\""));
            return Ok(response);
        }
        if name.is_empty() || path.contains("..") || !self.directory.join(format!("{name}.git")).is_dir() {
            return Ok(answer(StatusCode::NOT_FOUND, "there is no such repository\n"));
        }
        let user = served.token.as_ref().map(|_| "token");
        let path = format!("/{name}.git/{rest}");
        let response = backend::serve(&self.directory, request, &path, user).await?;
        Ok(response.map(|body| self.counted(name, rest == "git-upload-pack", served.fault, body)))
    }

    /// The body, counted, and slowed or cut where a fault says so.
    fn counted(self: Arc<Self>, name: String, is_pack: bool, fault: Option<GitFault>, body: Body) -> Body {
        let (piece, pause, mut left) = match fault {
            Some(GitFault::Slow { bytes, pause }) => (bytes.max(1), Some(pause), usize::MAX),
            Some(GitFault::Cut { after_bytes }) if is_pack => (usize::MAX, None, after_bytes),
            _ => (usize::MAX, None, usize::MAX),
        };
        let pieces = body.into_data_stream().flat_map(move |chunk| {
            let pieces: Vec<std::io::Result<Bytes>> = match chunk {
                Ok(chunk) => {
                    let is_cut = chunk.len() > left;
                    let chunk = chunk.slice(..chunk.len().min(left));
                    left -= chunk.len();
                    let cut = is_cut.then(|| Err(std::io::ErrorKind::ConnectionReset.into()));
                    let starts = (0..chunk.len()).step_by(piece);
                    let pieces =
                        starts.map(|at| Ok(chunk.slice(at..chunk.len().min(at.saturating_add(piece)))));
                    pieces.chain(cut).collect()
                }
                Err(error) => vec![Err(error)],
            };
            futures::stream::iter(pieces)
        });
        let counted = pieces.then(move |piece| {
            let (shared, name) = (self.clone(), name.clone());
            async move {
                if let Some(pause) = pause {
                    SystemClock::new().sleep(pause).await;
                }
                let piece = piece?;
                shared.locked().entry(name).or_default().bytes_sent += piece.len() as u64;
                Ok(Frame::data(piece))
            }
        });
        BodyExt::boxed_unsync(StreamBody::new(counted))
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        // A failed accept is one client's problem.
        let Ok((connection, _)) = listener.accept().await else { continue };
        tokio::spawn(stop.clone().run_until_cancelled_owned(converse(connection, shared.clone())));
    }
}

async fn converse(connection: TcpStream, shared: Arc<Shared>) {
    // Small answers leave at once instead of waiting for an acknowledgement.
    let _ = connection.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move {
            let answered = shared.answer(request).await.unwrap_or_else(|error: Error| {
                tracing::error!(?error, "a git request failed");
                answer(StatusCode::INTERNAL_SERVER_ERROR, "the git server failed\n")
            });
            Ok::<_, Infallible>(answered)
        }
    });
    // A connection that breaks is the client's to notice.
    let _ =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service).await;
}

/// The password of basic authentication, whoever the user is.
fn password(request: &Request<Incoming>) -> Option<String> {
    let encoded = request.headers().get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Basic ")?;
    let decoded = String::from_utf8(BASE64_STANDARD.decode(encoded).ok()?).ok()?;
    decoded.split_once(':').map(|(_, password)| password.to_owned())
}
