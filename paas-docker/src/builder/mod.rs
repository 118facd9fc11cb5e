//! The image builder.

mod context;
mod failure;
mod ignore;
mod progress;
mod session;
mod watch;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use async_trait::async_trait;
use bollard::models::{ImageInspect, ImageSummary};
use bollard::query_parameters as query;
use bytes::Bytes;
use paas_core::{
    BuildKey, BuildRequest, Context, Error, Fault, Image, ImageBuilder, Kind, OrgId, Port, Result, Retry,
    Selector, StoredImage,
};
use tokio::io::AsyncReadExt;

use crate::engine::{DockerEngine, is_missing, label, refusal};
use paas_plan::{NamedImage, read_dockerfile};

/// Where Debian and its relatives keep the certificate authorities that the machine trusts.
const SYSTEM_CA_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The engine takes no larger secret.
const MAX_CA_BUNDLE_BYTES: u64 = 500 * 1024;

/// Builds images with the BuildKit of a Docker engine.
///
/// The tree goes to the engine as a stream, without what its `.dockerignore` names; progress and output come back
/// as log lines. Steps may mount the secret file `ca`: the certificate authorities that the machine trusts.
/// Cache mounts are kept apart by org.
///
/// # Guarantees
/// When [`build`](ImageBuilder::build) returns because it was cancelled or broke a limit, the engine has
/// confirmed that the build ended: it answers the end of its progress only when no step runs any more. Where the
/// engine did not confirm it, the error has the code `end_unproven`. When the future is dropped instead, the closed
/// connection ends the build within a second.
///
/// [`key`](ImageBuilder::key) reads the digests of the base images that the engine lists. Those that BuildKit pulled by
/// itself are not among them: their updates arrive with the next build that something else causes.
#[derive(Clone, Debug)]
pub struct DockerBuilder {
    engine: DockerEngine,
    ca_bundle: Option<PathBuf>,
}

impl DockerBuilder {
    /// A builder on `engine`, with the system's bundle of certificate authorities where there is one.
    #[must_use]
    pub fn new(engine: DockerEngine) -> Self {
        let bundle = PathBuf::from(SYSTEM_CA_BUNDLE);
        Self { engine, ca_bundle: bundle.exists().then_some(bundle) }
    }

    /// The same with another bundle (PEM), or none.
    #[must_use]
    pub fn with_ca_bundle(self, ca_bundle: Option<PathBuf>) -> Self {
        Self { ca_bundle, ..self }
    }

    async fn secrets(&self) -> Result<session::SecretFiles> {
        const OPERATION: &str = "docker.read_ca_bundle";
        let Some(path) = &self.ca_bundle else { return Ok(session::SecretFiles::new()) };
        let unreadable = |cause| {
            Error::new(Kind::Internal, OPERATION, "the bundle of certificate authorities cannot be read")
                .context("path", path.display())
                .source(cause)
        };
        let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
        let mut bytes = Vec::new();
        file.take(MAX_CA_BUNDLE_BYTES + 1).read_to_end(&mut bytes).await.map_err(unreadable)?;
        if bytes.len() as u64 > MAX_CA_BUNDLE_BYTES {
            return Err(Error::new(
                Kind::Internal,
                OPERATION,
                "the bundle of certificate authorities is too large",
            )
            .context("path", path.display())
            .hint("the engine takes secrets of up to 500 KiB"));
        }
        Ok([("ca", Bytes::from(bytes))].into())
    }

