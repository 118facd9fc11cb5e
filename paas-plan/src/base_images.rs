//! Which images generated Dockerfiles start from.

use std::collections::BTreeMap;

use paas_core::{Error, Kind, Result};
use serde::{Deserialize, Serialize};

use crate::OPERATION;
use crate::version::{Requirement, Version};

/// Where generated Dockerfiles start: from `python:3.11`, `node:20` or `static` to the reference of an image.
///
/// The default names the usual public images. An installation without a registry maps the same keys to its own:
///
/// ```
/// use paas_plan::BaseImages;
/// let images = BaseImages::new([
///     ("python:3.11", "paas/python:3.11"),
///     ("node:20", "paas/node:20"),
///     ("static", "paas/static:1"),
/// ])?;
/// assert_eq!(images.get("node:20"), Some("paas/node:20"));
/// assert_eq!(images.get("node:22"), None);
/// # Ok::<(), paas_core::Error>(())
/// ```
///
/// What an image must offer: `python:*` has `python3` with `venv` and `sh`; `node:*` has `node`, `npm` and `sh`;
/// both have `install` of coreutils or busybox. `static` has `busybox` with `httpd` and `sh` on its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct BaseImages(BTreeMap<String, String>);

impl Default for BaseImages {
    fn default() -> Self {
        let python = ["3.10", "3.11", "3.12", "3.13", "3.14"]
            .map(|version| (format!("python:{version}"), format!("python:{version}-slim")));
        let node = ["18", "20", "22", "24"]
            .map(|version| (format!("node:{version}"), format!("node:{version}-slim")));
        let site = [("static".to_owned(), "busybox:1.37".to_owned())];
        Self(python.into_iter().chain(node).chain(site).collect())
    }
}

impl BaseImages {
    /// A map of one's own, instead of the public images.
    ///
    /// # Errors
    /// `Invalid` when a key is neither a name nor a name with a version, or an image is not a reference.
    pub fn new<K: Into<String>, V: Into<String>>(images: impl IntoIterator<Item = (K, V)>) -> Result<Self> {
        let images: BTreeMap<String, String> =
            images.into_iter().map(|(key, image)| (key.into(), image.into())).collect();
        for (key, image) in &images {
            if !is_key(key) {
                return Err(Error::invalid(
                    "base_images.new",
                    format!("`{key}` is not the key of a base image"),
                )
                .hint("a key is a name, or a name and a version: `static`, `python:3.11`"));
            }
            if !is_reference(image) {
                return Err(Error::invalid(
                    "base_images.new",
                    format!("the base image of `{key}` is not a reference"),
                )
                .hint("name an image such as `python:3.11-slim` or `registry.example/python:3.11`"));
            }
        }
        Ok(Self(images))
    }

    /// The image under a key.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// The image of a key without a version.
    pub(crate) fn fixed(&self, key: &str) -> Result<&str> {
        self.get(key).ok_or_else(|| missing(key))
    }

    /// The image of a language: of the preferred version if it is accepted, else of the newest that is.
    pub(crate) fn choose(
        &self,
        language: &Language,
        wanted: Option<&Wanted>,
    ) -> Result<(Version, &str, String)> {
        let mut versions: Vec<(Version, &str)> = self
            .0
            .iter()
            .filter_map(|(key, image)| {
                let version = key.strip_prefix(language.key)?.strip_prefix(':')?;
                Some((version.parse().ok()?, image.as_str()))
            })
            .collect();
        versions.sort();
        if versions.is_empty() {
            return Err(missing(language.key));
        }
        let is_accepted = |version: &Version| wanted.is_none_or(|wanted| wanted.requirement.accepts(version));
        let preferred = language.preferred.parse().ok();
        let chosen = versions
            .iter()
            .filter(|(version, _)| is_accepted(version))
            .max_by_key(|(version, _)| (Some(version) == preferred.as_ref(), version.clone()));
        let Some((version, image)) = chosen else {
            let available: Vec<String> = versions.iter().map(|(version, _)| version.to_string()).collect();
            let asked = wanted.map(|wanted| format!("{} asks", wanted.place)).unwrap_or_default();
            return Err(Error::invalid(
                OPERATION,
                format!("{asked} for a version of {} that is not available here", language.name),
            )
            .hint(format!(
                "available: {}; ask for one of these, or add a Dockerfile",
                available.join(", ")
            )));
        };
        let reason = match wanted {
            Some(wanted) => format!("{} {version}, because {} asks for it", language.name, wanted.place),
            None => format!("{} {version}: nothing asks for another", language.name),
        };
        Ok((version.clone(), image, reason))
    }
}

