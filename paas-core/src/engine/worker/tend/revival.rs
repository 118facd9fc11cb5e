//! Brings back what is live where its image is gone: its commit is deployed anew, once.

use futures::TryStreamExt;

use super::Tending;
use crate::domain::{App, DeploymentId, DeploymentSpec, OperationKind, Release, Source};
use crate::engine::Acceptance;
use crate::error::{Error, Result};
use crate::pipeline::Event;
use crate::records::{Versioned, release_id};
use crate::store::IndexRange;

/// How many releases are read at once.
const PAGE: usize = 100;

impl Tending<'_> {
    /// Accepts the deployment that builds the live release's commit again and runs it with the release's configuration.
    /// When there was one before that came to nothing, the next one is a person's: `missing` is what is wrong then.
    pub(super) async fn revive(&mut self, missing: Error) -> Result<Result<()>> {
        let services = self.worker.services.clone();
        let (records, scope) = (services.records(), self.lease.scope.clone());
        let Some(status) = self.status.as_ref().filter(|status| status.value.revival.is_none()) else {
            return Ok(Err(missing));
        };
        let Some(live) = status.value.live else { return Ok(Err(missing)) };
        let release: Option<Versioned<Release>> = records.get(&scope, &release_id(self.app, live)).await?;
        let app: Option<Versioned<App>> = records.get(&scope, self.app.as_str()).await?;
        let (Some(release), Some(app)) = (release, app) else { return Ok(Err(missing)) };
        let (release, app) = (release.value, app.value);
        let id = DeploymentId::generate(services.ids.as_ref());
        let spec = DeploymentSpec {
            id: id.clone(),
            org: self.org.clone(),
            app: self.app.clone(),
            kind: OperationKind::Deploy,
            source: self.source_of(&release, app.source).await?,
            config: release.config,
            from_release: None,
            no_cache: false,
        };
        let Acceptance { writes, append, .. } = Acceptance::of(&services, &spec, services.clock.now())?;
        let event = Event::ImageGone { image: release.image.digest, deployment: id };
        self.tell_with(event, writes, Some(append)).await?;
        Ok(Ok(()))
    }

    /// Where the commit of a release came from. The app may have another source by now, which was never live.
    async fn source_of(&self, release: &Release, present: Source) -> Result<Source> {
        let records = self.worker.services.records();
        let scope = &self.lease.scope;
        let of_app = IndexRange::starting_with(format!("{}/", self.app));
        let mut pages = records.pages::<Release>(scope, "app", of_app, PAGE);
        let mut built_by = None;
        while let Some(page) = pages.try_next().await?
            && built_by.is_none()
        {
            // The first release of an image is the one that was built; those behind it run it again.
            let first = page.into_iter().map(|release| release.value).find(|one| one.image == release.image);
            built_by = first.map(|first| first.deployment);
        }
        let spec: Option<Versioned<DeploymentSpec>> = match built_by {
            Some(deployment) => records.get(scope, deployment.as_str()).await?,
            None => None,
        };
        let source = spec.map_or_else(|| present.clone(), |spec| spec.value.source);
        // A token may have been replaced since.
        let is_same = source.repository == present.repository;
        let token = if is_same { present.token } else { source.token };
        Ok(Source { commit: Some(release.commit.clone()), token, ..source })
    }
}
