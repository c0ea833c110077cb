//! Log lines, which the host keeps with the call.
//!
//! ```
//! # cofferdam_sdk::testing::Recorded::new().run(|| {
//! let pages = 3;
//! cofferdam_sdk::info!("read {pages} pages", contacts = 250, complete = true);
//! # });
//! ```
//! Secrets in them are replaced. Past 64 KiB in one call they are cut off; the call goes on.

use serde_json::{Map, Value};

use crate::host;

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Every step.
    Trace,
    /// For whoever looks for a defect.
    Debug,
    /// What is usual.
    Info,
    /// What is not.
    Warn,
    /// What failed.
    Error,
}

/// Writes one line; the macros [`crate::info`] and the like are shorter.
pub fn write(level: Level, message: &str, fields: Map<String, Value>) {
    let fields = if fields.is_empty() {
        String::new()
    } else {
        Value::from(fields).to_string()
    };
    host::log(level, message, &fields);
}

/// Writes a log line: a format string, then `key = value` pairs of what `serde` can write.
#[macro_export]
macro_rules! log {
    ($level:expr, $message:literal $(, $key:ident = $value:expr)* $(,)?) => {
        $crate::log::write($level, &format!($message), {
            #[allow(unused_mut)]
            let mut fields = $crate::__private::Map::new();
            $(fields.insert(stringify!($key).to_owned(), $crate::__private::json!($value));)*
            fields
        })
    };
}

/// Logs every step; see [`log!`](crate::log!).
#[macro_export]
macro_rules! trace { ($($args:tt)*) => { $crate::log!($crate::log::Level::Trace, $($args)*) }; }
/// Logs for whoever looks for a defect; see [`log!`](crate::log!).
#[macro_export]
macro_rules! debug { ($($args:tt)*) => { $crate::log!($crate::log::Level::Debug, $($args)*) }; }
/// Logs what is usual; see [`log!`](crate::log!).
#[macro_export]
macro_rules! info { ($($args:tt)*) => { $crate::log!($crate::log::Level::Info, $($args)*) }; }
/// Logs what is not usual; see [`log!`](crate::log!).
#[macro_export]
macro_rules! warn { ($($args:tt)*) => { $crate::log!($crate::log::Level::Warn, $($args)*) }; }
/// Logs what failed; see [`log!`](crate::log!).
#[macro_export]
macro_rules! error { ($($args:tt)*) => { $crate::log!($crate::log::Level::Error, $($args)*) }; }
