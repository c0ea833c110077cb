//! One call of one action, and what the connector may know about it.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// One call of one action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The action's name as in the descriptor: `upsert-contact`.
    pub action: String,
    /// The input as JSON text. Actions get it parsed.
    pub input: String,
    /// The connection's name, for messages.
    pub connection: String,
    /// The same for every attempt of one task, and for no other task. Hand it to the other
    /// system wherever that system takes such a key. Printable ASCII, at most 128 bytes.
    pub idempotency_key: String,
    /// 1 for the first attempt, 2 for the second, and so on.
    pub attempt: u32,
    /// Milliseconds that were left when the call began. The host ends the call then.
    pub deadline_ms: u32,
    /// The tenant on whose behalf the call is made; empty if there is only one.
    pub tenant: String,
    /// A W3C `traceparent`; empty if there is none. [`crate::http`] passes it on.
    pub traceparent: String,
    /// A JSON object for what later minor versions add.
    pub ext: String,
}

/// How the system behind a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It works.
    Healthy,
    /// It works in part, or slowly.
    Degraded,
    /// It does not work. The host stops sending calls until it does.
    Unhealthy,
}

/// The answer of a connector's `check`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// How it is.
    pub status: Status,
    /// One line for an operator: `authenticated as acme-prod`.
    pub message: String,
}

impl Health {
    /// It works.
    pub fn healthy(message: impl Into<String>) -> Self {
        Self {
            status: Status::Healthy,
            message: message.into(),
        }
    }

    /// It works in part, or slowly.
    pub fn degraded(message: impl Into<String>) -> Self {
        Self {
            status: Status::Degraded,
            message: message.into(),
        }
    }

    /// It does not work.
    pub fn unhealthy(message: impl Into<String>) -> Self {
        Self {
            status: Status::Unhealthy,
            message: message.into(),
        }
    }
}

struct Current {
    ends: Instant,
    traceparent: String,
}

thread_local! {
    static CURRENT: RefCell<Option<Current>> = const { RefCell::new(None) };
}

/// Makes `call` the one that [`remaining`] and [`traceparent`] speak of, until the guard goes.
pub(crate) fn enter(call: &Call) -> Guard {
    let current = Current {
        ends: Instant::now() + Duration::from_millis(call.deadline_ms.into()),
        traceparent: call.traceparent.clone(),
    };
    CURRENT.with_borrow_mut(|slot| *slot = Some(current));
    Guard
}

pub(crate) struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|slot| *slot = None);
    }
}

/// The time that the current call has left; `None` outside a call (in `check` and lookups),
/// where the host alone keeps the time.
pub fn remaining() -> Option<Duration> {
    CURRENT.with_borrow(|slot| {
        slot.as_ref()
            .map(|current| current.ends.saturating_duration_since(Instant::now()))
    })
}

pub(crate) fn traceparent() -> Option<String> {
    CURRENT.with_borrow(|slot| {
        slot.as_ref()
            .map(|current| current.traceparent.clone())
            .filter(|text| !text.is_empty())
    })
}
