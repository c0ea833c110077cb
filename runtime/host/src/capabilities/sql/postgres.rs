//! PostgreSQL: a small pool of lines, each dialled through the host's egress.

use std::str::FromStr;
use std::time::Instant;

use cofferdam_core::failure::{Class, EffectState, Failure};
use futures::StreamExt;
use parking_lot::Mutex;
use serde_json::Map;
use tokio::sync::Semaphore;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, NoTls, Transaction};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::postgres_values::{Cell, Parameter};
use super::{Rows, RowsBuilder, Statement, timeout_failure};
use crate::capabilities::smtp::dial_failure;
use crate::egress::allow::HostName;
use crate::egress::{Egress, Named, dial};
use crate::scope::Scope;
use crate::spec::SqlGrant;

const PORT_DEFAULT: u16 = 5432;

/// One database server and the lines to it that are open and idle.
pub(crate) struct Postgres {
    config: Config,
    host: HostName,
    port: u16,
    tls: Option<MakeRustlsConnect>,
    slots: Semaphore,
    idle: Mutex<Vec<Client>>,
}

impl Postgres {
    pub(super) fn new(grant: &SqlGrant, pool_max: u32, egress: &Egress) -> Result<Self, String> {
        // The parser's own message may quote the URL, and with it a password.
        let mut config = Config::from_str(&grant.url).map_err(|_| {
            "write `postgresql://USER@HOST:PORT/DATABASE?sslmode=require`".to_owned()
        })?;
        let host = match config.get_hosts() {
            [Host::Tcp(host)] => HostName::parse(host)
                .ok_or_else(|| format!("`{host}` is not a host's name or address"))?,
            _ => return Err("name exactly one host, not a socket".to_owned()),
        };
        if !config.get_hostaddrs().is_empty() {
            return Err("leave out `hostaddr`; the host resolves names itself".to_owned());
        }
        let port = config.get_ports().first().copied().unwrap_or(PORT_DEFAULT);
        if let Some(password) = &grant.password {
            config.password(password);
        }
        config.application_name("cofferdam");
        let tls = match config.get_ssl_mode() {
            SslMode::Disable | SslMode::Prefer => {
                // Encryption that anybody on the way can switch off is none.
                config.ssl_mode(SslMode::Disable);
                None
            }
            _ => Some(MakeRustlsConnect::new((*egress.tls).clone())),
        };
        let slots = Semaphore::new(pool_max as usize);
        Ok(Self {
            config,
            host,
            port,
            tls,
            slots,
            idle: Mutex::default(),
        })
    }

    pub(super) fn password(&self) -> Option<&str> {
        std::str::from_utf8(self.config.get_password()?).ok()
    }

    pub(super) async fn query(
        &self,
        scope: &Scope,
        statement: &Statement,
        rows_max: u32,
        write: bool,
    ) -> Result<Rows, Failure> {
        let work = async {
            let _slot = self.slots.acquire().await.map_err(|_| closed())?;
            let mut client = self.take(scope).await?;
            let transaction = begin(&mut client, scope, !write).await?;
            let rows = read(&transaction, statement, rows_max).await?;
            if write {
                commit(transaction, scope).await?;
            } else {
                transaction
                    .rollback()
                    .await
                    .map_err(|error| failure(&error))?;
            }
            self.keep(client);
            Ok(rows)
        };
        within(scope, work).await
    }

    pub(super) async fn execute(
        &self,
        scope: &Scope,
        statements: &[Statement],
    ) -> Result<Vec<u32>, Failure> {
        let work = async {
            let _slot = self.slots.acquire().await.map_err(|_| closed())?;
            let mut client = self.take(scope).await?;
            let transaction = begin(&mut client, scope, false).await?;
            let mut changed = Vec::with_capacity(statements.len());
            for statement in statements {
                changed.push(change(&transaction, statement).await?);
            }
            commit(transaction, scope).await?;
            self.keep(client);
            Ok(changed)
        };
        within(scope, work).await
    }

