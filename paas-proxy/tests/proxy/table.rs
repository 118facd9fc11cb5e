//! The table on disk.

use std::fs;
use std::path::Path;

use paas_core::{Fault, Generation, Ingress, Kind, Serving};
use paas_proxy::{Proxy, ProxyConfig};

use crate::support::{Instance, config, context, get, host, name, publish, route, start};

fn kept(directory: &Path) -> ProxyConfig {
    ProxyConfig { directory: Some(directory.to_owned()), ..config() }
}

async fn end(proxy: std::sync::Arc<Proxy>) {
    proxy.stop().await;
}

async fn generation(proxy: &Proxy, name: &str) -> Option<u64> {
    let serving = proxy.serving(&context(), &host(name)).await.unwrap();
    serving.map(|Serving { generation, .. }| generation.0)
}

#[tokio::test]
async fn routes_and_withdrawals_outlive_the_proxy() {
    let directory = tempfile::tempdir().unwrap();
    let instance = Instance::start(name()).await;
    let proxy = start(kept(directory.path())).await;
    publish(&*proxy, &host("kept.localhost"), &instance.target(), 3).await;
    publish(&*proxy, &host("gone.localhost"), &instance.target(), 4).await;
    proxy.withdraw(&context(), &host("gone.localhost"), Generation(5)).await.unwrap();
    end(proxy).await;

    let proxy = start(kept(directory.path())).await;
    assert_eq!(get(proxy.address(), "kept.localhost", "/").await.unwrap().status, 200);
    assert_eq!(get(proxy.address(), "gone.localhost", "/").await.unwrap().status, 421);
    let stale = route(&host("gone.localhost"), &[]);
    let error = proxy.publish(&context(), &stale, Generation(4)).await.unwrap_err();
    assert_eq!((error.reason(), error.whose()), (Some("stale_generation"), Fault::Platform));
    assert!(error.hinted().is_some());
}

#[tokio::test]
async fn a_garbage_table_is_kept_aside_and_the_proxy_starts_empty() {
    for garbage in [
        b"".as_slice(),
        b"\0\xff garbage",
        b"{\"format\":\"other\"}\n",
        b"{\"format\":\"paas-proxy routes\",\"version\":99}\n",
    ] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("routes.journal"), garbage).unwrap();
        let proxy = start(kept(directory.path())).await;
        assert_eq!(generation(&proxy, "app.localhost").await, None);
        assert_eq!(fs::read(directory.path().join("routes.damaged")).unwrap(), garbage);
        // It is usable, and what it writes is read again.
        proxy.publish(&context(), &route(&host("app.localhost"), &[]), Generation(1)).await.unwrap();
        end(proxy).await;
        assert_eq!(generation(&*start(kept(directory.path())).await, "app.localhost").await, Some(1));
    }
}

#[tokio::test]
async fn a_line_cut_by_a_crash_loses_only_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routes.journal");
    let proxy = start(kept(directory.path())).await;
    for name in ["one.localhost", "two.localhost"] {
        proxy.publish(&context(), &route(&host(name), &[]), Generation(1)).await.unwrap();
    }
    end(proxy).await;
    let whole = fs::read(&path).unwrap();
    let last_line = whole[..whole.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for cut in last_line..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let proxy = start(kept(directory.path())).await;
        assert_eq!(generation(&proxy, "one.localhost").await, Some(1), "cut at {cut}");
        assert_eq!(generation(&proxy, "two.localhost").await, None, "cut at {cut}");
        proxy.publish(&context(), &route(&host("new.localhost"), &[]), Generation(2)).await.unwrap();
        end(proxy).await;
        let proxy = start(kept(directory.path())).await;
        assert_eq!(generation(&proxy, "new.localhost").await, Some(2), "cut at {cut}");
        end(proxy).await;
    }
}

#[tokio::test]
async fn lines_that_are_unreadable_are_kept_aside_and_the_others_serve() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("routes.journal");
    let proxy = start(kept(directory.path())).await;
    for name in ["one.localhost", "two.localhost", "three.localhost"] {
        proxy.publish(&context(), &route(&host(name), &[]), Generation(1)).await.unwrap();
    }
    end(proxy).await;
    let damaged = fs::read_to_string(&path).unwrap().replace("{\"host\":\"two", "{\"hXst\":\"two");
    fs::write(&path, &damaged).unwrap();
    for _ in 0..2 {
        let proxy = start(kept(directory.path())).await;
        assert_eq!(generation(&proxy, "one.localhost").await, Some(1));
        assert_eq!(generation(&proxy, "two.localhost").await, None);
        assert_eq!(generation(&proxy, "three.localhost").await, Some(1));
        end(proxy).await;
        // Also behind the next start, which finds nothing unreadable any more.
        assert_eq!(fs::read_to_string(directory.path().join("routes.damaged")).unwrap(), damaged);
    }
}

#[tokio::test]
async fn the_file_stays_in_proportion_to_the_routes() {
    let directory = tempfile::tempdir().unwrap();
    let proxy = start(kept(directory.path())).await;
    // Fifty apps change at once, each 400 times.
    let changes = (0..50_u64).map(|app| {
        let proxy = &proxy;
        async move {
            let host = host(&format!("app-{app}.localhost"));
            for change in 1..=400 {
                let route = route(&host, &[]);
                proxy.publish(&context(), &route, Generation(change * 50 + app)).await.unwrap();
            }
        }
    });
    futures::future::join_all(changes).await;
    let lines = fs::read_to_string(directory.path().join("routes.journal")).unwrap().lines().count();
    assert!(lines < 10_000, "{lines} lines for 50 routes");
    end(proxy).await;
    let proxy = start(kept(directory.path())).await;
    assert_eq!(generation(&proxy, "app-0.localhost").await, Some(20_000));
    assert_eq!(generation(&proxy, "app-49.localhost").await, Some(20_049));
}

#[tokio::test]
async fn a_disk_that_is_full_is_said_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", directory.path().join("routes.new")).unwrap();
    let clock = std::sync::Arc::new(paas_core::SystemClock::new());
    let error = Proxy::start(kept(directory.path()), clock).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (Kind::Unavailable, "proxy.open_table"));
    assert!(error.is_transient() && error.hinted().is_some());
}

#[tokio::test]
async fn two_proxies_never_share_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let _first = start(kept(directory.path())).await;
    let clock = std::sync::Arc::new(paas_core::SystemClock::new());
    let error = Proxy::start(kept(directory.path()), clock).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::Unavailable, Some("directory_in_use")));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let first = start(config()).await;
    let clock = std::sync::Arc::new(paas_core::SystemClock::new());
    let taken = ProxyConfig { listen: first.address(), ..config() };
    let error = Proxy::start(taken, clock).await.unwrap_err();
    assert_eq!(error.reason(), Some("address_in_use"));
    assert!(error.message().contains(&first.address().port().to_string()), "{error}");
    assert!(error.hinted().is_some());
}

#[tokio::test]
async fn many_routes_are_read_and_changed_at_once() {
    let proxy = start(config()).await;
    let instance = Instance::start(name()).await;
    for number in 0..10_000 {
        let host = host(&format!("app-{number}.localhost"));
        publish(&*proxy, &host, &instance.target(), number + 1).await;
    }
    for number in [0, 1, 4_999, 9_999] {
        let answer = get(proxy.address(), &format!("app-{number}.localhost"), "/").await.unwrap();
        assert_eq!(answer.body, instance.name.as_str());
    }
}
