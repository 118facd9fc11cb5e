//! Goal 4: from a push with one of 50 files changed until the new page is served, against a shell script.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use paas_core::{Clock, SystemClock};
use tokio::process::Command;

use crate::contest::{Contest, Turn};
use crate::installation::{HttpClient, Installation, client, get, site};
use crate::nginx::Nginx;
use crate::report::{Report, Target};
use crate::{Effort, Result, peers};

const FILES: usize = 50;
const OURS: &str = "platform";
const SCRIPT: &str = "shell script: clone, docker build, docker run, nginx reload";
const NAME: &str = "paas-bench-script";
/// Longer than any sane deployment takes.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(effort: Effort, report: &mut Report) -> Result<()> {
    let installation = Installation::start().await?;
    installation.git.commit("site", "main", site(FILES, 0)).await?;
    installation.live("site").await?;
    let folder = tempfile::tempdir()?;
    let upstream = folder.path().join("upstream.conf");
    tokio::fs::write(&upstream, "upstream app { server 127.0.0.1:1; }").await?;
    let http = format!(
        "include {};\nserver {{ listen 127.0.0.1:@PORT; location / {{ proxy_pass http://app; }} }}",
        upstream.display()
    );
    let nginx = Nginx::start(&folder.path().join("nginx"), 1, &http).await?;
    let result = measure(effort, &installation, folder.path(), &nginx).await;
    nginx.stop().await?;
    for round in 0..=effort.rounds {
        docker(&["rm", "--force", &format!("{NAME}-{round}")]).await?;
        docker(&["image", "rm", &format!("{NAME}:{round}")]).await?;
    }
    installation.finish().await?;
    let (changed, unchanged) = result?;
    let peers = [(SCRIPT, Some(Target::AtMost(0.7)))];
    report.contest(4, "push → live, one of 50 files changed", "ms", &changed, OURS, &peers);
    report.contest(4, "deploy again, nothing changed", "ms", &unchanged, OURS, &[]);
    Ok(())
}

async fn measure(
    effort: Effort,
    installation: &Installation,
    folder: &Path,
    nginx: &Nginx,
) -> Result<(Contest, Contest)> {
    let (clock, client) = (SystemClock::new(), client());
    let command_line = peers::docker().await?;
    let proxy = installation.proxy.address().to_string();
    let host = format!("site.localhost:{}", installation.proxy.address().port());
    let (mut changed, mut unchanged) = (Contest::default(), Contest::default());
    for round in 0..=effort.rounds {
        installation.git.commit("site", "main", site(FILES, round + 1)).await?;
        let page = format!("<h1>version {}</h1>", round + 1);

        let begun = clock.elapsed();
        let handle = installation.platform.deploy("site").await?;
        until_served(&clock, &client, &proxy, &host, &page).await?;
        let ours = clock.elapsed() - begun;
        handle.outcome().await?;

        let begun = clock.elapsed();
        let status = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/deploy.sh"))
            .arg(&command_line)
            .arg(installation.git.url("site").as_str())
            .arg(folder)
            .args([NAME, &round.to_string()])
            .arg(&nginx.configuration)
            .stdin(Stdio::null())
            .status()
            .await?;
        if !status.success() {
            return Err("the shell script failed".into());
        }
        until_served(&clock, &client, &nginx.address, "app", &page).await?;
        let theirs = clock.elapsed() - begun;
        if round > 0 {
            docker(&["rm", "--force", &format!("{NAME}-{}", round - 1)]).await?;
        }

        let begun = clock.elapsed();
        installation.platform.deploy("site").await?.outcome().await?;
        let again = clock.elapsed() - begun;
        // The first round fills caches.
        if round > 0 {
            changed.add(OURS, Turn::of_time(ours));
            changed.add(SCRIPT, Turn::of_time(theirs));
            unchanged.add(OURS, Turn::of_time(again));
        }
    }
    Ok((changed, unchanged))
}

/// Asks until the page is there: what people who push wait for.
async fn until_served(
    clock: &SystemClock,
    client: &HttpClient,
    address: &str,
    host: &str,
    page: &str,
) -> Result<()> {
    let begun = clock.elapsed();
    while clock.elapsed() - begun < PATIENCE {
        if get(client, address, host).await.is_ok_and(|(_, body)| body.contains(page)) {
            return Ok(());
        }
        clock.sleep(Duration::from_millis(2)).await;
    }
    Err(format!("{host} at {address} does not serve {page}").into())
}

/// Cleans up; what is not there is clean.
async fn docker(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("docker");
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status().await?;
    Ok(())
}
