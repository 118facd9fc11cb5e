//! Bodies and tunnels flow as they come, both ways.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use paas_core::{Generation, Ingress};
use paas_proxy::{Proxy, ProxyConfig, Timeouts};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};

use crate::support::{Client, Instance, config, context, host, name, one_app, publish, start};

pub(crate) const UPGRADE: &str = "GET /upgrade HTTP/1.1\r\nHost: app.localhost\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n";

pub(crate) async fn line(client: &mut Client) -> String {
    let mut line = String::new();
    client.0.read_line(&mut line).await.unwrap();
    line
}

#[tokio::test]
async fn chunks_arrive_before_the_answer_ends() {
    let (proxy, instance) = one_app().await;
    let chunks = instance.chunks();
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET /chunks HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    // The next event is only sent once the one before has arrived.
    for number in 0..20 {
        let event = format!("data: {number}\n\n");
        chunks.send(Bytes::from(event.clone())).await.unwrap();
        assert_eq!(client.chunk().await.unwrap().unwrap(), event.as_bytes());
    }
    drop(chunks);
    assert_eq!(client.chunk().await, Some(None));
    assert_eq!(client.get("app.localhost", "/").await.unwrap().status, 200);
}

/// A proxy that waits a tenth of a second for the next bytes of a body.
async fn impatient() -> (Arc<Proxy>, Instance) {
    let timeouts = Timeouts { idle_body: Duration::from_millis(100), ..Timeouts::default() };
    let proxy = start(ProxyConfig { timeouts, ..config() }).await;
    let instance = Instance::start(name()).await;
    publish(&*proxy, &host("app.localhost"), &instance.target(), 1).await;
    (proxy, instance)
}

#[tokio::test]
async fn an_answer_that_stalls_is_cut() {
    let (proxy, instance) = impatient().await;
    let chunks = instance.chunks();
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET /chunks HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    chunks.send(Bytes::from_static(b"one")).await.unwrap();
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(client.chunk().await.unwrap().unwrap(), b"one");
    assert_eq!(client.chunk().await, None);
    chunks.closed().await;
}

#[tokio::test]
async fn an_upload_that_stalls_is_answered_with_a_timeout() {
    let (proxy, instance) = impatient().await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("POST /collect HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 10\r\n\r\nhalf").await;
    assert_eq!(client.answer().await.unwrap().status, 408);
    assert!(client.is_closed().await);
    drop(instance);
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_cut() {
    let (proxy, instance) = impatient().await;
    let chunks = instance.chunks();
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET /chunks HTTP/1.1\r\nHost: app.localhost\r\n\r\n").await;
    // It fails once the proxy has let go of the instance.
    while chunks.send(Bytes::from(vec![0; 64 * 1024])).await.is_ok() {}
}

#[tokio::test]
async fn a_client_that_reads_late_gets_the_last_bytes_too() {
    // Of some of these the end waits within the proxy, as neither kernel takes it.
    const CLIENTS: usize = 100;
    const STEP: usize = 48 * 1024;
    let timeouts = Timeouts { request_head: Duration::from_secs(1), ..Timeouts::default() };
    let proxy = start(ProxyConfig { timeouts, ..config() }).await;
    let instance = Instance::start(name()).await;
    publish(&*proxy, &host("app.localhost"), &instance.target(), 1).await;
    let mut clients = Vec::new();
    for number in 1..=CLIENTS {
        let mut client = Client::connect(proxy.address()).await;
        client.send(&format!("GET /bytes/{} HTTP/1.1\r\nHost: app.localhost\r\n\r\n", number * STEP)).await;
        clients.push(client);
    }
    // A proxy that closed silent connections would have closed them by now.
    context().clock().sleep(Duration::from_secs(3)).await;
    for (number, client) in (1..).zip(&mut clients) {
        let answer = client.answer().await.unwrap_or_else(|| panic!("answer {number} was cut"));
        assert_eq!(answer.body.len(), number * STEP);
    }
}

#[tokio::test]
async fn uploads_flow_while_the_answer_comes_back() {
    let (proxy, _instance) = one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("POST /echo HTTP/1.1\r\nHost: app.localhost\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("3\r\none\r\n").await;
    assert_eq!(client.head().await.unwrap().status, 200);
    assert_eq!(client.chunk().await.unwrap().unwrap(), b"one");
    client.send("3\r\ntwo\r\n").await;
    assert_eq!(client.chunk().await.unwrap().unwrap(), b"two");
    client.send("0\r\n\r\n").await;
    assert_eq!(client.chunk().await, Some(None));
}

#[tokio::test]
async fn a_large_upload_comes_back_whole() {
    const LENGTH: usize = 8 * 1024 * 1024;
    let (proxy, _instance) = one_app().await;
    let client = Client::connect(proxy.address()).await;
    let (mut read, mut write) = tokio::io::split(client.0.into_inner());
    let sent: Vec<u8> = (0..LENGTH).map(|index| (index % 251) as u8).collect();
    let head = format!("POST /echo HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: {LENGTH}\r\n\r\n");
    let upload = async {
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&sent).await.unwrap();
    };
    let download = async {
        let mut received = Vec::new();
        while !received.ends_with(b"\r\n\r\n") {
            received.push(read.read_u8().await.unwrap());
        }
        let mut body = vec![0; LENGTH];
        read.read_exact(&mut body).await.unwrap();
        (String::from_utf8(received).unwrap(), body)
    };
    let ((), (head, received)) = tokio::join!(upload, download);
    assert!(head.contains(&format!("content-length: {LENGTH}")), "{head}");
    assert!(received == sent, "the body changed on its way");
}

#[tokio::test]
async fn a_client_that_waits_for_continue_gets_it() {
    let (proxy, _instance) = one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send(
            "POST /echo HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n",
        )
        .await;
    assert_eq!(client.head().await.unwrap().status, 100);
    client.send("ok").await;
    assert_eq!(client.answer().await.unwrap().body, "ok");
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let (proxy, _instance) = one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    // The first bytes of the new protocol come right behind the head.
    client.send(&format!("{UPGRADE}early\n")).await;
    let head = client.head().await.unwrap();
    assert_eq!((head.status, head.headers["upgrade"].as_str()), (101, "echo"));
    assert_eq!(line(&mut client).await, "hello\n");
    assert_eq!(line(&mut client).await, "early\n");
    for number in 0..100 {
        let sent = format!("message {number}\n");
        client.send(&sent).await;
        assert_eq!(line(&mut client).await, sent);
    }
    client.0.get_mut().shutdown().await.unwrap();
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_upgrade_that_the_instance_ignores_is_answered_as_it_is() {
    let (proxy, instance) = one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send("GET / HTTP/1.1\r\nHost: app.localhost\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
        .await;
    assert_eq!(client.answer().await.unwrap().body, instance.name.as_str());
    assert_eq!(client.get("app.localhost", "/").await.unwrap().body, instance.name.as_str());
}

#[tokio::test]
async fn a_drain_waits_for_an_upgraded_connection_and_cuts_it_in_the_end() {
    let (proxy, instance) = one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    client.send(UPGRADE).await;
    assert_eq!(client.head().await.unwrap().status, 101);
    assert_eq!(line(&mut client).await, "hello\n");
    proxy.withdraw(&context(), &host("app.localhost"), Generation(2)).await.unwrap();
    client.send("still here\n").await;
    assert_eq!(line(&mut client).await, "still here\n");
    let context = context().with_budget(Duration::from_millis(100));
    proxy.drain(&context, &instance.name, instance.address).await.unwrap();
    assert!(client.is_closed().await);
}
