//! Visitors of apps: one request, or a hammering.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

pub type HttpClient = Client<HttpConnector, Empty<Bytes>>;

pub fn client() -> HttpClient {
    Client::builder(TokioExecutor::new()).build(HttpConnector::new())
}

/// One request to an app through the proxy.
pub async fn get(client: &HttpClient, port: u16, name: &str, path: &str) -> Result<(u16, String), String> {
    let request = Request::get(format!("http://127.0.0.1:{port}{path}"))
        .header("host", format!("{name}.localhost:{port}"))
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let answer = client.request(request).await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.map_err(|error| format!("{error:?}"))?.to_bytes();
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Clients that ask an app again and again until they are told to stop, and count what fails.
pub struct Hammer {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    failures: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Hammer {
    /// Each asks 200 times a second.
    pub fn start(port: u16, name: &str, clients: usize) -> Self {
        Self::every(Duration::from_millis(5), port, name, clients)
    }

    /// Each asks once in a period; what it was late with is made up for.
    pub fn every(period: Duration, port: u16, name: &str, clients: usize) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let failures = (0..clients)
            .map(|_| {
                let (stop, answered, name) = (stop.clone(), answered.clone(), name.to_owned());
                tokio::spawn(async move {
                    let (client, mut failures) = (client(), Vec::new());
                    let mut ticks = tokio::time::interval(period);
                    while !stop.load(Ordering::Relaxed) {
                        match get(&client, port, &name, "/").await {
                            Ok((200, _)) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                            Ok((status, body)) => failures.push(format!("{status} {body}")),
                            Err(error) => failures.push(error),
                        }
                        ticks.tick().await;
                    }
                    failures
                })
            })
            .collect();
        Self { stop, answered, failures }
    }

    /// Stops, and answers how many requests were answered and every failure.
    pub async fn stop(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.failures {
            failures.extend(client.await.unwrap());
        }
        (self.answered.load(Ordering::Relaxed), failures)
    }
}
