//! HTTPS, with a certificate authority of one's own.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use common::{Real, context};
use paas_core::{EgressPolicy, Fault, GitProvider as _, GitUrl, Kind, Repository, RootDirectory};
use paas_git::testing::GitFault;
use paas_git::{GitOptions, GixProvider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};

fn openssl(directory: &Path, arguments: &str) {
    let mut openssl = Command::new("openssl");
    openssl.current_dir(directory).args(arguments.split(' ')).stderr(Stdio::null());
    assert!(openssl.status().expect("install openssl: apt-get install openssl").success(), "{arguments}");
}

/// Makes `ca.pem`, and `server.pem` with `server.key` for 127.0.0.1.
fn certificates(directory: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    std::fs::write(directory.join("extensions"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    openssl(directory, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"));
    openssl(directory, &format!("req {key} -keyout server.key -out server.csr -subj /CN=server"));
    let sign = "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 1";
    openssl(directory, &format!("{sign} -extfile extensions"));
}

/// TLS in front of a plain server.
async fn https(certificates: &Path, server: SocketAddr) -> SocketAddr {
    let chain = CertificateDer::pem_file_iter(certificates.join("server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(certificates.join("server.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut inner) = acceptor.accept(connection).await else { return };
                let mut outer = TcpStream::connect(server).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut inner, &mut outer).await;
            });
        }
    });
    address
}

fn provider(real: &Real, extra_certificates: Option<std::path::PathBuf>) -> GixProvider {
    let egress = EgressPolicy::default().allowing("127.0.0.1");
    let options = GitOptions { egress, extra_certificates, ..GitOptions::default() };
    GixProvider::open(real.mirrors.path(), options).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_the_operator_added_is_trusted_and_no_other() {
    let real = Real::new().await;
    let commit = real.commit_files("app", [("a", "1")]).await;
    real.server.require_token("app", "s3cr3t");
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let address = https(directory.path(), real.server.address()).await;
    let url: GitUrl = format!("https://{address}/app.git").parse().unwrap();
    let repository = Repository { url, ..real.with_token("app", "s3cr3t") };

    let error = provider(&real, None).branches(&context(), &repository).await.unwrap_err();
    assert_eq!((error.kind(), error.whose()), (Kind::Unavailable, Fault::Upstream));
    assert!(error.message().contains("certificate"), "{error:?}");
    assert_eq!(real.server.authorized("app"), 0, "the token was not sent to a stranger");

    let trusting = provider(&real, Some(directory.path().join("ca.pem")));
    let tree = trusting.fetch(&context(), &repository, &commit, &RootDirectory::default()).await.unwrap();
    assert_eq!(tree.read("a", 10).await.unwrap().unwrap(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redirect_from_https_to_http_is_denied() {
    let real = Real::new().await;
    real.commit_files("app", [("a", "1")]).await;
    real.server.fault("moved", GitFault::Redirect(real.server.url("app").to_string()));
    let directory = tempfile::tempdir().unwrap();
    certificates(directory.path());
    let address = https(directory.path(), real.server.address()).await;
    let url: GitUrl = format!("https://{address}/moved.git").parse().unwrap();
    let repository = Repository { url, ..real.repository("moved") };
    let trusting = provider(&real, Some(directory.path().join("ca.pem")));
    let error = trusting.branches(&context(), &repository).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (Kind::PermissionDenied, Some("egress_denied")), "{error:?}");
    assert_eq!(real.server.requests("app"), 0);
}
