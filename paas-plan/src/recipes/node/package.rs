//! What a `package.json` says.

use paas_core::{Error, Result};
use serde_json::{Map, Value};

use crate::OPERATION;
use crate::base_images::Wanted;
use crate::source::Source;
use crate::version::Requirement;

const PACKAGE: &str = "package.json";

/// Frameworks whose build puts out a site, and where: the more particular first.
const SITES: [(&str, &str, &str); 9] = [
    ("@sveltejs/adapter-static", "SvelteKit", "build"),
    ("astro", "Astro", "dist"),
    ("react-scripts", "Create React App", "build"),
    ("@vue/cli-service", "Vue CLI", "dist"),
    ("gatsby", "Gatsby", "public"),
    ("@docusaurus/core", "Docusaurus", "build"),
    ("@11ty/eleventy", "Eleventy", "_site"),
    ("parcel", "Parcel", "dist"),
    ("vite", "Vite", "dist"),
];

/// Frameworks that are servers, for the plan's reader.
const SERVERS: [(&str, &str); 10] = [
    ("next", "Next.js"),
    ("nuxt", "Nuxt"),
    ("@nestjs/core", "NestJS"),
    ("@remix-run/node", "Remix"),
    ("@sveltejs/kit", "SvelteKit"),
    ("fastify", "Fastify"),
    ("koa", "Koa"),
    ("hono", "Hono"),
    ("@hapi/hapi", "hapi"),
    ("express", "Express"),
];

/// Start scripts that run a framework's server for development, which is not for serving.
const DEVELOPMENT_SERVERS: [&str; 10] = [
    "react-scripts start",
    "vite",
    "astro dev",
    "astro start",
    "vue-cli-service serve",
    "gatsby develop",
    "docusaurus start",
    "eleventy --serve",
    "parcel",
    "npm run dev",
];

/// The lock file that npm reads, in its own order.
pub(super) fn lock_file(source: &Source) -> Option<&'static str> {
    ["npm-shrinkwrap.json", "package-lock.json"].into_iter().find(|file| source.has_file(file))
}

/// How it starts.
pub(super) enum Start {
    /// A process.
    Command { command: Vec<String>, reason: String },
    /// A directory of files.
    Site { directory: &'static str, reason: String },
}

/// A `package.json`.
pub(super) struct Package {
    manifest: Map<String, Value>,
    /// The Node version that is asked for.
    pub(super) wanted: Option<Wanted>,
    /// True if an install reads more of the repository than the manifest and the lock.
    pub(super) needs_everything: bool,
}

impl Package {
    pub(super) async fn read(source: &Source) -> Result<Option<Self>> {
        let Some(text) = source.manifest(PACKAGE).await? else { return Ok(None) };
        let manifest = match serde_json::from_str(&text) {
            Ok(Value::Object(manifest)) => manifest,
            Ok(_) => {
                return Err(Error::invalid(OPERATION, format!("`{PACKAGE}` is not a JSON object"))
                    .hint(format!("write an object in `{PACKAGE}`; `npm init` makes one")));
            }
            Err(cause) => {
                let line = cause.line();
                return Err(Error::invalid(OPERATION, format!("`{PACKAGE}` is not JSON (line {line})"))
                    .hint(format!("mend line {line} of `{PACKAGE}`"))
                    .source(cause));
            }
        };
        let wanted = wanted(source, &manifest, &text).await?;
        let mut package = Self { manifest, wanted, needs_everything: false };
        package.needs_everything = package.manifest.contains_key("workspaces")
            || ["preinstall", "install", "postinstall", "prepare"]
                .iter()
                .any(|name| package.script(name).is_some())
            || source.has_file(".npmrc")
            || package.dependencies().any(|(_, version)| {
                version
                    .as_str()
                    .is_some_and(|version| version.starts_with("file:") || version.starts_with("link:"))
            });
        Ok(Some(package))
    }

    fn script(&self, name: &str) -> Option<&str> {
        self.manifest.get("scripts")?.get(name)?.as_str().map(str::trim).filter(|script| !script.is_empty())
    }

    fn dependencies(&self) -> impl Iterator<Item = (&String, &Value)> {
        ["dependencies", "devDependencies", "optionalDependencies"]
            .into_iter()
            .filter_map(|field| self.manifest.get(field)?.as_object())
            .flatten()
    }

    fn depends_on(&self, name: &str) -> bool {
        self.dependencies().any(|(dependency, _)| dependency == name)
    }

    fn site(&self) -> Option<(&'static str, &'static str)> {
        let (_, name, directory) = SITES.iter().find(|(dependency, _, _)| self.depends_on(dependency))?;
        Some((name, directory))
    }

