//! What an operator can set: a file, and over it the environment.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use paas_core::{AddressPool, Error, Host, Result, Secret};
use paas_plan::BaseImages;
use serde::Deserialize;

const OPERATION: &str = "server.configure";
/// What every variable of ours begins with.
const PREFIX: &str = "PAAS_";
/// Variables that others read: the program's own, and the proxy's.
const OTHERS: &[&str] = &["PAAS_CONFIG", "PAAS_LOG", "PAAS_LOG_FORMAT", "PAAS_PROXY_BINARY"];

/// What a [`Server`](super::Server) is told. The defaults suit one machine and one user.
///
/// ```
/// # fn main() -> paas_core::Result<()> {
/// let text = r#"
///     data_directory = "/srv/paas"
///     domain = "apps.example.com"
///     proxy_listen = "0.0.0.0:80"
///     allowed_hosts = ["git.lan", "127.0.0.1:3000"]
/// "#;
/// let config = paas_http::ServerConfig::parse(text)?;
/// assert_eq!(config.listen.port(), 8000);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct ServerConfig {
    /// Where everything is kept: state (but in a database), logs, mirrors, the token, the key.
    pub data_directory: PathBuf,
    /// The PostgreSQL database that holds the state, as `postgresql://user:password@host/name?sslmode=require`. Without
    /// one it is a SQLite file in the data directory.
    pub database_url: Option<Secret>,
    /// Where the API listens. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Apps answer at `{app}.{domain}`.
    pub domain: Host,
    /// Where the proxy listens for apps' visitors.
    pub proxy_listen: SocketAddr,
    /// Where the proxy keeps its table and its socket, if not in the data directory: servers that name the same one share
    /// the proxy.
    pub proxy_directory: Option<PathBuf>,
    /// The port in apps' URLs where it is not the one listened on: behind a port mapping.
    pub proxy_public_port: Option<u16>,
    /// Hosts of git servers, with or without a port, that may be private and may use plain `http`.
    pub allowed_hosts: BTreeSet<String>,
    /// From which images generated Dockerfiles start.
    pub base_images: BaseImages,
    /// A PEM bundle of certificate authorities for builds, and for git servers beside the system's.
    pub ca_bundle: Option<PathBuf>,
    /// Where the Docker engine listens: `unix:///path` or `tcp://address:port`.
    pub docker_host: String,
    /// Publish containers on ports of 127.0.0.1: where their addresses can't be reached from here.
    pub docker_on_loopback: bool,
    /// The name of this installation on its engine: several do not see each other's containers.
    pub installation: String,
    /// The range that orgs' networks are taken from, such as `10.181.0.0/16`.
    pub address_pool: String,
    /// How large the network of one org is.
    pub network_prefix: u8,
}

impl Default for ServerConfig {
    fn default() -> Self {
        Self {
            data_directory: PathBuf::from("paas-data"),
            database_url: None,
            listen: (Ipv4Addr::LOCALHOST, 8000).into(),
            domain: paas_core::Settings::default().domain,
            proxy_listen: (Ipv4Addr::LOCALHOST, 8080).into(),
            proxy_directory: None,
            proxy_public_port: None,
            allowed_hosts: BTreeSet::new(),
            base_images: BaseImages::default(),
            ca_bundle: None,
            docker_host: "unix:///var/run/docker.sock".to_owned(),
            docker_on_loopback: false,
            installation: "paas".to_owned(),
            address_pool: "10.181.0.0/16".to_owned(),
            network_prefix: 24,
        }
    }
}

impl ServerConfig {
    /// Reads a configuration file's text.
    ///
    /// # Errors
    /// `Invalid` with the line, also for a setting that is not known.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| invalid(format!("the configuration is not valid: {error}")))
    }

    /// Reads the file, if one is given, and then the variables `PAAS_…` of `environment`: the name of a setting in
    /// capitals, with lists and tables as TOML (`PAAS_ALLOWED_HOSTS='["git.lan"]'`). `DOCKER_HOST` and `DATABASE_URL` count
    /// too, where the file says nothing else.
    ///
    /// # Errors
    /// `Invalid` when the file can't be read, for a value that is not valid, and for a variable that is not known.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self> {
        let text = match file {
            Some(file) => std::fs::read_to_string(file).map_err(|error| {
                invalid(format!("the configuration file {} can't be read: {error}", file.display()))
            })?,
            None => String::new(),
        };
        let mut table: toml::Table =
            text.parse().map_err(|error| invalid(format!("the configuration is not valid: {error}")))?;
        for (name, value) in environment {
            let (Some(name), Some(value)) = (name.to_str(), value.to_str()) else { continue };
            if let "DOCKER_HOST" | "DATABASE_URL" = name
                && !value.is_empty()
            {
                table.entry(name.to_ascii_lowercase()).or_insert_with(|| value.into());
            }
            if let Some(setting) = name.strip_prefix(PREFIX).filter(|_| !OTHERS.contains(&name)) {
                let setting = setting.to_ascii_lowercase();
                let value = setting_value(&setting, value).map_err(|error| {
                    invalid(format!("the variable {name} is not valid: {error}")).hint(
                        "correct or unset it: every variable that begins with PAAS_ is a setting of the server",
                    )
                })?;
                table.insert(setting, value);
            }
        }
        let config = table.try_into();
        config.map_err(|error: toml::de::Error| invalid(format!("the configuration is not valid: {error}")))
    }

    /// The range of orgs' networks.
    pub(super) fn pool(&self) -> Result<AddressPool> {
        let range = self.address_pool.split_once('/');
        let range = range.and_then(|(address, prefix)| Some((address.parse().ok()?, prefix.parse().ok()?)));
        let (address, prefix) =
            range.ok_or_else(|| invalid("address_pool must be a range such as 10.181.0.0/16".to_owned()))?;
        AddressPool::new(address, prefix, self.network_prefix)
    }
}

