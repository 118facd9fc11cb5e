//! What is planned for the apps that people write, and the Dockerfiles, as snapshots.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use paas_core::memory::MemoryTree;
use paas_core::{BuildPlan, Dockerfile, Error, Kind, Planner, Port, Result};
use paas_plan::{BaseImages, SourcePlanner};

const FLASK: &str = "from flask import Flask\n\napp = Flask(__name__)\n";

async fn judge<const N: usize>(files: [(&str, &str); N]) -> Result<BuildPlan> {
    let tree = MemoryTree::new(files.map(|(path, text)| (path, text.to_owned())))?;
    SourcePlanner::default().plan(Arc::new(tree)).await
}

async fn plan<const N: usize>(files: [(&str, &str); N]) -> BuildPlan {
    judge(files).await.unwrap_or_else(|error| panic!("{error:?}"))
}

async fn refusal<const N: usize>(files: [(&str, &str); N]) -> Error {
    judge(files).await.expect_err("it should not be planned")
}

/// A plan as people read it.
fn page(plan: &BuildPlan) -> String {
    let mut page = String::new();
    for reason in &plan.reasons {
        page += &format!("# {reason}\n");
    }
    page += plan.dockerfile.text();
    if let Dockerfile::Generated { files, .. } = &plan.dockerfile {
        for path in files.keys() {
            page += &format!("# beside it: {path}\n");
        }
    }
    page
}

#[tokio::test]
async fn flask() {
    let plan = plan([("requirements.txt", "Flask>=3\n"), ("app.py", FLASK)]).await;
    assert_eq!(plan.framework.as_deref(), Some("Flask"));
    assert_eq!(
        plan.install,
        [vec!["pip", "install", "-r", "requirements.txt"], vec!["pip", "install", "gunicorn"]]
    );
    insta::assert_snapshot!(page(&plan));
}

#[tokio::test]
async fn fastapi_of_a_pyproject() {
    let project = "[project]\nname = \"x\"\nrequires-python = \">=3.10,<3.13\"\ndependencies = [\"fastapi\", \"uvicorn[standard]>=0.30\"]\n";
    let plan =
        plan([("pyproject.toml", project), ("src/main.py", "import fastapi\napp: X = fastapi.FastAPI()\n")])
            .await;
    assert_eq!(plan.version.as_deref(), Some("3.12"));
    insta::assert_snapshot!(page(&plan));
}

#[tokio::test]
async fn django() {
    let plan = plan([
        ("requirements.txt", "-r base.txt\ngunicorn\n"),
        ("base.txt", "django"),
        ("manage.py", ""),
        ("mysite/wsgi.py", ""),
        ("mysite/asgi.py", ""),
        (".python-version", "3.11.7\n"),
    ])
    .await;
    assert_eq!(plan.start.last().unwrap(), "mysite.wsgi:application");
    insta::assert_snapshot!(page(&plan));
}

#[tokio::test]
async fn a_python_script() {
    let plan = plan([("pyproject.toml", "[project]\nname = \"x\"\n"), ("main.py", "print('hello')")]).await;
    assert!(plan.install.is_empty());
    insta::assert_snapshot!(page(&plan));
}

#[tokio::test]
async fn python_apps_are_found_where_people_put_them() {
    for (path, text, object) in [
        ("app.py", FLASK, "app:app"),
        ("wsgi.py", "from shop import create_app\napplication = create_app()\n", "wsgi:application"),
        (
            "app/__init__.py",
            "from flask import Flask\ndef create_app(x=1):\n    return Flask(x)\n",
            "app:create_app()",
        ),
        ("src/app.py", FLASK, "app:app"),
        ("api/main.py", "web = flask.Flask('x')\n", "api.main:web"),
    ] {
        let plan = plan([("requirements.txt", "flask\ngunicorn"), (path, text)]).await;
        assert_eq!(plan.start, ["gunicorn", "--threads", "4", "--keep-alive", "75", object], "{path}");
    }
    let plan =
        plan([("requirements.txt", "fastapi"), ("main.py", "def create_app():\n    return FastAPI()\n")])
            .await;
    assert_eq!(plan.start[4..], ["--factory", "main:create_app"]);
}

