//! What a run knows of the connections it calls, pinned when it begins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::descriptor::Effect;
use crate::retry::{Backoff, Rule};
use crate::workflow::{OnExhausted, OnOutage, OnUnknown, ReviewPolicy};

/// The connections that a workflow calls. Pinned by a run together with the workflow's text, so
/// that a change of the configuration affects only runs that begin afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bindings {
    /// By connection name.
    pub connections: BTreeMap<String, Binding>,
    /// The behaviour that the run began with, at most [`SEMANTICS`]. A journal is folded by the
    /// rules it was written by:
    ///
    /// 1. A call of unknown outcome is repeated at once. What a fallback did is not undone. An
    ///    undoing fails over to the connection's backups, which know nothing of it. Credentials
    ///    that are not accepted end a task. One that was asked to wait asks again at its parking
    ///    deadline, sooner than it was asked to. The ledger is asked only when a task begins. What
    ///    is done for an event is named by its place among those that were taken.
    /// 2. Such a call is repeated after its backoff. What a fallback did is undone. What was done
    ///    on a connection is undone there or nowhere. Credentials that are not accepted are an
    ///    outage of the connection. Nobody is asked sooner than they said. An attempt ends when
    ///    the time of all attempts is over. A task that emits what is no CloudEvent fails. The
    ///    ledger is asked whenever a call is about to begin. What is done for an event is named by
    ///    its number. An endpoint that is computed is text.
    /// 3. An attempt that failed counts although nobody saw the end of the one beside it.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub semantics: u32,
}

/// What runs that begin pin as [`Bindings::semantics`].
pub const SEMANTICS: u32 = 3;

fn first() -> u32 {
    1
}

#[allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it like that"
)]
fn is_first(semantics: &u32) -> bool {
    *semantics == 1
}

impl Default for Bindings {
    /// No connections, and the rules of today.
    fn default() -> Self {
        Self {
            connections: BTreeMap::new(),
            semantics: SEMANTICS,
        }
    }
}

/// One connection, as far as decisions depend on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// The actions it offers.
    pub actions: BTreeMap<String, ActionBinding>,
    /// Attempts on it, the first included, for `read` and `idempotent` actions; `once` actions
    /// get one.
    pub attempts_max: u32,
    /// Time between attempts.
    pub backoff: Backoff,
    /// Connections to fail over to, in order.
    #[serde(default)]
    pub backups: Vec<String>,
    /// What to do while it is out.
    pub on_outage: OnOutage,
    /// One attempt, in milliseconds.
    pub start_to_close_ms: u64,
    /// All attempts and backoffs, in milliseconds.
    pub schedule_to_close_ms: u64,
    /// Waiting for the first attempt, in milliseconds; unbounded if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_to_start_ms: Option<u64>,
    /// What some failures of `read` and `idempotent` actions are retried by instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retries: Vec<Rule>,
    /// After how long an attempt of a `read` or `idempotent` action gets a second one beside it,
    /// in milliseconds; never if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge_ms: Option<u64>,
    /// Answers of `read` actions are kept, and serve tasks without a fallback of their own for so
    /// long, in milliseconds; none are kept if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_max_age_ms: Option<u64>,
    /// What to do when nobody knows whether a call happened; the effect decides if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_unknown: Option<OnUnknown>,
    /// What to do when a task is out of options; the effect decides if none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_exhausted: Option<OnExhausted>,
    /// How long a person may take.
    #[serde(default, skip_serializing_if = "is_default")]
    pub review: ReviewPolicy,
}

fn is_default(review: &ReviewPolicy) -> bool {
    *review == ReviewPolicy::default()
}

/// One action, as far as decisions depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ActionBinding {
    /// What repeating it does.
    pub effect: Effect,
    /// Whether the connector can be asked for outcomes.
    pub lookup: bool,
}

/// Parking ends after an hour unless somebody says otherwise.
pub const PARK_MS_DEFAULT: u64 = 60 * 60 * 1000;

/// Delivery of what was left to a connection is tried for a day unless somebody says otherwise.
pub const DELIVER_MS_DEFAULT: u64 = 24 * 60 * 60 * 1000;

impl Default for Binding {
    fn default() -> Self {
        Self {
            actions: BTreeMap::new(),
            attempts_max: 3,
            backoff: Backoff::default(),
            backups: Vec::new(),
            on_outage: OnOutage::Park {
                deadline_ms: PARK_MS_DEFAULT,
            },
            start_to_close_ms: 30_000,
            schedule_to_close_ms: 60 * 60 * 1000,
            schedule_to_start_ms: None,
            retries: Vec::new(),
            hedge_ms: None,
            cache_max_age_ms: None,
            on_unknown: None,
            on_exhausted: None,
            review: ReviewPolicy::default(),
        }
    }
}
