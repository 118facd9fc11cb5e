//! HTTP to addresses that may be called, and to no others.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::FutureExt as _;
use paas_core::{EgressPolicy, Result, error};
use reqwest::Client;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::Url;

use crate::errors;
use crate::options::GitOptions;

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(20);

/// Two clients: one for any public host, which checks every address that a name resolves to, and one for the
/// hosts that the operator listed, which may be private. Neither follows redirects or uses a proxy.
#[derive(Clone, Debug)]
pub(crate) struct HttpClient {
    egress: EgressPolicy,
    public: Client,
    listed: Client,
}

impl HttpClient {
    pub(crate) fn new(options: &GitOptions) -> Result<Self> {
        Self::resolving(options, Arc::new(SystemResolver))
    }

    /// The same with other name servers.
    fn resolving(options: &GitOptions, resolver: Arc<dyn Resolve>) -> Result<Self> {
        let tls = tls(options)?;
        let builder = || {
            Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(Policy::none())
                .no_proxy()
                .connect_timeout(CONNECT_TIMEOUT)
                .user_agent(concat!("git/paas-", env!("CARGO_PKG_VERSION")))
        };
        let resolver = PublicResolver { egress: options.egress.clone(), resolver };
        Ok(Self {
            egress: options.egress.clone(),
            public: builder().dns_resolver(Arc::new(resolver)).build().map_err(error::map("git.open"))?,
            listed: builder().build().map_err(error::map("git.open"))?,
        })
    }

    /// The client for a URL.
    ///
    /// # Errors
    /// Those of [`EgressPolicy::check`].
    pub(crate) fn for_url(&self, url: &Url) -> Result<&Client> {
        self.egress.check(url)?;
        Ok(if self.egress.is_listed(url) { &self.listed } else { &self.public })
    }
}

fn tls(options: &GitOptions) -> Result<rustls::ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let system = rustls_native_certs::load_native_certs();
    for error in &system.errors {
        tracing::warn!(%error, "a certificate authority of the system cannot be used");
    }
    roots.add_parsable_certificates(system.certs);
    if let Some(file) = &options.extra_certificates {
        for certificate in CertificateDer::pem_file_iter(file).map_err(error::map("git.open"))? {
            roots.add(certificate.map_err(error::map("git.open"))?).map_err(error::map("git.open"))?;
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    Ok(rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(error::map("git.open"))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Resolves names as the system does.
struct SystemResolver;

impl Resolve for SystemResolver {
    fn resolve(&self, name: Name) -> Resolving {
        async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found = match found {
                Err(error) if is_unknown(&error) => return Err(errors::host_not_found("git.lookup").into()),
                found => found?,
            };
            let addresses: Vec<_> = found.collect();
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        }
        .boxed()
    }
}

/// True if the name servers say that there is no such name; false while they don't answer. The standard library passes
/// only their words on: those of glibc, musl and macOS.
fn is_unknown(error: &io::Error) -> bool {
    const WORDS: [&str; 4] = [
        "Name or service not known",
        "No address associated with hostname",
        "Name does not resolve",
        "nodename nor servname provided",
    ];
    let text = error.to_string();
    WORDS.iter().any(|words| text.contains(words))
}

/// Refuses a name with an address that may not be called. The connection
/// uses the addresses that were checked, so that a second answer of the name server changes nothing.
struct PublicResolver {
    egress: EgressPolicy,
    resolver: Arc<dyn Resolve>,
}

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (egress, resolved) = (self.egress.clone(), self.resolver.resolve(name));
        async move {
            let addresses: Vec<SocketAddr> = resolved.await?.collect();
            for address in &addresses {
                egress.check_address(address.ip())?;
            }
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name servers that always answer with these addresses.
    struct Fixed(Vec<SocketAddr>);

    impl Resolve for Fixed {
        fn resolve(&self, _: Name) -> Resolving {
            let addresses: Addrs = Box::new(self.0.clone().into_iter());
            async move { Ok(addresses) }.boxed()
        }
    }

    #[test]
    fn a_name_that_does_not_exist_is_told_from_name_servers_that_do_not_answer() {
        let said = |words: &str| {
            is_unknown(&io::Error::other(format!("failed to lookup address information: {words}")))
        };
        assert!(said("Name or service not known") && said("Name does not resolve"));
        assert!(!said("Temporary failure in name resolution") && !said("System error"));
    }

    /// The whole way: a name's private address comes out of a request as `egress_denied`, and is not called.
    #[tokio::test]
    async fn a_name_with_one_private_address_is_refused() {
        for private in ["10.0.0.1:0", "169.254.169.254:0", "[::1]:0", "[::ffff:127.0.0.1]:0", "[fd00::1]:0"] {
            let addresses = ["1.1.1.1:0", private].map(|address| address.parse().unwrap());
            let client =
                HttpClient::resolving(&GitOptions::default(), Arc::new(Fixed(addresses.to_vec()))).unwrap();
            let url: Url = "https://git.example/app.git".parse().unwrap();
            let error = client.for_url(&url).unwrap().get(url).send().await.unwrap_err();
            let error = crate::errors::from_connection("git.fetch", error);
            assert_eq!(error.reason(), Some("egress_denied"), "{private}: {error:?}");
        }
    }
}
