//! Removes images of an app that nobody needs any more.

use std::collections::BTreeSet;

use super::Tending;
use crate::context::Context;
use crate::domain::Release;
use crate::error::Result;
use crate::pipeline::Event;
use crate::records::{PageOptions, Versioned};
use crate::runtime::Selector;
use crate::store::{IndexRange, Page};

/// The code of the builder's error for an image that a container uses.
const IN_USE: &str = "in_use";

impl Tending<'_> {
    /// Keeps the images of the newest releases, the live one's among them: none of an app that is gone.
    pub(super) async fn collect_images(&mut self, context: &Context) -> Result<Result<()>> {
        let services = self.worker.services.clone();
        let images = match services.builder.list(context, &Selector::of_app(&self.org, self.app)).await {
            Ok(images) => images,
            Err(error) => return Ok(Err(error)),
        };
        let kept = match self.status {
            Some(_) if images.len() <= services.settings.images_kept => return Ok(Ok(())),
            Some(_) => self.images_of_releases().await?,
            None => BTreeSet::new(),
        };
        let mut removed = Vec::new();
        let mut failed = Ok(());
        for image in images.into_iter().filter(|image| !kept.contains(&image.digest)) {
            let removal = services.builder.remove(context, &image.digest);
            match self.holding(context, removal).await? {
                Ok(()) => removed.push(image.digest),
                // Somebody runs it. It is not told of: it would be at every look.
                Err(error) if error.reason() == Some(IN_USE) => {}
                Err(error) => {
                    failed = Err(error);
                    break;
                }
            }
        }
        if !removed.is_empty() {
            self.tell(Event::ImagesCollected { images: removed }).await?;
        }
        Ok(failed)
    }

    /// The digests of the images that can be run again.
    async fn images_of_releases(&self) -> Result<BTreeSet<String>> {
        let services = &self.worker.services;
        let of_app = IndexRange::starting_with(format!("{}/", self.app));
        let newest = PageOptions { descending: true, limit: services.settings.images_kept, cursor: None };
        let newest: Page<Versioned<Release>> =
            services.records().scan(&self.lease.scope, "app", of_app, newest).await?;
        Ok(newest.items.into_iter().map(|release| release.value.image.digest).collect())
    }
}
