//! What the tests on the real engine share. Everything they make carries the installation `test`.
#![allow(dead_code)] // each test binary uses a part of it

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use paas_core::{
    AppId, BuildLimits, BuildPlan, BuildRequest, CommitId, Context, DeploymentId, Dockerfile, EntryKind,
    Error, Image, ImageBuilder, LogSink, LogWriter, NewLogLine, OrgId, PathFilter, RandomIds, Result,
    Selector, SourceTree, Subnet, SystemClock, TreeEntry, TreeId,
};
use paas_docker::{DockerBuilder, DockerEngine};

pub(crate) const BASE: &str = "paas/static:1";

/// The engine of this machine.
pub(crate) async fn engine() -> DockerEngine {
    let engine = DockerEngine::connect(&context(), "test").await.unwrap_or_else(|error| {
        panic!("these tests need a Docker engine; examples/setup/engine.sh starts one: {error:?}")
    });
    let client = client().await;
    client.inspect_image(BASE).await.unwrap_or_else(|error| {
        panic!("these tests need the image {BASE}; examples/setup/base-images.sh makes it: {error}")
    });
    engine
}

/// A client of the same engine that goes round the adapters.
pub(crate) async fn client() -> bollard::Docker {
    let version = bollard::API_DEFAULT_VERSION;
    let host = std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
    let client = if host.starts_with("unix://") {
        bollard::Docker::connect_with_unix(&host, 60, version)
    } else {
        bollard::Docker::connect_with_http(&host, 60, version)
    };
    client.unwrap().negotiate_version().await.unwrap()
}

pub(crate) fn context() -> Context {
    Context::new(Arc::new(SystemClock::new()))
}

pub(crate) fn ids() -> RandomIds<SystemClock> {
    RandomIds::new(SystemClock::new())
}

pub(crate) fn random() -> u64 {
    paas_core::Ids::random(&ids())
}

/// A small subnet that no other test is likely to have.
pub(crate) fn subnet() -> Subnet {
    let random = random();
    let [second, third, fourth, ..] = random.to_be_bytes();
    Subnet { address: Ipv4Addr::new(10, 200 + second % 50, third, fourth & 0xf0), prefix: 28 }
}

/// A tree in memory. Executable files end with `.sh`.
#[derive(Debug, Default)]
pub(crate) struct Tree(BTreeMap<String, String>);

impl Tree {
    pub(crate) fn of(files: &[(&str, &str)]) -> Arc<Self> {
        Arc::new(Self(files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()))
    }

    fn digest(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        format!("{:040x}", hasher.finish())
    }
}

#[async_trait]
impl SourceTree for Tree {
    fn id(&self) -> TreeId {
        self.digest().parse().unwrap()
    }

    fn commit(&self) -> CommitId {
        self.digest().parse().unwrap()
    }

    async fn entries(&self) -> Result<Arc<Vec<TreeEntry>>> {
        let entry = |(path, text): (&String, &String)| TreeEntry {
            path: path.clone(),
            kind: EntryKind::File { size: text.len() as u64, executable: path.ends_with(".sh") },
        };
        Ok(Arc::new(self.0.iter().map(entry).collect()))
    }

    async fn read(&self, path: &str, max_bytes: u64) -> Result<Option<Bytes>> {
        match self.0.get(path) {
            Some(text) if text.len() as u64 > max_bytes => Err(Error::invalid("test.read", "too large")),
            found => Ok(found.map(|text| Bytes::from(text.clone()))),
        }
    }

    fn archive(&self, include: PathFilter) -> BoxStream<'static, Result<Bytes>> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, text) in self.0.iter().filter(|(path, _)| include.wants(path)) {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(if path.ends_with(".sh") { 0o755 } else { 0o644 });
            builder.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let bytes = Bytes::from(builder.into_inner().unwrap());
        futures::stream::once(async move { Ok(bytes) }).boxed()
    }
}

/// A request to build `tree` by the Dockerfile `text`.
pub(crate) fn request(org: &OrgId, app: &AppId, tree: Arc<dyn SourceTree>, text: &str) -> BuildRequest {
    BuildRequest {
        org: org.clone(),
        app: app.clone(),
        deployment: DeploymentId::generate(&ids()),
        tree,
        plan: BuildPlan {
            recipe: "test".to_owned(),
            version: None,
            framework: None,
            reasons: Vec::new(),
            install: Vec::new(),
            build: Vec::new(),
            start: Vec::new(),
            port: None,
            dockerfile: Dockerfile::Generated { text: text.to_owned(), files: BTreeMap::new() },
            base_images: vec![BASE.to_owned()],
        },
        no_cache: false,
        limits: BuildLimits::default(),
    }
}

/// Keeps the lines that it is given.
#[derive(Debug, Default)]
pub(crate) struct Recorder(Mutex<Vec<String>>);

impl LogWriter for Recorder {
    fn write(&self, line: NewLogLine) {
        self.0.lock().unwrap().push(line.text);
    }
}

impl Recorder {
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

/// A builder with an org, an app and a log of its own.
pub(crate) struct Bench {
    pub(crate) builder: DockerBuilder,
    pub(crate) context: Context,
    pub(crate) log: Arc<Recorder>,
    pub(crate) org: OrgId,
    pub(crate) app: AppId,
}

impl Bench {
    pub(crate) async fn new() -> Self {
        let log = Arc::new(Recorder::default());
        Self {
            builder: DockerBuilder::new(engine().await),
            // Whatever a test waits for comes within this time, or the test fails.
            context: context().with_log(LogSink::to(log.clone())).with_budget(Duration::from_secs(300)),
            log,
            org: OrgId::generate(&ids()),
            app: AppId::generate(&ids()),
        }
    }

    pub(crate) async fn build(&self, files: &[(&str, &str)], dockerfile: &str) -> Result<Image> {
        self.run(&request(&self.org, &self.app, Tree::of(files), dockerfile)).await
    }

    pub(crate) async fn run(&self, request: &BuildRequest) -> Result<Image> {
        let key = self.builder.key(&self.context, request).await?;
        self.builder.build(&self.context, request, &key).await
    }

    pub(crate) async fn clean(&self) {
        for image in self.builder.list(&self.context, &Selector::of_app(&self.org, &self.app)).await.unwrap()
        {
            self.builder.remove(&self.context, &image.digest).await.unwrap();
        }
    }
}

/// True if a process of this machine has `text` among its arguments.
pub(crate) fn is_running(text: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        let arguments = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == text.as_bytes())
    })
}
