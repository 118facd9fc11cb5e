//! Whatever a repository holds, there is a plan or the user's fault: never a panic, never another's fault.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use paas_core::memory::MemoryFiles;
use paas_core::testing::planner::PlannerTree;
use paas_core::{BuildPlan, Fault, Kind, Planner, Result, Retry};
use paas_plan::SourcePlanner;
use proptest::prelude::*;

const NAMES: [&str; 14] = [
    "Dockerfile",
    "requirements.txt",
    "pyproject.toml",
    ".python-version",
    "runtime.txt",
    "app.py",
    "app/__init__.py",
    "manage.py",
    "package.json",
    "package-lock.json",
    ".nvmrc",
    "server.js",
    "index.html",
    "Staticfile",
];

fn plan(tree: PlannerTree) -> Result<BuildPlan> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(SourcePlanner::default().plan(Arc::new(tree)))
}

fn check(tree: PlannerTree) {
    match plan(tree) {
        Ok(plan) => check_dockerfile(&plan),
        Err(error) => {
            assert_eq!(error.kind(), Kind::Invalid, "{error:?}");
            assert_eq!(error.whose(), Fault::User, "{error:?}");
            assert_eq!(error.retryable(), Retry::Permanent, "{error:?}");
            assert!(error.hinted().is_some(), "{error:?}");
            assert!(!error.message().contains('\n'), "{error:?}");
        }
    }
}

/// Every line of a generated Dockerfile is one that the planner writes.
fn check_dockerfile(plan: &BuildPlan) {
    let paas_core::Dockerfile::Generated { text, .. } = &plan.dockerfile else { return };
    for line in text.lines() {
        let is_known = ["FROM ", "RUN ", "ENV ", "USER 1000:1000", "WORKDIR /app", "COPY ", "CMD ["]
            .iter()
            .any(|start| line.starts_with(start))
            || line.is_empty()
            || line.starts_with("    --mount=type=cache,id=")
            || line.starts_with("    [\"sh\",\"-c\",");
        assert!(is_known, "{line}");
        assert!(!line.contains("--security") && !line.contains("--network"), "{line}");
    }
    let stages = text.lines().filter(|line| line.starts_with("FROM ")).count();
    assert!((1..=2).contains(&stages), "{text}");
}

fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~\\n]{0,40}",
        "\\PC{0,20}",
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            "\"",
            ":",
            ",",
            "\n",
            "\\",
            "=",
            "[project]\n",
            "dependencies = [\"flask\"]\n",
            "requires-python = \">=3.11\"\n",
            "\"scripts\":{",
            "\"start\":\"node server.js\"",
            "\"start\":\"a\\nRUN --network=host id\"",
            "\"main\":\"server.js\"",
            "\"engines\":{\"node\":\"20\"}",
            "FROM a\n",
            "RUN --network=host x\n",
            "root: public\n",
            "root: ../..\n",
            "app = Flask(__name__)\n",
            "def create_app():\n",
            "flask\n",
            "-r x\n",
            "3.11",
            "v20",
        ])
        .prop_map(str::to_owned),
    ]
}

fn content() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        3 => prop::collection::vec(piece(), 0..12).prop_map(|pieces| pieces.concat().into()),
        1 => prop::collection::vec(any::<u8>(), 0..60).prop_map(Bytes::from),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn garbage_manifests(files in prop::collection::btree_map(prop::sample::select(&NAMES[..]), content(), 0..5)) {
        check(PlannerTree::new(files.into_iter().collect::<MemoryFiles>()));
    }

    #[test]
    fn broken_copies_of_real_manifests(
        cut in 0_usize..200,
        at in 0_usize..200,
        byte in any::<u8>(),
    ) {
        let package = r#"{"name":"x","main":"server.js","scripts":{"start":"node server.js","build":"vite build"},"engines":{"node":">=20"},"dependencies":{"vite":"^5"}}"#;
        let project = "[project]\nname = \"x\"\nrequires-python = \">=3.11\"\ndependencies = [\"flask>=3\", \"gunicorn\"]\n";
        for (name, text) in [("package.json", package), ("pyproject.toml", project)] {
            let mut bytes = text.as_bytes().to_vec();
            let at = at % bytes.len();
            bytes[at] = byte;
            bytes.truncate(cut.max(1));
            check(PlannerTree::new([(name, bytes), ("server.js", Vec::new()), ("app.py", b"app = Flask(__name__)".to_vec())]));
        }
    }

    #[test]
    fn text_of_a_dependency_stays_in_its_json_string(dependency in "\\PC{1,60}") {
        let project = toml::Table::from_iter([(
            "project".to_owned(),
            toml::Table::from_iter([("dependencies".to_owned(), toml::Value::from(vec![dependency]))]).into(),
        )]);
        check(PlannerTree::new([("pyproject.toml", project.to_string()), ("main.py", String::new())]));
    }
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let json = format!("{}{}", open.repeat(100_000), close.repeat(100_000));
        assert!(plan(PlannerTree::new([("package.json", json)])).is_err());
    }
    let toml = format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(plan(PlannerTree::new([("pyproject.toml", toml)])).is_err());
    let keys = format!("{}a = 1", "a.".repeat(100_000));
    check(PlannerTree::new([("pyproject.toml", keys)]));
    let header = format!("[{}a]", "a.".repeat(100_000));
    check(PlannerTree::new([("pyproject.toml", header)]));
}

#[test]
fn a_manifest_of_100_megabytes_is_not_read() {
    for name in ["package.json", "pyproject.toml", "requirements.txt", "Dockerfile"] {
        let error = plan(PlannerTree::new([(name, "")]).with_endless(name)).unwrap_err();
        assert_eq!(error.reason(), Some("too_large"), "{error:?}");
        assert!(error.hinted().is_some(), "{error:?}");
    }
}

#[test]
fn code_without_an_end_is_passed_over() {
    let tree = PlannerTree::new([
        ("requirements.txt", "flask"),
        ("app.py", ""),
        ("main.py", "app = Flask(__name__)"),
    ]);
    let plan = plan(tree.with_endless("app.py")).unwrap();
    assert_eq!(plan.start.last().unwrap(), "main:app");
}