    /// An idle line that still works, or another.
    async fn take(&self, scope: &Scope) -> Result<Client, Failure> {
        let idle = loop {
            let Some(client) = self.idle.lock().pop() else {
                break None;
            };
            if !client.is_closed() {
                break Some(client);
            }
        };
        match idle {
            Some(client) => Ok(client),
            None => self.open(scope).await,
        }
    }

    async fn open(&self, scope: &Scope) -> Result<Client, Failure> {
        // The operator wrote this host down, so it counts as named exactly.
        let egress = &scope.settings.egress;
        let stream = dial::dial(egress, &self.host, self.port, Named::Exactly, scope.left())
            .await
            .map_err(|error| dial_failure("sql", &error))?;
        let failed = |error: tokio_postgres::Error| failure(&error);
        match &self.tls {
            None => {
                let (client, line) = self
                    .config
                    .connect_raw(stream, NoTls)
                    .await
                    .map_err(failed)?;
                tokio::spawn(run(line));
                Ok(client)
            }
            Some(tls) => {
                use tokio_postgres::tls::MakeTlsConnect;
                let mut tls = tls.clone();
                let host = self.host.to_string();
                let connect =
                    MakeTlsConnect::<tokio::net::TcpStream>::make_tls_connect(&mut tls, &host)
                        .map_err(|error| unavailable(format!("no TLS: {error}")))?;
                let (client, line) = self
                    .config
                    .connect_raw(stream, connect)
                    .await
                    .map_err(failed)?;
                tokio::spawn(run(line));
                Ok(client)
            }
        }
    }

    fn keep(&self, client: Client) {
        if !client.is_closed() {
            self.idle.lock().push(client);
        }
    }
}

/// Carries one line until its client is dropped or the server ends it.
async fn run<S, T>(line: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    if let Err(error) = line.await {
        tracing::debug!(%error, "a line to PostgreSQL ended");
    }
}

/// Ends the work at the call's deadline. A transaction that was not committed is then rolled back
/// by the server, and its statement cancelled by the timeout that [`begin`] set.
async fn within<T>(
    scope: &Scope,
    work: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let began = Instant::now();
    let ended = tokio::time::timeout(scope.left(), work).await;
    ended.unwrap_or_else(|_| {
        let text = format!("the database did not answer in {:?}", began.elapsed());
        Err(Failure::new(Class::Timeout, "sql.timeout", text).with_effect(scope.effect()))
    })
}

async fn begin<'a>(
    client: &'a mut Client,
    scope: &Scope,
    read_only: bool,
) -> Result<Transaction<'a>, Failure> {
    let transaction = client
        .build_transaction()
        .read_only(read_only)
        .start()
        .await
        .map_err(|error| failure(&error))?;
    let left_ms = scope.left().as_millis().max(1);
    transaction
        .batch_execute(&format!("SET LOCAL statement_timeout = {left_ms}"))
        .await
        .map_err(|error| failure(&error))?;
    Ok(transaction)
}

async fn commit(transaction: Transaction<'_>, scope: &Scope) -> Result<(), Failure> {
    if !scope.mark_sent() {
        return Err(timeout_failure());
    }
    transaction.commit().await.map_err(|error| {
        // The server's own refusal means that nothing was kept; a broken line means nothing.
        let effect = if error.code().is_some() {
            EffectState::None
        } else {
            EffectState::Unknown
        };
        failure(&error).with_effect(effect)
    })
}

