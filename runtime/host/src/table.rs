//! Every limit of a call in one table, from the constants that are enforced. `docs/limits.md` is
//! made of it.

use std::time::Duration;

use cofferdam_core::depth::DEPTH_MAX;

use crate::artifact::COMPONENT_BYTES_MAX;
use crate::capabilities::{http, log, sql, wasi};
use crate::chamber::{HANDLES_MAX, HOSTCALL_BYTES};
use crate::compiler::{self, ChildCompiler};
use crate::engines::{MEMORIES_MAX, STACK_BYTES_MAX, Size, TABLE_ELEMENTS_MAX, TABLES_MAX};
use crate::host::{HostOptions, SLOTS_MAX};
use crate::limits::{
    COUNT_MAX, DURATION_MAX, FUEL_MIN, Limits, MEMORY_BYTES_MAX, MEMORY_BYTES_MIN,
    OUTPUT_BYTES_MIN, TEXT_BYTES_MAX,
};

/// One limit, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitRow {
    /// The key in the configuration, or what is bounded where nobody chooses.
    pub key: &'static str,
    /// Without a word from the operator.
    pub default: String,
    /// What an operator may choose; `fixed` if nothing.
    pub bounds: String,
    /// What enforces it.
    pub enforced_by: &'static str,
    /// What whoever calls, or loads, is told.
    pub caller_sees: &'static str,
}

/// Every limit, those that an operator chooses first.
pub fn limits_table() -> Vec<LimitRow> {
    let mut rows = of_a_connection();
    rows.extend(of_a_call());
    rows.extend(of_a_component());
    rows
}

const FIXED: &str = "fixed";

fn row(
    key: &'static str,
    default: impl Into<String>,
    bounds: impl Into<String>,
    enforced_by: &'static str,
    caller_sees: &'static str,
) -> LimitRow {
    LimitRow {
        key,
        default: default.into(),
        bounds: bounds.into(),
        enforced_by,
        caller_sees,
    }
}

fn of_a_connection() -> Vec<LimitRow> {
    let limits = Limits::default();
    let spans = || format!("up to {}", time(DURATION_MAX));
    let texts = |min| format!("{} to {}", size(min), size(TEXT_BYTES_MAX));
    let counts = |min: u64| format!("{min} to {}", count(COUNT_MAX));
    let fuel = limits.fuel.map_or("unlimited".to_owned(), count);
    vec![
        row(
            "`limits.memory`",
            size(limits.memory_bytes),
            format!("{} to {}", size(MEMORY_BYTES_MIN), size(MEMORY_BYTES_MAX)),
            "a meter over all memories and tables of the call; a growth that fails is taken back",
            "`limit.memory`",
        ),
        row(
            "`limits.cpu`",
            time(limits.cpu_time),
            spans(),
            "the thread's CPU clock, read at each tick of 1 ms",
            "`limit.cpu`",
        ),
        row(
            "`limits.timeout`",
            time(limits.timeout),
            spans(),
            "a deadline around the call, clamped to the task's; guests' own timeouts are clamped to it",
            "`timeout`, effect unknown if a request was sent",
        ),
        row(
            "`limits.fuel`",
            fuel,
            format!("from {}, or `unlimited`", count(FUEL_MIN)),
            "fuel",
            "`limit.fuel`",
        ),
        row(
            "`limits.output`",
            size(limits.output_bytes),
            texts(OUTPUT_BYTES_MIN),
            "the output's length, before it is parsed",
            "`limit.output`",
        ),
        row(
            "`limits.log`",
            size(limits.log_bytes),
            texts(0),
            "the call's log: the rest is left out, the call goes on",
            "the last line says that it is cut off",
        ),
        row(
            "`limits.requests`",
            count(limits.requests_max.into()),
            counts(0),
            "a budget over requests, statements and mails",
            "`limit.requests`",
        ),
        row(
            "`limits.concurrency`",
            count(limits.concurrency_max.into()),
            counts(1),
            "places of the connection",
            "a wait, then `busy`",
        ),
        row(
            "`limits.queue`",
            count(limits.queue_max.into()),
            counts(0),
            "places in the queue of the connection, for programs that use the host without the engine; with it, `bulkhead.queue` counts",
            "`busy`",
        ),
        row(
            "`rate-limit`",
            "none",
            "1 to 1,000,000 calls in 1 ms to 1 h",
            "a token bucket of the connection; with `max-wait` a line of at most 1,000 in front of it",
            "`limit.rate`, class `rate-limited`, with the time to wait",
        ),
    ]
}

