//! Statements made of names and values. Names are checked and quoted, values are bound.

use std::fmt::Write;

use cofferdam_sdk::prelude::*;
use cofferdam_sdk::sql::Statement;
use serde_json::Map;

/// PostgreSQL cuts longer names off silently, and two could become one.
const NAME_BYTES_MAX: usize = 63;
/// Columns of a row; below the bound on parameters of either database.
const COLUMNS_MAX: usize = 500;

/// A name in double quotes, which both databases take as it is. It starts with a letter or `_`
/// and goes on with letters, digits and `_` (ASCII); anything else is refused rather than
/// escaped, so that a name out of somebody's data never becomes SQL.
fn quoted(name: &str) -> Result<String, Failure> {
    let fine = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && !name.as_bytes()[0].is_ascii_digit();
    if fine {
        return Ok(format!("\"{name}\""));
    }
    let shown: String = name.chars().take(80).collect();
    Err(Failure::invalid_input(
        "sql.name",
        format!(
            "`{shown}` cannot be a table's or column's name here: use 1 to 63 letters, digits and \
             underscores, a digit not first"
        ),
    ))
}

/// A table's name, with its schema's before a dot if there is one.
fn table(name: &str) -> Result<String, Failure> {
    match name.split_once('.') {
        Some((schema, table)) => Ok(format!("{}.{}", quoted(schema)?, quoted(table)?)),
        None => quoted(name),
    }
}

fn bounded(columns: usize, what: &str) -> Result<(), Failure> {
    if (1..=COLUMNS_MAX).contains(&columns) {
        return Ok(());
    }
    let message = format!("{what} must have 1 to {COLUMNS_MAX} columns");
    Err(Failure::invalid_input("sql.columns", message))
}

/// `insert … on conflict (keys) do update …`. The key columns must be in the row; a row of
/// nothing but keys is left as it is.
pub(crate) fn upsert(
    into: &str,
    keys: &[String],
    row: &Map<String, Value>,
) -> Result<Statement, Failure> {
    bounded(row.len(), "`row`")?;
    bounded(keys.len(), "`key`")?;
    if let Some(missing) = keys.iter().find(|key| !row.contains_key(*key)) {
        return Err(Failure::invalid_input(
            "sql.key",
            format!("the key column `{missing}` has no value in `row`"),
        ));
    }
    let columns: Vec<String> = row
        .keys()
        .map(|name| quoted(name))
        .collect::<Result<_, _>>()?;
    let places: Vec<String> = (1..=row.len()).map(|n| format!("${n}")).collect();
    let key: Vec<String> = keys
        .iter()
        .map(|name| quoted(name))
        .collect::<Result<_, _>>()?;
    let updates: Vec<String> = columns
        .iter()
        .filter(|column| !key.contains(column))
        .map(|column| format!("{column} = excluded.{column}"))
        .collect();
    let action = if updates.is_empty() {
        "do nothing".to_owned()
    } else {
        format!("do update set {}", updates.join(", "))
    };
    let text = format!(
        "insert into {} ({}) values ({}) on conflict ({}) {action}",
        table(into)?,
        columns.join(", "),
        places.join(", "),
        key.join(", "),
    );
    Ok(Statement::new(
        text,
        row.values().cloned().collect::<Vec<_>>(),
    ))
}

/// `delete from … where …`: all columns of the key must be equal. An empty key is refused,
/// since it would delete every row; so is null, which equals nothing.
pub(crate) fn delete(from: &str, key: &Map<String, Value>) -> Result<Statement, Failure> {
    bounded(key.len(), "`key`")?;
    let mut text = format!("delete from {} where", table(from)?);
    for (n, (name, value)) in key.iter().enumerate() {
        if value.is_null() {
            let message = format!("the key column `{name}` must not be null");
            return Err(Failure::invalid_input("sql.key", message));
        }
        let and = if n == 0 { "" } else { " and" };
        // Writing to a string cannot fail.
        let _ = write!(text, "{and} {} = ${}", quoted(name)?, n + 1);
    }
    Ok(Statement::new(
        text,
        key.values().cloned().collect::<Vec<_>>(),
    ))
}