async fn read(
    transaction: &Transaction<'_>,
    statement: &Statement,
    rows_max: u32,
) -> Result<Rows, Failure> {
    let failed = |error: tokio_postgres::Error| failure(&error);
    let prepared = transaction.prepare(&statement.text).await.map_err(failed)?;
    let parameters = parameters(statement, prepared.params().len())?;
    let portal = transaction
        .bind(&prepared, &borrowed(&parameters))
        .await
        .map_err(failed)?;
    // One more than wanted, to know whether there are more.
    let fetch = i32::try_from(rows_max).unwrap_or(i32::MAX - 1) + 1;
    let stream = transaction
        .query_portal_raw(&portal, fetch)
        .await
        .map_err(failed)?;
    let mut stream = std::pin::pin!(stream);
    let mut built = RowsBuilder::new(rows_max);
    while let Some(row) = stream.next().await {
        let row = row.map_err(failed)?;
        let mut object = Map::new();
        for (index, column) in row.columns().iter().enumerate() {
            let cell: Cell = row.try_get(index).map_err(|error| {
                let text = format!(
                    "column `{}` of type {} cannot be read ({error}); cast it to text",
                    column.name(),
                    column.type_()
                );
                Failure::new(Class::Unsupported, "sql.type", text)
            })?;
            object.insert(column.name().to_owned(), cell.0);
        }
        if !built.push(&object)? {
            break;
        }
    }
    Ok(built.finish())
}

async fn change(transaction: &Transaction<'_>, statement: &Statement) -> Result<u32, Failure> {
    let prepared = transaction
        .prepare(&statement.text)
        .await
        .map_err(|error| failure(&error))?;
    let parameters = parameters(statement, prepared.params().len())?;
    let changed = transaction
        .execute(&prepared, &borrowed(&parameters))
        .await
        .map_err(|error| failure(&error))?;
    Ok(u32::try_from(changed).unwrap_or(u32::MAX))
}

fn parameters(statement: &Statement, wanted: usize) -> Result<Vec<Parameter<'_>>, Failure> {
    let came = statement.parameters.len();
    if came == wanted {
        return Ok(statement.parameters.iter().map(Parameter).collect());
    }
    let text = format!("the statement has {wanted} placeholders, and {came} parameters came");
    Err(Failure::new(Class::InvalidInput, "sql.parameters", text))
}

fn borrowed<'a>(parameters: &'a [Parameter<'a>]) -> Vec<&'a (dyn ToSql + Sync)> {
    parameters
        .iter()
        .map(|parameter| parameter as &(dyn ToSql + Sync))
        .collect()
}

fn closed() -> Failure {
    unavailable("the host is shutting down".to_owned())
}

fn unavailable(text: String) -> Failure {
    Failure::new(Class::Unavailable, "sql.unavailable", text)
}

/// What an error of the server, or of the line to it, means. Until a commit nothing has happened.
fn failure(error: &tokio_postgres::Error) -> Failure {
    let Some(database) = error.as_db_error() else {
        let source = std::error::Error::source(error);
        let text = match source {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        };
        // Parameters that cannot be written are the guest's, everything else is the line's.
        return if text.contains("serializing parameter") {
            Failure::new(Class::InvalidInput, "sql.parameters", text)
        } else {
            unavailable(text)
        };
    };
    let state = database.code();
    let text = match database.detail() {
        Some(detail) => format!("{} ({detail})", database.message()),
        None => database.message().to_owned(),
    };
    let (class, code) = match state {
        state if *state == SqlState::QUERY_CANCELED => return timeout_failure(),
        state if *state == SqlState::READ_ONLY_SQL_TRANSACTION => {
            (Class::InvalidInput, "sql.read-only")
        }
        state if *state == SqlState::INSUFFICIENT_PRIVILEGE => (Class::Denied, "sql.denied"),
        state
            if *state == SqlState::UNIQUE_VIOLATION
                || *state == SqlState::FOREIGN_KEY_VIOLATION
                || *state == SqlState::EXCLUSION_VIOLATION =>
        {
            (Class::Conflict, "sql.conflict")
        }
        state => match state.code().get(..2).unwrap_or_default() {
            "23" => (Class::InvalidInput, "sql.constraint"),
            "28" => (Class::Unauthenticated, "sql.unauthenticated"),
            "40" => (Class::Unavailable, "sql.serialization"),
            "08" | "53" | "55" | "57" | "58" => (Class::Unavailable, "sql.unavailable"),
            "XX" => (Class::Internal, "sql.internal"),
            _ => (Class::InvalidInput, "sql.statement"),
        },
    };
    let mut failure = Failure::new(class, code, text);
    failure.details = serde_json::json!({ "sqlstate": state.code() });
    failure
}
