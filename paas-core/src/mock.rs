//! mockall mocks of every trait, for what an honest in-memory adapter can't show: called once, in this order, never.
//!
//! ```
//! use paas_core::mock::MockStateStore;
//! use paas_core::{Batch, Committed, StateStore};
//! # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
//! let mut store = MockStateStore::new();
//! store.expect_commit().times(1).returning(|_| Ok(Committed::default()));
//! store.commit(Batch::default()).await
//! # })?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```

pub use crate::dns::MockDnsService;
pub use crate::git::{MockGitProvider, MockSourceTree};
pub use crate::image::MockImageBuilder;
pub use crate::ingress::MockIngress;
pub use crate::logs::MockLogStore;
pub use crate::plan::MockPlanner;
pub use crate::runtime::MockContainerRuntime;
pub use crate::store::MockStateStore;