    /// The image of this name or id on the engine, whoever made it; `None` for what cannot be a name at all.
    async fn inspected(&self, context: &Context, name: &str) -> Result<Option<ImageInspect>> {
        const OPERATION: &str = "docker.inspect_image";
        // It becomes part of a path.
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
        if name.is_empty() || name.len() > 512 || name.contains("..") || !name.bytes().all(is_plain) {
            return Ok(None);
        }
        match self.engine.call(context, OPERATION, self.engine.docker().inspect_image(name)).await {
            Ok(image) => Ok(Some(image)),
            // The engine refuses some names with 400: nothing is called that.
            Err(error) if is_missing(&error) || matches!(refusal(&error), Some((400, _))) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Refuses a Dockerfile that takes something from another org's image. It is told no more than that there is
    /// no such image.
    async fn check_images(&self, context: &Context, org: &OrgId, images: &[NamedImage]) -> Result<()> {
        for NamedImage { name, line } in images {
            let Some(image) = self.inspected(context, name).await? else { continue };
            let labels = image.config.and_then(|config| config.labels).unwrap_or_default();
            let is_theirs = match labels.get(label::ORG) {
                Some(owner) => owner == org.as_str() && self.engine.owns(Some(&labels)),
                None => true,
            };
            if !is_theirs {
                let text = format!("Dockerfile, line {line}: there is no image `{name}`");
                return Err(
                    Error::new(Kind::BuildFailed, "docker.check_dockerfile", text).code("dockerfile_refused")
                );
            }
        }
        Ok(())
    }

    fn labels(&self, request: &BuildRequest, key: &BuildKey) -> HashMap<String, String> {
        let labels = [
            (label::INSTALLATION, self.engine.installation()),
            (label::ORG, request.org.as_str()),
            (label::APP, request.app.as_str()),
            (label::BUILD_KEY, &key.0),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
        labels.into()
    }

    /// What all tags of this installation's images begin with.
    fn tag_prefix(&self) -> String {
        format!("paas-{}/", self.engine.installation())
    }

    /// The newest first.
    async fn listed(&self, context: &Context, labels: &[(&str, &str)]) -> Result<Vec<ImageSummary>> {
        let filters = self.engine.filters(labels);
        let options = query::ListImagesOptionsBuilder::new().filters(&filters).build();
        let call = self.engine.docker().list_images(Some(options));
        let mut images = self.engine.call(context, "docker.list_images", call).await?;
        images.sort_by(|one, other| other.created.cmp(&one.created).then_with(|| one.id.cmp(&other.id)));
        Ok(images)
    }

    /// The image with what its configuration says; `None` when it was removed meanwhile.
    async fn described(&self, context: &Context, digest: &str) -> Result<Option<Image>> {
        Ok(self.inspected(context, digest).await?.map(|inspected| describe(digest, &inspected)))
    }
}

fn describe(digest: &str, inspected: &ImageInspect) -> Image {
    let config = inspected.config.as_ref();
    let exposed = config.and_then(|config| config.exposed_ports.as_deref()).unwrap_or_default();
    let port = match exposed {
        [only] => only.strip_suffix("/tcp").and_then(|number| number.parse::<u32>().ok()),
        _ => None,
    };
    Image { digest: digest.to_owned(), port: port.and_then(|number| Port::try_from(number).ok()) }
}

#[async_trait]
impl ImageBuilder for DockerBuilder {
    async fn key(&self, context: &Context, request: &BuildRequest) -> Result<BuildKey> {
        let mut digests = Vec::with_capacity(request.plan.base_images.len());
        for name in &request.plan.base_images {
            digests.push(self.inspected(context, name).await?.and_then(|image| image.id));
        }
        Ok(BuildKey::of(request, &format!("linux/{}", architecture()), &digests))
    }

    async fn find(&self, context: &Context, key: &BuildKey) -> Result<Option<Image>> {
        let images = self.listed(context, &[(label::BUILD_KEY, &key.0)]).await?;
        // The list tells seconds: of two builds within one, only the images themselves know which is the newer.
        for same_second in images.chunk_by(|one, other| one.created == other.created) {
            let mut found = Vec::new();
            for image in same_second {
                if let Some(inspected) = self.inspected(context, &image.id).await? {
                    found.push((inspected.created, describe(&image.id, &inspected)));
                }
            }
            if let Some((_, newest)) = found.into_iter().max_by_key(|(created, _)| *created) {
                return Ok(Some(newest));
            }
        }
        Ok(None)
    }

    async fn build(&self, context: &Context, request: &BuildRequest, key: &BuildKey) -> Result<Image> {
        const OPERATION: &str = "docker.build";
        if !request.no_cache
            && let Some(image) = self.find(context, key).await?
        {
            return Ok(image);
        }
        // Whoever made the plan, the file itself is what is checked.
        let dockerfile = read_dockerfile(request.plan.dockerfile.text())?;
        self.check_images(context, &request.org, &dockerfile.named_images).await?;
        let body =
            context::archive(request.tree.as_ref(), &request.plan.dockerfile, &dockerfile.text).await?;
        let options = query::BuildImageOptionsBuilder::new()
            .dockerfile(context::DOCKERFILE)
            .t(&format!("{}{}:{}", self.tag_prefix(), request.org.suffix(), unguessable(OPERATION)?))
            .nocache(request.no_cache)
            .labels(&self.labels(request, key))
            // Prefixes the id of every cache mount, also of those in users' Dockerfiles.
            .buildargs(&HashMap::from([("BUILDKIT_CACHE_MOUNT_NS", request.org.suffix())]))
            .networkmode("default")
            .build();
        let id = unguessable(OPERATION)?;
        let session = session::open(self.engine.endpoint().clone(), id.clone(), self.secrets().await?);
        let session = context.run(OPERATION, session).await?;
        let digest = watch::run(
            self.engine.clone(),
            context.clone(),
            request.limits.clone(),
            id,
            session,
            options,
            body,
        )
        .await?;
        match self.described(context, &digest).await? {
            Some(image) => Ok(image),
            None => Err(Error::new(Kind::Conflict, OPERATION, "the image was removed while it was built")
                .fault(Fault::Platform)
                .retry(Retry::Transient { after: None })),
        }
    }

    async fn remove(&self, context: &Context, digest: &str) -> Result<()> {
        const OPERATION: &str = "docker.remove_image";
        let Some(inspected) = self.inspected(context, digest).await? else { return Ok(()) };
        if !self.engine.owns(inspected.config.and_then(|config| config.labels).as_ref()) {
            return Ok(());
        }
        let tags = inspected.repo_tags.unwrap_or_default();
        let prefix = self.tag_prefix();
        // By its tags: by its id, the engine would take tags of others along. The last one takes the image.
        let mut names: Vec<_> = tags.iter().filter(|tag| tag.starts_with(&prefix)).cloned().collect();
        if tags.is_empty() {
            names.push(digest.to_owned());
        }
        for name in names {
            let call = self.engine.docker().remove_image(&name, None::<query::RemoveImageOptions>, None);
            match self.engine.effect(context, OPERATION, call).await {
                Err(error) if is_missing(&error) => {}
                Err(error) if matches!(refusal(&error), Some((409, _))) => {
                    return Err(Error::new(Kind::Conflict, OPERATION, "a container uses this image")
                        .code("in_use")
                        .source(error));
                }
                Err(error) => return Err(error),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    async fn list(&self, context: &Context, selector: &Selector) -> Result<Vec<StoredImage>> {
        let mut labels = Vec::new();
        labels.extend(selector.org.as_ref().map(|org| (label::ORG, org.as_str())));
        labels.extend(selector.app.as_ref().map(|app| (label::APP, app.as_str())));
        let images = self.listed(context, &labels).await?;
        Ok(images.into_iter().filter_map(stored).collect())
    }

    async fn prune(&self, context: &Context, keep_bytes: u64) -> Result<u64> {
        const OPERATION: &str = "docker.prune_builds";
        let keep = i64::try_from(keep_bytes).unwrap_or(i64::MAX);
        let options = query::PruneBuildOptionsBuilder::new().all(true).reserved_space(keep).build();
        // Engines before 28 know it by its older name only.
        let docker = self.engine.docker().clone().with_request_modifier(move |mut request| {
            if let Ok(uri) = format!("{}&keep-storage={keep}", request.uri()).parse() {
                *request.uri_mut() = uri;
            }
            request
        });
        let pruned = self.engine.effect(context, OPERATION, docker.prune_build(Some(options)));
        Ok(pruned.await?.space_reclaimed.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default())
    }
}

/// What the list says of an image; nothing of one whose labels are not as this platform writes them.
fn stored(summary: ImageSummary) -> Option<StoredImage> {
    let read = |name| summary.labels.get(name);
    let (org, app) = (read(label::ORG)?.parse().ok()?, read(label::APP)?.parse().ok()?);
    Some(StoredImage { org, app, digest: summary.id })
}

/// This machine's architecture, as images call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// 128 random bits from the operating system, in hexadecimal: whoever learns such a name was told it.
fn unguessable(operation: &'static str) -> Result<String> {
    let mut bytes = [0_u8; 16];
    getrandom::fill(&mut bytes).map_err(paas_core::error::map(operation))?;
    let mut text = String::with_capacity(32);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}
