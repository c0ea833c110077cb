//! The table of hostile guests.

mod binary;
mod compute;
mod host;
mod memory;
mod network;
mod output;

use std::time::Duration;

use anyhow::Result;
pub use binary::with_functions;
use cofferdam_core::failure::Class;
use cofferdam_host::Limits;
use serde_json::Value;

use crate::guest::Text;
use crate::web::Manner;

/// Parts of guests that others are made of.
pub(crate) mod parts {
    pub(crate) use super::compute::SPIN;
    pub(crate) use super::host::{HANDLES, with_clock};
    pub(crate) use super::memory::BOMB;
}

/// One hostile guest and what has to become of it.
pub struct Case {
    /// What it tries.
    pub name: &'static str,
    /// The guest.
    pub guest: Guest,
    /// The limits of its connection.
    pub limits: Limits,
    /// How long the caller waits.
    pub timeout: Duration,
    /// How it ends.
    pub ends: Ends,
    /// Whether a call without an attack succeeds. One that attacks while it is instantiated has
    /// no good call; a good plugin under the connection's name has to work instead.
    pub recovers: bool,
}

/// A guest and how to make it attack.
pub enum Guest {
    /// Written by hand; attacks when it is told to.
    Text(Text),
    /// An action of `tests/guests/unruly`, which needs a language's libraries.
    Unruly {
        /// The action.
        action: &'static str,
        /// Its input; gets the server's `host:port`.
        input: fn(&str) -> Value,
        /// How the server treats it.
        server: Manner,
    },
    /// A component that is never called.
    Bytes(fn() -> Result<Vec<u8>>),
}

/// How an attack ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// The call fails, with this class and code.
    Fails(Class, &'static str),
    /// The call succeeds, and what it took was bounded.
    Answers,
    /// The component is refused when it is loaded, with one of these codes.
    Refused(&'static [&'static str]),
}

/// Long enough for any call that is not to be cut by the clock.
const TIMEOUT: Duration = Duration::from_mins(1);

impl Case {
    fn text(name: &'static str, text: Text, class: Class, code: &'static str) -> Self {
        Self {
            name,
            guest: Guest::Text(text),
            limits: Limits {
                // Generous: a test build of the host on a busy machine is slow, and a guest that is
                // to be cut for something else must not be cut for this.
                cpu_time: Duration::from_secs(30),
                timeout: TIMEOUT,
                ..Limits::default()
            },
            timeout: TIMEOUT,
            ends: Ends::Fails(class, code),
            recovers: true,
        }
    }

    /// A guest whose call ends with `code`, of class `internal`.
    fn stopped(name: &'static str, text: Text, code: &'static str) -> Self {
        Self::text(name, text, Class::Internal, code)
    }

    fn answers(name: &'static str, text: Text) -> Self {
        Self {
            ends: Ends::Answers,
            ..Self::stopped(name, text, "")
        }
    }

    fn unruly(
        name: &'static str,
        (action, input, server): (&'static str, fn(&str) -> Value, Manner),
        ends: Ends,
    ) -> Self {
        Self {
            guest: Guest::Unruly {
                action,
                input,
                server,
            },
            ends,
            ..Self::stopped(name, Text::default(), "")
        }
    }

    fn refused(
        name: &'static str,
        component: fn() -> Result<Vec<u8>>,
        codes: &'static [&'static str],
    ) -> Self {
        Self {
            guest: Guest::Bytes(component),
            ends: Ends::Refused(codes),
            ..Self::stopped(name, Text::default(), "")
        }
    }

    fn cpu(mut self, millis: u64) -> Self {
        self.limits.cpu_time = Duration::from_millis(millis);
        self
    }

    fn timeout(mut self, millis: u64) -> Self {
        self.timeout = Duration::from_millis(millis);
        self
    }

    fn memory(mut self, bytes: u64) -> Self {
        self.limits.memory_bytes = bytes;
        self
    }

    fn never_recovers(mut self) -> Self {
        self.recovers = false;
        self
    }
}

/// Every case.
pub fn corpus() -> Vec<Case> {
    [
        compute::cases(),
        memory::cases(),
        host::cases(),
        output::cases(),
        network::cases(),
        binary::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
