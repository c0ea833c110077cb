//! `sql`: a relational database. The host holds the pool of connections and the credentials.

use cofferdam_core::failure::{Class, Failure};
use cofferdam_core::manifest::Manifest;
use serde_json::Value;
use wasmtime::component::Linker;

use super::{Capability, missing};
use crate::Error;
use crate::bindings::cofferdam::connector::{protocol, sql};
use crate::chamber::{Data, State};
use crate::egress::Egress;
use crate::plugin::Plugin;
use crate::scope::Scope;
use crate::spec::{ConnectionSpec, SqlGrant};
use crate::verdict::{quoted_to_guest, to_guest};

#[cfg(test)]
#[path = "tests.rs"]
mod database_tests;
mod postgres;
#[cfg(test)]
mod postgres_server;
mod postgres_values;
mod sqlite;
mod values;

/// Rows of one answer; a call that asks for none in particular gets these at most as well.
const ROWS_MAX: u32 = 10_000;
/// JSON text of all parameters of one request. Two bytes of it can become a hundred in memory.
pub(crate) const PARAMETERS_BYTES_MAX: usize = 1 << 20;
/// JSON text of one answer. More rows than fit are left out, and the answer says so.
const ROWS_BYTES_MAX: usize = 8 << 20;
/// Statements of one transaction.
const STATEMENTS_MAX: usize = 1_000;
const POOL_DEFAULT: u32 = 8;
const POOL_MAX: u32 = 100;

pub(crate) struct Sql;

impl Capability for Sql {
    fn name(&self) -> &'static str {
        "sql"
    }

    fn provides(&self, interface: &str, _version: &str) -> bool {
        interface == "cofferdam:connector/sql"
    }

    fn link(&self, linker: &mut Linker<State>) -> wasmtime::Result<()> {
        sql::add_to_linker::<_, Data>(linker, |state| state)
    }

    fn unrequested(&self, manifest: &Manifest) -> Option<String> {
        (!manifest.capabilities.sql).then(|| "sql = true".to_owned())
    }

    fn admit(&self, plugin: &Plugin, spec: &ConnectionSpec) -> Result<(), Error> {
        if spec.grants.sql.is_some() {
            return Ok(());
        }
        Err(missing(
            plugin,
            spec,
            "sql",
            "sql = { url = \"postgresql://USER@HOST/DATABASE\" }",
        ))
    }
}

/// The database of one connection.
pub(crate) enum Database {
    Postgres(Box<postgres::Postgres>),
    Sqlite(sqlite::Sqlite),
}

/// One statement with its parameters read.
pub(super) struct Statement {
    text: String,
    parameters: Vec<Value>,
}

/// Rows as JSON text, as many as were wanted and fit.
#[derive(Debug)]
pub(super) struct Rows {
    json: String,
    truncated: bool,
}

/// Collects rows until there are enough.
struct RowsBuilder {
    json: String,
    rows: u32,
    rows_max: u32,
    truncated: bool,
}

impl Database {
    pub(crate) fn new(place: &str, grant: &SqlGrant, egress: &Egress) -> Result<Self, Error> {
        let refuse = |value: &str, reason: String| Error::BadGrant {
            place: place.to_owned(),
            key: "grants.sql",
            value: value.to_owned(),
            reason,
        };
        let pool_max = match grant.pool_max {
            0 => POOL_DEFAULT,
            pool_max if pool_max <= POOL_MAX => pool_max,
            pool_max => {
                let shown = format!("pool_max {pool_max}");
                return Err(refuse(&shown, format!("must be from 1 to {POOL_MAX}")));
            }
        };
        // Only the scheme is ever shown: the rest may hold a password.
        let scheme = grant.url.split(':').next().unwrap_or_default();
        match scheme {
            "postgres" | "postgresql" => {
                let made = postgres::Postgres::new(grant, pool_max, egress);
                made.map(|made| Self::Postgres(Box::new(made)))
                    .map_err(|reason| refuse("postgresql:…", reason))
            }
            "sqlite" => sqlite::Sqlite::new(&grant.url, pool_max)
                .map(Self::Sqlite)
                .map_err(|reason| refuse("sqlite:…", reason)),
            _ => {
                let reason = "write `postgresql://USER@HOST/DATABASE` or `sqlite:FILE`".to_owned();
                Err(refuse(&format!("{scheme}:…"), reason))
            }
        }
    }
}

