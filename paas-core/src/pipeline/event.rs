//! The events of the journals: a persisted format that later versions must read.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::dns::RecordType;
use crate::domain::{
    AppId, AppName, CommitId, DeploymentId, Generation, Host, Image, Instance, InstanceName, OperationKind,
    Port, ReleaseNumber, Step, TreeId,
};
use crate::error::Failure;
use crate::image::BuildKey;
use crate::ingress::Serving;
use crate::store::{Position, StreamId};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Event {
    /// An operation was accepted: the first event of its journal.
    Accepted {
        /// What it does.
        kind: OperationKind,
        /// To which app.
        app: AppId,
    },
    /// A step is about to act.
    Started {
        /// The step.
        step: Step,
        /// The number of the try, from 1. After a crash the step is repeated without another event.
        attempt: u32,
    },
    /// A step did what it should.
    Finished {
        /// The step.
        step: Step,
        /// What came of it.
        output: Output,
        /// How long it worked, in milliseconds of monotonic time; what a process did before it died is not known.
        #[serde(default, skip_serializing_if = "is_zero")]
        busy_millis: u64,
    },
    /// A step failed.
    Failed {
        /// The step.
        step: Step,
        /// The number of the try.
        attempt: u32,
        /// Why.
        failure: Failure,
        /// When and where it goes on; without one the operation is undone.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry: Option<RetryPlan>,
        /// As of [`Finished`](Event::Finished).
        #[serde(default, skip_serializing_if = "is_zero")]
        busy_millis: u64,
    },
    /// The instance's name belongs to something foreign: from here on its substitute of this number is used.
    NameTaken {
        /// The number of the substitute.
        fallback: u32,
    },
    /// Somebody wants the operation to stop.
    CancelRequested {
        /// Why.
        reason: CancelReason,
    },
    /// A step is about to be undone.
    UndoStarted {
        /// The step.
        step: Step,
    },
    /// A step was undone.
    UndoFinished {
        /// The step.
        step: Step,
    },
    /// A step could not be undone: the operation ends failed, and says what is left.
    UndoFailed {
        /// The step.
        step: Step,
        /// Why.
        failure: Failure,
    },
    /// Somebody gave the operation up, as this version can't read its journal. What may be routed is put back, and the
    /// operation ends.
    Abandoned {
        /// How it ends.
        outcome: Outcome,
    },
    /// The operation is over: the last event of its journal.
    Ended {
        /// How.
        outcome: Outcome,
    },
    /// An app was created. In the app's own stream.
    AppCreated {
        /// Its name.
        name: AppName,
    },
    /// An app was changed. In the app's own stream.
    AppChanged {
        /// The fields that changed.
        fields: Vec<String>,
    },
    /// What is there is not what should be, and is about to be put right. In the app's own stream.
    DriftFound {
        /// The instance that it is about.
        instance: InstanceName,
        /// What is wrong.
        drift: Drift,
    },
    /// Something foreign has the name of the live instance, which is about to be made again under another. In the app's
    /// own stream.
    InstanceRenamed {
        /// The name that is taken.
        instance: InstanceName,
        /// The one that it has from here on.
        to: InstanceName,
    },
    /// The live instance was missing or had ended, and runs again. In the app's own stream.
    InstanceRestored {
        /// The instance.
        instance: InstanceName,
    },
    /// The live instance does not run, and the image of its release is gone: the commit is deployed anew, with the release's
    /// configuration. In the app's own stream.
    ImageGone {
        /// The digest of the image.
        image: String,
        /// The deployment that brings it back.
        deployment: DeploymentId,
    },
    /// The live instance has run for long enough to forget that it crashed before. In the app's own stream.
    InstanceSteady {
        /// The instance.
        instance: InstanceName,
    },
    /// What the ingress serves for a host is not what is recorded, and is about to be put right. In the app's own stream.
    RouteDriftFound {
        /// The host.
        host: Host,
        /// What is wrong.
        drift: RouteDrift,
    },
    /// What is in force at the DNS service for an app's host is not what it needs, and is about to be put right. In the app's
    /// own stream.
    DnsDriftFound {
        /// The host.
        host: Host,
        /// The type of the record.
        record_type: RecordType,
        /// What is wrong.
        drift: DnsDrift,
    },
    /// The DNS records of an app's host are what it needs again. In the app's own stream.
    DnsRestored {
        /// The host.
        host: Host,
    },
    /// Images that nobody needs any more were removed. In the app's own stream.
    ImagesCollected {
        /// Their digests.
        images: Vec<String>,
    },
    /// An app was deleted with everything it had. In the app's own stream.
    AppDeleted {
        /// The name that is free again.
        name: AppName,
    },
    /// What this version can't read, as a newer one wrote it. It is shown, and never recorded.
    #[serde(skip_deserializing)]
    Unknown {
        /// Its type; empty if even that can't be read.
        name: String,
    },
}

impl Event {
    /// Reads an event as it is stored. What can't be read is [`Unknown`](Self::Unknown), and no error: the others of its
    /// stream still have their places.
    #[must_use]
    pub fn decode(body: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Tagged {
            #[serde(rename = "type")]
            name: String,
        }
        serde_json::from_slice(body).unwrap_or_else(|error| {
            tracing::debug!(%error, "an event can't be read");
            let name = serde_json::from_slice(body).map_or_else(|_| String::new(), |Tagged { name }| name);
            Self::Unknown { name }
        })
    }

