//! An image builder in memory.

use async_trait::async_trait;

use super::host::{BuiltImage, MemoryHost};
use crate::context::Context;
use crate::domain::Image;
use crate::error::{Error, Kind, Result};
use crate::fingerprint::Fingerprint;
use crate::image::{BuildKey, BuildRequest, ImageBuilder, StoredImage};
use crate::logs::LogSource;
use crate::runtime::Selector;

/// Builds images on a [`MemoryHost`], as the [`Script`](super::Script) of their tree says.
#[derive(Clone, Debug)]
pub struct MemoryBuilder {
    host: MemoryHost,
}

/// Counts a running build until it is dropped, however it ends.
struct Running<'a>(&'a MemoryHost);

impl<'a> Running<'a> {
    fn begin(host: &'a MemoryHost) -> (Self, u64) {
        let mut state = host.locked();
        state.builds_running += 1;
        state.builds_begun += 1;
        (Self(host), state.builds_begun)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.locked().builds_running -= 1;
    }
}

impl MemoryBuilder {
    /// A builder on `host`.
    #[must_use]
    pub fn new(host: MemoryHost) -> Self {
        Self { host }
    }

    fn found(&self, key: &BuildKey) -> Option<Image> {
        let state = self.host.locked();
        state.images.values().find(|built| built.key == *key).map(|built| built.image.clone())
    }
}

#[async_trait]
impl ImageBuilder for MemoryBuilder {
    async fn key(&self, context: &Context, request: &BuildRequest) -> Result<BuildKey> {
        self.host.admit(context, "memory.build_key")?;
        let digests = vec![None; request.plan.base_images.len()];
        Ok(BuildKey::of(request, "memory", &digests))
    }

    async fn find(&self, context: &Context, key: &BuildKey) -> Result<Option<Image>> {
        self.host.admit(context, "memory.find_image")?;
        Ok(self.found(key))
    }

    async fn build(&self, context: &Context, request: &BuildRequest, key: &BuildKey) -> Result<Image> {
        self.host.admit(context, "memory.build")?;
        if !request.no_cache
            && let Some(image) = self.found(key)
        {
            return Ok(image);
        }
        let script = self.host.locked().scripts.get(&request.tree.id()).cloned().unwrap_or_default();
        let (running, number) = Running::begin(&self.host);
        for line in &script.build_output {
            context.log(LogSource::Build, line.clone());
        }
        let limit = request.limits.total;
        context.sleep("memory.build", script.build_time.min(limit)).await?;
        if script.build_time > limit {
            return Err(Error::new(Kind::BuildFailed, "memory.build", "the build took longer than it may")
                .code("build_limit")
                .evidence(script.build_output));
        }
        if let Some(failure) = &script.build_failure {
            return Err(Error::from(failure));
        }
        let mut digest = Fingerprint::new("memory-image/1");
        digest.text(&key.0).number(number);
        let image = Image { digest: format!("sha256:{}", digest.finish()), port: script.exposes };
        let built = BuiltImage {
            key: key.clone(),
            org: request.org.clone(),
            app: request.app.clone(),
            image: image.clone(),
            program: script.program,
        };
        let mut state = self.host.locked();
        // What was built under the key before stays an image, but is found no more: as a moved tag.
        if let Some(earlier) = state.images.values_mut().find(|built| built.key == *key) {
            earlier.key = BuildKey(String::new());
        }
        state.images.insert(image.digest.clone(), built);
        drop(state);
        drop(running);
        Ok(image)
    }

    async fn remove(&self, context: &Context, digest: &str) -> Result<()> {
        self.host.admit(context, "memory.remove_image")?;
        let mut state = self.host.locked();
        if state.held_images.contains(digest)
            || state.containers.values().any(|container| container.digest == digest)
        {
            return Err(Error::new(Kind::Conflict, "memory.remove_image", "a container uses this image")
                .code("in_use"));
        }
        state.images.remove(digest);
        Ok(())
    }

    async fn list(&self, context: &Context, selector: &Selector) -> Result<Vec<StoredImage>> {
        self.host.admit(context, "memory.list_images")?;
        let state = self.host.locked();
        let selected = state.images.values().filter(|built| {
            selector.org.as_ref().is_none_or(|org| built.org == *org)
                && selector.app.as_ref().is_none_or(|app| built.app == *app)
        });
        let stored = selected.map(|built| StoredImage {
            org: built.org.clone(),
            app: built.app.clone(),
            digest: built.image.digest.clone(),
        });
        Ok(stored.collect())
    }

    /// Its builds keep nothing.
    async fn prune(&self, context: &Context, _keep_bytes: u64) -> Result<u64> {
        self.host.admit(context, "memory.prune")?;
        Ok(0)
    }
}
