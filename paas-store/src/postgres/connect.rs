//! Connections to the server.

use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use paas_core::{Clock, Error, Retry};
use tokio::task::JoinHandle;
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::types::ToSql;
use tokio_postgres::{AsyncMessage, Client, Config, NoTls, Row, Socket, Statement};

use super::failure::{Failure, Result};
use super::tls::Tls;

/// The longest that making a connection takes, the server's name and its certificate included.
const CONNECT: Duration = Duration::from_secs(5);
/// The longest that an answer takes: longer than the server works on a statement.
const ANSWER: Duration = Duration::from_secs(20);
/// A server that is gone without a word is noticed after three of these.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// What every connection sets: plans follow the indexes, whatever the statistics say of a table that was small
/// yesterday; no statement and no open transaction outlives its caller for long; a commit is on stable storage.
const SETTINGS: &str = "
SET plan_cache_mode = force_generic_plan;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET jit = off;
SET client_min_messages = error;
SET default_transaction_isolation = 'read committed';
SET statement_timeout = '15s';
SET idle_in_transaction_session_timeout = '5s';
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

type Parameters<'a> = &'a [&'a (dyn ToSql + Sync)];
/// Is called with the payload of each notification.
pub(super) type OnNotification = Box<dyn Fn(&str) + Send>;

/// Makes connections to one database.
#[derive(Clone)]
pub(super) struct Connector {
    config: Config,
    tls: Option<Tls>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Connector {
    /// Never the password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Connector")
            .field("hosts", &self.config.get_hosts())
            .field("database", &self.config.get_dbname())
            .field("user", &self.config.get_user())
            .finish_non_exhaustive()
    }
}

impl Connector {
    /// # Errors
    /// `Unavailable`, permanently, when the URL is none.
    pub(super) fn new(url: &str, clock: Arc<dyn Clock>) -> paas_core::Result<Self> {
        const OPERATION: &str = "postgres.open";
        // The cause may quote a part of the URL, the password perhaps.
        let mut config: Config = url.parse().map_err(|_| {
            Error::new(paas_core::Kind::Unavailable, OPERATION, "the database's URL can't be understood")
                .retry(Retry::Permanent)
                .hint("postgresql://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=require")
        })?;
        config
            .application_name("paas")
            .connect_timeout(CONNECT)
            .keepalives_idle(KEEPALIVE)
            .keepalives_interval(KEEPALIVE)
            .keepalives_retries(2)
            .tcp_user_timeout(3 * KEEPALIVE)
            .target_session_attrs(TargetSessionAttrs::ReadWrite);
        let tls = match config.get_ssl_mode() {
            SslMode::Require => {
                Some(Tls::with_system_roots().map_err(|error| Error::internal(OPERATION, error))?)
            }
            _ => {
                if config.get_hosts().iter().any(is_remote) {
                    tracing::warn!("the connection to the database is not encrypted: see sslmode=require");
                }
                config.ssl_mode(SslMode::Disable);
                None
            }
        };
        Ok(Self { config, tls, clock })
    }

    pub(super) async fn connect(&self) -> Result<Connection> {
        self.connect_and_listen(Box::new(|_| {})).await
    }

    pub(super) async fn connect_and_listen(&self, on_notification: OnNotification) -> Result<Connection> {
        let connecting = async {
            match &self.tls {
                Some(tls) => self.connect_with(tls.clone(), on_notification).await,
                None => self.connect_with(NoTls, on_notification).await,
            }
        };
        let connection = tokio::select! {
            biased;
            connection = connecting => connection.map_err(|error| Failure::Unreachable(Some(error)))?,
            () = self.clock.sleep(CONNECT) => return Err(Failure::Unreachable(None)),
        };
        connection.batch(SETTINGS).await?;
        Ok(connection)
    }

    async fn connect_with<T>(
        &self,
        tls: T,
        on_notification: OnNotification,
    ) -> Result<Connection, tokio_postgres::Error>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let (client, mut connection) = self.config.connect(tls).await?;
        let driver = tokio::spawn(async move {
            while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
                match message {
                    Ok(AsyncMessage::Notification(notification)) => on_notification(notification.payload()),
                    Ok(_) => {}
                    // Whoever waits for an answer is told.
                    Err(error) => return tracing::debug!(%error, "a connection to the database ended"),
                }
            }
        });
        Ok(Connection { client, statements: Mutex::default(), driver, clock: Arc::clone(&self.clock) })
    }
}

fn is_remote(host: &Host) -> bool {
    match host {
        Host::Tcp(name) => {
            name != "localhost" && !name.parse().is_ok_and(|address: IpAddr| address.is_loopback())
        }
        Host::Unix(_) => false,
    }
}

/// A connection, on which several calls may be under way: the server carries them out in their order.
pub(super) struct Connection {
    client: Client,
    statements: Mutex<HashMap<&'static str, Statement>>,
    driver: JoinHandle<()>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    pub(super) fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Returns when it has ended.
    pub(super) async fn ended(&mut self) {
        // However it ended.
        let _ = (&mut self.driver).await;
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    /// Statements without parameters or rows.
    pub(super) async fn batch(&self, sql: &str) -> Result<()> {
        self.answered(self.client.batch_execute(sql)).await
    }

    pub(super) async fn query(&self, sql: &'static str, parameters: Parameters<'_>) -> Result<Vec<Row>> {
        let statement = self.prepared(sql).await?;
        self.answered(self.client.query(&statement, parameters)).await
    }

    /// A statement, prepared once for this connection.
    pub(super) async fn prepared(&self, sql: &'static str) -> Result<Statement> {
        let known = || self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(statement) = known().get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.answered(self.client.prepare(sql)).await?;
        known().insert(sql, statement.clone());
        Ok(statement)
    }

    /// Waits for an answer, but not for ever.
    pub(super) async fn answered<T>(
        &self,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T> {
        tokio::select! {
            biased;
            answer = answer => answer.map_err(Failure::from),
            () = self.clock.sleep(ANSWER) => Err(Failure::Lost(None)),
        }
    }
}
