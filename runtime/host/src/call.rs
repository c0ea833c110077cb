//! What goes into a call and what comes out of it.

use std::collections::BTreeMap;
use std::time::Duration;

use cofferdam_core::failure::Failure;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One call of one action.
#[derive(Debug, Clone)]
pub struct Call {
    /// The action's name as in the descriptor.
    pub action: String,
    /// The input; checked against the action's schema before the plugin sees it.
    pub input: Value,
    /// The same for every attempt of one task. Printable ASCII, at most 128 bytes.
    pub idempotency_key: String,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// How long the caller waits; clamped to the connection's limit.
    pub timeout: Duration,
    /// On whose behalf; empty if there is only one tenant.
    pub tenant: String,
    /// A W3C `traceparent`; empty for none.
    pub traceparent: String,
    /// Stand-ins for secrets that the input may hold, with the name of the connection's secret that
    /// each stands for. They are swapped like those that the plugin asks for itself.
    pub secrets: BTreeMap<String, String>,
}

/// What came of a call. There is always one: nothing that a guest does ends in a panic or hangs.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The output, checked against the action's schema, or how the call failed.
    pub result: Result<Value, Failure>,
    /// What the call used.
    pub usage: Usage,
    /// What the plugin logged, and what the host denied it. Without secrets.
    pub logs: Vec<LogLine>,
}

/// What a call used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Instructions, roughly; the same for the same input.
    pub fuel: u64,
    /// CPU time.
    pub cpu: Duration,
    /// Wall clock time, waiting for a slot not included.
    pub wall: Duration,
    /// Most memory at any time, over all memories and tables.
    pub memory_bytes_peak: u64,
    /// Requests, statements and mails.
    pub requests: u32,
    /// Log text that was kept.
    pub log_bytes: u64,
}

/// How many calls there are in a host or at a connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Occupancy {
    /// Calls that have a place.
    pub running: u32,
    /// Calls that wait for one.
    pub waiting: u32,
}

/// One line of a call's log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// The text.
    pub message: String,
    /// A JSON object with more, or null.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub fields: Value,
    /// How long after the call began.
    pub after: Duration,
}

/// How much a log line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Every step.
    Trace,
    /// For whoever looks for a defect.
    Debug,
    /// What happens in the normal course of things.
    Info,
    /// Something is odd; the call goes on.
    Warn,
    /// Something failed or was denied.
    Error,
}

impl LogLevel {
    /// The name as it is written in JSON and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }
}

/// How the system behind a connection is, by its own account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Whether it works.
    pub status: HealthStatus,
    /// One line for an operator.
    pub message: String,
}

/// Whether a system works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// It works.
    Healthy,
    /// It works in part, or slowly.
    Degraded,
    /// It does not work.
    Unhealthy,
}