/// A language, as the map of base images knows it.
#[derive(Debug)]
pub(crate) struct Language {
    /// For people.
    pub(crate) name: &'static str,
    /// What its keys start with.
    pub(crate) key: &'static str,
    /// The version that is taken where nothing speaks against it.
    pub(crate) preferred: &'static str,
}

/// What a repository asks of a language, and where it says so.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) requirement: Requirement,
    /// File, line and text, for people.
    pub(crate) place: String,
}

impl Wanted {
    /// A requirement that stands in `file` at `line`, parsed by `parse`.
    ///
    /// # Errors
    /// The user's, when it cannot be understood.
    pub(crate) fn parse(
        file: &str,
        line: usize,
        text: &str,
        parse: impl Fn(&str) -> Option<Requirement>,
    ) -> Result<Self> {
        // Someone else wrote it: what is shown of it is short and on one line.
        let shown: String = text.chars().filter(|c| !c.is_control()).take(40).collect();
        let place = format!("`{file}` (line {line}: `{shown}`)");
        match parse(text) {
            Some(requirement) => Ok(Self { requirement, place }),
            None => Err(Error::invalid(OPERATION, format!("{place} is not a version that is understood"))
                .hint("write a version such as `3.11` or `20`, or a range such as `>=3.10`")),
        }
    }
}

fn missing(key: &str) -> Error {
    Error::new(Kind::Unsupported, OPERATION, format!("this installation has no base image for `{key}`"))
        .hint(format!("the operator adds `{key}` to the base images; a Dockerfile works without"))
}

fn is_key(key: &str) -> bool {
    let (name, version) = key.split_once(':').map_or((key, None), |(name, version)| (name, Some(version)));
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        && version.is_none_or(|version| version.parse::<Version>().is_ok())
}

fn is_reference(image: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    image.len() <= 512
        && image.starts_with(|c: char| c.is_ascii_alphanumeric())
        && image.bytes().all(is_allowed)
}

impl TryFrom<BTreeMap<String, String>> for BaseImages {
    type Error = Error;

    fn try_from(images: BTreeMap<String, String>) -> Result<Self> {
        Self::new(images)
    }
}

impl From<BaseImages> for BTreeMap<String, String> {
    fn from(images: BaseImages) -> Self {
        images.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PYTHON: Language = Language { name: "Python", key: "python", preferred: "3.12" };

    fn choose(images: &BaseImages, text: Option<&str>) -> Result<String> {
        let wanted =
            text.map(|text| Wanted::parse(".python-version", 1, text, Requirement::python)).transpose()?;
        images.choose(&PYTHON, wanted.as_ref()).map(|(version, _, _)| version.to_string())
    }

    #[test]
    fn the_preferred_version_then_the_newest_accepted_one() {
        let images =
            BaseImages::new([("python:3.9", "a"), ("python:3.12", "b"), ("python:3.13", "c")]).unwrap();
        assert_eq!(choose(&images, None).unwrap(), "3.12");
        assert_eq!(choose(&images, Some(">=3.9")).unwrap(), "3.12");
        assert_eq!(choose(&images, Some(">3.12")).unwrap(), "3.13");
        assert_eq!(choose(&images, Some("<3.12")).unwrap(), "3.9");
    }

    #[test]
    fn a_version_that_is_not_there_is_named_with_its_place_and_what_is() {
        let images = BaseImages::new([("python:3.11", "a")]).unwrap();
        let error = choose(&images, Some("2.7")).unwrap_err();
        assert!(error.message().contains("`.python-version` (line 1: `2.7`)"), "{error}");
        assert!(error.hinted().unwrap().contains("available: 3.11"), "{error:?}");
    }

    #[test]
    fn a_language_without_images_is_the_operators_to_mend() {
        let images = BaseImages::new([("static", "a")]).unwrap();
        let error = choose(&images, None).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
    }

    #[test]
    fn keys_and_images_are_checked() {
        for (key, image) in [
            ("", "a"),
            ("python:", "a"),
            ("python:x", "a"),
            ("Python", "a"),
            ("python", ""),
            ("python", "a b"),
            ("python", "a\nRUN x"),
            ("python", "-a"),
            ("python", "$A"),
        ] {
            assert!(BaseImages::new([(key, image)]).is_err(), "{key:?} {image:?}");
        }
    }

    #[test]
    fn reads_like_a_map() {
        let images: BaseImages = serde_json::from_str(r#"{"static":"paas/static:1"}"#).unwrap();
        assert_eq!(images.get("static"), Some("paas/static:1"));
        assert!(serde_json::from_str::<BaseImages>(r#"{"static":"a b"}"#).is_err());
    }
}
