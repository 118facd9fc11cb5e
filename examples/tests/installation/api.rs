//! A client of the server's API.

use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::Method;
use hyper::body::Bytes;
use hyper::http::request::Builder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use paas_core::GitUrl;
use serde_json::{Value, json};

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(90);

/// What a server answers. It may be gone.
#[derive(Clone)]
pub struct Api {
    address: String,
    token: String,
}

/// Something to ask of a server, as often as it takes: it is done once.
pub struct Request {
    pub method: Method,
    pub path: String,
    pub body: Value,
    /// What tells it from others.
    pub key: u32,
}

impl Api {
    pub fn new(address: String, token: String) -> Self {
        Self { address, token }
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        self.send(self.request(&method, path), body).await.unwrap()
    }

    /// Asks for something; `None` if the server went away.
    pub async fn ask(&self, request: &Request) -> Option<(u16, Value)> {
        let Request { method, path, body, key } = request;
        let builder = self.request(method, path).header("idempotency-key", format!("request-{key}"));
        self.send(builder, body.to_string()).await
    }

    fn request(&self, method: &Method, path: &str) -> Builder {
        hyper::Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
    }

    async fn send(&self, request: Builder, body: String) -> Option<(u16, Value)> {
        let (status, bytes) = self.send_for_bytes(request, body).await?;
        Some((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    async fn send_for_bytes(&self, request: Builder, body: String) -> Option<(u16, Bytes)> {
        let request = request.body(Full::<Bytes>::from(body)).unwrap();
        let answer = Client::builder(TokioExecutor::new()).build_http().request(request).await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.into_body().collect().await.ok()?.to_bytes()))
    }

    /// What a path answers in plain text.
    pub async fn text(&self, path: &str) -> String {
        let (_, bytes) = self.send_for_bytes(self.request(&Method::GET, path), String::new()).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    pub async fn newest_deployment(&self, app: &str) -> String {
        let page =
            self.call(Method::GET, &format!("/v1/apps/{app}/deployments?limit=1"), Value::Null).await.1;
        page["items"][0]["id"].as_str().unwrap_or_else(|| panic!("{page}")).to_owned()
    }

    /// Creates an app; answers its id and its first deployment's.
    pub async fn create(&self, name: &str, repository: &GitUrl) -> (String, String) {
        let wanted = json!({ "name": name, "repository": repository.as_str() });
        let (status, app) = self.call(Method::POST, "/v1/apps", wanted).await;
        assert_eq!(status, 201, "{app}");
        (app["id"].as_str().unwrap().to_owned(), app["deployment"]["id"].as_str().unwrap().to_owned())
    }

    /// Starts an operation; answers its id.
    pub async fn act(&self, method: Method, path: &str) -> String {
        let (status, operation) = self.call(method, path, json!({})).await;
        assert_eq!(status, 202, "{operation}");
        operation["id"].as_str().unwrap().to_owned()
    }

    pub async fn deployment(&self, id: &str) -> Value {
        self.call(Method::GET, &format!("/v1/deployments/{id}"), Value::Null).await.1
    }

    /// Waits until the deployment is at one of these steps.
    pub async fn reach(&self, id: &str, steps: &[&str]) {
        let until = Instant::now() + PATIENCE;
        loop {
            let deployment = self.deployment(id).await;
            assert!(deployment["settled_at"].is_null(), "it ended before {steps:?}: {deployment}");
            if deployment["step"].as_str().is_some_and(|step| steps.contains(&step)) {
                return;
            }
            assert!(Instant::now() < until, "it never came to {steps:?}: {deployment}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    pub async fn settle(&self, id: &str) -> Value {
        let until = Instant::now() + PATIENCE;
        loop {
            let (_, waited) = self
                .call(Method::GET, &format!("/v1/deployments/{id}/wait?for=settled&timeout=30"), Value::Null)
                .await;
            if waited["reached"] == json!(true) {
                return self.deployment(id).await;
            }
            assert!(Instant::now() < until, "it never ends: {waited}");
        }
    }
}