#[tokio::test]
async fn a_project_with_a_build_system_is_installed_as_one() {
    let poetry = "[tool.poetry.dependencies]\npython = \"^3.11\"\nflask = \"^3\"\n";
    let dynamic = "[project]\nname = \"x\"\ndynamic = [\"dependencies\"]\n";
    for project in [poetry, dynamic] {
        let plan = plan([("pyproject.toml", project), ("app.py", FLASK)]).await;
        assert_eq!(plan.install[0], ["pip", "install", "."]);
    }
}

#[tokio::test]
async fn the_python_version_comes_from_the_most_particular_file() {
    let project = "[project]\nname = \"x\"\nrequires-python = \">=3.12\"\n";
    for (file, text, expected) in [
        (".python-version", "# pinned\n3.10\n", "3.10"),
        ("runtime.txt", "python-3.11.4", "3.11"),
        ("README", "", "3.13"),
    ] {
        let plan = plan([("pyproject.toml", project), ("app.py", FLASK), (file, text)]).await;
        assert_eq!(plan.version.as_deref(), Some(expected), "{file}");
    }
}

#[tokio::test]
async fn a_version_that_is_not_available_names_file_and_line() {
    let project = "[project]\nname = \"x\"\nrequires-python = \"<3\"\n";
    let error = refusal([("pyproject.toml", project), ("app.py", FLASK)]).await;
    assert!(error.message().contains("`pyproject.toml` (line 3: `<3`)"), "{error}");
    assert!(error.hinted().unwrap().contains("available: 3.10, 3.11"), "{error:?}");

    let package = "{\n  \"engines\": {\n    \"node\": \"^12\"\n  }\n}";
    let error = refusal([("package.json", package), ("index.js", "")]).await;
    assert!(error.message().contains("`package.json` (line 3: `^12`)"), "{error}");

    let error = refusal([("package.json", "{}"), ("index.js", ""), (".nvmrc", "\nseventeen")]).await;
    assert!(error.message().contains("`.nvmrc` (line 2: `seventeen`)"), "{error}");
}

#[tokio::test]
async fn express() {
    let package =
        r#"{"scripts":{"start":"node server.js"},"engines":{"node":"20.x"},"dependencies":{"express":"^4"}}"#;
    let plan = plan([("package.json", package), ("package-lock.json", "{}"), ("server.js", "")]).await;
    assert_eq!(plan.framework.as_deref(), Some("Express"));
    assert_eq!(plan.install, [["npm", "ci"]]);
    insta::assert_snapshot!(page(&plan));
}

