//! Instances behind the proxy and clients before it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use paas_core::{
    AppId, Context, DeploymentId, Generation, Host, Ids, Ingress, InstanceName, RandomIds, Route,
    RouteTarget, SystemClock,
};
use paas_proxy::{Proxy, ProxyConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

pub(crate) fn context() -> Context {
    Context::new(Arc::new(SystemClock::new())).with_budget(Duration::from_secs(30))
}

pub(crate) fn config() -> ProxyConfig {
    ProxyConfig { listen: SocketAddr::from(([127, 0, 0, 1], 0)), workers: 2, ..ProxyConfig::default() }
}

pub(crate) async fn start(config: ProxyConfig) -> Arc<Proxy> {
    Arc::new(Proxy::start(config, Arc::new(SystemClock::new())).await.unwrap())
}

pub(crate) fn host(text: &str) -> Host {
    text.parse().unwrap()
}

pub(crate) fn name() -> InstanceName {
    let ids = RandomIds::new(SystemClock::new());
    let ids: &dyn Ids = &ids;
    InstanceName::of(&DeploymentId::generate(ids), 0)
}

pub(crate) fn route(host: &Host, targets: &[RouteTarget]) -> Route {
    let ids = RandomIds::new(SystemClock::new());
    Route { host: host.clone(), app: AppId::generate(&ids), targets: targets.to_vec() }
}

/// Routes `host` to one target.
pub(crate) async fn publish(ingress: &dyn Ingress, host: &Host, target: &RouteTarget, generation: u64) {
    let route = route(host, std::slice::from_ref(target));
    ingress.publish(&context(), &route, Generation(generation)).await.unwrap();
}

/// A proxy with one instance behind `app.localhost`.
pub(crate) async fn one_app() -> (Arc<Proxy>, Instance) {
    let (proxy, instance) = (start(config()).await, Instance::start(name()).await);
    publish(&*proxy, &host("app.localhost"), &instance.target(), 1).await;
    (proxy, instance)
}

type Body = BoxBody<Bytes, hyper::Error>;

/// A program that answers by path: `/` its name, `/hold` its name once it is let go, `/headers` what it was sent,
/// `/echo` the body as it comes, `/collect` once it has all of it, `/bytes/N` so many, `/chunks` what the test sends, `/status/N` a status, `/upgrade` another protocol.
#[derive(Clone)]
pub(crate) struct Instance {
    pub(crate) name: InstanceName,
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    listening: Arc<tokio::task::AbortHandle>,
}

struct Shared {
    name: InstanceName,
    held: mpsc::UnboundedSender<Held>,
    arrivals: tokio::sync::Mutex<mpsc::UnboundedReceiver<Held>>,
    chunks: Mutex<Option<mpsc::Receiver<Bytes>>>,
}

/// A request that the instance has; dropping it lets the instance answer.
pub(crate) struct Held {
    _answer: tokio::sync::oneshot::Sender<()>,
}

impl Instance {
    pub(crate) async fn start(name: InstanceName) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (held, arrivals) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            name: name.clone(),
            held,
            arrivals: tokio::sync::Mutex::new(arrivals),
            chunks: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let listening = tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                let service = service_fn(move |request| answer(Arc::clone(&shared), request));
                let connection =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tcp), service);
                tokio::spawn(connection.with_upgrades());
            }
        });
        Self { name, address, shared, listening: Arc::new(listening.abort_handle()) }
    }

    /// Takes no more connections.
    pub(crate) fn stop(&self) {
        self.listening.abort();
    }

    pub(crate) fn target(&self) -> RouteTarget {
        RouteTarget { instance: self.name.clone(), address: self.address }
    }

    /// Waits until a request for `/hold` has arrived.
    pub(crate) async fn held(&self) -> Held {
        self.shared.arrivals.lock().await.recv().await.unwrap()
    }

    /// What the next request for `/chunks` is answered with.
    pub(crate) fn chunks(&self) -> mpsc::Sender<Bytes> {
        let (sender, receiver) = mpsc::channel(16);
        *self.shared.chunks.lock().unwrap() = Some(receiver);
        sender
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    Ok(match path.as_str() {
        "/hold" => {
            let (sender, released) = tokio::sync::oneshot::channel();
            shared.held.send(Held { _answer: sender }).unwrap();
            let _ = released.await;
            text(shared.name.as_str())
        }
        "/headers" => {
            let mut lines = format!("{} {:?}\n", request.uri(), request.version());
            for (name, value) in request.headers() {
                lines += &format!("{name}: {}\n", value.to_str().unwrap());
            }
            text(&lines)
        }
        "/collect" => {
            let collected = request.into_body().collect().await;
            text(if collected.is_ok() { "whole" } else { "broken" })
        }
        "/echo" => Response::new(request.into_body().boxed()),
        "/chunks" => {
            let mut receiver = shared.chunks.lock().unwrap().take().unwrap();
            let chunks = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
            Response::new(BodyExt::boxed(StreamBody::new(chunks.map(|chunk| Ok(Frame::data(chunk))))))
        }
        "/upgrade" => {
            tokio::spawn(async move {
                let upgraded = hyper::upgrade::on(request).await.unwrap();
                let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded));
                write.write_all(b"hello\n").await.unwrap();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
            let mut response = text("");
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response.headers_mut().insert("connection", "Upgrade".parse().unwrap());
            response.headers_mut().insert("upgrade", "echo".parse().unwrap());
            response
        }
        other => match (other.strip_prefix("/status/"), other.strip_prefix("/bytes/")) {
            (None, Some(length)) => text(&"x".repeat(length.parse().unwrap())),
            (Some(status), _) => {
                let mut response = text("");
                *response.status_mut() = status.parse().unwrap();
                response
            }
            (None, None) => text(shared.name.as_str()),
        },
    })
}

