//! Parts of an installation that the platform does not know by itself.

use std::fmt::Debug;

use async_trait::async_trait;

use crate::context::Context;
use crate::error::Result;

/// A part of an installation whose trouble is to be named with the platform's own, such as a disk.
///
/// While it is in trouble, what the platform can't do is tried again later and not counted as a try. Add it with [`PlatformBuilder::part`](super::PlatformBuilder::part).
#[async_trait]
pub trait Part: Debug + Send + Sync + 'static {
    /// What it is called in [`Problem::part`](super::Problem::part), such as `disk`.
    fn name(&self) -> &'static str;

    /// Asks whether it is well. Whoever asks waits for five seconds at most.
    ///
    /// # Errors
    /// What is wrong, with a hint what to do about it.
    async fn ping(&self, context: &Context) -> Result<()>;
}
