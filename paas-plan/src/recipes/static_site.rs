//! Files that are served as they are.

use std::collections::BTreeMap;

use async_trait::async_trait;
use paas_core::{BuildPlan, Dockerfile, Error, Result};

use super::{Recipe, Verdict};
use crate::dockerfile::{DEFAULT_PORT, Writer};
use crate::source::Source;
use crate::{BaseImages, OPERATION};

const STATICFILE: &str = "Staticfile";
/// Adds to the repository's own.
const IGNORED: &str = ".dockerignore";
/// Generated into the build's context.
const SERVER_CONFIGURATION: &str = ".paas/httpd.conf";

/// Serves the files of the repository.
#[derive(Debug)]
pub(super) struct StaticSite;

#[async_trait]
impl Recipe for StaticSite {
    fn looks_for(&self) -> &'static str {
        "an index.html at the root or in public/, or a Staticfile"
    }

    async fn judge(&self, source: &Source, images: &BaseImages) -> Result<Verdict> {
        let (root, reason) = if let Some(text) = source.manifest(STATICFILE).await? {
            let root = root_of_staticfile(&text, source)?;
            let reason = format!("the Staticfile serves `{}`", if root.is_empty() { "." } else { &root });
            (root, reason)
        } else if source.has_file("index.html") {
            (String::new(), "there is an index.html at the root".to_owned())
        } else if source.has_file("public/index.html") {
            ("public".to_owned(), "there is an index.html in public/".to_owned())
        } else {
            return Ok(Verdict::Foreign);
        };
        let mut writer = Writer::default();
        let not_found_page = if root.is_empty() { "404.html".to_owned() } else { format!("{root}/404.html") };
        let site = serve(
            &mut writer,
            images,
            "COPY",
            &format!("{}/", if root.is_empty() { "." } else { &root }),
            source.has_file(&not_found_page),
        )?;
        let mut files = site.files;
        files.insert(IGNORED.to_owned(), hidden_files_of(&root));
        let (text, base_images) = writer.finish();
        Ok(Verdict::Fits(Box::new(BuildPlan {
            recipe: "static".to_owned(),
            version: None,
            framework: None,
            reasons: vec![reason, site.reason],
            install: Vec::new(),
            build: Vec::new(),
            start: site.start,
            port: None,
            dockerfile: Dockerfile::Generated { text, files },
            base_images,
        })))
    }
}

/// What is left out of the context: settings, secrets and the repository's own business lie in files whose names
/// begin with a dot. Only `.well-known` is meant for visitors.
fn hidden_files_of(root: &str) -> String {
    let root = if root.is_empty() { String::new() } else { format!("{root}/") };
    format!("{root}**/.*\n!{root}**/.well-known\n")
}

/// The `root:` of a Staticfile; empty for the repository's own root.
fn root_of_staticfile(text: &str, source: &Source) -> Result<String> {
    for (index, line) in text.lines().enumerate() {
        let Some(root) = line.trim().strip_prefix("root:") else { continue };
        let root = root.trim().trim_matches(['"', '\'']).trim_start_matches("./").trim_end_matches('/');
        // A COPY reads `$`, `*`, `?` and `[` in a path as more than letters.
        let is_plain = root.chars().all(|c| c.is_alphanumeric() || "._-/ ".contains(c));
        if !root.is_empty() && root != "." && !(is_plain && source.has_directory(root)) {
            return Err(Error::invalid(
                OPERATION,
                format!(
                    "`{STATICFILE}` (line {}) names a root that is no directory of the repository",
                    index + 1
                ),
            )
            .hint("write `root:` and a directory, such as `root: public`"));
        }
        return Ok(if root == "." { String::new() } else { root.to_owned() });
    }
    Ok(String::new())
}

/// How a site is served, for the plan.
pub(super) struct Site {
    pub(super) start: Vec<String>,
    pub(super) reason: String,
    pub(super) files: BTreeMap<String, String>,
}

/// Writes the stage that serves `from`, which `copy` copies.
pub(super) fn serve(
    writer: &mut Writer,
    images: &BaseImages,
    copy: &'static str,
    from: &str,
    has_not_found_page: bool,
) -> Result<Site> {
    writer.from(images.fixed("static")?, None);
    writer.exec(copy, &[from, "/srv/"]);
    writer.line("COPY .paas/httpd.conf /etc/httpd.conf");
    writer.line(DEFAULT_PORT);
    writer.line("USER 1000:1000");
    let start =
        ["busybox", "sh", "-c", "exec busybox httpd -f -p \"${PORT:-8080}\" -h /srv -c /etc/httpd.conf"];
    writer.exec("CMD", &start);
    let mut configuration = MEDIA_TYPES
        .iter()
        .map(|(extension, media_type)| format!(".{extension}:{media_type}\n"))
        .collect::<String>();
    if has_not_found_page {
        configuration.insert_str(0, "E404:/srv/404.html\n");
    }
    Ok(Site {
        start: start.map(str::to_owned).to_vec(),
        reason: "served by busybox httpd on $PORT".to_owned(),
        files: BTreeMap::from([(SERVER_CONFIGURATION.to_owned(), configuration)]),
    })
}

/// What browsers insist on, and busybox does not know in every version.
const MEDIA_TYPES: [(&str, &str); 20] = [
    ("avif", "image/avif"),
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("html", "text/html;charset=utf-8"),
    ("ico", "image/x-icon"),
    ("js", "text/javascript"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("mjs", "text/javascript"),
    ("mp4", "video/mp4"),
    ("pdf", "application/pdf"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain;charset=utf-8"),
    ("wasm", "application/wasm"),
    ("webm", "video/webm"),
    ("webmanifest", "application/manifest+json"),
    ("webp", "image/webp"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("xml", "application/xml"),
];