    /// The framework, for the plan's reader.
    pub(super) fn framework(&self) -> Option<&'static str> {
        let server = SERVERS.iter().find(|(dependency, _)| self.depends_on(dependency));
        server.map(|(_, name)| *name).or_else(|| self.site().map(|(name, _)| name))
    }

    /// The commands that install; none if nothing is to be installed.
    pub(super) fn install(&self, source: &Source, reasons: &mut Vec<String>) -> Vec<Vec<String>> {
        if self.dependencies().next().is_none() && !self.needs_everything {
            reasons.push("nothing to install: the package has no dependencies".to_owned());
            return Vec::new();
        }
        let (command, reason) = match lock_file(source) {
            Some(file) => ("ci", format!("npm ci, because there is a {file}")),
            None => ("install", "npm install, because there is no package-lock.json".to_owned()),
        };
        reasons.push(reason);
        vec![["npm", command].map(str::to_owned).to_vec()]
    }

    /// The commands that build; none if the package has no `scripts.build`.
    pub(super) fn build(&self) -> Vec<Vec<String>> {
        self.script("build")
            .map(|_| ["npm", "run", "build"].map(str::to_owned).to_vec())
            .into_iter()
            .collect()
    }

    /// How the app starts.
    pub(super) fn start(&self, source: &Source) -> Option<Start> {
        let start = self.script("start").filter(|script| !is_development_server(script));
        if let Some(script) = start {
            return Some(self.start_by_script(script));
        }
        if self.script("build").is_some()
            && let Some((name, directory)) = self.site()
        {
            let reason = format!("{name} puts out a site: its {directory}/ is served after the build");
            return Some(Start::Site { directory, reason });
        }
        // A framework's server for development is better than nothing.
        if let Some(script) = self.script("start") {
            return Some(self.start_by_script(script));
        }
        let main = self.manifest.get("main").and_then(Value::as_str).and_then(|main| existing(main, source));
        if let Some(file) = main {
            let reason = format!("`{file}`, because package.json names it as `main`");
            return Some(Start::Command { command: vec!["node".to_owned(), file], reason });
        }
        let file =
            ["server.js", "index.js", "app.js", "main.js"].into_iter().find(|file| source.has_file(file))?;
        let reason = format!("`{file}`, because package.json has neither `scripts.start` nor a `main`");
        Some(Start::Command { command: vec!["node".to_owned(), file.to_owned()], reason })
    }

    fn start_by_script(&self, script: &str) -> Start {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || " ./_-=:@".contains(c);
        let has_hooks = self.script("prestart").is_some() || self.script("poststart").is_some();
        if script.starts_with("node ") && script.chars().all(is_plain) && !has_hooks {
            return Start::Command {
                command: script.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect(),
                reason: "`scripts.start`, run without npm so that signals reach the program".to_owned(),
            };
        }
        Start::Command {
            command: ["npm", "start"].map(str::to_owned).to_vec(),
            reason: "npm start, because package.json has `scripts.start`".to_owned(),
        }
    }
}

fn is_development_server(script: &str) -> bool {
    DEVELOPMENT_SERVERS.iter().any(|server| {
        script.strip_prefix(server).is_some_and(|rest| {
            let is_preview = rest.trim_start().starts_with("preview");
            (rest.is_empty() || rest.starts_with(' ')) && !is_preview
        })
    })
}

/// The file that `main` means: Node also finds `server` where there is a `server.js`.
fn existing(main: &str, source: &Source) -> Option<String> {
    let main = main.trim_start_matches("./").trim_end_matches('/');
    [main.to_owned(), format!("{main}.js"), format!("{main}/index.js")]
        .into_iter()
        .find(|file| source.has_file(file))
}

/// The version that is asked for: the most particular file wins.
async fn wanted(source: &Source, manifest: &Map<String, Value>, text: &str) -> Result<Option<Wanted>> {
    for file in [".nvmrc", ".node-version"] {
        let Some(text) = source.manifest(file).await? else { continue };
        let first = text
            .lines()
            .map(str::trim)
            .enumerate()
            .find(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        if let Some((index, line)) = first {
            return Wanted::parse(file, index + 1, line, Requirement::node).map(Some);
        }
    }
    let Some(asked) = manifest.get("engines").and_then(|engines| engines.get("node")).and_then(Value::as_str)
    else {
        return Ok(None);
    };
    let engines = text.find("\"engines\"").unwrap_or(0);
    let at = text[engines..].find("\"node\"").map_or(engines, |at| engines + at);
    let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    Wanted::parse(PACKAGE, line, asked, Requirement::node).map(Some)
}
