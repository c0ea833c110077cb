//! What was answered under an idempotency key, and which keys are being worked on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use super::{Params, Refusal};
use crate::http::Response;

/// Longest key.
const KEY_CHARS_MAX: usize = 255;

/// The keys that were answered. Stripe forgets them after a day or more; a test does not last.
#[derive(Debug, Default)]
pub(super) struct Keys(BTreeMap<String, Saved>);

/// The first answer under a key, and the question.
#[derive(Debug)]
pub(super) struct Saved {
    path: String,
    params: Params,
    status: u16,
    body: Value,
    request_id: String,
}

/// What is known of a key.
pub(super) enum Past<'a> {
    Never,
    Answered(&'a Saved),
    /// It belongs to another request.
    Other(Refusal),
}

impl Keys {
    pub(super) fn look(&self, key: &str, path: &str, params: &Params) -> Past<'_> {
        match self.0.get(key) {
            None => Past::Never,
            Some(saved) if saved.path != path => Past::Other(Refusal::key_reused(format!(
                "Keys for idempotent requests can only be used for the same endpoint they were first used for \
                 ('{path}' vs '{}').",
                saved.path
            ))),
            Some(saved) if saved.params != *params => Past::Other(Refusal::key_reused(format!(
                "Keys for idempotent requests can only be used with the same parameters they were first used with. \
                 The key is '{key}'."
            ))),
            Some(saved) => Past::Answered(saved),
        }
    }

    pub(super) fn save(&mut self, key: &str, saved: Saved) {
        self.0.insert(key.to_owned(), saved);
    }

    pub(super) fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

impl Saved {
    pub(super) fn new(
        path: String,
        params: Params,
        status: u16,
        body: Value,
        request_id: String,
    ) -> Self {
        Self {
            path,
            params,
            status,
            body,
            request_id,
        }
    }

    /// The answer to the request that was carried out.
    pub(super) fn first(&self, key: &str) -> Response {
        let response = Response::json(self.status, &self.body);
        response
            .with("Idempotency-Key", key)
            .with("Original-Request", self.request_id.as_str())
    }

    /// The same answer to a repeat.
    pub(super) fn replay(&self, key: &str) -> Response {
        self.first(key).with("Idempotent-Replayed", "true")
    }
}

pub(super) fn check_length(key: &str) -> Result<(), Refusal> {
    if key.chars().count() <= KEY_CHARS_MAX {
        return Ok(());
    }
    Err(Refusal::key_reused(format!(
        "Idempotency keys are at most {KEY_CHARS_MAX} characters long"
    )))
}

/// The keys of requests that have not been answered.
#[derive(Debug, Default)]
pub(super) struct InFlight(Arc<Mutex<BTreeSet<String>>>);

impl InFlight {
    /// Marks a key for as long as the entry lives; `None` if it is marked already.
    pub(super) fn enter(&self, key: &str) -> Option<Entry> {
        self.0.lock().insert(key.to_owned()).then(|| Entry {
            key: key.to_owned(),
            keys: Arc::clone(&self.0),
        })
    }
}

/// A key in flight.
pub(super) struct Entry {
    key: String,
    keys: Arc<Mutex<BTreeSet<String>>>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.keys.lock().remove(&self.key);
    }
}
