//! A Dockerfile in the repository.

use async_trait::async_trait;
use paas_core::{BuildPlan, Result};

use super::{Recipe, Verdict};
use crate::source::Source;
use crate::{BaseImages, read_dockerfile};

const PATH: &str = "Dockerfile";

/// Builds with the repository's own Dockerfile.
#[derive(Debug)]
pub(super) struct Dockerfile;

#[async_trait]
impl Recipe for Dockerfile {
    fn looks_for(&self) -> &'static str {
        "a Dockerfile"
    }

    async fn judge(&self, source: &Source, _images: &BaseImages) -> Result<Verdict> {
        let Some(text) = source.manifest(PATH).await? else { return Ok(Verdict::Foreign) };
        let summary = read_dockerfile(&text)?;
        let mut reasons = vec!["the repository has a Dockerfile, which wins over everything else".to_owned()];
        if let Some(port) = summary.port {
            reasons.push(format!("port {}, because the Dockerfile exposes it", port.number()));
        }
        Ok(Verdict::Fits(Box::new(BuildPlan {
            recipe: "dockerfile".to_owned(),
            version: None,
            framework: None,
            reasons,
            install: Vec::new(),
            build: Vec::new(),
            start: Vec::new(),
            port: summary.port,
            dockerfile: paas_core::Dockerfile::Repository { path: PATH.to_owned(), text },
            base_images: summary.base_images,
        })))
    }
}
