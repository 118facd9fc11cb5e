//! Which variants an enumeration has, as serde knows them: one that is added is found here by itself.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::value::MapDeserializer;
use serde::de::{DeserializeOwned, Error};

/// The error of a word that no variant has, which says which ones there are.
#[derive(Debug, Default)]
struct Known(&'static [&'static str]);

impl fmt::Display for Known {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "known are {:?}", self.0)
    }
}

impl std::error::Error for Known {}

impl Error for Known {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self::default()
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self(expected)
    }
}

/// The words of an enumeration that is told apart by its field `type`.
pub(crate) fn of<T: DeserializeOwned>() -> BTreeSet<String> {
    let nobodys = MapDeserializer::<_, Known>::new([("type", "nobody's word")].into_iter());
    let Err(Known(words)) = T::deserialize(nobodys) else { panic!("it takes any word") };
    assert!(!words.is_empty(), "it is not told apart by its type");
    words.iter().map(|word| (*word).to_owned()).collect()
}
