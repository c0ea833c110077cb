//! The component's imports.

use std::time::SystemTime;

use crate::bindings::plugin::cofferdam::connector as wire;
use crate::failure::{EffectState, Failure};
use crate::log::Level;
use crate::secrets::Algorithm;
use crate::sql::{Dialect, Rows, Statement};

pub(crate) fn log(level: Level, message: &str, fields: &str) {
    let level = match level {
        Level::Trace => wire::log::Level::Trace,
        Level::Debug => wire::log::Level::Debug,
        Level::Info => wire::log::Level::Info,
        Level::Warn => wire::log::Level::Warn,
        Level::Error => wire::log::Level::Error,
    };
    wire::log::write(level, message, fields);
}

pub(crate) fn config(name: &str) -> Option<String> {
    wire::config::get(name)
}

pub(crate) fn placeholder(name: &str) -> Result<String, Failure> {
    Ok(wire::secrets::placeholder(name)?)
}

pub(crate) fn sign(name: &str, algorithm: Algorithm, data: &[u8]) -> Result<Vec<u8>, Failure> {
    let algorithm = match algorithm {
        Algorithm::HmacSha256 => wire::secrets::Algorithm::HmacSha256,
        Algorithm::HmacSha1 => wire::secrets::Algorithm::HmacSha1,
        Algorithm::HmacSha512 => wire::secrets::Algorithm::HmacSha512,
    };
    Ok(wire::secrets::sign(name, algorithm, data)?)
}

pub(crate) fn kv_get(key: &str) -> Result<Option<Vec<u8>>, Failure> {
    Ok(wire::kv::get(key)?)
}

pub(crate) fn kv_set(key: &str, value: &[u8]) -> Result<(), Failure> {
    Ok(wire::kv::set(key, value)?)
}

pub(crate) fn kv_delete(key: &str) -> Result<(), Failure> {
    Ok(wire::kv::delete(key)?)
}

pub(crate) fn sql_dialect() -> Result<Dialect, Failure> {
    Ok(match wire::sql::get_dialect()? {
        wire::sql::Dialect::Postgresql => Dialect::PostgreSql,
        wire::sql::Dialect::Sqlite => Dialect::Sqlite,
    })
}

pub(crate) fn sql_query(statement: &Statement, rows_max: u32) -> Result<Rows, Failure> {
    let rows = wire::sql::query(&wired(statement), rows_max)?;
    Rows::parse(&rows.rows, rows.truncated, EffectState::None)
}

pub(crate) fn sql_execute(statements: &[Statement]) -> Result<Vec<u32>, Failure> {
    let statements: Vec<_> = statements.iter().map(wired).collect();
    Ok(wire::sql::execute(&statements)?)
}

pub(crate) fn sql_execute_returning(statement: &Statement, rows_max: u32) -> Result<Rows, Failure> {
    let rows = wire::sql::execute_returning(&wired(statement), rows_max)?;
    Rows::parse(&rows.rows, rows.truncated, EffectState::Applied)
}

fn wired(statement: &Statement) -> wire::sql::Statement {
    wire::sql::Statement {
        text: statement.text.clone(),
        parameters: serde_json::Value::from(statement.parameters.clone()).to_string(),
    }
}

pub(crate) fn smtp_send(
    sender: &str,
    recipients: &[String],
    message: &[u8],
) -> Result<String, Failure> {
    let envelope = wire::smtp::Envelope {
        sender: sender.to_owned(),
        recipients: recipients.to_vec(),
    };
    Ok(wire::smtp::send(&envelope, message)?)
}

pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
