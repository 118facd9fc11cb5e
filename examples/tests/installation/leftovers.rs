//! What a failed test would leave on the engine.

use std::process::Command;

/// The label of one test's installation. When the test is over, however it ended, nothing with that label is left.
pub struct Leftovers(pub String);

impl Leftovers {
    fn filter(&self) -> String {
        format!("label=paas.installation={}", self.0)
    }

    fn remove(&self, list: &[&str], remove: &[&str]) {
        let listed = Command::new("docker").args(list).args(["--quiet", "--filter", &self.filter()]).output();
        let names =
            listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        if !names.trim().is_empty() {
            let _ = Command::new("docker").args(remove).args(names.lines()).output();
        }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        self.remove(&["ps", "--all"], &["rm", "--force", "--volumes"]);
        self.remove(&["network", "ls"], &["network", "rm"]);
        self.remove(&["images"], &["rmi", "--force"]);
    }
}
