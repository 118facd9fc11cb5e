//! Versions of languages, and what a repository asks of them.
//!
//! Base images follow their patch releases: the key `3.11` stands for the newest 3.11. So a requirement is judged
//! at the precision of the key: `>=3.11.4` and `==3.11.7` are both satisfied by `3.11`.

use std::fmt;
use std::str::FromStr;

/// The numbers of a version: `3.11` or `20`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Version(Vec<u32>);

impl Version {
    /// More than any version has; what follows is cut off.
    const MAX_PARTS: usize = 4;

    /// The numbers that `text` starts with: `3.13.0rc1` is 3.13.0, and `20.x` is 20.
    fn leading(text: &str) -> Option<Self> {
        let mut numbers = Vec::new();
        for part in text.split('.').take(Self::MAX_PARTS) {
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            let Ok(number) = part[..end].parse() else { break };
            numbers.push(number);
            if end < part.len() {
                break;
            }
        }
        (!numbers.is_empty()).then_some(Self(numbers))
    }

    fn first(&self, parts: usize) -> &[u32] {
        &self.0[..parts.min(self.0.len())]
    }

    /// Equal in all the parts that both have.
    fn agrees(&self, other: &[u32]) -> bool {
        self.0.iter().zip(other).all(|(ours, theirs)| ours == theirs)
    }
}

