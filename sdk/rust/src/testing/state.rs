//! What the double holds and how it answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::SystemTime;

use super::exchange::{Exchange, Statement, Table};
use crate::failure::{Class, EffectState, Failure};
use crate::http::{Received, TransportError, Wire};
use crate::log::Level;
use crate::secrets::Algorithm;
use crate::sql;

/// A mail that the connector handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// The address that bounces go to.
    pub sender: String,
    /// Everybody who gets it.
    pub recipients: Vec<String>,
    /// The message, headers and all.
    pub message: String,
}

pub(crate) struct State {
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) secrets: BTreeSet<String>,
    pub(crate) kv: BTreeMap<String, Vec<u8>>,
    pub(crate) dialect: sql::Dialect,
    pub(crate) now: SystemTime,
    pub(super) exchanges: VecDeque<Exchange>,
    pub(super) statements: VecDeque<Statement>,
    pub(super) replies: VecDeque<Result<String, Failure>>,
    pub(super) mails: Vec<Mail>,
    pub(super) lines: Vec<String>,
}

impl State {
    pub(super) fn new(now: SystemTime) -> Self {
        Self {
            config: BTreeMap::new(),
            secrets: BTreeSet::new(),
            kv: BTreeMap::new(),
            dialect: sql::Dialect::PostgreSql,
            now,
            exchanges: VecDeque::new(),
            statements: VecDeque::new(),
            replies: VecDeque::new(),
            mails: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// What was expected and not asked for.
    pub(super) fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = self.exchanges.iter().map(ToString::to_string).collect();
        left.extend(
            self.statements
                .iter()
                .map(|statement| statement.text.clone()),
        );
        left.extend(self.replies.iter().map(|_| "a mail".to_owned()));
        left
    }

    pub(crate) fn log(&mut self, level: Level, message: &str, fields: &str) {
        let level = format!("{level:?}").to_uppercase();
        self.lines
            .push(format!("{level} {message} {fields}").trim_end().to_owned());
    }

    /// Like the host: a dot goes into a table.
    pub(crate) fn config(&self, name: &str) -> Option<String> {
        if let Some(text) = self.config.get(name) {
            return Some(text.clone());
        }
        let (table, rest) = name.split_once('.')?;
        let table: serde_json::Value = serde_json::from_str(self.config.get(table)?).ok()?;
        Some(
            table
                .pointer(&format!("/{}", rest.replace('.', "/")))?
                .to_string(),
        )
    }

    pub(crate) fn placeholder(&self, name: &str) -> Result<String, Failure> {
        self.known(name).map(|()| format!("secret:{name}"))
    }

    /// Not a real hash: `NAME:data`, so that a test sees what would be signed.
    pub(crate) fn sign(
        &self,
        name: &str,
        _algorithm: Algorithm,
        data: &[u8],
    ) -> Result<Vec<u8>, Failure> {
        self.known(name)?;
        Ok([name.as_bytes(), b":", data].concat())
    }

    fn known(&self, name: &str) -> Result<(), Failure> {
        if self.secrets.contains(name) {
            return Ok(());
        }
        let message = format!("this connection has no secret `{name}`");
        Err(Failure::new(Class::Denied, "secret", message))
    }

    pub(crate) fn exchange(&mut self, wire: &Wire<'_>) -> Result<Received, TransportError> {
        let Some(next) = self.exchanges.pop_front() else {
            panic!(
                "no request was expected, and there came {} {}",
                wire.method.as_str(),
                wire.url
            )
        };
        if let Some(difference) = next.difference(wire) {
            panic!("expected {next}: {difference}");
        }
        let answer = next.answer?;
        if answer.body.len() > wire.response_max {
            return Err(TransportError::ResponseTooLarge {
                bytes_max: wire.response_max,
            });
        }
        Ok(Received {
            status: answer.status,
            headers: answer.headers,
            body: answer.body,
        })
    }

    fn statement(&mut self, came: &sql::Statement) -> Result<Table, Failure> {
        let Some(next) = self.statements.pop_front() else {
            panic!("no statement was expected, and there came {}", came.text)
        };
        let parameters = serde_json::Value::from(came.parameters.clone());
        assert_eq!(
            (came.text.as_str(), &parameters),
            (next.text.as_str(), &next.parameters)
        );
        next.answer
    }

    pub(crate) fn rows(
        &mut self,
        statement: &sql::Statement,
        rows_max: u32,
    ) -> Result<sql::Rows, Failure> {
        let Table::Rows(rows) = self.statement(statement)? else {
            panic!("{} should be answered with rows", statement.text)
        };
        let mut rows = sql::Rows::parse(&rows.to_string(), false, EffectState::None)?;
        rows.truncated = rows.rows.len() > rows_max as usize;
        rows.rows.truncate(rows_max as usize);
        Ok(rows)
    }

    pub(crate) fn affected(&mut self, statement: &sql::Statement) -> Result<u32, Failure> {
        match self.statement(statement)? {
            Table::Affected(rows) => Ok(rows),
            Table::Rows(_) => panic!("{} should be answered with a number", statement.text),
        }
    }

    pub(crate) fn mail(
        &mut self,
        sender: &str,
        recipients: &[String],
        message: &[u8],
    ) -> Result<String, Failure> {
        let Some(reply) = self.replies.pop_front() else {
            panic!("no mail was expected, and there came one for {recipients:?}")
        };
        self.mails.push(Mail {
            sender: sender.to_owned(),
            recipients: recipients.to_vec(),
            message: String::from_utf8_lossy(message).into_owned(),
        });
        reply
    }
}
