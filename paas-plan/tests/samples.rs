//! The sample apps are planned as their README says.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use paas_core::memory::{MemoryFiles, MemoryTree};
use paas_core::{BuildPlan, Planner, Port};
use paas_plan::{BaseImages, SourcePlanner};

fn with_directory(mut files: MemoryFiles, directory: &Path, prefix: &str) -> MemoryFiles {
    for entry in std::fs::read_dir(directory).expect("the sample app is in examples/apps") {
        let entry = entry.unwrap();
        let path = format!("{prefix}{}", entry.file_name().into_string().unwrap());
        if entry.file_type().unwrap().is_dir() {
            files = with_directory(files, &entry.path(), &format!("{path}/"));
        } else {
            files = files.file(path, std::fs::read(entry.path()).unwrap());
        }
    }
    files
}

/// Plans a sample app on an installation without a registry.
async fn plan(app: &str) -> BuildPlan {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/apps").join(app);
    let tree = MemoryTree::new(with_directory(MemoryFiles::default(), &directory, "")).unwrap();
    let images = BaseImages::new([
        ("python:3.11", "paas/python:3.11"),
        ("node:20", "paas/node:20"),
        ("static", "paas/static:1"),
    ])
    .unwrap();
    SourcePlanner::new(images).plan(Arc::new(tree)).await.unwrap()
}

#[tokio::test]
async fn static_site() {
    let plan = plan("static-site").await;
    assert_eq!(plan.recipe, "static");
    assert_eq!(plan.base_images, ["paas/static:1"]);
}

#[tokio::test]
async fn flask() {
    let plan = plan("flask").await;
    assert_eq!((plan.recipe.as_str(), plan.framework.as_deref()), ("python", Some("Flask")));
    assert_eq!(plan.version.as_deref(), Some("3.11"));
    assert_eq!(plan.install.last().unwrap(), &["pip", "install", "gunicorn"]);
    assert_eq!(plan.start.last().unwrap(), "app:app");
}

#[tokio::test]
async fn node() {
    let plan = plan("node").await;
    assert_eq!((plan.recipe.as_str(), plan.framework.as_deref()), ("node", Some("Express")));
    assert_eq!(plan.install, [["npm", "ci"]]);
    assert_eq!(plan.start, ["node", "server.js"]);
}

#[tokio::test]
async fn dockerfile() {
    let plan = plan("dockerfile").await;
    assert_eq!(plan.recipe, "dockerfile");
    assert_eq!(plan.base_images, ["paas/base:bookworm", "paas/static:1"]);
    assert_eq!(plan.port.map(Port::number), Some(3000));
}