    /// That something is wrong with an instance.
    pub(crate) fn drift(instance: &Instance, drift: Drift) -> Self {
        Self::DriftFound { instance: instance.name.clone(), drift }
    }
}

/// How what is there differs from what should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Drift {
    /// Nobody needs the instance: it is removed.
    Unneeded,
    /// The live instance is not there: it is made again.
    Missing,
    /// The live instance runs, but is not on its network: it is connected again.
    CutOff,
    /// The live instance has another address, where the runtime chooses it: its route follows.
    Moved,
    /// The process of the live instance ended: it is started again after a wait.
    Ended {
        /// With which code.
        code: i64,
        /// True if the kernel ended it for using more memory than it may.
        out_of_memory: bool,
    },
}

impl Drift {
    /// The text of it, as its serialised form has it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unneeded => "unneeded",
            Self::Missing => "missing",
            Self::CutOff => "cut_off",
            Self::Moved => "moved",
            Self::Ended { .. } => "ended",
        }
    }
}

/// How what the ingress serves for a host differs from what is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum RouteDrift {
    /// It serves nothing: the route is published again.
    Missing,
    /// It serves an older route: the recorded one is published again.
    Outdated,
    /// It serves a route that was not published by the app's operations: the recorded one is published as a newer one.
    Elsewhere,
    /// It serves a route of an app that has none: the host is withdrawn.
    Unneeded,
}

impl RouteDrift {
    /// What is wrong where something else is served than the recorded route of this generation.
    pub(crate) fn of(serving: Option<&Serving>, generation: Generation) -> Self {
        match serving {
            None | Some(Serving { route: None, .. }) => Self::Missing,
            Some(serving) if serving.generation < generation => Self::Outdated,
            Some(_) => Self::Elsewhere,
        }
    }

    pub(crate) const ALL: [Self; 4] = [Self::Missing, Self::Outdated, Self::Elsewhere, Self::Unneeded];

    /// The text of it among all kinds of drift.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "route_missing",
            Self::Outdated => "route_outdated",
            Self::Elsewhere => "route_elsewhere",
            Self::Unneeded => "route_unneeded",
        }
    }
}

/// How a DNS record differs from what an app's host needs. It is set again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum DnsDrift {
    /// There is none.
    Missing,
    /// It says something else.
    Changed,
}

impl DnsDrift {
    pub(crate) const ALL: [Self; 2] = [Self::Missing, Self::Changed];

    /// The text of it among all kinds of drift.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "dns_missing",
            Self::Changed => "dns_changed",
        }
    }
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Output {
    /// Of [`Step::Fetch`].
    Fetched {
        /// The commit.
        commit: CommitId,
        /// The tree of the app's root directory.
        tree: TreeId,
    },
    /// Of [`Step::Plan`].
    Planned {
        /// How it is built.
        recipe: String,
        /// Why.
        reasons: Vec<String>,
        /// What the image is kept under.
        key: BuildKey,
        /// The port that the plan expects.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<Port>,
    },
    /// Of [`Step::Build`].
    Built {
        /// The image.
        image: Image,
        /// True if it had been built before.
        cached: bool,
    },
    /// Of [`Step::Start`].
    Started {
        /// The instance.
        instance: Instance,
        /// The port its program should listen on.
        port: Port,
    },
    /// Of [`Step::Verify`].
    Verified {
        /// How many probes it took.
        probes: u32,
    },
    /// Of [`Step::Route`], when the operation ends with an instance that answers.
    Routed {
        /// The generation of the route.
        generation: Generation,
        /// The release that is live from here on.
        release: ReleaseNumber,
        /// Where it answers.
        url: String,
    },
    /// Of [`Step::Route`], when the operation takes the route away.
    Withdrawn {
        /// The generation of the withdrawal.
        generation: Generation,
    },
    /// Of [`Step::Retire`].
    Retired {
        /// The instances that are gone.
        removed: Vec<InstanceName>,
        /// The instances that could not be removed: the warden's.
        left: Vec<InstanceName>,
    },
    /// Of [`Step::Purge`].
    Purged {
        /// How many images were removed.
        images: u64,
    },
}

/// When and where a failed step goes on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPlan {
    /// The step to go back to.
    pub from: Step,
    /// The number of its next try: the same as the last when the try did not count.
    pub attempt: u32,
    /// Not before.
    pub at: Timestamp,
}

/// Why an operation is to stop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CancelReason {
    /// Somebody asked.
    Requested,
    /// A newer operation was accepted.
    Superseded {
        /// The newer one.
        by: DeploymentId,
    },
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Outcome {
    /// It did what was asked.
    Succeeded,
    /// It failed and was undone, or could not be undone.
    Failed {
        /// The step that failed.
        step: Step,
        /// Why.
        failure: Failure,
    },
    /// It was cancelled and undone.
    Cancelled,
    /// It made room for a newer one and was undone.
    Superseded {
        /// The newer one.
        by: DeploymentId,
    },
}

impl Outcome {
    /// The text of it, as its serialised form has it.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed { .. } => "failed",
            Self::Cancelled => "cancelled",
            Self::Superseded { .. } => "superseded",
        }
    }
}

// The signature is serde's.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// An event with its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Its stream: the id of the operation or app.
    pub stream: StreamId,
    /// Its number within the stream, from 1, without gaps.
    pub version: u64,
    /// Its place in the feed over all streams.
    pub position: Position,
    /// When it was recorded.
    pub at: Timestamp,
    /// What happened.
    pub event: Event,
}
