//! What only root may do.

use std::process::Command;

/// A command, by sudo if need be.
pub fn as_root(words: &[&str]) -> Command {
    let prefix: &[&str] =
        if rustix::process::geteuid().is_root() { &[] } else { &["sudo", "--non-interactive"] };
    let words = [prefix, words].concat();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    command
}

/// Runs a command to its end.
pub fn run_as_root(words: &[&str]) {
    let status = as_root(words).status().unwrap();
    assert!(status.success(), "{words:?}: {status}; run this test as root, or let sudo ask for no password");
}
