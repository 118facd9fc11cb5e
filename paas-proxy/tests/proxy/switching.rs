//! No request fails while routes change under load.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use paas_core::Ingress;

use crate::streaming::{UPGRADE, line};
use crate::support::{Client, Instance, config, context, host, name, publish, start};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_switches_under_load_fail_no_request() {
    let proxy = start(config()).await;
    switch_under_load(&*proxy, proxy.address(), 200, 20_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switches_of_the_process_under_load_fail_no_request() {
    let running = crate::process::Running::start().await;
    switch_under_load(&*running.client, running.address, 50, 5_000).await;
}

async fn switch_under_load(proxy: &dyn Ingress, address: SocketAddr, switches: u64, requests: u64) {
    const CLIENTS: usize = 8;

    let host = host("app.localhost");
    let first = Instance::start(name()).await;
    publish(proxy, &host, &first.target(), 1).await;

    let (answered, switched) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| {
            let (answered, switched) = (answered.clone(), switched.clone());
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                while answered.load(Ordering::Relaxed) < requests || !switched.load(Ordering::Relaxed) {
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
    for switch in 0..switches {
        // The load goes on between two switches, however fast they are.
        let goal = switch * requests / switches;
        while answered.load(Ordering::Relaxed) < goal && clients.iter().all(|client| !client.is_finished()) {
            tokio::task::yield_now().await;
        }
        let new = Instance::start(name()).await;
        publish(proxy, &host, &new.target(), switch + 2).await;
        proxy.drain(&context(), &old.name, old.address).await.unwrap();
        // A request that still came would find nobody.
        old.stop();
        old = new;
    }
    switched.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert!(answered.load(Ordering::Relaxed) >= requests);
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
async fn a_stop_waits_for_upgraded_connections() {
    let (proxy, _instance) = crate::support::one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    client.send(UPGRADE).await;
    assert_eq!(client.head().await.unwrap().status, 101);
    assert_eq!(line(&mut client).await, "hello\n");
    let stopping = Arc::clone(&proxy);
    let stopped = tokio::spawn(async move { stopping.stop().await });
    while tokio::net::TcpStream::connect(proxy.address()).await.is_ok() {
        tokio::task::yield_now().await;
    }
    for number in 0..100 {
        let sent = format!("message {number}\n");
        client.send(&sent).await;
        assert_eq!(line(&mut client).await, sent);
    }
    assert!(!stopped.is_finished());
    drop(client);
    stopped.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_gets_the_directory_after_a_stop_gets_the_port_too() {
    for _ in 0..50 {
        let directory = tempfile::tempdir().unwrap();
        let kept = paas_proxy::ProxyConfig { directory: Some(directory.path().to_owned()), ..config() };
        let proxy = start(kept.clone()).await;
        let next = paas_proxy::ProxyConfig { listen: proxy.address(), ..kept };
        let stopped = tokio::spawn(async move { proxy.stop().await });
        loop {
            let clock = Arc::new(paas_core::SystemClock::new());
            match paas_proxy::Proxy::start(next.clone(), clock).await {
                Ok(_) => break,
                Err(error) => assert_eq!(error.reason(), Some("directory_in_use"), "{error:?}"),
            }
        }
        stopped.await.unwrap();
    }
}

#[tokio::test]
async fn a_dropped_proxy_gives_its_port_back() {
    let proxy = start(config()).await;
    let address = proxy.address();
    proxy.stop().await;
    drop(proxy);
    start(paas_proxy::ProxyConfig { listen: address, ..config() }).await;
}
