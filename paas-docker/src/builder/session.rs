//! The side channel of a build: the engine's BuildKit asks here for secrets while it builds.
//!
//! An HTTP/1.1 request to `/session` on the engine is upgraded to HTTP/2 with the roles turned round: the engine is
//! the client, and speaks gRPC. The client library's own session serves no secrets beside its progress.

use std::collections::BTreeMap;
use std::sync::Arc;

use ::http::{Method, Request, StatusCode, header};
use async_trait::async_trait;
use bollard_buildkit_proto::health::health_check_response::ServingStatus;
use bollard_buildkit_proto::health::health_server::{Health, HealthServer};
use bollard_buildkit_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_server::{Secrets, SecretsServer};
use bollard_buildkit_proto::moby::buildkit::secrets::v1::{GetSecretRequest, GetSecretResponse};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use http_body_util::Empty;
use hyper_util::rt::TokioExecutor;
use hyper_util::service::TowerToHyperService;
use paas_core::{Error, Kind, Result};
use tonic::service::Routes;
use tonic::{Response, Status};

use crate::engine::Endpoint;
use crate::http;

/// The secrets of a build by their ids. Never part of an image, a layer or a cache key.
pub(super) type SecretFiles = BTreeMap<&'static str, Bytes>;

const OPERATION: &str = "docker.build_session";
/// The calls that the engine is told it may make.
const METHODS: [&str; 2] = ["/grpc.health.v1.Health/Check", "/moby.buildkit.secrets.v1.Secrets/GetSecret"];

/// Opens a session of this id and answers what serves it. It lives while that is polled, and ends with it.
pub(super) async fn open(
    endpoint: Endpoint,
    id: String,
    secrets: SecretFiles,
) -> Result<BoxFuture<'static, ()>> {
    let (mut sender, connection) = http::connect(&endpoint, OPERATION).await?;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri("/session")
        .header(header::HOST, "docker")
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "h2c")
        .header("X-Docker-Expose-Session-Uuid", id)
        .header("X-Docker-Expose-Session-Name", "paas");
    for method in METHODS {
        request = request.header("X-Docker-Expose-Session-Grpc-Method", method);
    }
    let request = request.body(Empty::new()).map_err(paas_core::error::map(OPERATION))?;
    let mut connection = connection.with_upgrades().boxed().fuse();
    let response = http::drive(&mut connection, sender.send_request(request)).await;
    let response = response.map_err(http::unavailable(OPERATION))?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(no_buildkit().context("status", response.status()));
    }
    let upgraded = http::drive(&mut connection, hyper::upgrade::on(response)).await;
    let upgraded = upgraded.map_err(http::unavailable(OPERATION))?;
    let routes =
        Routes::new(HealthServer::new(Healthy)).add_service(SecretsServer::new(Served(Arc::new(secrets))));
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(upgraded, TowerToHyperService::new(routes));
    let serving = async move {
        // It ends when the engine, or the build here, is done with it.
        if let Err(error) = serving.await {
            tracing::debug!(%error, "the session of a build ended");
        }
    };
    Ok(serving.boxed())
}

fn no_buildkit() -> Error {
    Error::new(Kind::Unsupported, OPERATION, "this container engine has no BuildKit")
        .hint("use Docker Engine 20.10 or newer")
}

/// The engine drops a session that does not answer this.
#[derive(Debug)]
struct Healthy;

#[async_trait]
impl Health for Healthy {
    type WatchStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        _request: tonic::Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving.into() }))
    }

    async fn list(
        &self,
        _request: tonic::Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        Err(Status::unimplemented("not offered"))
    }

    async fn watch(
        &self,
        _request: tonic::Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("not offered"))
    }
}

struct Served(Arc<SecretFiles>);

#[async_trait]
impl Secrets for Served {
    async fn get_secret(
        &self,
        request: tonic::Request<GetSecretRequest>,
    ) -> Result<Response<GetSecretResponse>, Status> {
        match self.0.get(request.get_ref().id.as_str()) {
            Some(data) => Ok(Response::new(GetSecretResponse { data: data.to_vec() })),
            None => Err(Status::not_found("there is no such secret")),
        }
    }
}
