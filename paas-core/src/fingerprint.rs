//! Digests of several values together.

use std::fmt::Write as _;

use sha2::{Digest, Sha256};

/// A SHA-256 over values, each with its length before it, so that no two lists of values look alike.
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Starts one; `purpose` keeps fingerprints of different things apart.
    pub(crate) fn new(purpose: &str) -> Self {
        let mut fingerprint = Self(Sha256::new());
        fingerprint.text(purpose);
        fingerprint
    }

    /// Adds a text.
    pub(crate) fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len() as u64);
        self.0.update(text.as_bytes());
        self
    }

    /// Adds a number.
    pub(crate) fn number(&mut self, number: u64) -> &mut Self {
        self.0.update(number.to_be_bytes());
        self
    }

    /// The first digits of the digest, where only chance is to be kept out.
    pub(crate) fn finish_short(self) -> u64 {
        let digest = self.0.finalize();
        digest.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
    }

    /// The digest in hexadecimal digits.
    pub(crate) fn finish(self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0.finalize() {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::Fingerprint;

    #[test]
    fn lists_that_only_join_alike_differ() {
        let of = |parts: &[&str]| {
            let mut fingerprint = Fingerprint::new("test");
            for part in parts {
                fingerprint.text(part);
            }
            fingerprint.finish()
        };
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["a"]), of(&["a", ""]));
        assert_eq!(of(&["a", "b"]), of(&["a", "b"]));
    }
}
