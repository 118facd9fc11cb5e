//! Python with pip: Flask, FastAPI, Django, or a script.

mod manifest;
mod start;

use std::collections::BTreeMap;

use async_trait::async_trait;
use paas_core::{BuildPlan, Dockerfile, Result};

use self::manifest::{Install, Manifest};
use super::{Recipe, Verdict};
use crate::BaseImages;
use crate::base_images::Language;
use crate::dockerfile::{DEFAULT_PORT, Installer, Writer};
use crate::source::Source;

const LANGUAGE: Language = Language { name: "Python", key: "python", preferred: "3.13" };
const PIP: Installer =
    Installer { cache: "pip", cache_directory: "/var/cache/pip", certificates_variable: "PIP_CERT" };

/// Builds a Python app.
#[derive(Debug)]
pub(super) struct Python;

#[async_trait]
impl Recipe for Python {
    fn looks_for(&self) -> &'static str {
        "a requirements.txt or pyproject.toml (Python)"
    }

    async fn judge(&self, source: &Source, images: &BaseImages) -> Result<Verdict> {
        let Some(manifest) = Manifest::read(source).await? else { return Ok(Verdict::Foreign) };
        let start = match start::find(source, &manifest).await? {
            Ok(start) => start,
            Err(error) => return Ok(Verdict::Unfinished(error)),
        };
        let (version, image, version_reason) = images.choose(&LANGUAGE, manifest.wanted.as_ref())?;

        let mut install = vec![manifest.install.command()];
        let mut reasons = vec![manifest.reason, version_reason, start.reason];
        if let Some(server) = start.server.filter(|server| !manifest.dependencies.contains(*server)) {
            // A command of its own: beside requirements with hashes, one without a hash is refused.
            install.push(vec!["pip".to_owned(), "install".to_owned(), server.to_owned()]);
            reasons.push(format!("{server} is added, because nothing the app depends on serves it"));
        }
        install.retain(|command| !command.is_empty());

        let (text, base_images) =
            write(image, &manifest.install, &install, source.has_directory("src"), &start.command);
        Ok(Verdict::Fits(Box::new(BuildPlan {
            recipe: "python".to_owned(),
            version: Some(version.to_string()),
            framework: start.framework.map(str::to_owned),
            reasons,
            install,
            build: Vec::new(),
            start: start.command,
            port: None,
            dockerfile: Dockerfile::Generated { text, files: BTreeMap::new() },
            base_images,
        })))
    }
}

fn write(
    image: &str,
    how: &Install,
    install: &[Vec<String>],
    has_src: bool,
    start: &[String],
) -> (String, Vec<String>) {
    let mut writer = Writer::default();
    writer.from(image, None);
    writer.line(r#"RUN ["install","-d","-o","1000","-g","1000","/app","/home/app","/venv"]"#);
    writer.line("ENV HOME=/home/app PATH=/venv/bin:/usr/local/bin:/usr/bin:/bin PYTHONUNBUFFERED=1");
    writer.line("USER 1000:1000");
    writer.line("WORKDIR /app");
    writer.line(r#"RUN ["python3","-m","venv","/venv"]"#);
    match how {
        Install::Requirements { stand_alone: true } => {
            writer.line("COPY --chown=1000:1000 requirements.txt ./");
        }
        Install::Requirements { stand_alone: false } | Install::Project => copy_everything(&mut writer),
        Install::Dependencies(_) => {}
    }
    for command in install {
        let mut command: Vec<&str> = command.iter().map(String::as_str).collect();
        command.splice(2..2, ["--disable-pip-version-check", "--cache-dir", PIP.cache_directory]);
        writer.install(PIP, &command);
    }
    if matches!(how, Install::Requirements { stand_alone: true } | Install::Dependencies(_)) {
        copy_everything(&mut writer);
    }
    if has_src {
        writer.line("ENV PYTHONPATH=/app/src:/app");
    }
    writer.line(DEFAULT_PORT);
    writer.exec("CMD", start);
    writer.finish()
}

fn copy_everything(writer: &mut Writer) {
    writer.line("COPY --chown=1000:1000 . .");
}
