//! Prefixed, sortable identifiers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};
use crate::ids::Ids;

/// Crockford's base 32 in lower case: sorts like the number, and has no letters that look alike.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
/// 128 bits in base 32.
const ENCODED_LENGTH: usize = 26;

fn encode(prefix: &str, mut number: u128) -> String {
    let mut digits = [0_u8; ENCODED_LENGTH];
    for digit in digits.iter_mut().rev() {
        *digit = ALPHABET[(number & 31) as usize];
        number >>= 5;
    }
    let mut text = String::with_capacity(prefix.len() + 1 + ENCODED_LENGTH);
    text.push_str(prefix);
    text.push('_');
    text.extend(digits.iter().map(|digit| char::from(*digit)));
    text
}

fn is_well_formed(prefix: &str, text: &str) -> bool {
    text.strip_prefix(prefix)
        .and_then(|rest| rest.strip_prefix('_'))
        .is_some_and(|rest| rest.len() == ENCODED_LENGTH && rest.bytes().all(|byte| ALPHABET.contains(&byte)))
}

macro_rules! identifier {
    ($(#[$documentation:meta])* $name:ident, $prefix:literal) => {
        $(#[$documentation])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// What every identifier of this type starts with.
            pub const PREFIX: &'static str = $prefix;

            /// A new identifier; later ones sort after earlier ones.
            pub fn generate(ids: &dyn Ids) -> Self {
                Self(encode($prefix, ids.next()).into())
            }

            /// The text of it.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text behind the prefix.
            pub fn suffix(&self) -> &str {
                &self.0[$prefix.len() + 1..]
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                if is_well_formed($prefix, text) {
                    Ok(Self(text.into()))
                } else {
                    // The same answer as for one that does not exist: nothing can be inferred from it.
                    Err(Error::new(Kind::NotFound, "id.parse", concat!("there is no such ", $prefix)))
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.to_string()
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

identifier!(
    /// An org: the tenant that owns everything else.
    OrgId, "org"
);
identifier!(
    /// An app, whatever its name becomes.
    AppId, "app"
);
identifier!(
    /// An operation on an app: a deployment, a restart, a deletion.
    DeploymentId, "dpl"
);

impl OrgId {
    /// The org that owns everything until accounts exist.
    #[must_use]
    pub fn default_org() -> Self {
        Self(encode(Self::PREFIX, 0).into())
    }
}
