//! Where source code comes from: URLs, refs, commits, directories.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use crate::error::{Error, Result};

macro_rules! text_type {
    ($name:ident) => {
        impl $name {
            /// The text of it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0.to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

/// The URL of a git repository: `https`, or `http` where [`EgressPolicy`](super::EgressPolicy) allows the host.
///
/// It carries no user, password, query or fragment, and only characters that no shell, log or header could
/// misread. Whether its host may be reached is the egress policy's question, not this type's.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitUrl(Arc<str>);

text_type!(GitUrl);

impl GitUrl {
    /// The longest URL, in bytes.
    pub const MAX_LENGTH: usize = 2048;

    /// The URL, parsed.
    pub fn to_url(&self) -> Url {
        // Parsing succeeded when `self` was made, from the same text.
        #[allow(clippy::expect_used)]
        Url::parse(&self.0).expect("a GitUrl holds a URL")
    }
}

impl FromStr for GitUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // The text itself is never echoed: it may hold a token.
        let invalid = |message: &str| {
            Error::invalid("git_url.parse", message).hint("use an https:// address of a git repository")
        };
        if text.len() > Self::MAX_LENGTH {
            return Err(invalid("the repository's address is too long"));
        }
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/:%+@[]".contains(&byte);
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(invalid("the repository's address is not a URL"));
        };
        if scheme != "https" && scheme != "http" {
            return Err(invalid("the repository's address must start with https://"));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        // A URL parser skips further slashes, and would find another authority than this.
        if authority.is_empty() || authority.starts_with('-') {
            return Err(invalid("the repository's address has no valid host"));
        }
        if authority.contains('@') {
            return Err(invalid("the repository's address may not contain a user or a password")
                .hint("give the token in its own field"));
        }
        if !rest.bytes().all(is_allowed) {
            return Err(invalid("the repository's address has a character that it may not have"));
        }
        if path.trim_matches('/').is_empty() {
            return Err(invalid("the repository's address names no repository"));
        }
        if path.split('/').any(|segment| segment == ".." || segment == ".") || has_hidden_character(path) {
            return Err(invalid("the repository's address has a path that it may not have"));
        }
        let url = Url::parse(text).map_err(|_| invalid("the repository's address is not a URL"))?;
        match url.host() {
            None => return Err(invalid("the repository's address has no host")),
            Some(Host::Domain(domain)) if domain.trim_end_matches('.').is_empty() || domain.contains('%') => {
                return Err(invalid("the repository's address has no valid host"));
            }
            Some(_) => {}
        }
        Ok(Self(url.as_str().trim_end_matches('/').into()))
    }
}

/// True if a percent-encoding is broken or hides a control character, a dot, a slash or a backslash.
fn has_hidden_character(path: &str) -> bool {
    let mut parts = path.split('%');
    parts.next();
    parts.any(|part| match part.get(..2).map(|digits| u8::from_str_radix(digits, 16)) {
        Some(Ok(byte)) => byte < 0x20 || byte == 0x7f || matches!(byte, b'.' | b'/' | b'\\'),
        _ => true,
    })
}

/// The name of a branch or tag, by the rules of `git check-ref-format` and without a shell's special characters.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GitRef(Arc<str>);

text_type!(GitRef);

impl FromStr for GitRef {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let is_allowed =
            |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '+' | '@' | '#' | '=' | ',');
        let is_bad_part =
            |part: &str| part.is_empty() || part.starts_with(['.', '-']) || part.ends_with(".lock");
        if text.is_empty()
            || text.len() > 255
            || text == "@"
            || text.ends_with('.')
            || text.contains("..")
            || text.contains("@{")
            || !text.chars().all(is_allowed)
            || text.split('/').any(is_bad_part)
        {
            return Err(Error::invalid("git_ref.parse", "this is not the name of a branch or tag"));
        }
        Ok(Self(text.into()))
    }
}

macro_rules! object_id {
    ($(#[$documentation:meta])* $name:ident, $what:literal) => {
        $(#[$documentation])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        text_type!($name);

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self> {
                let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
                if (text.len() == 40 || text.len() == 64) && is_hex {
                    Ok(Self(text.into()))
                } else {
                    Err(Error::invalid("git_id.parse", concat!("this is not the full id of a ", $what))
                        .hint("use the full 40 lower-case hexadecimal digits"))
                }
            }
        }
    };
}

object_id!(
    /// The full id of a commit.
    CommitId, "commit"
);
object_id!(
    /// The full id of a tree: the same id means the same files.
    TreeId, "tree"
);

impl CommitId {
    /// The first seven digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..7]
    }
}

/// The directory of a repository that holds the app, relative to its root; empty means the root itself.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RootDirectory(String);

text_type!(RootDirectory);

impl RootDirectory {
    /// True for the repository's own root.
    pub fn is_repository_root(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromStr for RootDirectory {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || {
            Error::invalid("root_directory.parse", "this is not a directory inside the repository")
                .hint("give a path relative to the repository's root, such as `apps/web`")
        };
        if text.is_empty() || text == "." {
            return Ok(Self::default());
        }
        if text.len() > 1024 || text.starts_with('/') {
            return Err(invalid());
        }
        let text = text.trim_end_matches('/');
        let text = text.strip_prefix("./").unwrap_or(text);
        let is_allowed =
            |c: char| !c.is_control() && !matches!(c, '\\' | '%' | ':' | '*' | '?' | '"' | '<' | '>' | '|');
        let is_bad_part =
            |part: &str| part.is_empty() || part == "." || part == ".." || part.eq_ignore_ascii_case(".git");
        if !text.chars().all(is_allowed) || text.split('/').any(is_bad_part) {
            return Err(invalid());
        }
        Ok(Self(text.to_owned()))
    }
}
