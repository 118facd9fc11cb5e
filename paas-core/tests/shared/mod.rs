//! What the tests of builder and runtime share.
#![allow(dead_code)] // each test binary uses a part of it

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use paas_core::{
    AppId, BuildLimits, BuildPlan, BuildRequest, CommitId, DeploymentId, Dockerfile, Env, Image,
    InstanceName, InstanceSpec, OrgId, PathFilter, Placement, Port, RandomIds, Resources, Result, SourceTree,
    Subnet, SystemClock, TreeEntry, TreeId,
};

/// An empty tree with an id of its own.
#[derive(Debug)]
struct Tree(TreeId);

#[async_trait]
impl SourceTree for Tree {
    fn id(&self) -> TreeId {
        self.0.clone()
    }

    fn commit(&self) -> CommitId {
        self.0.as_str().parse().unwrap()
    }

    async fn entries(&self) -> Result<Arc<Vec<TreeEntry>>> {
        Ok(Arc::default())
    }

    async fn read(&self, _path: &str, _max_bytes: u64) -> Result<Option<Bytes>> {
        Ok(None)
    }

    fn archive(&self, _include: PathFilter) -> BoxStream<'static, Result<Bytes>> {
        futures::stream::empty().boxed()
    }
}

/// A request for a tree whose id follows from `content`.
pub(crate) fn request(org: &OrgId, app: &AppId, content: &str) -> BuildRequest {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    let ids = RandomIds::new(SystemClock::new());
    BuildRequest {
        org: org.clone(),
        app: app.clone(),
        deployment: DeploymentId::generate(&ids),
        tree: Arc::new(Tree(format!("{:040x}", hasher.finish()).parse().unwrap())),
        plan: BuildPlan {
            recipe: "test".to_owned(),
            version: None,
            framework: None,
            reasons: Vec::new(),
            install: Vec::new(),
            build: Vec::new(),
            start: Vec::new(),
            port: None,
            dockerfile: Dockerfile::Generated { text: "FROM base".to_owned(), files: Default::default() },
            base_images: vec!["base".to_owned()],
        },
        no_cache: false,
        limits: BuildLimits::default(),
    }
}

/// A container of `image`.
pub(crate) fn spec(image: &Image) -> InstanceSpec {
    let ids = RandomIds::new(SystemClock::new());
    let deployment = DeploymentId::generate(&ids);
    InstanceSpec {
        name: InstanceName::of(&deployment, 0),
        org: OrgId::default_org(),
        app: AppId::generate(&ids),
        deployment,
        image: image.clone(),
        port: Port::DEFAULT,
        env: Env::default(),
        resources: Resources::default(),
        stop_grace: Duration::from_secs(1),
        placement: Placement::Fixed {
            subnet: Subnet { address: Ipv4Addr::new(10, 181, 0, 0), prefix: 24 },
            address: Ipv4Addr::new(10, 181, 0, 2).into(),
        },
    }
}
