//! A registry of container images with one image in it, which can be away at first.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener as Reserved};
use std::process::Command;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::docker;

/// There is one manifest, under its tag and its digest.
const MANIFESTS: &str = "/v2/base/manifests/";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Nobody listens at its address until it [comes back](Self::come_back).
pub struct Registry {
    at: SocketAddr,
    /// Everything that it has, by path.
    answers: Arc<BTreeMap<String, (&'static str, Bytes)>>,
}

impl Registry {
    /// One that has an image of the engine's as `base:1`.
    pub fn away(image: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let status = Command::new(program).args(arguments).current_dir(folder.path()).status().unwrap();
            assert!(status.success(), "{program} {arguments:?}");
        };
        run("docker", &["save", "--output", "image.tar", image]);
        run("tar", &["--extract", "--file", "image.tar"]);
        let read = |path: &str| Bytes::from(std::fs::read(folder.path().join(path)).unwrap());
        let saved: Value = serde_json::from_slice(&read("manifest.json")).unwrap();
        let path_of = |value: &Value| value.as_str().unwrap().to_owned();
        let configuration = read(&path_of(&saved[0]["Config"]));
        let configuration_digest = docker(&["inspect", "--format", "{{.Id}}", image]).remove(0);
        let described: Value = serde_json::from_slice(&configuration).unwrap();
        let blob = |digest: &str| format!("/v2/base/blobs/{digest}");
        let mut answers = BTreeMap::new();
        answers.insert("/v2/".to_owned(), ("application/json", Bytes::from_static(b"{}")));
        let mut layers = Vec::new();
        // They are not compressed: a layer's digest is that of what it holds.
        let digests = described["rootfs"]["diff_ids"].as_array().unwrap();
        for (path, digest) in saved[0]["Layers"].as_array().unwrap().iter().zip(digests) {
            let (bytes, digest) = (read(&path_of(path)), path_of(digest));
            layers.push(json!({
                "mediaType": "application/vnd.docker.image.rootfs.diff.tar",
                "size": bytes.len(),
                "digest": digest,
            }));
            answers.insert(blob(&digest), ("application/octet-stream", bytes));
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.docker.container.image.v1+json",
                "size": configuration.len(),
                "digest": configuration_digest,
            },
            "layers": layers,
        });
        answers.insert(blob(&configuration_digest), ("application/octet-stream", configuration));
        answers.insert(MANIFESTS.to_owned(), (MANIFEST, Bytes::from(manifest.to_string())));
        let at = Reserved::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        Self { at, answers: Arc::new(answers) }
    }

    /// What a Dockerfile calls its image.
    pub fn image(&self) -> String {
        format!("{}/base:1", self.at)
    }

    /// From now on it answers.
    pub async fn come_back(&self) {
        let listener = TcpListener::bind(self.at).await.unwrap();
        let answers = self.answers.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let answers = answers.clone();
                let service = service_fn(move |request: Request<Incoming>| {
                    let answer = answer(&answers, &request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
    }
}

fn answer(
    answers: &BTreeMap<String, (&'static str, Bytes)>,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let path = if path.starts_with(MANIFESTS) { MANIFESTS } else { path };
    let Some((kind, bytes)) = answers.get(path) else {
        return Response::builder().status(StatusCode::NOT_FOUND).body(Full::default()).unwrap();
    };
    let body = if request.method() == Method::HEAD { Bytes::new() } else { bytes.clone() };
    let response = Response::builder().header(CONTENT_TYPE, *kind).header(CONTENT_LENGTH, bytes.len());
    response.body(Full::new(body)).unwrap()
}
