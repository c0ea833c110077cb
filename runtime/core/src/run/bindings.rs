//! What a run knows of the connections it calls, pinned when it begins.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::descriptor::Effect;
use crate::retry::Backoff;
use crate::workflow::OnOutage;

/// The connections that a workflow calls. Pinned by a run together with the workflow's text, so
/// that a change of the configuration affects only runs that begin afterwards.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bindings {
    /// By connection name.
    pub connections: BTreeMap<String, Binding>,
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
        }
    }
}
