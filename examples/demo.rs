//! What `make run` shows: the HTTP server in a process of its own, a git server with a sample app, and a deployment
//! through the API, step by step. Ctrl-C stops the server; the app keeps running, and the next run finds it.

#![allow(clippy::print_stdout)] // it talks to people

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::{Method, Request};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use paas_git::testing::GitServer;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

type Outcome<T> = Result<T, Box<dyn Error>>;

const APP: &str = "hello";
const GIT_PORT: u16 = 7081;
/// How long a stopping server is waited for: a little longer than it takes itself.
const STOP: Duration = Duration::from_secs(40);

#[tokio::main]
async fn main() -> Outcome<()> {
    let data = data_directory()?;
    let git = GitServer::start_on(data.join("git"), GIT_PORT).await?;
    if !data.join("git").join(format!("{APP}.git")).exists() {
        git.commit(APP, "main", paas_core::memory::MemoryFiles::from(SITE)).await?;
        git.allow_push(APP).await?;
    }
    let (mut server, api) = start_server(&data).await?;
    let repository = git.url(APP).to_string();
    let shown = tokio::select! {
        shown = show(&api, &repository) => shown,
        _ = server.wait() => Err("the server ended".into()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    if let Err(error) = &shown {
        println!("\n{error}");
    } else {
        tokio::select! {
            _ = server.wait() => {}
            _ = tokio::signal::ctrl_c() => println!("\nstopping; the app keeps running"),
        }
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
    let mut command = Command::new(program);
    command
        .env("PAAS_DATA_DIRECTORY", data.join("server"))
        .env("PAAS_ALLOWED_HOSTS", format!("[\"127.0.0.1:{GIT_PORT}\"]"))
        .env("PAAS_BASE_IMAGES", base_images().await?)
        .stdout(Stdio::piped())
        .kill_on_drop(true);
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
    let (mut address, mut token) = (None, None);
    while let Some(line) = lines.next_line().await? {
        match line.split_once(':') {
            Some(("API", rest)) => address = Some(rest.trim().to_owned()),
            Some(("Token", rest)) => token = Some(rest.trim().to_owned()),
            _ => {}
        }
        if let (Some(address), Some(token)) = (&address, &token) {
            let client = Client::builder(TokioExecutor::new()).build(HttpConnector::new());
            return Ok((server, Api { address: address.clone(), token: token.clone(), client }));
        }
    }
    Err("the server did not start: see above".into())
}

/// The base images that `examples/setup/base-images.sh` brought, as the server's setting.
async fn base_images() -> Outcome<String> {
    let output =
        Command::new("docker").args(["images", "--format", "{{.Repository}}:{{.Tag}}"]).output().await?;
    let images = String::from_utf8_lossy(&output.stdout).into_owned();
    let entries = images.lines().filter_map(|image| {
        let key = image.strip_prefix("paas/")?;
        let key = if key == "static:1" { "static" } else { key };
        let is_language = key.starts_with("python:") || key.starts_with("node:") || key == "static";
        is_language.then(|| format!("{key:?} = {image:?}"))
    });
    Ok(format!("{{ {} }}", entries.collect::<Vec<_>>().join(", ")))
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
}

async fn show(api: &Api, repository: &str) -> Outcome<()> {
    let (status, app) = api.call(Method::GET, &format!("/v1/apps/{APP}"), None).await?;
    if status == 404 {
        println!("deploying {repository}");
        let wanted = json!({ "name": APP, "repository": repository });
        let (status, created) = api.call(Method::POST, "/v1/apps", Some(&wanted)).await?;
        if status != 201 {
            return Err(format!("the app was not created: {created}").into());
        }
        let id = created["deployment"]["id"].as_str().ok_or("the answer names no deployment")?.to_owned();
        watch(api, &id).await?;
    } else {
        println!("{APP} is here from an earlier run: {}", app["state"].as_str().unwrap_or("?"));
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

fn print_event(event: &Value, began: &mut Option<f64>) {
    let seconds = event["at"].as_str().map(seconds_of_day).unwrap_or_default();
    let elapsed = seconds - *began.get_or_insert(seconds);
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

/// The seconds since midnight in `2026-01-31T12:34:56.789Z`.
fn seconds_of_day(at: &str) -> f64 {
    let time = at.split_once('T').map_or("", |(_, time)| time.trim_end_matches('Z'));
    time.split(':').filter_map(|part| part.parse::<f64>().ok()).fold(0.0, |sum, part| sum * 60.0 + part)
}

/// The server got the terminal's Ctrl-C too, if there was one; otherwise it is asked now.
async fn stop(server: &mut Child) {
    if let (Ok(None), Some(id)) = (server.try_wait(), server.id()) {
        let _ = Command::new("kill").arg(id.to_string()).status().await;
        let _ = tokio::time::timeout(STOP, server.wait()).await;
    }
}
