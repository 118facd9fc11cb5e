//! Writes Dockerfiles.
//!
//! Nothing of a repository can become an instruction: fixed lines are `&'static str`, images come from the
//! checked map, and everything else stands in JSON strings, in which a newline is `\n`.

use serde_json::Value;

/// The port if the platform names none, so that the image also runs alone.
pub(crate) const DEFAULT_PORT: &str = "ENV PORT=8080";

/// What a package manager needs during an install: its cache, and how it is told of a certificate authority.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Installer {
    /// The id of the cache mount, which installs of other apps share.
    pub(crate) cache: &'static str,
    /// Where the cache is mounted.
    pub(crate) cache_directory: &'static str,
    /// The environment variable that names a file of certificates.
    pub(crate) certificates_variable: &'static str,
}

/// A Dockerfile in the making.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    text: String,
    base_images: Vec<String>,
}

impl Writer {
    /// Starts a stage.
    pub(crate) fn from(&mut self, image: &str, name: Option<&'static str>) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        match name {
            Some(name) => self.push(&format!("FROM {image} AS {name}")),
            None => self.push(&format!("FROM {image}")),
        }
        if !self.base_images.iter().any(|known| known == image) {
            self.base_images.push(image.to_owned());
        }
    }

    /// A line that is the same for every repository.
    pub(crate) fn line(&mut self, line: &'static str) {
        self.push(line);
    }

    /// An instruction with arguments in JSON.
    pub(crate) fn exec(&mut self, instruction: &'static str, arguments: &[impl AsRef<str>]) {
        self.push(&format!("{instruction} {}", json(arguments)));
    }

    /// A command that may use the network: with the installer's cache, and with the build secret `ca`, where the
    /// build has one, as the certificates to trust.
    pub(crate) fn install(&mut self, installer: Installer, command: &[impl AsRef<str>]) {
        let Installer { cache, cache_directory, certificates_variable } = installer;
        // A variable that names a missing file breaks pip, so it is set only if the secret is there.
        let trust = format!(
            "[ ! -r /run/secrets/ca.crt ] || export {certificates_variable}=/run/secrets/ca.crt; exec \"$@\""
        );
        let mut arguments = vec!["sh", "-c", &trust, "sh"];
        arguments.extend(command.iter().map(AsRef::as_ref));
        self.push(&format!(
            "RUN --mount=type=secret,id=ca,target=/run/secrets/ca.crt,uid=1000 \\\n    \
             --mount=type=cache,id={cache},target={cache_directory},uid=1000,gid=1000 \\\n    {}",
            json(&arguments)
        ));
    }

    /// The text, and the images that it starts from.
    pub(crate) fn finish(self) -> (String, Vec<String>) {
        (self.text, self.base_images)
    }

    fn push(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// An array without spaces between its elements: even a frontend that looks for `<<word` sees one word.
fn json(arguments: &[impl AsRef<str>]) -> String {
    Value::from_iter(arguments.iter().map(AsRef::as_ref)).to_string()
}
