//! Engines that are not as they should be, played by a few lines on a socket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // test code

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use paas_core::testing::planner::PlannerTree;
use paas_core::{
    AppId, BuildKey, BuildLimits, BuildPlan, BuildRequest, ContainerRuntime, Context, DeploymentId,
    Dockerfile, Fault, ImageBuilder, InstanceName, Kind, OrgId, RandomIds, Result, SystemClock,
};
use paas_docker::{DockerBuilder, DockerEngine, DockerRuntime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

/// What the engine answers to a request whose first line has the text; the connection ends with it.
type Answers = &'static [(&'static str, &'static str)];

const VERSION: (&str, &str) = (
    "/version",
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 34\r\n\r\n{\"Os\":\"linux\",\"ApiVersion\":\"1.41\"}",
);
const MISSING: &str = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

async fn engine(answers: Answers) -> (DockerEngine, Context, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("engine.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let told = Arc::new(tokio::sync::Notify::new());
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let told = told.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap() == 0 {
                        return;
                    }
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let line = text.lines().next().unwrap();
                let answer = answers.iter().chain([&VERSION]).find(|(part, _)| line.contains(part));
                let answer = answer.map_or(MISSING, |(_, answer)| answer);
                if line.contains("/build?") {
                    // Until the limit of the build was broken: then the builder tells the engine to end it.
                    told.notified().await;
                }
                if line.contains("/build/cancel") {
                    told.notify_one();
                }
                stream.write_all(answer.as_bytes()).await.unwrap();
            });
        }
    });
    let context = Context::new(Arc::new(SystemClock::new())).with_budget(Duration::from_secs(60));
    let engine =
        DockerEngine::connect_to(&context, &format!("unix://{}", path.display()), "test").await.unwrap();
    (engine, context, directory)
}

fn request() -> BuildRequest {
    let ids = RandomIds::new(SystemClock::new());
    BuildRequest {
        org: OrgId::generate(&ids),
        app: AppId::generate(&ids),
        deployment: DeploymentId::generate(&ids),
        tree: Arc::new(PlannerTree::new([("a", "b")])),
        plan: BuildPlan {
            recipe: "test".to_owned(),
            version: None,
            framework: None,
            reasons: Vec::new(),
            install: Vec::new(),
            build: Vec::new(),
            start: Vec::new(),
            port: None,
            dockerfile: Dockerfile::Generated { text: "FROM scratch\n".to_owned(), files: BTreeMap::new() },
            base_images: Vec::new(),
        },
        no_cache: true,
        limits: BuildLimits::default(),
    }
}

async fn built(answers: Answers, limits: BuildLimits) -> Result<paas_core::Image> {
    let (engine, context, _directory) = engine(answers).await;
    let request = BuildRequest { limits, ..request() };
    DockerBuilder::new(engine).build(&context, &request, &BuildKey("key".to_owned())).await
}

#[tokio::test]
async fn an_engine_without_buildkit_is_refused() {
    let error = built(&[], BuildLimits::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::Unsupported, Fault::Platform), "{error:?}");
    assert!(error.message().contains("BuildKit") && error.hinted().is_some(), "{error:?}");
}

/// Only the engine's own end of the progress proves that a build ended, not the end of the connection.
#[tokio::test]
async fn a_broken_connection_is_no_proof_that_a_build_ended() {
    const SESSION: (&str, &str) =
        ("/session", "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n");
    const ENDED: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n\
                         5b\r\n{\"errorDetail\":{\"message\":\"failed: context canceled\"},\"error\":\"failed: context canceled\"}\r\n\r\n0\r\n\r\n";
    for (answers, code) in [
        (&[SESSION, ("/build?", "")] as Answers, "end_unproven"),
        (&[SESSION, ("/build?", ENDED)], "build_limit"),
    ] {
        let limits = BuildLimits { silence: Duration::ZERO, ..BuildLimits::default() };
        let error = built(answers, limits).await.unwrap_err();
        assert_eq!(error.reason(), Some(code), "{error:?}");
    }
}

#[tokio::test]
async fn a_failing_engine_is_no_outage_and_a_silent_one_is() {
    const FAILS: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{\"message\":\"oops\"}";
    let ids = RandomIds::new(SystemClock::new());
    let name = InstanceName::of(&DeploymentId::generate(&ids), 0);
    for (answer, kind) in [(FAILS, Kind::Internal), ("", Kind::Unavailable)] {
        let answers: Answers = Box::leak(Box::new([("/containers/", answer)]));
        let (engine, context, _directory) = engine(answers).await;
        let error = DockerRuntime::new(engine).inspect(&context, &name).await.unwrap_err();
        assert_eq!((error.kind(), error.whose()), (kind, Fault::Platform), "{error:?}");
        assert!(error.is_transient(), "{error:?}");
    }
}