#[tokio::test]
async fn node_without_dependencies() {
    let plan = plan([("package.json", r#"{"main":"./web"}"#), ("web.js", "")]).await;
    assert!(plan.install.is_empty());
    insta::assert_snapshot!(page(&plan));
}

#[tokio::test]
async fn next() {
    let package = r#"{"scripts":{"build":"next build","start":"next start"},"dependencies":{"next":"15","react":"19"}}"#;
    insta::assert_snapshot!(page(&plan([("package.json", package), (".npmrc", "")]).await));
}

#[tokio::test]
async fn vite() {
    let package = r#"{"scripts":{"dev":"vite","build":"vite build"},"devDependencies":{"vite":"^5"}}"#;
    let plan = plan([("package.json", package), ("package-lock.json", "{}"), ("index.html", "")]).await;
    assert_eq!(plan.recipe, "node");
    assert_eq!(plan.base_images, ["node:24-slim", "busybox:1.37"]);
    insta::assert_snapshot!(page(&plan));
}

#[tokio::test]
async fn a_development_server_does_not_serve_a_site_that_can_be_built() {
    for (dependency, start, directory) in [
        ("react-scripts", "react-scripts start", "build"),
        ("astro", "astro dev", "dist"),
        ("vite", "vite --host", "dist"),
    ] {
        let package = format!(
            r#"{{"scripts":{{"start":"{start}","build":"b"}},"dependencies":{{"{dependency}":"1"}}}}"#
        );
        let plan = plan([("package.json", &package)]).await;
        assert!(
            plan.dockerfile.text().contains(&format!("[\"/app/{directory}/\",\"/srv/\"]")),
            "{dependency}"
        );
    }
    let package = r#"{"scripts":{"start":"vite preview","build":"b"},"dependencies":{"vite":"1"}}"#;
    assert_eq!(plan([("package.json", package)]).await.start, ["npm", "start"]);
}

#[tokio::test]
async fn start_scripts_that_a_shell_must_read_go_through_npm() {
    for script in
        ["NODE_ENV=x node a.js", "node a.js && b", "node $X", "nodemon", "node a\\nRUN --network=host id"]
    {
        let package = format!(r#"{{"scripts":{{"start":"{script}"}}}}"#);
        assert_eq!(plan([("package.json", &package)]).await.start, ["npm", "start"], "{script}");
    }
    let hooked = r#"{"scripts":{"prestart":"x","start":"node a.js"}}"#;
    assert_eq!(plan([("package.json", hooked)]).await.start, ["npm", "start"]);
}

#[tokio::test]
async fn a_static_site() {
    insta::assert_snapshot!(page(&plan([("index.html", ""), ("404.html", ""), ("style.css", "")]).await));
}

#[tokio::test]
async fn a_static_site_in_a_directory() {
    let plan = plan([("Staticfile", "# comment\nroot: ./web site/\n"), ("web site/index.html", "")]).await;
    insta::assert_snapshot!(page(&plan));
    let Dockerfile::Generated { files, .. } = &plan.dockerfile else { panic!("generated") };
    insta::assert_snapshot!(files[".paas/httpd.conf"]);
    // Secrets, settings and the repository's own business are not for visitors.
    assert_eq!(files[".dockerignore"], "web site/**/.*\n!web site/**/.well-known\n");
}

#[tokio::test]
async fn a_root_may_lie_deep() {
    let plan = plan([("Staticfile", "root: a/b/c/d"), ("a/b/c/d/index.html", "")]).await;
    assert!(plan.dockerfile.text().contains("COPY [\"a/b/c/d/\",\"/srv/\"]"));
}

#[tokio::test]
async fn public_is_served_where_there_is_nothing_else() {
    let plan = plan([("public/index.html", ""), ("README.md", "")]).await;
    assert!(plan.dockerfile.text().contains("COPY [\"public/\",\"/srv/\"]"));
}

#[tokio::test]
async fn a_root_that_is_no_directory_is_refused() {
    for root in ["..", "/etc", "$HOME", "*", "missing", "a\\b"] {
        let staticfile = format!("\nroot: {root}");
        let error = refusal([("Staticfile", &staticfile), ("index.html", "")]).await;
        assert!(error.message().contains("line 2"), "{root}: {error}");
    }
}

#[tokio::test]
async fn a_dockerfile_wins_and_tells_its_port() {
    let plan =
        plan([("Dockerfile", "FROM scratch\nEXPOSE 3000"), ("app.py", FLASK), ("requirements.txt", "")])
            .await;
    assert_eq!(plan.recipe, "dockerfile");
    assert_eq!(plan.port.map(Port::number), Some(3000));
    assert!(plan.start.is_empty());
}

#[tokio::test]
async fn an_app_without_a_start_yields_to_a_recipe_that_fits() {
    let plan = plan([("requirements.txt", "black"), ("package.json", "{}"), ("index.html", "")]).await;
    assert_eq!(plan.recipe, "static");
}

#[tokio::test]
async fn without_a_start_the_hint_says_what_was_looked_for() {
    let error = refusal([("requirements.txt", "flask"), ("lib/x.py", FLASK)]).await;
    assert_eq!(error.message(), "this is a Python app, but nothing says how it starts");
    assert!(error.hinted().unwrap().contains("manage.py"), "{error:?}");

    let error = refusal([("package.json", "{}")]).await;
    assert_eq!(error.message(), "this is a Node app, but nothing says how it starts");
    assert!(error.hinted().unwrap().contains("scripts.start"), "{error:?}");

    let error = refusal([("README.md", "")]).await;
    let hint = error.hinted().unwrap();
    for file in ["Dockerfile", "requirements.txt", "package.json", "index.html"] {
        assert!(hint.contains(file), "{hint}");
    }
}

#[tokio::test]
async fn an_installation_may_bring_its_own_images() {
    let images = BaseImages::new([("python:3.11", "paas/python:3.11"), ("static", "paas/static:1")]).unwrap();
    let planner = SourcePlanner::new(images);
    let flask = MemoryTree::new([("requirements.txt", "flask"), ("app.py", FLASK)]).unwrap();
    let plan = planner.plan(Arc::new(flask)).await.unwrap();
    assert_eq!(plan.base_images, ["paas/python:3.11"]);

    let node = MemoryTree::new([("package.json", "{}"), ("index.js", "")]).unwrap();
    let error = planner.plan(Arc::new(node)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported);
}
