//! How a Python app is started.

use paas_core::{Error, Result};

use super::manifest::Manifest;
use crate::OPERATION;
use crate::source::Source;

/// Where apps keep their entry, the likeliest first.
const CANDIDATES: [&str; 18] = [
    "app.py",
    "main.py",
    "wsgi.py",
    "asgi.py",
    "server.py",
    "application.py",
    "api.py",
    "run.py",
    "index.py",
    "app/main.py",
    "app/app.py",
    "app/__init__.py",
    "api/main.py",
    "api/app.py",
    "src/app.py",
    "src/main.py",
    "src/app/main.py",
    "src/app/__init__.py",
];
/// Those that are run as they are, when no framework is found.
const SCRIPTS: [&str; 5] = ["main.py", "app.py", "server.py", "run.py", "src/main.py"];

/// A start command.
#[derive(Debug)]
pub(super) struct Start {
    pub(super) framework: Option<&'static str>,
    /// The package that serves it.
    pub(super) server: Option<&'static str>,
    pub(super) command: Vec<String>,
    pub(super) reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framework {
    Flask,
    FastApi,
}

/// Finds the start command; the inner error is the user's, who has none.
pub(super) async fn find(source: &Source, manifest: &Manifest) -> Result<Result<Start, Error>> {
    if source.has_file("manage.py")
        && let Some(start) = django(source)
    {
        return Ok(Ok(start));
    }
    for path in CANDIDATES.iter().filter(|path| source.has_file(path)) {
        let Some(text) = source.code(path).await? else { continue };
        if let Some((framework, object)) = web_app(&text, manifest) {
            return Ok(Ok(serve(framework, path, &object)));
        }
    }
    if let Some(script) = SCRIPTS.iter().find(|path| source.has_file(path)) {
        return Ok(Ok(Start {
            framework: None,
            server: None,
            command: vec!["python".to_owned(), (*script).to_owned()],
            reason: format!("`{script}` is run as a script: no web framework was recognised"),
        }));
    }
    Ok(Err(Error::invalid(OPERATION, "this is a Python app, but nothing says how it starts").hint(format!(
        "looked for Django's manage.py with a wsgi.py, for a Flask or FastAPI object in {}, and for a script {}; \
         add one of these, or a Dockerfile",
        CANDIDATES.join(", "),
        SCRIPTS.join(", ")
    ))))
}

/// Django: the first package with a `wsgi.py`, else with an `asgi.py`.
fn django(source: &Source) -> Option<Start> {
    for (file, server) in [("wsgi.py", "gunicorn"), ("asgi.py", "uvicorn")] {
        let module = source.files().find_map(|path| {
            let package = path.strip_suffix(file)?.strip_suffix('/')?;
            is_module_path(package).then(|| format!("{}.{}", package.replace('/', "."), &file[..4]))
        });
        if let Some(module) = module {
            let reason = format!("Django, because there is a manage.py; {server} serves `{module}`");
            let object = format!("{module}:application");
            return Some(Start {
                framework: Some("Django"),
                server: Some(server),
                command: server_command(server, &object),
                reason,
            });
        }
    }
    None
}

fn serve(framework: Framework, path: &str, object: &str) -> Start {
    let module = path.strip_suffix(".py").unwrap_or(path);
    let module = module.strip_suffix("/__init__").unwrap_or(module);
    let module = module.strip_prefix("src/").unwrap_or(module).replace('/', ".");
    let (name, server) = match framework {
        Framework::Flask => ("Flask", "gunicorn"),
        Framework::FastApi => ("FastAPI", "uvicorn"),
    };
    Start {
        framework: Some(name),
        server: Some(server),
        command: server_command(server, &format!("{module}:{object}")),
        reason: format!("{name}, because `{path}` makes its app; {server} serves `{module}:{object}`"),
    }
}

fn server_command(server: &str, object: &str) -> Vec<String> {
    let command: Vec<&str> = if server == "gunicorn" {
        // It listens on $PORT by itself. It closes idle connections after 2 s by default, and with one thread
        // after every answer: a proxy's next request could meet the closing.
        vec!["gunicorn", "--threads", "4", "--keep-alive", "75", object]
    } else {
        let run = "exec uvicorn --host 0.0.0.0 --port \"${PORT:-8080}\" --timeout-keep-alive 75 \"$@\"";
        let mut command = vec!["sh", "-c", run, "sh"];
        match object.strip_suffix("()") {
            Some(factory) => command.extend(["--factory", factory]),
            None => command.push(object),
        }
        command
    };
    command.into_iter().map(str::to_owned).collect()
}

/// The web app that a file makes at its top level, and the name of the object or factory.
fn web_app(text: &str, manifest: &Manifest) -> Option<(Framework, String)> {
    let mut factory = None;
    for line in text.lines() {
        if line.starts_with("def create_app(") {
            factory = Some("create_app()".to_owned());
        }
        let Some((name, value)) = line.split_once('=') else { continue };
        // `app: Flask = Flask(...)` names its type.
        let name = name.split(':').next().unwrap_or(name).trim_end();
        if !is_identifier(name) {
            continue;
        }
        let Some((callee, _)) = value.split_once('(') else { continue };
        match callee.trim().rsplit('.').next() {
            Some("Flask") => return Some((Framework::Flask, name.to_owned())),
            Some("FastAPI") => return Some((Framework::FastApi, name.to_owned())),
            Some("create_app" | "make_app") => factory = Some(name.to_owned()),
            _ => {}
        }
    }
    // What the factory makes is seen in the same file, or in what the app depends on.
    let framework = if text.contains("FastAPI(") {
        Framework::FastApi
    } else if text.contains("Flask(") || manifest.dependencies.contains("flask") {
        Framework::Flask
    } else if manifest.dependencies.contains("fastapi") {
        Framework::FastApi
    } else {
        return None;
    };
    factory.map(|factory| (framework, factory))
}

fn is_module_path(path: &str) -> bool {
    path.split('/').all(is_identifier)
}

fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