fn of_a_call() -> Vec<LimitRow> {
    vec![
        row(
            "recursion",
            format!("{} of stack", size(STACK_BYTES_MAX as u64)),
            FIXED,
            "a check in every function",
            "`limit.stack`",
        ),
        row(
            "copied into the host by one host call",
            format!("{} and `limits.output`", size(HOSTCALL_BYTES as u64)),
            FIXED,
            "hostcall fuel",
            "`limit.host-resources`",
        ),
        row(
            "resources held: streams, requests, timers",
            count(HANDLES_MAX as u64),
            FIXED,
            "capacity of the handle and resource tables",
            "`limit.host-resources`",
        ),
        row(
            "random bytes asked for at once",
            size(wasi::RANDOM_BYTES_MAX),
            FIXED,
            "`wasi:random`",
            "`limit.host-resources`",
        ),
        row(
            "headers of one message",
            size(http::HEADERS_BYTES_MAX as u64),
            FIXED,
            "`wasi:http`",
            "an error to the guest; `limit.host-resources` if it cannot take one",
        ),
        row(
            "fields of one log line",
            size(log::FIELDS_BYTES_MAX as u64),
            FIXED,
            "`log`: longer ones are left out, unread",
            "the line says how many bytes",
        ),
        row(
            "parameters of one SQL request",
            size(sql::PARAMETERS_BYTES_MAX as u64),
            FIXED,
            "`sql`, before they are parsed",
            "`sql.parameters`, told to the guest",
        ),
        row(
            "nesting of the output",
            format!("{DEPTH_MAX} levels"),
            FIXED,
            "a look at the text, before it is parsed",
            "`output.depth`",
        ),
        row(
            "sockets, environment, arguments",
            "none",
            FIXED,
            "linked and denied",
            "an error to the guest",
        ),
    ]
}

fn of_a_component() -> Vec<LimitRow> {
    let child = ChildCompiler::new("", [""; 0]);
    let (small, large) = (Size::Small, Size::Large);
    vec![
        row(
            "calls of all connections together",
            count(HostOptions::default().concurrency_max.into()),
            format!("1 to {}, by the program", count(SLOTS_MAX.into())),
            "slots of the pool",
            "a wait, then `busy`",
        ),
        row(
            "size of a component",
            size(COMPONENT_BYTES_MAX),
            FIXED,
            "its length, before anything is parsed",
            "CD0302",
        ),
        row(
            "time to compile",
            time(child.time_max),
            format!("up to {}, by the program", time(DURATION_MAX)),
            "the compiler's process is killed",
            "CD0330",
        ),
        row(
            "memory to compile",
            size(child.memory_bytes_max),
            format!(
                "{} to {}, by the program",
                size(compiler::MEMORY_BYTES_MIN),
                size(compiler::MEMORY_BYTES_MAX)
            ),
            "the compiler's process bounds itself",
            "CD0331",
        ),
        row(
            "memories, tables, core modules of a component",
            format!(
                "{MEMORIES_MAX}, {TABLES_MAX}, {} ({} above {} of memory)",
                small.core_instances_max(),
                large.core_instances_max(),
                size(small.memory_bytes_max())
            ),
            FIXED,
            "the shape of a slot",
            "CD0313",
        ),
        row(
            "elements of a table",
            count(TABLE_ELEMENTS_MAX as u64),
            FIXED,
            "the shape of a slot",
            "a growth that fails; `limit.memory` if the guest gives up",
        ),
    ]
}

fn size(bytes: u64) -> String {
    for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{bytes} B")
}

fn time(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        0 => format!("{} ms", span.as_millis()),
        _ if seconds.is_multiple_of(3_600) => format!("{} h", seconds / 3_600),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{seconds} s"),
    }
}

/// With a comma between thousands.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(count(20_000_000_000), "20,000,000,000");
        assert_eq!(count(100), "100");
        assert_eq!(size(64 << 20), "64 MiB");
        assert_eq!(size(0), "0 B");
        assert_eq!(time(Duration::from_mins(2)), "2 min");
        assert_eq!(time(Duration::from_millis(50)), "50 ms");
    }
}
