//! Outside a component the test double of [`crate::testing`] answers.

use std::time::SystemTime;

use crate::failure::Failure;
use crate::http::{Received, TransportError, Wire};
use crate::log::Level;
use crate::secrets::Algorithm;
use crate::sql::{Dialect, Rows, Statement};
use crate::testing::with;

pub(crate) fn log(level: Level, message: &str, fields: &str) {
    with(|host| host.log(level, message, fields));
}

pub(crate) fn config(name: &str) -> Option<String> {
    with(|host| host.config(name))
}

pub(crate) fn placeholder(name: &str) -> Result<String, Failure> {
    with(|host| host.placeholder(name))
}

pub(crate) fn sign(name: &str, algorithm: Algorithm, data: &[u8]) -> Result<Vec<u8>, Failure> {
    with(|host| host.sign(name, algorithm, data))
}

pub(crate) fn kv_get(key: &str) -> Result<Option<Vec<u8>>, Failure> {
    with(|host| Ok(host.kv.get(key).cloned()))
}

pub(crate) fn kv_set(key: &str, value: &[u8]) -> Result<(), Failure> {
    with(|host| {
        host.kv.insert(key.to_owned(), value.to_vec());
        Ok(())
    })
}

pub(crate) fn kv_delete(key: &str) -> Result<(), Failure> {
    with(|host| {
        host.kv.remove(key);
        Ok(())
    })
}

pub(crate) fn sql_dialect() -> Result<Dialect, Failure> {
    with(|host| Ok(host.dialect))
}

pub(crate) fn sql_query(statement: &Statement, rows_max: u32) -> Result<Rows, Failure> {
    with(|host| host.rows(statement, rows_max))
}

pub(crate) fn sql_execute(statements: &[Statement]) -> Result<Vec<u32>, Failure> {
    with(|host| {
        statements
            .iter()
            .map(|statement| host.affected(statement))
            .collect()
    })
}

pub(crate) fn sql_execute_returning(statement: &Statement, rows_max: u32) -> Result<Rows, Failure> {
    with(|host| host.rows(statement, rows_max))
}

pub(crate) fn smtp_send(
    sender: &str,
    recipients: &[String],
    message: &[u8],
) -> Result<String, Failure> {
    with(|host| host.mail(sender, recipients, message))
}

pub(crate) fn http_send(wire: &Wire<'_>) -> Result<Received, TransportError> {
    with(|host| host.exchange(wire))
}

pub(crate) fn now() -> SystemTime {
    with(|host| host.now)
}
