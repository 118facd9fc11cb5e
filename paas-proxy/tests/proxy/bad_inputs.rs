//! The proxy's rows of the contract's bad inputs, as raw bytes.

use crate::support::{Client, get, host, one_app, publish};

/// Sends one request and says what status came back; none if the connection was closed without one.
async fn status(request: &str) -> Option<u16> {
    let (proxy, _instance) = one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    client.send(request).await;
    client.answer().await.map(|answer| answer.status)
}

#[tokio::test]
async fn an_unknown_host_is_misdirected() {
    for target in ["nobody.localhost", "localhost", "127.0.0.1", "[::1]:80", "app.localhost.evil.example"] {
        let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\n\r\n");
        assert_eq!(status(&request).await, Some(421), "{target}");
    }
}

#[tokio::test]
async fn a_host_matches_without_case_port_and_trailing_dot() {
    for target in
        ["app.localhost", "APP.LocalHost", "app.localhost:8080", "app.localhost.", "app.localhost.:80"]
    {
        let request = format!("GET / HTTP/1.1\r\nHost: {target}\r\n\r\n");
        assert_eq!(status(&request).await, Some(200), "{target}");
    }
}

#[tokio::test]
async fn a_bad_host_is_refused() {
    for hosts in [
        "Host: app.localhost\r\nHost: app.localhost\r\n",
        "Host: app.localhost\r\nhost: other.localhost\r\n",
        "Host: app.localhost, other.localhost\r\n",
        "Host: user@app.localhost\r\n",
        "Host: app.localhost/x\r\n",
        "",
    ] {
        let request = format!("GET / HTTP/1.1\r\n{hosts}\r\n");
        assert_eq!(status(&request).await, Some(400), "{hosts:?}");
    }
}

#[tokio::test]
async fn ambiguous_lengths_are_refused() {
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
    ] {
        let request = format!("POST /echo HTTP/1.1\r\nHost: app.localhost\r\n{headers}\r\n0\r\n\r\n");
        assert_eq!(status(&request).await, Some(400), "{headers:?}");
    }
}

#[tokio::test]
async fn a_folded_header_is_refused() {
    for fold in ["X-Folded: one\r\n two\r\n", "X-Folded: one\r\n\ttwo\r\n"] {
        let request = format!("GET / HTTP/1.1\r\nHost: app.localhost\r\n{fold}\r\n");
        assert_eq!(status(&request).await, Some(400), "{fold:?}");
    }
}

#[tokio::test]
async fn an_ambiguous_request_does_not_reach_the_next_one() {
    let (proxy, _instance) = one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send(
            "POST /echo HTTP/1.1\r\nHost: app.localhost\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n\
             0\r\n\r\nGET / HTTP/1.1\r\nHost: app.localhost\r\n\r\n",
        )
        .await;
    assert_eq!(client.answer().await.unwrap().status, 400);
    assert!(client.is_closed().await, "the smuggled request was read");
}

#[tokio::test]
async fn forwarded_headers_of_the_client_are_overwritten() {
    let (proxy, _instance) = one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    client
        .send(
            "GET /headers?a=b HTTP/1.1\r\nHost: APP.localhost:99\r\nX-Forwarded-For: 6.6.6.6\r\n\
             X-Forwarded-For: 7.7.7.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n\
             X-Forwarded-Port: 1\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\nProxy: http://evil\r\n\
             Connection: keep-alive, X-Forwarded-For, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n\
             X-Kept: 1\r\n\r\n",
        )
        .await;
    let body = client.answer().await.unwrap().body;
    let mut lines: Vec<&str> = body.lines().collect();
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "/headers?a=b HTTP/1.1",
            "host: APP.localhost:99",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: APP.localhost:99",
            "x-forwarded-proto: http",
            "x-kept: 1",
        ]
    );
}

