//! The table on a disk that loses what was not synced.

use std::collections::BTreeMap;
use std::sync::Arc;

use fallible_disk::Disk;
use paas_core::{Generation, Host, Ingress, SystemClock};
use paas_proxy::{Proxy, ProxyConfig};

use crate::support::{config, context, host, route};

/// What is known of a host: the last generation that was acknowledged, and the last one that was asked for.
type Known = BTreeMap<Host, (u64, u64)>;

/// Publishes and withdraws until it can't be written down.
async fn change_until_it_fails(proxy: Arc<Proxy>, host: Host, mut known: (u64, u64)) -> (Host, (u64, u64)) {
    loop {
        let generation = known.1 + 1;
        known.1 = generation;
        let changed = if is_published(generation) {
            proxy.publish(&context(), &route(&host, &[]), Generation(generation)).await
        } else {
            proxy.withdraw(&context(), &host, Generation(generation)).await
        };
        if changed.is_err() {
            return (host, known);
        }
        known.0 = generation;
    }
}

fn is_published(generation: u64) -> bool {
    !generation.is_multiple_of(3)
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_changes_outlive_a_loss_of_power() {
    let mut acknowledged = 0;
    for seed in 0..10 {
        let disk = Disk::mount().unwrap();
        let mut known: Known =
            (0..4).map(|number| (host(&format!("app-{number}.localhost")), (0, 0))).collect();
        for round in 0..8_u64 {
            let config = ProxyConfig { directory: Some(disk.path().join("proxy")), ..config() };
            if round % 3 == 1 {
                // While it starts, or soon after.
                disk.cut_after((seed + round * 3) % 12, seed);
            }
            if let Ok(proxy) = Proxy::start(config, Arc::new(SystemClock::new())).await {
                let proxy = Arc::new(proxy);
                for (host, (acknowledged, asked)) in &mut known {
                    let serving = proxy.serving(&context(), host).await.unwrap();
                    let found = serving.as_ref().map_or(0, |serving| serving.generation.0);
                    assert!(
                        (*acknowledged..=*asked).contains(&found),
                        "seed {seed}, round {round}, {host}: {found}, not {acknowledged} to {asked}"
                    );
                    let is_routed = serving.is_some_and(|serving| serving.route.is_some());
                    assert_eq!(is_routed, found > 0 && is_published(found));
                    (*acknowledged, *asked) = (found, found);
                }
                if round % 3 != 1 {
                    disk.cut_after((seed * 31 + round * 17) % 120, seed * 10 + round);
                }
                let changes: Vec<_> = std::mem::take(&mut known)
                    .into_iter()
                    .map(|(host, known)| tokio::spawn(change_until_it_fails(proxy.clone(), host, known)))
                    .collect();
                for change in changes {
                    known.extend([change.await.unwrap()]);
                }
                proxy.stop().await;
            }
            assert!(disk.is_cut());
            disk.restore();
        }
        acknowledged += known.values().map(|(acknowledged, _)| acknowledged).sum::<u64>();
    }
    assert!(acknowledged > 100, "{acknowledged}");
}
