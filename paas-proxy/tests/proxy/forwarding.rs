//! How requests get to instances, and what happens when those do not answer well.

use std::net::SocketAddr;
use std::time::Duration;

use paas_core::{HealthCheck, HealthCheckKind, Ingress, Probe, RouteTarget};
use paas_proxy::{ProxyConfig, Timeouts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{Client, Instance, config, context, get, host, name, one_app, publish, route, start};

/// An instance that treats each connection with `behaviour`.
async fn raw<F, W>(behaviour: F) -> RouteTarget
where
    F: Fn(tokio::net::TcpStream) -> W + Send + 'static,
    W: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(behaviour(tcp));
        }
    });
    RouteTarget { instance: name(), address }
}

async fn read_head(tcp: &mut tokio::net::TcpStream) -> bool {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match tcp.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return false,
        }
    }
    true
}

async fn routed(
    config: ProxyConfig,
    target: &RouteTarget,
) -> (std::sync::Arc<paas_proxy::Proxy>, SocketAddr) {
    let proxy = start(config).await;
    publish(&*proxy, &host("app.localhost"), target, 1).await;
    let address = proxy.address();
    (proxy, address)
}

#[tokio::test]
async fn a_connection_that_the_instance_closed_unannounced_is_replaced() {
    // It promises to keep the connection and closes it after each answer.
    let target = raw(|mut tcp| async move {
        if read_head(&mut tcp).await {
            let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let (_proxy, address) = routed(config(), &target).await;
    let mut clients = Vec::new();
    for number in 0..8 {
        clients.push(tokio::spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..250 {
                // Half of them can't be sent again, for one reason or the other.
                client
                    .send(match number % 4 {
                        0 => "POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 0\r\n\r\n",
                        1 => "PUT / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 2\r\n\r\nok",
                        _ => "GET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
                    })
                    .await;
                assert_eq!(client.answer().await.unwrap().status, 200);
            }
        }));
    }
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_used_connection_that_breaks_under_a_request_is_replaced() {
    // The second request on each connection is read, and never answered.
    let target = raw(|mut tcp| async move {
        read_head(&mut tcp).await;
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        read_head(&mut tcp).await;
    })
    .await;
    // One worker, so that each request could find the connection of the one before.
    let (_proxy, address) = routed(ProxyConfig { workers: 1, ..config() }, &target).await;
    let mut client = Client::connect(address).await;
    for _ in 0..50 {
        assert_eq!(client.get("app.localhost", "/").await.unwrap().status, 200);
        // These can't be sent again: they get no used connection.
        for request in ["POST / HTTP/1.1\r\nContent-Length: 0", "PUT / HTTP/1.1\r\nContent-Length: 2"] {
            client.send(&format!("{request}\r\nHost: app.localhost\r\n\r\n")).await;
            client.send(if request.starts_with("PUT") { "ok" } else { "" }).await;
            assert_eq!(client.answer().await.unwrap().status, 200, "{request}");
        }
    }
}

#[tokio::test]
async fn a_request_that_may_have_had_its_effect_is_not_repeated() {
    let (count, mut counted) = tokio::sync::mpsc::unbounded_channel();
    // It takes a POST, and hangs up.
    let target = raw(move |mut tcp| {
        let count = count.clone();
        async move {
            while read_head(&mut tcp).await {
                if tcp.read_u8().await.is_ok_and(|byte| byte == b'x') {
                    count.send(()).unwrap();
                    return;
                }
            }
        }
    })
    .await;
    let (_proxy, address) = routed(config(), &target).await;
    let mut client = Client::connect(address).await;
    client.send("POST / HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 1\r\n\r\nx").await;
    assert_eq!(client.answer().await.unwrap().status, 502);
    assert_eq!(counted.recv().await, Some(()));
    assert!(counted.try_recv().is_err(), "the request was sent twice");
}

#[tokio::test]
async fn an_instance_that_is_gone_is_a_bad_gateway() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (_proxy, proxy) = routed(config(), &RouteTarget { instance: name(), address }).await;
    let answer = get(proxy, "app.localhost", "/").await.unwrap();
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("The app did not answer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_instances_the_one_that_is_there_answers() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let instance = Instance::start(name()).await;
    let targets = [RouteTarget { instance: name(), address: gone }, instance.target()];
    let proxy = start(config()).await;
    let route = route(&host("app.localhost"), &targets);
    proxy.publish(&context(), &route, paas_core::Generation(1)).await.unwrap();
    // Whose turn it is changes under each request by the others.
    let address = proxy.address();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                for _ in 0..250 {
                    assert_eq!(client.get("app.localhost", "/").await.unwrap().status, 200);
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    for _ in 0..10 {
        let mut client = Client::connect(address).await;
        client.send(crate::streaming::UPGRADE).await;
        assert_eq!(client.head().await.unwrap().status, 101);
    }
}

#[tokio::test]
async fn an_instance_that_answers_nonsense_is_a_bad_gateway() {
    for nonsense in [
        "nonsense\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        "HTTP/1.1 101 Switch\r\n\r\n",
        "",
    ] {
        let target = raw(move |mut tcp| async move {
            read_head(&mut tcp).await;
            let _ = tcp.write_all(nonsense.as_bytes()).await;
        })
        .await;
        let (_proxy, address) = routed(config(), &target).await;
        assert_eq!(get(address, "app.localhost", "/").await.unwrap().status, 502, "{nonsense:?}");
    }
}

#[tokio::test]
async fn an_instance_that_does_not_answer_in_time_is_a_gateway_timeout() {
    let timeouts = Timeouts { response_head: Duration::from_millis(100), ..Timeouts::default() };
    let target = raw(|mut tcp| async move {
        read_head(&mut tcp).await;
        std::future::pending::<()>().await;
    })
    .await;
    let (_proxy, address) = routed(ProxyConfig { timeouts, ..config() }, &target).await;
    assert_eq!(get(address, "app.localhost", "/").await.unwrap().status, 504);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_on_as_whole() {
    let target = raw(|mut tcp| async move {
        read_head(&mut tcp).await;
        let _ = tcp.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
    })
    .await;
    let (_proxy, address) = routed(config(), &target).await;
    assert!(get(address, "app.localhost", "/").await.is_none());
}

#[tokio::test]
async fn a_client_that_sends_half_a_head_is_let_go() {
    let timeouts = Timeouts { request_head: Duration::from_millis(100), ..Timeouts::default() };
    let proxy = start(ProxyConfig { timeouts, ..config() }).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET / HTTP/1.1\r\nHost: app.loc").await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn no_more_clients_are_let_in_than_configured() {
    let proxy = start(ProxyConfig { max_connections: 2, workers: 1, ..config() }).await;
    let instance = Instance::start(name()).await;
    publish(&*proxy, &host("app.localhost"), &instance.target(), 1).await;
    let (mut first, mut second) =
        (Client::connect(proxy.address()).await, Client::connect(proxy.address()).await);
    assert_eq!(first.get("app.localhost", "/").await.unwrap().status, 200);
    assert_eq!(second.get("app.localhost", "/").await.unwrap().status, 200);
    let mut third = Client::connect(proxy.address()).await;
    third.send("GET /hold HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    let mut held = std::pin::pin!(instance.held());
    for _ in 0..100 {
        assert_eq!(first.get("app.localhost", "/").await.unwrap().status, 200);
        assert!(futures::poll!(&mut held).is_pending(), "the third was let in");
    }
    drop(second);
    drop(held.await);
    assert_eq!(third.answer().await.unwrap().status, 200);
}

#[tokio::test]
async fn an_instances_hop_by_hop_headers_stay_behind_and_the_client_stays_connected() {
    let target = raw(|mut tcp| async move {
        read_head(&mut tcp).await;
        let answer = b"HTTP/1.1 200 OK\r\nconnection: close, x-hop\r\nx-hop: 1\r\nkeep-alive: timeout=5\r\n\
                       x-kept: 1\r\ncontent-length: 2\r\n\r\nok";
        let _ = tcp.write_all(answer).await;
    })
    .await;
    let (_proxy, address) = routed(config(), &target).await;
    let mut client = Client::connect(address).await;
    for _ in 0..3 {
        let answer = client.get("app.localhost", "/").await.unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
        assert!(answer.headers.contains_key("x-kept"));
        for hop in ["x-hop", "keep-alive", "connection"] {
            assert!(!answer.headers.contains_key(hop), "{hop}");
        }
    }
}

#[tokio::test]
async fn answers_without_a_body_keep_the_connection_in_step() {
    let (proxy, instance) = one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    for _ in 0..3 {
        client.send("HEAD / HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
        let head = client.head().await.unwrap();
        assert_eq!(head.headers["content-length"], instance.name.as_str().len().to_string());
        for status in [204, 304] {
            client.send(&format!("GET /status/{status} HTTP/1.1\r\nHost: app.localhost\r\n\r\n")).await;
            assert_eq!(client.head().await.unwrap().status, status);
        }
        assert_eq!(client.get("app.localhost", "/").await.unwrap().body, instance.name.as_str());
    }
}

#[tokio::test]
async fn requests_in_a_row_without_waiting_are_answered_in_order() {
    let (proxy, _instance) = one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    let requests: String = (0..5)
        .map(|number| format!("GET /headers?{number} HTTP/1.1\r\nHost: app.localhost\r\n\r\n"))
        .collect();
    client.send(&requests).await;
    for number in 0..5 {
        let body = client.answer().await.unwrap().body;
        assert!(body.starts_with(&format!("/headers?{number} ")), "{body}");
    }
}

#[tokio::test]
async fn an_old_client_is_served_and_closed() {
    let (proxy, instance) = one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET / HTTP/1.0\r\nHost: app.localhost\r\n\r\n").await;
    assert_eq!(client.answer().await.unwrap().body, instance.name.as_str());
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn probes_ask_what_they_are_told() {
    let (proxy, instance) = one_app().await;
    let check = |check| HealthCheck { check, ..HealthCheck::default() };
    let http = |path: &str, status| check(HealthCheckKind::Http { path: path.to_owned(), status });
    let is_healthy = async |check: HealthCheck| {
        proxy.probe(&context(), instance.address, &check).await.unwrap() == Probe::Healthy
    };
    assert!(is_healthy(check(HealthCheckKind::Tcp)).await);
    assert!(is_healthy(http("/status/404", None)).await);
    assert!(is_healthy(http("/status/204", Some(204))).await);
    assert!(!is_healthy(http("/status/200", Some(204))).await);
    assert!(!is_healthy(http("/status/500", None)).await);
}

#[tokio::test]
async fn a_probe_is_bounded_by_its_timeout() {
    let target = raw(|mut tcp| async move {
        read_head(&mut tcp).await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = start(config()).await;
    let check = HealthCheck { timeout_seconds: 1, ..HealthCheck::default() };
    match proxy.probe(&context(), target.address, &check).await.unwrap() {
        Probe::Unhealthy(reason) => assert_eq!(reason, "no answer within 1 s"),
        Probe::Healthy => panic!("it did not answer"),
    }
}