fn text(text: &str) -> Response<Body> {
    Response::new(Full::new(Bytes::copy_from_slice(text.as_bytes())).map_err(|never| match never {}).boxed())
}

/// A client's connection, spoken to in raw bytes.
pub(crate) struct Client(pub(crate) BufReader<TcpStream>);

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: String,
}

impl Client {
    pub(crate) async fn connect(proxy: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(proxy).await.unwrap()))
    }

    pub(crate) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    pub(crate) async fn get(&mut self, host: &str, path: &str) -> Option<Answer> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        self.answer().await
    }

    /// The head of the next answer.
    pub(crate) async fn head(&mut self) -> Option<Answer> {
        let mut line = String::new();
        self.0.read_line(&mut line).await.ok()?;
        let status = line.split(' ').nth(1)?.parse().ok()?;
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).await.ok()?;
            let line = line.trim_end();
            if line.is_empty() {
                return Some(Answer { status, headers, body: String::new() });
            }
            let (name, value) = line.split_once(':')?;
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }

    /// The next answer; none if the connection ends before its end.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        let mut answer = self.head().await?;
        let mut body = Vec::new();
        if let Some(length) = answer.headers.get("content-length") {
            body.resize(length.parse().ok()?, 0);
            self.0.read_exact(&mut body).await.ok()?;
        } else if answer.headers.get("transfer-encoding").is_some_and(|encoding| encoding == "chunked") {
            while let Some(chunk) = self.chunk().await? {
                body.extend(chunk);
            }
        }
        answer.body = String::from_utf8(body).ok()?;
        Some(answer)
    }

    /// The next chunk: `Some(None)` is the last one.
    pub(crate) async fn chunk(&mut self) -> Option<Option<Vec<u8>>> {
        let mut line = String::new();
        self.0.read_line(&mut line).await.ok()?;
        let length = usize::from_str_radix(line.trim_end(), 16).ok()?;
        let mut chunk = vec![0; length + 2];
        self.0.read_exact(&mut chunk).await.ok()?;
        chunk.truncate(length);
        Some((length > 0).then_some(chunk))
    }

    /// True once the proxy has closed the connection.
    pub(crate) async fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]).await, Ok(0) | Err(_))
    }
}

/// One request on a connection of its own.
pub(crate) async fn get(proxy: SocketAddr, host: &str, path: &str) -> Option<Answer> {
    Client::connect(proxy).await.get(host, path).await
}
