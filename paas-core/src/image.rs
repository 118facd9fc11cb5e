//! The trait of image builders.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::domain::{AppId, DeploymentId, Image, OrgId};
use crate::error::Result;
use crate::fingerprint::Fingerprint;
use crate::git::SourceTree;
use crate::plan::{BuildPlan, Dockerfile};
use crate::runtime::Selector;

/// What makes two builds the same: org, app, tree, Dockerfile, platform and the base images' digests. Never secrets.
///
/// The app is part of it so that each image has one owner: removing an app's images takes none from another.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildKey(pub String);

impl BuildKey {
    /// The key of a request on `platform` (`linux/amd64`), with the digest of each base image of its plan in
    /// order; a base image that nobody has yet has none.
    #[must_use]
    pub fn of(request: &BuildRequest, platform: &str, base_digests: &[Option<String>]) -> Self {
        let mut fingerprint = Fingerprint::new("build-key/1");
        fingerprint.text(request.org.as_str()).text(request.app.as_str());
        fingerprint.text(request.tree.id().as_str()).text(platform);
        fingerprint.text(request.plan.dockerfile.text());
        if let Dockerfile::Generated { files, .. } = &request.plan.dockerfile {
            fingerprint.number(files.len() as u64);
            for (path, text) in files {
                fingerprint.text(path).text(text);
            }
        }
        for (name, digest) in request.plan.base_images.iter().zip(base_digests) {
            fingerprint.text(name).text(digest.as_deref().unwrap_or_default());
        }
        Self(fingerprint.finish())
    }
}

/// What a build may use. The defaults are the contract's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildLimits {
    /// How long it may take in all.
    pub total: Duration,
    /// How long it may be silent.
    pub silence: Duration,
    /// How many bytes of log are kept; the rest is counted.
    pub log_bytes: u64,
}

impl Default for BuildLimits {
    fn default() -> Self {
        Self {
            total: Duration::from_secs(15 * 60),
            silence: Duration::from_secs(5 * 60),
            log_bytes: 16 * 1024 * 1024,
        }
    }
}

/// An image that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// Whose it is.
    pub org: OrgId,
    /// The app that it was built for.
    pub app: AppId,
    /// Its content digest.
    pub digest: String,
}

/// What to build.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// Whose it is.
    pub org: OrgId,
    /// For which app.
    pub app: AppId,
    /// In which operation.
    pub deployment: DeploymentId,
    /// The files.
    pub tree: Arc<dyn SourceTree>,
    /// How.
    pub plan: BuildPlan,
    /// Do not use what earlier builds left.
    pub no_cache: bool,
    /// What it may use.
    pub limits: BuildLimits,
}

/// Builds images.
///
/// # Flow
/// `key` names the result, `find` looks whether it is there, `build` makes it. Output and progress go to the
/// context's log as they come.
///
/// # Guarantees
/// - An image is found by its key only if a build with that key succeeded, for the same app.
/// - When `build` returns, for whatever reason, no process of it runs any more.
/// - A failure says whose fault it is: the user's (`BuildFailed`, with the last lines as evidence; the code
///   `build_limit` when it broke a limit), the registry's or a package index's (upstream), or the engine's.
///
/// # Assumptions
/// The engine is this platform's own to build on; images that do not carry its label are never touched.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ImageBuilder: Debug + Send + Sync + 'static {
    /// The key of a request. Reads the base images' digests, so that their security updates arrive.
    async fn key(&self, context: &Context, request: &BuildRequest) -> Result<BuildKey>;

    /// The image that was built under a key, if it is still there.
    async fn find(&self, context: &Context, key: &BuildKey) -> Result<Option<Image>>;

    /// Builds, or answers the image that is there already unless the request says `no_cache`.
    async fn build(&self, context: &Context, request: &BuildRequest, key: &BuildKey) -> Result<Image>;

    /// Removes the image of a digest with its labels and tags. Removing what is absent succeeds.
    ///
    /// # Errors
    /// `Conflict` with the code `in_use` while a container uses it.
    async fn remove(&self, context: &Context, digest: &str) -> Result<()>;

    /// The images that were built, and are still there.
    async fn list(&self, context: &Context, selector: &Selector) -> Result<Vec<StoredImage>>;

    /// Has what builds keep to be faster the next time take at most `keep_bytes`, the least used going first. Answers
    /// how many bytes came free. Images stay.
    async fn prune(&self, context: &Context, keep_bytes: u64) -> Result<u64>;
}
