//! Goal 8: processor time for each proxied request and memory, against nginx, with 1 and 10,000 routes.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use paas_core::{
    AppId, DeploymentId, Generation, Host, Ingress, InstanceName, RandomIds, Route, RouteTarget, SystemClock,
};
use paas_proxy::{Launcher, ProxyClient, ProxyConfig};
use tokio::process::Command;

use crate::contest::{Contest, Turn};
use crate::installation::context;
use crate::nginx::{Nginx, free_port};
use crate::report::{Report, Row, Target};
use crate::{Effort, Result, machine};

const OURS: &str = "proxy";
const NGINX: &str = "nginx";
const HOPS: &str = "proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host; \
    proxy_set_header X-Forwarded-For $remote_addr; proxy_set_header X-Forwarded-Proto http; \
    proxy_set_header X-Forwarded-Host $host;";

pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let behind = "server { listen 127.0.0.1:@PORT; location / { default_type text/plain; return 200 \"hello world\\n\"; } }";
    let app = Nginx::start(&folder.path().join("app"), 1, behind).await?;
    for count in [1, 10_000] {
        let folder = folder.path().join(count.to_string());
        measure(effort, report, &folder, &app, count).await?;
    }
    app.stop().await
}

/// What a contestant came to: requests, processor time, the slowest hundredth.
struct Load {
    turn: Turn,
    slowest_millis: f64,
}

async fn measure(
    effort: Effort,
    report: &mut Report,
    folder: &Path,
    app: &Nginx,
    count: usize,
) -> Result<()> {
    let nginx = Nginx::start(&folder.join("nginx"), 2, &routes_of_nginx(app, count)).await?;
    let listen = format!("127.0.0.1:{}", free_port()?);
    let directory = Some(folder.join("proxy"));
    let config = ProxyConfig { listen: listen.parse()?, directory, workers: 2, ..ProxyConfig::default() };
    let proxy = ProxyClient::connect_or_spawn(config, Launcher::CurrentProgram).await?;
    let (_, process) = proxy.describe().await?;
    publish(&proxy, app, count).await?;

    let (ours, theirs) = (vec![process], nginx.processes().await?);
    let mut contest = Contest::default();
    let mut slowest = [Vec::new(), Vec::new()];
    for round in 0..=effort.rounds {
        let contestants = [(OURS, &listen, &ours), (NGINX, &nginx.address, &theirs)];
        for (index, (name, address, processes)) in contestants.into_iter().enumerate() {
            let load = load(address, processes, count, effort.turn.max(Duration::from_secs(1))).await?;
            if round > 0 {
                contest.add(name, load.turn);
                slowest[index].push(load.slowest_millis);
            }
        }
    }
    for (name, processes) in [(OURS, &ours), (NGINX, &theirs)] {
        let turn = contest.median(name).ok_or("no turns")?;
        let is_peer = name == NGINX;
        let row = |what: String, value, unit, ratio, target| Row {
            goal: 8,
            what,
            who: name.to_owned(),
            value,
            unit,
            ratio,
            target,
            ..Row::default()
        };
        let ratio = contest.processor_ratio(OURS, NGINX).filter(|_| is_peer);
        let target = is_peer.then_some(Target::AtMost(1.6));
        let micros = turn.processor_micros.unwrap_or_default();
        report.row(row(format!("CPU per request, {count} routes"), micros, "µs", ratio, target));
        report.row(row(
            format!("requests/s, {count} routes, as the machine allows"),
            turn.value,
            "/s",
            None,
            None,
        ));
        let p99 = crate::contest::median(slowest[usize::from(is_peer)].iter().copied()).unwrap_or_default();
        report.row(row(format!("p99 under that load, {count} routes"), p99, "ms", None, None));
        let memory: f64 = processes.iter().map(|id| machine::resident_mebibytes(*id)).sum::<Result<f64>>()?;
        let target = (!is_peer).then_some(Target::AtMost(20.0));
        report.row(row(format!("resident memory, {count} routes"), memory, "MiB", None, target));
    }
    proxy.stop().await?;
    nginx.stop().await
}

fn routes_of_nginx(app: &Nginx, count: usize) -> String {
    let mut text = format!(
        "server_names_hash_max_size 65536; server_names_hash_bucket_size 128;\n\
         upstream app {{ server {}; keepalive 64; keepalive_requests 1000000000; }}\n\
         server {{ listen 127.0.0.1:@PORT default_server; return 421; }}\n",
        app.address
    );
    for number in 0..count {
        let _ = writeln!(
            text,
            "server {{ listen 127.0.0.1:@PORT; server_name app-{number}.localhost; location / {{ proxy_pass http://app; {HOPS} }} }}"
        );
    }
    text
}

async fn publish(proxy: &ProxyClient, app: &Nginx, count: usize) -> Result<()> {
    let (context, ids) = (context(), RandomIds::new(SystemClock::new()));
    let instance = InstanceName::of(&DeploymentId::generate(&ids), 0);
    for number in 0..count {
        let host: Host = format!("app-{number}.localhost").parse()?;
        let target = RouteTarget { instance: instance.clone(), address: app.address.parse()? };
        let route = Route { host, app: AppId::generate(&ids), targets: vec![target] };
        proxy.publish(&context, &route, Generation(number as u64 + 1)).await?;
    }
    Ok(())
}

/// Asks as fast as the machine allows.
async fn load(address: &str, processes: &[u32], hosts: usize, time: Duration) -> Result<Load> {
    let used = || processes.iter().map(|id| machine::processor_time(*id)).sum::<Result<Duration>>();
    let before = used()?;
    let output = Command::new("wrk")
        .args(["-t1", "-c32", "--latency", &format!("-d{}", time.as_secs().max(1)), "-s"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/hosts.lua"))
        .arg(format!("http://{address}/"))
        .env("HOSTS", hosts.to_string())
        .output()
        .await
        .map_err(|error| format!("wrk can't be started ({error}): install it with apt"))?;
    let processor = used()? - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() || text.contains("Non-2xx") || text.contains("Socket errors") {
        return Err(format!("wrk had errors:\n{text}").into());
    }
    let line = |word: &str| text.lines().find(|line| line.contains(word)).unwrap_or_default().to_owned();
    let requests: f64 = line(" requests in ").split_whitespace().next().unwrap_or_default().parse()?;
    let slowest = line("99%");
    Ok(Load {
        turn: Turn::of_rate(requests, time.as_secs().max(1) as f64, processor.as_secs_f64()),
        slowest_millis: millis(slowest.split_whitespace().nth(1).unwrap_or_default())?,
    })
}

/// A time as wrk writes it, such as `1.25ms` or `830.00us`.
fn millis(text: &str) -> Result<f64> {
    let (number, scale) = match (text.strip_suffix("us"), text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), ..) => (number, 1e-3),
        (_, Some(number), _) => (number, 1.0),
        (_, _, Some(number)) => (number, 1e3),
        _ => return Err(format!("`{text}` is no time").into()),
    };
    Ok(number.parse::<f64>()? * scale)
}