impl Database {
    /// The password that it is opened with, wherever it was written.
    pub(crate) fn password(&self) -> Option<&str> {
        match self {
            Self::Postgres(postgres) => postgres.password(),
            Self::Sqlite(_) => None,
        }
    }
}

impl State {
    fn sql(&self) -> Result<(&Scope, &Database), Failure> {
        let denied = || {
            let text = "sql is not granted to this connection";
            Failure::new(Class::Denied, "sql.denied", text)
        };
        let database = self.scope.settings.sql.as_ref().ok_or_else(denied)?;
        Ok((&self.scope, database))
    }
}

async fn query(
    scope: &Scope,
    database: &Database,
    statement: sql::Statement,
    rows_max: u32,
    write: bool,
) -> Result<Rows, Failure> {
    scope.take_request()?;
    let statement = Statement::read(statement)?;
    let rows_max = rows_max.min(ROWS_MAX);
    match database {
        Database::Postgres(postgres) => postgres.query(scope, &statement, rows_max, write).await,
        Database::Sqlite(sqlite) => sqlite.query(scope, statement, rows_max, write).await,
    }
}

async fn execute(
    scope: &Scope,
    database: &Database,
    statements: Vec<sql::Statement>,
) -> Result<Vec<u32>, Failure> {
    if statements.len() > STATEMENTS_MAX {
        let text = format!("a transaction has at most {STATEMENTS_MAX} statements");
        return Err(Failure::new(Class::InvalidInput, "sql.statement", text));
    }
    scope.take_request()?;
    refuse_large(statements.iter().map(|one| one.parameters.len()).sum())?;
    let statements = statements
        .into_iter()
        .map(Statement::read)
        .collect::<Result<Vec<_>, _>>()?;
    match database {
        Database::Postgres(postgres) => postgres.execute(scope, &statements).await,
        Database::Sqlite(sqlite) => sqlite.execute(scope, statements).await,
    }
}

impl sql::Host for State {
    async fn get_dialect(&mut self) -> Result<sql::Dialect, protocol::Failure> {
        match self.sql().map_err(to_guest)?.1 {
            Database::Postgres(_) => Ok(sql::Dialect::Postgresql),
            Database::Sqlite(_) => Ok(sql::Dialect::Sqlite),
        }
    }

    async fn query(
        &mut self,
        statement: sql::Statement,
        max_rows: u32,
    ) -> Result<sql::Rows, protocol::Failure> {
        let (scope, database) = self.sql().map_err(to_guest)?;
        let rows = query(scope, database, statement, max_rows, false)
            .await
            .map_err(|failure| quoted_to_guest(failure, scope))?;
        Ok(sql::Rows {
            rows: scope.settings.scrubber.json(rows.json),
            truncated: rows.truncated,
        })
    }

    async fn execute(
        &mut self,
        statements: Vec<sql::Statement>,
    ) -> Result<Vec<u32>, protocol::Failure> {
        let (scope, database) = self.sql().map_err(to_guest)?;
        execute(scope, database, statements)
            .await
            .map_err(|failure| quoted_to_guest(failure, scope))
    }

    async fn execute_returning(
        &mut self,
        statement: sql::Statement,
        max_rows: u32,
    ) -> Result<sql::Rows, protocol::Failure> {
        let (scope, database) = self.sql().map_err(to_guest)?;
        let rows = query(scope, database, statement, max_rows, true)
            .await
            .map_err(|failure| quoted_to_guest(failure, scope))?;
        Ok(sql::Rows {
            rows: scope.settings.scrubber.json(rows.json),
            truncated: rows.truncated,
        })
    }
}

impl Statement {
    fn read(statement: sql::Statement) -> Result<Self, Failure> {
        refuse_control(&statement.text)?;
        refuse_large(statement.parameters.len())?;
        let parameters = if statement.parameters.trim().is_empty() {
            Vec::new()
        } else {
            serde_json::from_str(&statement.parameters).map_err(|error| {
                let text = format!("the parameters are not a JSON array: {error}");
                Failure::new(Class::InvalidInput, "sql.parameters", text)
            })?
        };
        Ok(Self {
            text: statement.text,
            parameters,
        })
    }
}

