//! What `make run` shows: the HTTP server in a process of its own, a git server with a sample app, and a deployment
//! through the API, step by step. Ctrl-C stops the server; the app keeps running, and the next run finds it.

#![allow(clippy::print_stdout)] // it talks to people

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use jiff::Timestamp;
use paas_git::testing::GitServer;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

type Outcome<T> = Result<T, Box<dyn Error>>;

const APP: &str = "hello";
const GIT_PORT: u16 = 7081;
/// How long a stopping server is waited for: a little longer than it takes itself.
const STOP: Duration = Duration::from_secs(40);

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Outcome<()> {
    let data = data_directory()?;
    let git = GitServer::start_on(data.join("git"), GIT_PORT)
        .await
        .map_err(|error| format!("the git server can't listen at port {GIT_PORT}: {error}"))?;
    if !data.join("git").join(format!("{APP}.git")).exists() {
        git.commit(APP, "main", paas_core::memory::MemoryFiles::from(SITE)).await?;
    }
    git.allow_push(APP).await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let (mut server, api) = start_server(&data).await?;
    let repository = git.url(APP).to_string();
    let shown = tokio::select! {
        shown = async { show(&api, &repository).await?; Ok(server.wait().await?) } => shown.and_then(|status| {
            if status.success() { Ok(()) } else { Err("the server ended: see above".into()) }
        }),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
    };
    if shown.is_ok() {
        println!("\nstopping; the app keeps running");
    }
    stop(&mut server).await;
    shown
}

/// The sample app: what is in `examples/apps/static-site`.
const SITE: [(&str, &str); 4] = [
    ("index.html", include_str!("apps/static-site/index.html")),
    ("style.css", include_str!("apps/static-site/style.css")),
    ("404.html", include_str!("apps/static-site/404.html")),
    ("icon.svg", include_str!("apps/static-site/icon.svg")),
];

fn data_directory() -> Outcome<PathBuf> {
    let base = match (std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME")) {
        (Some(data), _) => PathBuf::from(data),
        (None, Some(home)) => Path::new(&home).join(".local/share"),
        (None, None) => return Err("set HOME: the server's data is kept below it".into()),
    };
    let data = base.join("paas");
    std::fs::create_dir_all(&data)?;
    Ok(data)
}

/// The API as one user sees it.
struct Api {
    address: String,
    token: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// Starts the server beside this program, and waits until it says where it listens.
async fn start_server(data: &Path) -> Outcome<(Child, Api)> {
    let program = std::env::current_exe()?.with_file_name("http_server");
    let directory = data.join("server");
    let mut command = Command::new(program);
    command
        .env("PAAS_DATA_DIRECTORY", &directory)
        .env("PAAS_ALLOWED_HOSTS", format!("[\"127.0.0.1:{GIT_PORT}\"]"))
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    if let Some(images) = made_images().await? {
        command.env("PAAS_BASE_IMAGES", images);
    }
    if let Some(host) = engine_address().await {
        command.env("DOCKER_HOST", host);
    }
    let authorities = Path::new("/etc/ssl/certs/ca-certificates.crt");
    if authorities.exists() {
        command.env("PAAS_CA_BUNDLE", authorities);
    }
    if std::env::var_os("PAAS_LOG").is_none() {
        command.env("PAAS_LOG", "warn");
    }
    let mut server = command.spawn()?;
    let output = server.stdout.take().ok_or("the server has no output")?;
    let mut lines = BufReader::new(output).lines();
    while let Some(line) = lines.next_line().await? {
        let Some(address) = line.strip_prefix("API:") else { continue };
        let token = std::fs::read_to_string(directory.join("token"))?.trim().to_owned();
        let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
        // What else it prints is read, so that it never waits for a reader.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        return Ok((server, Api { address: address.trim().to_owned(), token, client }));
    }
    Err("the server did not start: see above".into())
}

/// The base images that `examples/setup/base-images.sh` made, as the server's setting. Where it pulled public ones,
/// there are none: the server's own map, with more versions, can be used.
async fn made_images() -> Outcome<Option<String>> {
    let output = Command::new("docker")
        .args(["images", "--filter", "label=paas.base-image=made", "--format", "{{.Repository}}:{{.Tag}}"])
        .output()
        .await?;
    let images = String::from_utf8_lossy(&output.stdout).into_owned();
    let entries: Vec<_> = images
        .lines()
        .filter_map(|image| {
            let key = match image.strip_prefix("paas/")? {
                "static:1" => "static",
                key if key.starts_with("python:") || key.starts_with("node:") => key,
                _ => return None,
            };
            Some(format!("{key:?} = {image:?}"))
        })
        .collect();
    Ok((!entries.is_empty()).then(|| format!("{{ {} }}", entries.join(", "))))
}

/// The engine that the `docker` command talks to, which may be another than the machine's own.
async fn engine_address() -> Option<String> {
    if std::env::var_os("DOCKER_HOST").is_some() {
        return None;
    }
    let output = Command::new("docker")
        .args(["context", "inspect", "--format", "{{.Endpoints.docker.Host}}"])
        .output()
        .await
        .ok()?;
    let host = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !host.is_empty()).then_some(host)
}

