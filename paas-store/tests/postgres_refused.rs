//! What can be wrong with a database, and how it is told.
#![cfg(feature = "postgres")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // test code

mod support;

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use paas_core::{Batch, Clock, Error, Expect, Keys, Kind, Scope, StateStore, SystemClock, Write};
use paas_store::PostgresStore;
use support::{Database, PORT, folder};

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

fn put(id: &str) -> Batch {
    let (scope, kind, id) = (Scope::System, "thing", id.to_owned());
    let (expect, keys, body) = (Expect::Absent, Keys::default(), Vec::new());
    Batch { writes: vec![Write::Put { scope, kind, id, expect, keys, body }], ..Batch::default() }
}

async fn refused(url: &str) -> Error {
    let error = PostgresStore::open(url, clock()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert!(error.hinted().is_some(), "{error:?}");
    error
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let database = Database::new().await;
    let store = database.store(clock()).await;
    store.close().await;
    let server = database.connect().await;
    server.batch_execute("UPDATE paas.schema_version SET version = 99").await.unwrap();
    let error = refused(&database.url()).await;
    assert!(error.message().contains("newer version") && error.message().contains("99"), "{error:?}");
    assert!(!error.is_transient());
    let version = server.query_one("SELECT version FROM paas.schema_version", &[]).await.unwrap();
    assert_eq!(version.get::<_, i32>(0), 99);
}

#[tokio::test]
async fn what_is_wrong_with_a_connection_is_told_without_the_password() {
    let database = Database::new().await;
    let host = folder();
    let host = host.display();
    let with = |rest: String| format!("host={host} port={PORT} {rest}");
    for (url, is_transient, expected) in [
        (
            with(format!("user=locked password=secret dbname={}", database.name)),
            false,
            "user or the password",
        ),
        (with("user=postgres password=secret dbname=there_is_none".to_owned()), false, "no such database"),
        // This user may not make a schema.
        (with(format!("user=locked password=right dbname={}", database.name)), false, "not allowed"),
        ("host=/nowhere user=postgres password=secret".to_owned(), true, "can't be reached"),
        ("postgresql://u:secret@127.0.0.1:1/paas".to_owned(), true, "can't be reached"),
        ("postgresql://u:secret@host:notaport/paas".to_owned(), false, "URL can't be understood"),
        ("postgresql://u@host/paas?passsword=secret".to_owned(), false, "URL can't be understood"),
    ] {
        let error = refused(&url).await;
        assert!(error.message().contains(expected), "{error:?}");
        assert_eq!(error.is_transient(), is_transient, "{error:?}");
        assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
    }
    let store = PostgresStore::open(&format!("{} password=secret", database.url()), clock()).await.unwrap();
    let shown = format!("{store:?}");
    assert!(shown.contains(&database.name) && !shown.contains("secret"), "{shown}");
}

/// A server that speaks no TLS is not spoken to in the open.
#[tokio::test]
async fn tls_is_insisted_on_where_it_is_asked_for() {
    let database = Database::new().await;
    // To the server it is a Unix socket, on which there is none.
    let proxy = support::proxy::Proxy::start().await;
    let error = refused(&format!("{} sslmode=require", proxy.url(&database))).await;
    assert!(format!("{error:?}").to_lowercase().contains("tls"), "{error:?}");
}

/// Tells the process that a test starts of itself which certificate it may trust.
const TRUSTED: &str = "SSL_CERT_FILE";
const AS_CHILD: &str = "PAAS_TEST_TLS";

/// In a process of its own, since it is by the environment that the system's authorities are found.
#[tokio::test]
async fn the_servers_certificate_and_name_are_verified() {
    let name = std::env::var(AS_CHILD);
    if let Ok(name) = name {
        return open_encrypted(&name).await;
    }
    let database = Database::new().await;
    let server = database.connect().await;
    server.batch_execute(&format!("GRANT CREATE ON DATABASE {} TO locked", database.name)).await.unwrap();
    let own = folder().join("server.crt");
    let other = PathBuf::from("/etc/ssl/certs/ca-certificates.crt");
    for (trusted, host, expected) in [
        (&own, "localhost", "opened true"),
        (&other, "localhost", "refused"),
        // It is not the name that the certificate is for.
        (&own, "127.0.0.1", "refused"),
    ] {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_servers_certificate_and_name_are_verified", "--nocapture"])
            .env(TRUSTED, trusted)
            .env(AS_CHILD, format!("host={host} dbname={}", database.name))
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(output.contains(expected), "{trusted:?} {host}: {output}");
    }
}

async fn open_encrypted(place: &str) {
    let url = format!("{place} port={PORT} user=locked password=right sslmode=require");
    match PostgresStore::open(&url, clock()).await {
        Err(error) => println!("refused {error:?}"),
        Ok(store) => println!("opened {}", store.ping().await.is_ok()),
    }
}

/// Has the first writes of records fail, as many as `times`, with a code of PostgreSQL's.
async fn fail_writes(database: &Database, code: &str, times: u32) {
    // A sequence is not taken back with its transaction.
    let sql = format!(
        "DROP TRIGGER IF EXISTS fail ON paas.records; DROP SEQUENCE IF EXISTS tries; CREATE SEQUENCE tries;
        CREATE OR REPLACE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF nextval('tries') <= {times} THEN RAISE EXCEPTION USING ERRCODE = '{code}'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER fail BEFORE INSERT ON paas.records FOR EACH ROW EXECUTE FUNCTION fail()"
    );
    database.connect().await.batch_execute(&sql).await.unwrap();
}

#[tokio::test]
async fn a_clash_is_tried_again_a_few_times() {
    let database = Database::new().await;
    let store = database.store(clock()).await;
    for (code, id) in [("40001", "a"), ("40P01", "b")] {
        fail_writes(&database, code, 2).await;
        assert_eq!(store.commit(put(id)).await.unwrap().versions, [1]);
    }
    fail_writes(&database, "40001", 1_000).await;
    let error = store.commit(put("c")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (Kind::Unavailable, true), "{error:?}");
    assert_eq!(store.get(&Scope::System, "thing", "c").await.unwrap(), None);
}

#[tokio::test]
async fn a_full_disk_is_told_and_survived() {
    let database = Database::new().await;
    let store = database.store(clock()).await;
    fail_writes(&database, "53100", 1).await;
    let error = store.commit(put("a")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_transient()), (Kind::Unavailable, true), "{error:?}");
    assert!(error.message().contains("full") && error.hinted().is_some(), "{error:?}");
    store.commit(put("a")).await.unwrap();
}

/// Somebody else's tables are neither used nor changed.
#[tokio::test]
async fn a_foreign_schema_is_refused_and_left_alone() {
    let database = Database::new().await;
    let server = database.connect().await;
    server.batch_execute("CREATE SCHEMA paas; CREATE TABLE paas.records (own text)").await.unwrap();
    let error = refused(&database.url()).await;
    assert!(!error.is_transient(), "{error:?}");
    server.query("SELECT own FROM paas.records", &[]).await.unwrap();
    let tables = "SELECT FROM pg_tables WHERE schemaname = 'paas'";
    assert_eq!(server.query(tables, &[]).await.unwrap().len(), 1);
}