fn refuse_large(parameters_bytes: usize) -> Result<(), Failure> {
    if parameters_bytes <= PARAMETERS_BYTES_MAX {
        return Ok(());
    }
    let text = format!(
        "the parameters have {parameters_bytes} bytes, and at most {PARAMETERS_BYTES_MAX} are taken"
    );
    Err(Failure::new(Class::InvalidInput, "sql.parameters", text))
}

/// The host opens and ends transactions; a statement that did would undo what keeps a query from
/// writing, or a transaction whole.
fn refuse_control(text: &str) -> Result<(), Failure> {
    const CONTROL: [&str; 16] = [
        "abort",
        "attach",
        "begin",
        "commit",
        "copy",
        "detach",
        "discard",
        "end",
        "pragma",
        "prepare",
        "release",
        "reset",
        "rollback",
        "savepoint",
        "set",
        "start",
    ];
    let word = first_word(text).to_ascii_lowercase();
    if CONTROL.contains(&word.as_str()) {
        let text =
            format!("`{word}` is not for connectors: the host manages transactions and settings");
        return Err(Failure::new(Class::InvalidInput, "sql.statement", text));
    }
    Ok(())
}

/// The first word after blanks and comments.
fn first_word(mut text: &str) -> &str {
    loop {
        text = text.trim_start_matches([' ', '\t', '\r', '\n', ';', '(']);
        if let Some(rest) = text.strip_prefix("--") {
            text = rest.split_once('\n').map_or("", |(_, after)| after);
        } else if let Some(rest) = text.strip_prefix("/*") {
            text = rest.split_once("*/").map_or("", |(_, after)| after);
        } else {
            let end = text
                .find(|c: char| !c.is_ascii_alphabetic())
                .unwrap_or(text.len());
            return &text[..end];
        }
    }
}

impl RowsBuilder {
    fn new(rows_max: u32) -> Self {
        Self {
            json: "[".to_owned(),
            rows: 0,
            rows_max,
            truncated: false,
        }
    }

    /// Adds a row; `false` when there is no room for it, and so for no other.
    fn push(&mut self, row: &serde_json::Map<String, Value>) -> Result<bool, Failure> {
        if self.rows >= self.rows_max {
            self.truncated = true;
            return Ok(false);
        }
        let text = serde_json::to_string(row)
            .map_err(|error| Failure::new(Class::Internal, "sql.value", error.to_string()))?;
        if self.json.len() + text.len() > ROWS_BYTES_MAX {
            self.truncated = true;
            return Ok(false);
        }
        if self.rows > 0 {
            self.json.push(',');
        }
        self.json.push_str(&text);
        self.rows += 1;
        Ok(true)
    }

    fn finish(mut self) -> Rows {
        self.json.push(']');
        Rows {
            json: self.json,
            truncated: self.truncated,
        }
    }
}

fn timeout_failure() -> Failure {
    Failure::new(
        Class::Timeout,
        "sql.timeout",
        "the statement was cancelled at the call's deadline",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_is_found_behind_comments() {
        for text in [
            "commit",
            " -- x\n /* y */ ROLLBACK",
            ";;BEGIN",
            "Set transaction read write",
            "attach 'x' as y",
            "PRAGMA query_only=0",
        ] {
            assert!(refuse_control(text).is_err(), "{text}");
        }
        for text in [
            "select 1",
            "with x as (select 1) select * from x",
            "(select 1)",
            "",
        ] {
            assert!(refuse_control(text).is_ok(), "{text}");
        }
    }

    #[test]
    fn rows_beyond_the_bound_are_left_out_and_told() {
        let mut rows = RowsBuilder::new(1);
        let row = serde_json::Map::from_iter([("a".to_owned(), Value::from(1))]);
        assert!(rows.push(&row).unwrap());
        assert!(!rows.push(&row).unwrap());
        let rows = rows.finish();
        assert_eq!((rows.json.as_str(), rows.truncated), (r#"[{"a":1}]"#, true));
    }
}