impl FromStr for Version {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers: Result<Vec<u32>, _> = text.split('.').map(str::parse).collect();
        match numbers {
            Ok(numbers) if numbers.len() <= Self::MAX_PARTS => Ok(Self(numbers)),
            _ => Err(()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(u32::to_string).collect();
        formatter.write_str(&parts.join("."))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    Greater,
    AtLeast,
    Less,
    AtMost,
    /// At least this, and equal in the first parts.
    Compatible(usize),
}

#[derive(Clone, Debug)]
struct Comparator {
    operator: Operator,
    version: Version,
}

impl Comparator {
    fn matches(&self, key: &Version) -> bool {
        let parts = key.0.len();
        let asked = self.version.first(parts);
        match self.operator {
            Operator::Equal => key.agrees(asked),
            // One patch release that is left out says nothing about the image that follows them.
            Operator::NotEqual => self.version.0.len() > parts || !key.agrees(asked),
            Operator::Greater if self.version.0.len() > parts => key.0.as_slice() >= asked,
            Operator::Greater => key.first(asked.len()) > asked,
            Operator::AtLeast => key.0.as_slice() >= asked,
            Operator::Less => key.0.as_slice() < asked,
            Operator::AtMost => key.first(asked.len()) <= asked,
            Operator::Compatible(same) => key.0.as_slice() >= asked && key.agrees(self.version.first(same)),
        }
    }
}

/// Which versions a repository accepts: any of some alternatives, each a list of conditions that hold together.
#[derive(Clone, Debug)]
pub(crate) struct Requirement(Vec<Vec<Comparator>>);

impl Requirement {
    pub(crate) fn accepts(&self, version: &Version) -> bool {
        self.0.iter().any(|all| all.iter().all(|comparator| comparator.matches(version)))
    }

    /// A Python version or specifier, as PEP 440 writes it: `3.11`, `>=3.10,<4`, `~=3.10`.
    pub(crate) fn python(text: &str) -> Option<Self> {
        let mut all = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let at = part.find(|c: char| !"<>=!~".contains(c))?;
            let (symbol, version) = (&part[..at], part[at..].trim());
            let is_prefix = version.ends_with(".*");
            let version = Version::leading(version)?;
            let operator = match symbol {
                "" | "==" | "===" => Operator::Equal,
                // `!=3.11` leaves out 3.11.0 alone; only `!=3.11.*` leaves them all out.
                "!=" if is_prefix => Operator::NotEqual,
                "!=" => continue,
                ">" => Operator::Greater,
                ">=" => Operator::AtLeast,
                "<" => Operator::Less,
                "<=" => Operator::AtMost,
                "~=" => Operator::Compatible(version.0.len().saturating_sub(1).max(1)),
                _ => return None,
            };
            all.push(Comparator { operator, version });
        }
        Some(Self(vec![all]))
    }

    /// A Node version or range, as npm and nvm write it: `20`, `v20.1.0`, `^18 || >=20`, `18 - 20`, `lts/*`.
    pub(crate) fn node(text: &str) -> Option<Self> {
        text.split("||").map(Self::node_alternative).collect::<Option<_>>().map(Self)
    }

    fn node_alternative(text: &str) -> Option<Vec<Comparator>> {
        let mut all = Vec::new();
        let mut pending = None;
        let mut words = text.split_whitespace().peekable();
        while let Some(word) = words.next() {
            let at = word.find(|c: char| !"<>=^~".contains(c)).unwrap_or(word.len());
            let (symbol, version) = (&word[..at], &word[at..]);
            let symbol = if symbol.is_empty() { pending.take().unwrap_or("") } else { symbol };
            if version.is_empty() {
                pending = Some(symbol);
                continue;
            }
            if words.peek() == Some(&"-") {
                words.next();
                let upper = Version::leading(words.next()?.trim_start_matches('v'))?;
                let lower = Version::leading(version.trim_start_matches('v'))?;
                all.push(Comparator { operator: Operator::AtLeast, version: lower });
                all.push(Comparator { operator: Operator::AtMost, version: upper });
                continue;
            }
            let version = match version.trim_start_matches('v') {
                "*" | "x" | "X" | "node" | "stable" | "latest" | "current" | "lts" | "lts/*" => continue,
                "lts/hydrogen" => Version(vec![18]),
                "lts/iron" => Version(vec![20]),
                "lts/jod" => Version(vec![22]),
                "lts/krypton" => Version(vec![24]),
                numbers => Version::leading(numbers)?,
            };
            let operator = match symbol {
                "" | "=" => Operator::Equal,
                ">" => Operator::Greater,
                ">=" => Operator::AtLeast,
                "<" => Operator::Less,
                "<=" => Operator::AtMost,
                "^" => Operator::Compatible(1),
                "~" => Operator::Compatible(2),
                _ => return None,
            };
            all.push(Comparator { operator, version });
        }
        pending.is_none().then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn accepted(requirement: &Requirement, keys: &[&str]) -> Vec<String> {
        let keys = keys.iter().map(|key| key.parse::<Version>().unwrap());
        keys.filter(|key| requirement.accepts(key)).map(|key| key.to_string()).collect()
    }

    #[test]
    fn python_specifiers_are_judged_at_the_precision_of_the_key() {
        let keys = ["3.9", "3.10", "3.11", "3.12"];
        for (text, expected) in [
            ("3.11", &["3.11"][..]),
            ("3.11.7", &["3.11"]),
            ("==3.11.*", &["3.11"]),
            (">=3.10", &["3.10", "3.11", "3.12"]),
            (">=3.10.4, <3.12", &["3.10", "3.11"]),
            (">3.10", &["3.11", "3.12"]),
            ("<=3.10", &["3.9", "3.10"]),
            ("~=3.10", &["3.10", "3.11", "3.12"]),
            ("~=3.10.2", &["3.10"]),
            (">=3.10,!=3.11.*", &["3.10", "3.12"]),
            (">=3.11,!=3.11.2,!=3.12", &["3.11", "3.12"]),
            ("<4", &keys),
            ("3", &keys),
            ("2.7", &[]),
            ("3.12-dev", &["3.12"]),
        ] {
            let requirement = Requirement::python(text).unwrap();
            assert_eq!(accepted(&requirement, &keys), expected, "{text}");
        }
    }

    #[test]
    fn node_ranges_are_judged_at_the_precision_of_the_key() {
        let keys = ["18", "20", "22"];
        for (text, expected) in [
            ("20", &["20"][..]),
            ("v20.11.1", &["20"]),
            ("20.x", &["20"]),
            ("^18.2.0", &["18"]),
            ("~20.1", &["20"]),
            (">=18", &keys),
            (">= 20", &["20", "22"]),
            (">18", &["20", "22"]),
            (">=18 <21", &["18", "20"]),
            ("18 - 20", &["18", "20"]),
            ("^18 || ^22.1", &["18", "22"]),
            ("*", &keys),
            ("lts/*", &keys),
            ("lts/iron", &["20"]),
            ("", &keys),
            ("16", &[]),
        ] {
            let requirement = Requirement::node(text).unwrap();
            assert_eq!(accepted(&requirement, &keys), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_version_is_not_one() {
        for text in ["pypy3.10", "my-environment", "=<3", "<>3", "99999999999"] {
            assert!(Requirement::python(text).is_none(), "{text}");
        }
        for text in ["seventeen", ">=", "18 -", "lts/unheard-of", "<>20"] {
            assert!(Requirement::node(text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,40}") {
            let key: Version = "3.11".parse().unwrap();
            Requirement::python(&text).map(|requirement| requirement.accepts(&key));
            Requirement::node(&text).map(|requirement| requirement.accepts(&key));
        }
    }
}
