//! A platform in memory behind a real socket, and a client for it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, BodyStream, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use paas_core::memory::{
    MemoryBuilder, MemoryFiles, MemoryGit, MemoryHost, MemoryLogStore, MemoryRuntime, MemoryStore,
    MemoryTree, Script,
};
use paas_core::{Keyring, Platform, Settings, SourceTree, SystemClock};
use paas_http::{Access, Options};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) const TOKEN: &str = "canary-of-the-bearer-token";
pub(crate) const REPOSITORY: &str = "https://git.example.com/team/hello.git";

pub(crate) struct World {
    pub(crate) platform: Platform,
    pub(crate) store: Arc<MemoryStore>,
    pub(crate) git: Arc<MemoryGit>,
    pub(crate) host: MemoryHost,
    pub(crate) logs: Arc<MemoryLogStore>,
    pub(crate) closing: CancellationToken,
    pub(crate) authority: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Asserts the status, and that an error has the shape of one.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{self:?}");
        assert!(self.header("request-id").starts_with("req_"), "{self:?}");
        if status >= 400 {
            assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
            let problem = self.json();
            assert_eq!(problem["status"], status);
            assert_eq!(problem["request_id"], self.header("request-id"));
            for field in ["type", "title", "code", "detail", "fault", "stage"] {
                assert!(problem[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {problem}");
            }
            for field in ["retryable", "hint", "errors", "log_cursor"] {
                assert!(problem.get(field).is_some(), "{field}: {problem}");
            }
        }
        self
    }

    /// The same with the code of the error.
    #[track_caller]
    pub(crate) fn expect_code(self, status: u16, code: &str) -> Self {
        let answer = self.expect(status);
        assert_eq!(answer.json()["code"], code, "{answer:?}");
        answer
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(Settings::default(), 64).await
    }

    pub(crate) async fn with_streams(streams: usize) -> Self {
        Self::with(Settings::default(), streams).await
    }

    pub(crate) async fn with_settings(settings: Settings) -> Self {
        Self::with(settings, 64).await
    }

    async fn with(settings: Settings, streams: usize) -> Self {
        let clock = Arc::new(SystemClock::new());
        let host = MemoryHost::new(clock.clone());
        let store = Arc::new(MemoryStore::new(clock.clone()));
        let git = Arc::new(MemoryGit::new());
        let logs = Arc::new(MemoryLogStore::new(clock.clone()));
        let settings =
            Settings { drain: Duration::from_millis(10), stop_grace: Duration::from_millis(10), ..settings };
        let platform = Platform::builder()
            .clock(clock.clone())
            .store(store.clone())
            .keyring(Keyring::ephemeral().unwrap())
            .git(git.clone())
            .image_builder(Arc::new(MemoryBuilder::new(host.clone())))
            .runtime(Arc::new(MemoryRuntime::new(host.clone())))
            .logs(logs.clone())
            .settings(settings)
            .start()
            .await
            .unwrap();
        let closing = CancellationToken::new();
        let options =
            Options { closing: closing.clone(), streams, ..Options::new(Access::bearer(TOKEN, clock)) };
        let router = paas_http::router(platform.clone(), options);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let authority = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let client = Client::builder(TokioExecutor::new()).build_http();
        let world = Self { platform, store, git, host, logs, closing, authority, client };
        world.push("one", Script::default());
        world
    }

    /// Commits a page, and says what building and running it does.
    pub(crate) fn push(&self, page: &str, script: Script) {
        let files = || MemoryFiles::from([("index.html", page.to_owned())]);
        self.git.commit(&REPOSITORY.parse().unwrap(), &"main".parse().unwrap(), files());
        self.host.script(MemoryTree::new(files()).unwrap().id(), script);
    }

    pub(crate) async fn open(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<hyper::body::Incoming> {
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.authority));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.client.request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    /// Looks again and again until something is so, and fails when that takes too long.
    pub(crate) async fn until(&self, what: &str, mut is_so: impl AsyncFnMut() -> bool) {
        let clock = self.platform.clock();
        let started = clock.elapsed();
        while !is_so().await {
            assert!(clock.elapsed() - started < Duration::from_secs(60), "it should have come: {what}");
            clock.sleep(Duration::from_millis(2)).await;
        }
    }

    /// Exactly this request.
    pub(crate) async fn raw(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let (head, body) = self.open(method, path, headers, body).await.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            text: String::from_utf8_lossy(&bytes).into_owned(),
        }
    }

    /// With the token.
    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        let mut all = vec![("authorization", bearer.as_str())];
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            all.push(("content-type", "application/json"));
        }
        all.extend(headers);
        self.raw(method, path, &all, body.to_owned()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(Method::POST, path, &[], &body.to_string()).await
    }

    pub(crate) async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, path, &[("content-type", "application/merge-patch+json")], &body.to_string())
            .await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.send(Method::DELETE, path, &[], "").await
    }

    /// Creates an app and waits until it is live.
    pub(crate) async fn live(&self, name: &str) -> Value {
        let created = self.post("/v1/apps", new_app(name)).await.expect(201).json();
        self.settled(&created["deployment"]).await;
        created
    }

    /// A deployment once it is settled.
    pub(crate) async fn settled(&self, deployment: &Value) -> Value {
        let path = format!("/v1/deployments/{}/wait?timeout=60", deployment["id"].as_str().unwrap());
        let waited = self.get(&path).await.expect(200).json();
        assert_eq!(waited["reached"], true, "{waited}");
        waited["deployment"].clone()
    }

    /// Opens a stream.
    pub(crate) async fn stream(&self, path: &str, headers: &[(&str, &str)]) -> Frames {
        let bearer = format!("Bearer {TOKEN}");
        let mut all = vec![("authorization", bearer.as_str())];
        all.extend(headers);
        let response = self.open(Method::GET, path, &all, "").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Frames { body: BodyStream::new(response.into_body()), buffer: String::new() }
    }
}

pub(crate) fn new_app(name: &str) -> Value {
    json!({"name": name, "repository": REPOSITORY})
}

/// The frames of a stream.
pub(crate) struct Frames {
    body: BodyStream<hyper::body::Incoming>,
    buffer: String,
}

#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) data: Value,
}

impl Frames {
    /// The next frame; `None` when the stream is over.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some((text, rest)) = self.buffer.split_once("\n\n") {
                let field = |name: &str| {
                    text.lines()
                        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                        .map(str::to_owned)
                };
                let frame = field("data").map(|data| Frame {
                    id: field("id"),
                    event: field("event"),
                    data: serde_json::from_str(&data).unwrap(),
                });
                self.buffer = rest.to_owned();
                match frame {
                    Some(frame) => return Some(frame),
                    None => continue,
                }
            }
            let chunk = self.body.next().await?.unwrap().into_data().unwrap();
            self.buffer.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    pub(crate) async fn all(mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.next().await {
            frames.push(frame);
        }
        frames
    }
}
