//! A relational database. The host holds the pool of connections and the credentials.
//! Needs `sql = true` in the manifest and in the grant.

use serde_json::{Map, Value};

use crate::failure::{EffectState, Failure};
use crate::host;

/// Which database a connection has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// PostgreSQL.
    PostgreSql,
    /// SQLite.
    Sqlite,
}

/// One statement with placeholders `$1`, `$2`, … and the values to bind to them.
#[derive(Debug, Clone, PartialEq)]
pub struct Statement {
    /// The text. Values are never pasted into it.
    pub text: String,
    /// The value of each placeholder.
    pub parameters: Vec<Value>,
}

impl Statement {
    /// A statement and its values.
    pub fn new(text: impl Into<String>, parameters: impl Into<Vec<Value>>) -> Self {
        Self {
            text: text.into(),
            parameters: parameters.into(),
        }
    }
}

/// What a statement returned.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// One object for each row, keyed by column.
    pub rows: Vec<Map<String, Value>>,
    /// Whether there were more rows than were asked for.
    pub truncated: bool,
}

impl Rows {
    pub(crate) fn parse(text: &str, truncated: bool, effect: EffectState) -> Result<Self, Failure> {
        let rows = serde_json::from_str(text).map_err(|error| {
            Failure::internal(
                "sql.rows",
                format!("the host's rows are not understood: {error}"),
            )
            .effect(effect)
        })?;
        Ok(Self { rows, truncated })
    }
}

/// Which database this connection has.
pub fn dialect() -> Result<Dialect, Failure> {
    host::sql_dialect()
}

/// Runs one statement that returns rows, at most `rows_max`. The database is told that it is
/// read-only.
pub fn query(statement: &Statement, rows_max: u32) -> Result<Rows, Failure> {
    host::sql_query(statement, rows_max)
}

/// Runs statements in one transaction, all or none, and returns the number of affected rows of
/// each.
pub fn execute(statements: &[Statement]) -> Result<Vec<u32>, Failure> {
    host::sql_execute(statements)
}

/// Runs one statement that writes and returns rows (`insert … returning`).
pub fn execute_returning(statement: &Statement, rows_max: u32) -> Result<Rows, Failure> {
    host::sql_execute_returning(statement, rows_max)
}
