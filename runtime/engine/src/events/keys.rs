//! Keys and rows of the tables Event, Subscription and Cursor.
//!
//! ```text
//! Event         number (8, BE; its first byte is 0)              → EventRow
//!               2 ‖ hash of source and id (16)                   → number
//! Subscription  1 ‖ shape (16)                                   → Shape
//!               2 ‖ shape (16) ‖ answers (16) ‖ owner            → WatchRow
//!               3 ‖ owner's name ‖ 0 ‖ number (8) ‖ task (16)    → Letter, for a run
//!               4 ‖ owner's name ‖ 0 ‖ number (8)                → Letter, for a schedule
//!               5 ‖ subscriber ‖ 0 ‖ number (8)                  → EventRow, to be told again
//! Cursor        0                                                → the dispatcher's number
//!               1 ‖ subscriber                                   → CursorRow
//!               2                                                → a number that was promised
//! DeadLetter    0 ‖ who ‖ 0 ‖ number (8)                         → EventLetter
//! ```

use cofferdam_core::cloud_event::CloudEvent;
use cofferdam_core::consume::{Shape, canonical};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Error;
use crate::rows::{decode, encode};

const IDENTITY: u8 = 2;
const SHAPE: u8 = 1;
const WATCH: u8 = 2;
const RUN_LETTER: u8 = 3;
const SCHEDULE_LETTER: u8 = 4;
const AGAIN: u8 = 5;
const SUBSCRIBER: u8 = 1;
const DEAD: u8 = 0;
/// The first byte of keys of events is 0, so that this is the first key behind them.
pub(crate) const EVENTS_END: [u8; 1] = [1];
/// The dispatcher's row.
pub(crate) const DISPATCH: [u8; 1] = [0];

/// The first number that whoever began to listen last waits for: no lower one is given again.
pub(crate) const PROMISED: [u8; 1] = [2];

/// A number that names something in a key whose length is bounded.
pub(crate) type Hash = [u8; 16];

/// Who waits for events.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Owner {
    /// A task of a run.
    Task { run: String, task: String },
    /// A schedule.
    Schedule { name: String },
}

/// Somebody waits for events of a shape.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WatchRow {
    pub owner: Owner,
    /// Events with a lower number were published before anybody waited.
    pub from_seq: u64,
}

/// An event on its way to one that waits for it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Letter {
    /// The task; none for a schedule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<String>,
    pub seq: u64,
    pub event: CloudEvent,
}

/// How far a subscriber has come.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct CursorRow {
    /// The number of the last event that it is done with.
    pub done_seq: u64,
    /// How often the event after that was handed out.
    #[serde(default)]
    pub attempts: u32,
    /// When the row was written, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Events that were not kept long enough for it.
    #[serde(default)]
    pub missed: u64,
}

/// An event that nobody could do anything with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EventLetter {
    /// The event's number.
    pub seq: u64,
    /// The subscriber, or the run and task, that it was for.
    pub subscriber: String,
    /// Why it was given up.
    pub reason: String,
    /// The event.
    pub event: Value,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

fn hash(parts: &[&[u8]]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let mut short = Hash::default();
    short.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    short
}

pub(crate) fn event_key(seq: u64) -> Vec<u8> {
    seq.to_be_bytes().to_vec()
}

pub(crate) fn parse_event_key(key: &[u8]) -> Option<u64> {
    key.try_into().map(u64::from_be_bytes).ok()
}

/// What source and id say together: the same event has the same.
pub(crate) fn identity(event: &CloudEvent) -> Hash {
    hash(&[event.source().as_bytes(), event.id().as_bytes()])
}

/// What a subscriber is while it is being written. An event's identity has two parts.
pub(crate) fn subscriber(name: &str) -> Hash {
    hash(&[name.as_bytes()])
}

pub(crate) fn identity_key(identity: &Hash) -> Vec<u8> {
    [&[IDENTITY][..], identity].concat()
}

/// What a shape is called: the hash of its row.
pub(crate) fn shape_id(shape: &Shape) -> Result<Hash, Error> {
    Ok(hash(&[&encode(shape)?]))
}

pub(crate) fn shape_key(id: &Hash) -> Vec<u8> {
    [&[SHAPE][..], id].concat()
}

pub(crate) fn shape_prefix() -> Vec<u8> {
    vec![SHAPE]
}

pub(crate) fn parse_shape_key(key: &[u8]) -> Option<Hash> {
    key.strip_prefix(&[SHAPE])?.try_into().ok()
}

/// What all keys of those begin with who wait for these answers.
pub(crate) fn watch_prefix(shape: &Hash, values: &[Value]) -> Vec<u8> {
    let values: Vec<String> = values.iter().map(canonical).collect();
    let values: Vec<&[u8]> = values.iter().map(String::as_bytes).collect();
    [&[WATCH][..], shape, &hash(&values)].concat()
}