#[tokio::test]
async fn no_spelling_of_a_forwarded_header_gets_through() {
    let (proxy, _instance) = one_app().await;
    let mut client = Client::connect(proxy.address()).await;
    let mut request = "GET /headers HTTP/1.1\r\nHost: app.localhost\r\n".to_owned();
    for name in [
        "X_Forwarded_For",
        "x_forwarded-for",
        "X_Forwarded_Proto",
        "X-Forwarded-Uri",
        "X-Forwarded-User",
        "X-Forwarded-Scheme",
        "X-Forwarded-By",
        "X-Forwarded-Whatever-Comes",
        "X-Forwarded",
        "X_Real_IP",
        "True-Client-IP",
        "True_Client_IP",
        "X-Client-IP",
        "CF-Connecting-IP",
        "Client-IP",
    ] {
        request += &format!("{name}: evil\r\n");
    }
    request += "X_Kept: 1\r\nX-Forward: 1\r\nReal-IP: 1\r\n\r\n";
    client.send(&request).await;
    let body = client.answer().await.unwrap().body;
    assert!(!body.contains("evil"), "{body}");
    let mut names: Vec<&str> = body.lines().skip(1).filter_map(|line| line.split(':').next()).collect();
    names.sort_unstable();
    let kept = ["real-ip", "x-forward", "x_kept"];
    let set = ["host", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
    let mut wanted: Vec<&str> = kept.into_iter().chain(set).collect();
    wanted.sort_unstable();
    assert_eq!(names, wanted);
}

#[tokio::test]
async fn a_change_to_http_2_is_not_asked_for() {
    for upgrade in [
        "Upgrade: h2c\r\n",
        "Upgrade: H2C\r\n",
        "Upgrade: websocket, h2c\r\n",
        "Upgrade: websocket\r\nUpgrade: h2c\r\n",
        "Upgrade: HTTP/2.0\r\n",
    ] {
        let (proxy, _instance) = one_app().await;
        let mut client = Client::connect(proxy.address()).await;
        client
            .send(&format!(
                "GET /headers HTTP/1.1\r\nHost: app.localhost\r\nConnection: Upgrade\r\n\
                 {upgrade}HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            ))
            .await;
        let answer = client.answer().await.unwrap();
        assert_eq!(answer.status, 200, "{upgrade}");
        for header in ["upgrade", "http2", "connection"] {
            assert!(!answer.body.to_ascii_lowercase().contains(header), "{}", answer.body);
        }
        // The next request on the connection is one of HTTP/1.1.
        assert_eq!(client.get("app.localhost", "/").await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn a_target_in_absolute_form_wins_over_the_host() {
    let (proxy, instance) = one_app().await;
    publish(&*proxy, &host("other.localhost"), &instance.target(), 1).await;
    let mut client = Client::connect(proxy.address()).await;
    client.send("GET http://app.localhost/headers HTTP/1.1\r\nHost: nobody.localhost\r\n\r\n").await;
    let body = client.answer().await.unwrap().body;
    assert!(body.starts_with("/headers ") && body.contains("host: app.localhost\n"), "{body}");
}

#[tokio::test]
async fn a_head_without_end_is_refused() {
    let too_long = format!("GET / HTTP/1.1\r\nHost: app.localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(80_000));
    assert_eq!(status(&too_long).await, Some(431));
    let too_many = format!("GET / HTTP/1.1\r\nHost: app.localhost\r\n{}\r\n", "X-A: b\r\n".repeat(200));
    assert_eq!(status(&too_many).await, Some(431));
}

#[tokio::test]
async fn tunnels_to_anywhere_are_refused() {
    assert_eq!(
        status("CONNECT app.localhost:22 HTTP/1.1\r\nHost: app.localhost:22\r\n\r\n").await,
        Some(405)
    );
}

#[tokio::test]
async fn garbage_is_refused() {
    for garbage in
        ["\u{16}\u{3}\u{1}\u{2}\0\u{1}\0", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\0\0\0\0\r\n\r\n"]
    {
        let status = status(garbage).await;
        assert!(matches!(status, None | Some(400)), "{garbage:?}: {status:?}");
    }
}

#[tokio::test]
async fn pages_say_what_happened_in_words() {
    let (proxy, _instance) = one_app().await;
    let answer = get(proxy.address(), "nobody.localhost", "/").await.unwrap();
    assert_eq!(answer.headers["content-type"], "text/html; charset=utf-8");
    assert!(answer.body.contains("No app answers at this address"), "{}", answer.body);
}
