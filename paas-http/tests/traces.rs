//! Deployments as traces, at a collector on this machine.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // tests, and what they share

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use paas_core::memory::{MemoryFiles, MemoryGit};
use paas_core::{Clock, Error, Fault, Kind, NewApp, Platform, Secret, Settings, SystemClock};
use paas_http::Traces;
use tracing_subscriber::layer::SubscriberExt;

const REPOSITORY: &str = "https://git.example.com/team/hello.git";
const SECRET: &str = "hunter2";

/// Takes whatever it is sent, as a collector does, and hands the bodies on.
fn collector() -> (SocketAddr, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (bodies, received) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                stream.read_line(&mut line).unwrap();
                let line = line.trim().to_ascii_lowercase();
                if let Some(value) = line.strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
            stream.get_mut().write_all(answer).unwrap();
            if bodies.send(body).is_err() {
                return;
            }
        }
    });
    (address, received)
}

fn to(address: SocketAddr) -> Traces {
    Traces::to(&format!("http://{address}/v1/traces")).unwrap()
}

async fn platform(git: Arc<MemoryGit>) -> Platform {
    let short = Duration::from_millis(10);
    let settings = Settings { drain: short, stop_grace: short, ..Settings::default() };
    git.commit(
        &REPOSITORY.parse().unwrap(),
        &"main".parse().unwrap(),
        MemoryFiles::from([("index.html", "one")]),
    );
    Platform::builder().git(git).settings(settings).start().await.unwrap()
}

/// A span, as OTLP describes it.
#[derive(Debug)]
struct Span {
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    name: String,
    is_error: bool,
}

/// The fields of a protobuf message: their numbers, and their bytes or number.
fn fields(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    fn number(message: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = message[0];
            *message = &message[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return value;
            }
        }
    }
    let mut fields = Vec::new();
    while !message.is_empty() {
        let key = number(&mut message);
        let value = match key & 7 {
            0 => number(&mut message).to_le_bytes().to_vec(),
            wire => {
                let length = match wire {
                    1 => 8,
                    2 => usize::try_from(number(&mut message)).unwrap(),
                    5 => 4,
                    other => panic!("wire type {other}"),
                };
                let (value, rest) = message.split_at(length);
                message = rest;
                value.to_vec()
            }
        };
        fields.push((key >> 3, value));
    }
    fields
}

fn all(message: &[u8], wanted: u64) -> Vec<Vec<u8>> {
    fields(message).into_iter().filter(|(number, _)| *number == wanted).map(|(_, value)| value).collect()
}

fn one(message: &[u8], wanted: u64) -> Vec<u8> {
    all(message, wanted).pop().unwrap_or_default()
}

/// The spans of an export request.
fn spans(body: &[u8]) -> Vec<Span> {
    let resources = all(body, 1);
    let scopes = resources.iter().flat_map(|resource| all(resource, 2));
    let spans = scopes.flat_map(|scope| all(&scope, 2));
    let read = |span: Vec<u8>| Span {
        trace: one(&span, 1),
        id: one(&span, 2),
        parent: one(&span, 4),
        name: String::from_utf8(one(&span, 5)).unwrap(),
        is_error: one(&one(&span, 15), 3).first() == Some(&2),
    };
    spans.map(read).collect()
}

#[tokio::test]
async fn a_deployment_is_one_trace_with_its_steps() {
    let (address, received) = collector();
    let traces = to(address);
    let subscriber = tracing_subscriber::registry().with(traces.layer());
    // The test's only thread.
    let _guard = tracing::subscriber::set_default(subscriber);
    let git = Arc::new(MemoryGit::new());
    let platform = platform(git.clone()).await;
    let down = Error::new(Kind::Unavailable, "git.resolve", "it answers 503").fault(Fault::Upstream);
    git.fail(&REPOSITORY.parse().unwrap(), &down, 1);
    let mut app = NewApp::new("hello", REPOSITORY).unwrap();
    app.token = Some(Secret::from(SECRET.to_owned()));
    app.env.set("PASSWORD".to_owned().try_into().unwrap(), Secret::from(SECRET.to_owned())).unwrap();
    platform.apps().create(app).await.unwrap().first_deployment().unwrap().outcome().await.unwrap();
    platform.shutdown().await;
    traces.close();
    let bodies: Vec<_> = received.try_iter().collect();
    let spans: Vec<_> = bodies.iter().flat_map(|body| spans(body)).collect();
    assert!(spans.iter().all(|span| span.trace == spans[0].trace && span.trace.len() == 16), "{spans:?}");
    let named = |name: &str| spans.iter().filter(|span| span.name == name).collect::<Vec<_>>();
    let turns = named("deploy");
    assert!(turns.iter().all(|turn| turn.parent.is_empty()), "{spans:?}");
    for step in ["fetch", "plan", "build", "start", "verify", "route", "retire"] {
        let tries = named(step);
        assert_eq!(tries.len(), if step == "fetch" { 2 } else { 1 }, "{step}: {spans:?}");
        assert!(tries.iter().all(|step| turns.iter().any(|turn| turn.id == step.parent)), "{spans:?}");
    }
    assert_eq!(named("fetch").iter().filter(|span| span.is_error).count(), 1, "{spans:?}");
    assert_eq!(spans.len(), turns.len() + 8, "{spans:?}");
    let sent = String::from_utf8_lossy(&bodies.concat()).into_owned();
    for text in ["service.name", "paas.deployment", "dpl_", "unavailable"] {
        assert!(sent.contains(text), "{text}");
    }
    assert!(!sent.contains(SECRET));
}

#[tokio::test]
async fn what_is_no_address_is_refused() {
    assert_eq!(Traces::to("not an address").unwrap_err().kind(), Kind::Invalid);
}

#[tokio::test]
async fn a_collector_that_hangs_or_is_away_slows_nothing() {
    let clock = SystemClock::new();
    let hanging = TcpListener::bind("127.0.0.1:0").unwrap();
    let away = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for address in [hanging.local_addr().unwrap(), away] {
        let traces = to(address);
        let subscriber = tracing_subscriber::registry().with(traces.layer());
        let _guard = tracing::subscriber::set_default(subscriber);
        let platform = platform(Arc::new(MemoryGit::new())).await;
        let began = clock.elapsed();
        // Enough to fill the queue many times over.
        for number in 0..20_000 {
            drop(tracing::info_span!(target: "paas_core::engine::worker", "operation", deployment = %number));
        }
        let app = NewApp::new("hello", REPOSITORY).unwrap();
        platform.apps().create(app).await.unwrap().first_deployment().unwrap().outcome().await.unwrap();
        let took = clock.elapsed() - began;
        // One export alone waits for longer.
        assert!(took < Duration::from_secs(4), "{took:?}");
        platform.shutdown().await;
        let began = clock.elapsed();
        traces.close();
        let took = clock.elapsed() - began;
        assert!(took < Duration::from_secs(5), "{took:?}");
    }
}
