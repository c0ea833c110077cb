//! The rows that the engine keeps in a store: shapes, keys and encoding.
//!
//! Everything is JSON, camel case, and tolerant of keys that a later version adds. The store
//! itself adds a version and a checksum to every row.

use cofferdam_core::error::WorkflowError;
use cofferdam_core::failure::Failure;
use cofferdam_core::run::{Event, Status};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;

/// One record of a run's journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// When it happened, in milliseconds since the Unix epoch.
    pub at: u64,
    /// What happened.
    pub event: Event,
}

/// What is known of a run without reading its journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunRow {
    /// The run's id.
    pub run: String,
    /// The workflow: `namespace/name:version`.
    pub workflow: String,
    /// Hash of the pinned definition.
    pub definition: String,
    /// Where it is, as last written: a run that was under way when the process died says so.
    pub status: Status,
    /// Whether some output is not what a healthy world would have given.
    #[serde(default)]
    pub degraded: bool,
    /// When it began, in milliseconds since the Unix epoch.
    pub begun_ms: u64,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// When it goes on by itself, if it waits for an instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<u64>,
    /// Whom it belongs to; empty if it does not matter.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// Where it stands among the runs of its tenant that wait for a place; 0 to 9.
    #[serde(default = "priority_default")]
    pub priority: u8,
    /// What it shares with runs that are not to be under way together with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency_key: Option<String>,
    /// What it was started for; see [`crate::StartOptions::key`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Hash of its input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_hash: Option<String>,
    /// Since when it has waited for its turn, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_ms: Option<u64>,
    /// Where it stands in the queue: a number that grows with each run that has to wait.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub queue_seq: u64,
    /// The input of a run that another run asked for, until it has begun.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Value>,
    /// The same if it is large: hash of its payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_payload: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks by reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn priority_default() -> u8 {
    crate::queue::PRIORITY_DEFAULT
}

/// A run that is out of options, with everything needed to go on with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetter {
    /// The run.
    pub run: String,
    /// The workflow: `namespace/name:version`.
    pub workflow: String,
    /// Why.
    pub error: WorkflowError,
    /// The run's input.
    pub input: Value,
    /// The task that failed; empty if it was the workflow itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// What had come into that task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_input: Option<Value>,
    /// Whom the run belongs to; empty if it does not matter.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A task that waits for a person's decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Review {
    /// The run.
    pub run: String,
    /// The task.
    pub task: String,
    /// The workflow: `namespace/name:version`.
    pub workflow: String,
    /// Why a person must decide.
    pub failure: Failure,
    /// Since when, in milliseconds since the Unix epoch. When another person was asked, since then.
    pub at_ms: u64,
    /// The output that is to be looked at: it can be accepted as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// When it is decided without a person, or another one is asked; in milliseconds since the Unix
    /// epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<u64>,
    /// Who is asked, if anybody in particular.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reviewer: Option<String>,
    /// How often another person was asked before.
    #[serde(default, skip_serializing_if = "is_none_yet")]
    pub escalations: usize,
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it like that"
)]
fn is_none_yet(count: &usize) -> bool {
    *count == 0
}

/// An event that was published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventRow {
    /// Its number; none for events of a store from before there were numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The run that published it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The task that published it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    /// The CloudEvent.
    pub event: Value,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

/// A task that waits for a connection, as found by the connection's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parked {
    pub run: String,
    pub task: String,
}

/// Stands between the parts of a key; names of runs and connections do not contain it.
const SEPARATOR: u8 = 0;

pub(crate) fn encode<T: Serialize>(row: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(row).map_err(|source| Error::Encode { source })
}

pub(crate) fn decode<T: DeserializeOwned>(
    what: &'static str,
    key: &str,
    bytes: &[u8],
) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Row {
        what,
        key: key.to_owned(),
        source,
    })
}

pub(crate) fn status_key(status: Status, run: &str) -> Vec<u8> {
    join(&[status.as_str(), run])
}

pub(crate) fn status_prefix(status: Status) -> Vec<u8> {
    join(&[status.as_str(), ""])
}

pub(crate) fn timer_key(due_ms: u64, run: &str) -> Vec<u8> {
    [&due_ms.to_be_bytes()[..], run.as_bytes()].concat()
}

pub(crate) fn parse_timer_key(key: &[u8]) -> Option<(u64, &str)> {
    let (due, run) = key.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*due), std::str::from_utf8(run).ok()?))
}

pub(crate) fn parked_key(connection: &str, run: &str, task: &str) -> Vec<u8> {
    join(&[connection, run, task])
}

pub(crate) fn parked_prefix(connection: &str) -> Vec<u8> {
    join(&[connection, ""])
}

/// The connection in the key of a parked task.
pub(crate) fn parse_parked_connection(key: &[u8]) -> Option<&str> {
    let end = key.iter().position(|b| *b == SEPARATOR)?;
    std::str::from_utf8(&key[..end]).ok()
}

pub(crate) fn parse_parked_key(key: &[u8]) -> Option<Parked> {
    let mut parts = key.splitn(3, |b| *b == SEPARATOR).skip(1);
    let text = |part: &[u8]| String::from_utf8(part.to_vec()).ok();
    Some(Parked {
        run: text(parts.next()?)?,
        task: text(parts.next()?)?,
    })
}

pub(crate) fn outbox_key(connection: &str, id: &str) -> Vec<u8> {
    join(&[connection, id])
}

pub(crate) fn outbox_prefix(connection: &str) -> Vec<u8> {
    join(&[connection, ""])
}

pub(crate) fn review_key(run: &str, task: &str) -> Vec<u8> {
    join(&[run, task])
}

fn join(parts: &[&str]) -> Vec<u8> {
    parts
        .join(std::str::from_utf8(&[SEPARATOR]).unwrap_or("\0"))
        .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_say_what_they_were_made_of() {
        let parked = parse_parked_key(&parked_key("crm", "run-1", "/each/[3]/charge"));
        let expected = Parked {
            run: "run-1".into(),
            task: "/each/[3]/charge".into(),
        };
        assert_eq!(parked, Some(expected));
        assert_eq!(parse_timer_key(&timer_key(7, "run-1")), Some((7, "run-1")));
    }

    #[test]
    fn timers_sort_by_instant() {
        assert!(timer_key(255, "b") < timer_key(256, "a"));
    }
}
