//! The provider keeps every promise of the trait, against a real git server.

mod common;

use common::Real;

paas_core::conformance!(git_provider, Real::new);