/// Whether anybody waits for events of this shape.
pub(crate) fn watches_prefix(shape: &Hash) -> Vec<u8> {
    [&[WATCH][..], shape].concat()
}

pub(crate) fn watch_key(shape: &Hash, values: &[Value], owner: &Owner) -> Vec<u8> {
    let mut key = watch_prefix(shape, values);
    match owner {
        Owner::Task { run, task } => {
            key.push(b'r');
            key.extend_from_slice(run.as_bytes());
            key.push(0);
            key.extend_from_slice(&hash(&[task.as_bytes()]));
        }
        Owner::Schedule { name } => {
            key.push(b's');
            key.extend_from_slice(name.as_bytes());
        }
    }
    key
}

/// What all keys of letters to the same box begin with.
pub(crate) fn letter_prefix(owner: &Owner) -> Vec<u8> {
    let (kind, name) = match owner {
        Owner::Task { run, .. } => (RUN_LETTER, run),
        Owner::Schedule { name } => (SCHEDULE_LETTER, name),
    };
    [&[kind][..], name.as_bytes(), &[0]].concat()
}

pub(crate) fn letter_key(owner: &Owner, seq: u64) -> Vec<u8> {
    let mut key = letter_prefix(owner);
    key.extend_from_slice(&seq.to_be_bytes());
    if let Owner::Task { task, .. } = owner {
        key.extend_from_slice(&hash(&[task.as_bytes()]));
    }
    key
}

/// All letters to runs.
pub(crate) fn run_letters_prefix() -> Vec<u8> {
    vec![RUN_LETTER]
}

/// The run that a letter is for.
pub(crate) fn parse_run_letter(key: &[u8]) -> Option<&str> {
    let rest = key.strip_prefix(&[RUN_LETTER])?;
    let end = rest.iter().position(|b| *b == 0)?;
    std::str::from_utf8(&rest[..end]).ok()
}

pub(crate) fn again_prefix(subscriber: &str) -> Vec<u8> {
    [&[AGAIN][..], subscriber.as_bytes(), &[0]].concat()
}

pub(crate) fn again_key(subscriber: &str, seq: u64) -> Vec<u8> {
    [&again_prefix(subscriber)[..], &seq.to_be_bytes()].concat()
}

pub(crate) fn cursor_key(subscriber: &str) -> Vec<u8> {
    [&[SUBSCRIBER][..], subscriber.as_bytes()].concat()
}

pub(crate) fn cursor_prefix() -> Vec<u8> {
    vec![SUBSCRIBER]
}

pub(crate) fn parse_cursor_key(key: &[u8]) -> Option<&str> {
    std::str::from_utf8(key.strip_prefix(&[SUBSCRIBER])?).ok()
}

pub(crate) fn dead_prefix() -> Vec<u8> {
    vec![DEAD]
}

pub(crate) fn dead_of_prefix(subscriber: &str) -> Vec<u8> {
    [&[DEAD][..], subscriber.as_bytes(), &[0]].concat()
}

/// Names of runs and tasks can be longer than a key: what does not fit is cut off.
pub(crate) fn dead_key(subscriber: &str, seq: u64) -> Vec<u8> {
    let name = match subscriber.len() {
        0..=256 => subscriber.to_owned(),
        _ => blake3::hash(subscriber.as_bytes()).to_hex().to_string(),
    };
    [&dead_of_prefix(&name)[..], &seq.to_be_bytes()].concat()
}

/// The first key of dead letters that are runs.
pub(crate) const DEAD_RUNS: [u8; 1] = [1];

pub(crate) fn seq_of(what: &'static str, bytes: &[u8]) -> Result<u64, Error> {
    decode(what, "number", bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn events_sort_by_number_and_before_everything_else() {
        assert!(event_key(255) < event_key(256));
        assert!(event_key(u64::from(u32::MAX)).as_slice() < &EVENTS_END[..]);
        assert!(identity_key(&[0; 16]).as_slice() > &EVENTS_END[..]);
        assert_eq!(parse_event_key(&event_key(7)), Some(7));
    }

    #[test]
    fn source_and_id_do_not_run_into_each_other() {
        assert_ne!(hash(&[b"ab", b"c"]), hash(&[b"a", b"bc"]));
    }

    #[test]
    fn a_letter_says_whose_it_is() {
        let owner = Owner::Task {
            run: "run-1".into(),
            task: "/l".into(),
        };
        assert_eq!(parse_run_letter(&letter_key(&owner, 3)), Some("run-1"));
    }

    #[test]
    fn equal_answers_have_equal_keys() {
        let shape = [7; 16];
        assert_eq!(
            watch_prefix(&shape, &[json!(5), json!("x")]),
            watch_prefix(&shape, &[json!(5.0), json!("x")])
        );
        assert_ne!(
            watch_prefix(&shape, &[json!("5")]),
            watch_prefix(&shape, &[json!(5)])
        );
    }
}
