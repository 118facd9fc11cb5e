//! The recipes: one file for each way in which an app is built.

mod dockerfile;
mod node;
mod python;
mod static_site;

use std::fmt::Debug;

use async_trait::async_trait;
use paas_core::{BuildPlan, Error, Result};

use crate::BaseImages;
use crate::source::Source;

/// Every recipe, in the order in which they are asked. The first that fits decides.
pub(crate) const RECIPES: &[&dyn Recipe] =
    &[&dockerfile::Dockerfile, &python::Python, &node::Node, &static_site::StaticSite];

/// Knows one way of building an app.
#[async_trait]
pub(crate) trait Recipe: Debug + Send + Sync {
    /// The files by which it recognises an app, for the hint when nothing fits.
    fn looks_for(&self) -> &'static str;

    /// Whether it can build this source, and how.
    ///
    /// # Errors
    /// When the source is its own and a manifest in it is broken: no other recipe is asked then.
    async fn judge(&self, source: &Source, images: &BaseImages) -> Result<Verdict>;
}

/// What a recipe says of a source.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// It builds it so.
    Fits(Box<BuildPlan>),
    /// It is of this kind, but something is missing. Another recipe may still fit; if none does, this is said.
    Unfinished(Error),
    /// It is not of this kind.
    Foreign,
}
