//! No request fails while routes change under load.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use paas_core::Ingress;

use crate::support::{Client, Instance, config, context, host, name, publish, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_switches_under_load_fail_no_request() {
    const SWITCHES: u64 = 200;
    const CLIENTS: usize = 8;
    const REQUESTS: u64 = 20_000;

    let proxy = start(config()).await;
    let host = host("app.localhost");
    let first = Instance::start(name()).await;
    publish(&*proxy, &host, &first.target(), 1).await;

    let (answered, switched) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (address, answered, switched) = (proxy.address(), answered.clone(), switched.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                while answered.load(Ordering::Relaxed) < REQUESTS || !switched.load(Ordering::Relaxed) {
                    // Some send a body: those are never sent twice.
                    if number % 2 == 0 {
                        client.send("GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
                    } else {
                        client
                            .send("POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 2\r\n\r\nok")
                            .await;
                    }
                    let answer = client.answer().await.expect("the connection was closed");
                    assert_eq!(answer.status, 200);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    let mut old = first;
    for switch in 0..SWITCHES {
        // The load goes on between two switches, however fast they are.
        let goal = switch * REQUESTS / SWITCHES;
        while answered.load(Ordering::Relaxed) < goal && clients.iter().all(|client| !client.is_finished()) {
            tokio::task::yield_now().await;
        }
        let new = Instance::start(name()).await;
        publish(&*proxy, &host, &new.target(), switch + 2).await;
        proxy.drain(&context(), &old.name, old.address).await.unwrap();
        // A request that still came would find nobody.
        old.stop();
        old = new;
    }
    switched.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) >= REQUESTS);
}

#[tokio::test]
async fn a_stopped_proxy_lets_requests_end_and_accepts_no_more() {
    let (proxy, instance) = crate::support::one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET /hold HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    let held = instance.held().await;
    let stopping = Arc::clone(&proxy);
    let stopped = tokio::spawn(async move { stopping.stop().await });
    // The listener is closed once nobody is accepted any more.
    while tokio::net::TcpStream::connect(proxy.address()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    drop(held);
    assert_eq!(client.answer().await.unwrap().body, instance.name.as_str());
    stopped.await.unwrap();
}

#[tokio::test]
async fn a_dropped_proxy_gives_its_port_back() {
    let proxy = start(config()).await;
    let address = proxy.address();
    proxy.stop().await;
    drop(proxy);
    start(paas_proxy::ProxyConfig { listen: address, ..config() }).await;
}
