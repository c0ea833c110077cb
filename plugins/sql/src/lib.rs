//! Rows in the connection's SQL database: PostgreSQL or SQLite.
//!
//! It has no settings of its own: the database is the connection's `sql` grant, and the host
//! holds the pool and the credentials. Values are always bound, never pasted into a statement.

mod statement;
#[cfg(test)]
mod tests;

use cofferdam_sdk::prelude::*;
use cofferdam_sdk::sql::Statement;
use serde_json::Map;

/// The connector.
#[derive(Debug, Deserialize)]
pub struct Sql;

/// A statement that reads.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Query {
    /// One statement with placeholders `$1`, `$2`, …
    #[schemars(length(min = 1))]
    pub statement: String,
    /// The value of each placeholder.
    #[serde(default)]
    pub parameters: Vec<Value>,
    /// How many rows to return at most.
    #[serde(default = "rows_max")]
    #[schemars(range(min = 1, max = 10_000))]
    pub max_rows: u32,
}

fn rows_max() -> u32 {
    1_000
}

/// What a query returned.
#[derive(Debug, Serialize, JsonSchema)]
pub struct QueryResult {
    /// One object for each row, keyed by column.
    pub rows: Vec<Map<String, Value>>,
    /// Whether there were more rows than were asked for.
    pub truncated: bool,
}

/// A statement that writes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Execute {
    /// One statement with placeholders `$1`, `$2`, …
    #[schemars(length(min = 1))]
    pub statement: String,
    /// The value of each placeholder.
    #[serde(default)]
    pub parameters: Vec<Value>,
}

/// How many rows a statement changed.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Affected {
    /// The number of rows.
    pub affected: u32,
}

/// A row to insert or update.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upsert {
    /// The table, with its schema before a dot if need be.
    pub table: String,
    /// The columns that identify the row; they need a unique index.
    #[schemars(length(min = 1))]
    pub key: Vec<String>,
    /// The columns and their values, the key's included.
    pub row: Map<String, Value>,
}

/// What an upsert did: everything that `delete` needs to undo it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Upserted {
    /// The table.
    pub table: String,
    /// The key columns and their values.
    pub key: Map<String, Value>,
    /// The number of rows: 1, or 0 if the row was there and consists of its key alone.
    pub affected: u32,
}

/// A row to delete.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// The table, with its schema before a dot if need be.
    pub table: String,
    /// The columns that identify the row, and their values.
    pub key: Map<String, Value>,
}

#[connector(name = "sql", description = "Rows in the connection's SQL database")]
impl Sql {
    /// Runs one statement that reads. The database is told that it is read-only.
    #[action(
        effect = read,
        example = r#"{"statement": "select id, email from leads where score > $1", "parameters": [70]}"#
    )]
    fn query(&self, input: Query) -> Result<QueryResult, Failure> {
        let rows = sql::query(
            &Statement::new(input.statement, input.parameters),
            input.max_rows,
        )?;
        Ok(QueryResult {
            rows: rows.rows,
            truncated: rows.truncated,
        })
    }

    /// Runs one statement that writes, in a transaction of its own. Nothing keeps it from
    /// being applied again if its answer is lost: prefer `upsert` and `delete`.
    #[action(
        effect = once,
        example = r#"{"statement": "update leads set visits = visits + 1 where id = $1", "parameters": ["l-1"]}"#
    )]
    fn execute(&self, input: Execute) -> Result<Affected, Failure> {
        Ok(Affected {
            affected: one(&Statement::new(input.statement, input.parameters))?,
        })
    }

    /// Inserts a row, or updates the one with the same key.
    #[action(
        effect = idempotent,
        compensated_by = "delete",
        example = r#"{"table": "leads", "key": ["id"], "row": {"id": "l-1", "email": "ada@example.com"}}"#
    )]
    fn upsert(&self, input: Upsert) -> Result<Upserted, Failure> {
        let affected = one(&statement::upsert(&input.table, &input.key, &input.row)?)?;
        let key = input
            .key
            .into_iter()
            .filter_map(|name| input.row.get(&name).cloned().map(|value| (name, value)))
            .collect();
        Ok(Upserted {
            table: input.table,
            key,
            affected,
        })
    }

    /// Deletes a row. One that is not there is fine.
    #[action(effect = idempotent, example = r#"{"table": "leads", "key": {"id": "l-1"}}"#)]
    fn delete(&self, input: Delete) -> Result<Affected, Failure> {
        Ok(Affected {
            affected: one(&statement::delete(&input.table, &input.key)?)?,
        })
    }

    fn check(&self) -> Result<Health, Failure> {
        sql::query(&Statement::new("select 1", []), 1)?;
        Ok(Health::healthy("the database answers"))
    }
}

fn one(statement: &Statement) -> Result<u32, Failure> {
    let affected = sql::execute(std::slice::from_ref(statement))?;
    affected.first().copied().ok_or_else(|| {
        Failure::internal("sql.answer", "the host counted no statement")
            .effect(EffectState::Applied)
    })
}
