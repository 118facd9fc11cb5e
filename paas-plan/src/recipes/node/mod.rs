//! Node with npm: a server, or a site that a build puts out.

mod package;

use std::collections::BTreeMap;

use async_trait::async_trait;
use paas_core::{BuildPlan, Dockerfile, Error, Result};

use self::package::{Package, Start};
use super::{Recipe, Verdict, static_site};
use crate::base_images::Language;
use crate::dockerfile::{DEFAULT_PORT, Installer, Writer};
use crate::source::Source;
use crate::{BaseImages, OPERATION};

const LANGUAGE: Language = Language { name: "Node", key: "node", preferred: "24" };
const NPM: Installer = Installer {
    cache: "npm",
    cache_directory: "/var/cache/npm",
    certificates_variable: "NODE_EXTRA_CA_CERTS",
};

/// Builds a Node app.
#[derive(Debug)]
pub(super) struct Node;

#[async_trait]
impl Recipe for Node {
    fn looks_for(&self) -> &'static str {
        "a package.json (Node)"
    }

    async fn judge(&self, source: &Source, images: &BaseImages) -> Result<Verdict> {
        let Some(package) = Package::read(source).await? else { return Ok(Verdict::Foreign) };
        let Some(start) = package.start(source) else {
            return Ok(Verdict::Unfinished(
                Error::invalid(OPERATION, "this is a Node app, but nothing says how it starts").hint(
                    "looked for `scripts.start` and `main` in package.json, for server.js, index.js, app.js and main.js, \
                     and for `scripts.build` with a framework that puts out a site; add one of these, or a Dockerfile",
                ),
            ));
        };
        let (version, image, version_reason) = images.choose(&LANGUAGE, package.wanted.as_ref())?;
        let mut reasons = vec!["Node, because there is a package.json".to_owned(), version_reason];
        let install = package.install(source, &mut reasons);
        let build = package.build();

        let mut writer = Writer::default();
        let is_site = matches!(start, Start::Site { .. });
        writer.from(image, is_site.then_some("build"));
        writer.line(r#"RUN ["install","-d","-o","1000","-g","1000","/app","/home/app"]"#);
        writer.line("ENV HOME=/home/app NPM_CONFIG_UPDATE_NOTIFIER=false");
        writer.line("USER 1000:1000");
        writer.line("WORKDIR /app");
        if !install.is_empty() && !package.needs_everything {
            writer.line(match package::lock_file(source) {
                Some("npm-shrinkwrap.json") => "COPY --chown=1000:1000 package.json npm-shrinkwrap.json ./",
                Some(_) => "COPY --chown=1000:1000 package.json package-lock.json ./",
                None => "COPY --chown=1000:1000 package.json ./",
            });
            write_install(&mut writer, &install);
        }
        writer.line("COPY --chown=1000:1000 . .");
        if package.needs_everything {
            write_install(&mut writer, &install);
        }
        for command in &build {
            writer.install(NPM, command);
        }

        let mut files = BTreeMap::new();
        let command = match start {
            Start::Site { directory, reason } => {
                let from = format!("/app/{directory}/");
                let site = static_site::serve(&mut writer, images, "COPY --from=build", &from, false)?;
                reasons.extend([reason, site.reason]);
                files = site.files;
                site.start
            }
            Start::Command { command, reason } => {
                reasons.push(reason);
                writer.line("ENV NODE_ENV=production");
                writer.line(DEFAULT_PORT);
                writer.exec("CMD", &command);
                command
            }
        };
        let (text, base_images) = writer.finish();
        Ok(Verdict::Fits(Box::new(BuildPlan {
            recipe: "node".to_owned(),
            version: Some(version.to_string()),
            framework: package.framework().map(str::to_owned),
            reasons,
            install,
            build,
            start: command,
            port: None,
            dockerfile: Dockerfile::Generated { text, files },
            base_images,
        })))
    }
}

fn write_install(writer: &mut Writer, install: &[Vec<String>]) {
    for command in install {
        let quiet_and_cached = ["--no-audit", "--no-fund", "--cache", NPM.cache_directory];
        let words: Vec<&str> = command.iter().map(String::as_str).chain(quiet_and_cached).collect();
        writer.install(NPM, &words);
    }
}
