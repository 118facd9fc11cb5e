//! The proxy end to end: real sockets, real instances, the real process.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bad_inputs;
mod conformance;
mod forwarding;
#[cfg(target_os = "linux")]
mod power_loss;
mod process;
mod streaming;
mod support;
mod switching;
mod table;

#[cfg(target_os = "linux")]
#[test]
fn disk_process() {
    fallible_disk::process();
}