impl Api {
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Outcome<(u16, Value)> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .body(Full::from(body))?;
        let answer = self.client.request(request).await?;
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await?.to_bytes();
        Ok((status, serde_json::from_slice(&bytes).unwrap_or(Value::Null)))
    }

    /// A call that must be answered with this status.
    async fn wanted(&self, status: u16, method: Method, path: &str, body: Option<&Value>) -> Outcome<Value> {
        match self.call(method, path, body).await? {
            (answered, value) if answered == status => Ok(value),
            (answered, value) => Err(format!("the API answered {answered}: {value}").into()),
        }
    }
}

async fn show(api: &Api, repository: &str) -> Outcome<()> {
    let path = format!("/v1/apps/{APP}");
    let (status, app) = api.call(Method::GET, &path, None).await?;
    let deployment = match (status, app["state"].as_str()) {
        (404, _) => {
            println!("deploying {repository}");
            let wanted = json!({ "name": APP, "repository": repository });
            Some(api.wanted(201, Method::POST, "/v1/apps", Some(&wanted)).await?["deployment"]["id"].clone())
        }
        (200, Some(state @ ("running" | "stopped"))) => {
            println!("{APP} is here from an earlier run, and {state}");
            None
        }
        // An earlier run ended before the app was live.
        (200, _) => {
            println!("deploying {repository}");
            let none = json!({});
            Some(
                api.wanted(202, Method::POST, &format!("{path}/deployments"), Some(&none)).await?["id"]
                    .clone(),
            )
        }
        _ => return Err(format!("the API answered {status}: {app}").into()),
    };
    if let Some(id) = deployment {
        watch(api, id.as_str().ok_or("the answer names no deployment")?).await?;
    }
    let (_, app) = api.call(Method::GET, &format!("/v1/apps/{APP}"), None).await?;
    let url = app["url"].as_str().unwrap_or("none: see its deployments");
    let (address, token) = (&api.address, &api.token);
    println!(
        "
  App    {url}
  API    {address}     (description: {address}/docs)
  Token  {token}

Change the app and deploy it again:
  git clone {repository} && cd {APP} && (edit, commit) && git push
  curl -X POST -H 'Authorization: Bearer {token}' {address}/v1/apps/{APP}/deployments

Deploy a repository of your own:
  curl -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \\
       -d '{{\"name\": \"mine\", \"repository\": \"https://github.com/you/your-app.git\"}}' {address}/v1/apps

Ctrl-C stops the server; the app keeps running."
    );
    Ok(())
}

/// Prints a deployment's events as they come, until it is settled.
async fn watch(api: &Api, id: &str) -> Outcome<()> {
    let path = format!("/v1/deployments/{id}/events/stream");
    let request = Request::get(format!("{}{path}", api.address))
        .header("authorization", format!("Bearer {}", api.token))
        .body(Full::default())?;
    let mut body = api.client.request(request).await?.into_body();
    let (mut text, mut began) = (String::new(), None);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        text.push_str(&String::from_utf8_lossy(&data));
        while let Some(end) = text.find('\n') {
            let line: String = text.drain(..=end).collect();
            if let Some(event) =
                line.strip_prefix("data:").and_then(|data| serde_json::from_str::<Value>(data).ok())
            {
                print_event(&event, &mut began);
            }
        }
    }
    let (_, deployment) = api.call(Method::GET, &format!("/v1/deployments/{id}"), None).await?;
    match deployment["state"].as_str() {
        Some("running") => Ok(()),
        _ => Err(format!("the deployment did not succeed: {}", deployment["failure"]).into()),
    }
}

fn print_event(event: &Value, began: &mut Option<Timestamp>) {
    let Some(at) = event["at"].as_str().and_then(|at| at.parse::<Timestamp>().ok()) else { return };
    let elapsed = at.duration_since(*began.get_or_insert(at)).as_secs_f64();
    let step = event["step"].as_str().unwrap_or_default();
    let what = match event["type"].as_str().unwrap_or_default() {
        "step_started" => format!("{step} …"),
        "step_finished" => format!("{step} done"),
        "step_failed" => {
            format!("{step} failed: {}", event["failure"]["message"].as_str().unwrap_or_default())
        }
        "ended" => "ended".to_owned(),
        _ => return,
    };
    println!("  {elapsed:7.3} s  {what}");
}

/// The server got the terminal's Ctrl-C too, if there was one; otherwise it is asked now.
async fn stop(server: &mut Child) {
    let id = server.id().and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    if let (Ok(None), Some(id)) = (server.try_wait(), id) {
        let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        let _ = tokio::time::timeout(STOP, server.wait()).await;
    }
}
