//! What an app is wished to be once an operation ended without having done what was asked.

use crate::domain::{App, AppState, AppStatus, DeploymentSpec, DesiredState, OperationKind, Release};
use crate::error::Result;
use crate::records::{self, Records, Versioned, release_id};
use crate::store::{Expect, Scope, Write};

/// The change of the app's record that takes a wish back with its operation, if one is needed. `status` is the app's
/// without the operation.
///
/// The app is then wished to be what it is, or what the operations that still wait make of it. Without this, an app
/// whose start failed would count as running, and one whose rollback failed would restart with the old release's
/// configuration.
pub(crate) async fn take_back(
    records: &Records,
    scope: &Scope,
    spec: &DeploymentSpec,
    status: &AppStatus,
) -> Result<Option<Write>> {
    let app: Option<Versioned<App>> = records.get(scope, spec.app.as_str()).await?;
    let Some(Versioned { version, value: app }) = app else { return Ok(None) };
    let mut wished = app.clone();
    wished.desired = match status.state {
        AppState::Running => DesiredState::Running,
        AppState::Stopped => DesiredState::Stopped,
        _ => wished.desired,
    };
    let mut is_config_kept = false;
    for id in status.active.iter().chain(&status.queue) {
        let waiting: Option<Versioned<DeploymentSpec>> = records.get(scope, id.as_str()).await?;
        let Some(waiting) = waiting else { continue };
        wished.desired = waiting.value.kind.desired().unwrap_or(wished.desired);
        is_config_kept |= waiting.value.kind.serves() && waiting.value.config == spec.config;
    }
    // Somebody may have changed it since, or what waits was accepted with it.
    let is_own_config = spec.kind == OperationKind::Rollback && app.config == spec.config && !is_config_kept;
    if let Some(live) = status.live.filter(|_| is_own_config)
        && let Some(release) = records.get::<Release>(scope, &release_id(&spec.app, live)).await?
    {
        wished.config = release.value.config;
    }
    if wished == app {
        return Ok(None);
    }
    records::update(&wished, Expect::Version(version)).map(Some)
}
