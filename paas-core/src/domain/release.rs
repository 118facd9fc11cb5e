//! Releases: what was built, with the configuration it ran with.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AppId, CommitId, Config, DeploymentId, OrgId, Port};

/// The number of a release within its app: v1, v2 and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseNumber(pub u64);

impl fmt::Display for ReleaseNumber {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "v{}", self.0)
    }
}

/// A container image, by what it is and not by what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// The image's content digest (`sha256:…`): it names these bytes for ever.
    pub digest: String,
    /// The port that the image says it listens on (`EXPOSE`), where it names exactly one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<Port>,
}

/// The immutable result of a deployment that went live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The owner.
    pub org: OrgId,
    /// The app.
    pub app: AppId,
    /// Its number within the app.
    pub number: ReleaseNumber,
    /// The operation that made it.
    pub deployment: DeploymentId,
    /// The commit it was built from.
    pub commit: CommitId,
    /// The image.
    pub image: Image,
    /// The port its program listens on.
    pub port: Port,
    /// The configuration it runs with.
    pub config: Config,
    /// When it went live.
    pub created_at: Timestamp,
}