/// A variable's text as the value of a setting: as TOML where that suits the setting, or else as it is.
fn setting_value(setting: &str, text: &str) -> Result<toml::Value, toml::de::Error> {
    let suits = |value: &toml::Value| {
        let alone = toml::Table::from_iter([(setting.to_owned(), value.clone())]);
        alone.try_into::<ServerConfig>().map(drop)
    };
    let parsed = format!("value = {text}").parse::<toml::Table>().ok();
    let parsed = parsed.and_then(|mut table| table.remove("value")).filter(|value| !value.is_str());
    if let Some(value) = parsed
        && suits(&value).is_ok()
    {
        return Ok(value);
    }
    let plain = toml::Value::String(text.to_owned());
    suits(&plain).map(|()| plain)
}

fn invalid(message: String) -> Error {
    Error::invalid(OPERATION, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(file: &str, environment: &[(&str, &str)]) -> Result<ServerConfig> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("paas.toml");
        std::fs::write(&path, file).unwrap();
        ServerConfig::load(Some(&path), environment.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let config = load(
            "listen = \"127.0.0.1:1\"\ndomain = \"example.com\"\n",
            &[
                ("PAAS_LISTEN", "127.0.0.1:2"),
                ("PAAS_ALLOWED_HOSTS", "[\"127.0.0.1:3000\"]"),
                ("PAAS_BASE_IMAGES", "{ static = \"paas/static:1\" }"),
                ("PAAS_NETWORK_PREFIX", "26"),
                ("PAAS_DOCKER_ON_LOOPBACK", "true"),
                ("PAAS_INSTALLATION", "123"),
                ("PAAS_LOG", "debug"),
                ("PAAS_LOG_FORMAT", "json"),
                ("DOCKER_HOST", "unix:///run/other.sock"),
                ("DATABASE_URL", "postgresql://db.lan/paas"),
                ("HOME", "/root"),
            ],
        )
        .unwrap();
        assert_eq!((config.listen.port(), config.domain.as_str()), (2, "example.com"));
        assert!(config.allowed_hosts.contains("127.0.0.1:3000") && config.docker_on_loopback);
        assert_eq!(config.base_images.get("static"), Some("paas/static:1"));
        assert_eq!(config.installation, "123");
        assert_eq!(config.database_url.unwrap().expose(), "postgresql://db.lan/paas");
        assert_eq!((config.network_prefix, config.docker_host.as_str()), (26, "unix:///run/other.sock"));
    }

    #[test]
    fn what_is_not_known_or_not_valid_is_said() {
        for (file, variable) in [
            ("listn = \"127.0.0.1:1\"", ("HOME", "/")),
            ("listen = 1", ("HOME", "/")),
            ("listen =", ("HOME", "/")),
            ("", ("PAAS_LISTN", "127.0.0.1:1")),
            ("", ("PAAS_DOMAIN", "a/b")),
        ] {
            let error = load(file, &[variable]).unwrap_err();
            assert_eq!(error.kind(), paas_core::Kind::Invalid, "{file} {variable:?}");
        }
        let error = load("", &[("PAAS_ENGINE_WAIT_SECONDS", "3")]).unwrap_err();
        assert!(error.message().contains("PAAS_ENGINE_WAIT_SECONDS") && error.hinted().is_some(), "{error}");
        for pool in ["10.181.0.0", "10.181.0.1/16", "10.0.0.0/x", "10.181.0.0/28"] {
            let config = ServerConfig { address_pool: pool.to_owned(), ..ServerConfig::default() };
            assert!(config.pool().is_err(), "{pool}");
        }
    }
}
