//! What one call may use, and the meter for its memory.

use std::time::Duration;

use cofferdam_core::manifest::{Manifest, Wishes};
use cofferdam_core::rate::Rate;
use wasmtime::ResourceLimiter;

use crate::Error;

/// What the calls of one connection may use. [`Limits::default`] is what a connection gets that
/// says nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Instructions of one call, roughly; `None` leaves only the CPU time. Default 20 billion, more
    /// than the default CPU time lets pass, so that it is a backstop.
    pub fuel: Option<u64>,
    /// CPU time of one call, host calls that wait not included. Default 1 s.
    pub cpu_time: Duration,
    /// Wall clock time of one call, host calls included. Default 30 s.
    pub timeout: Duration,
    /// Memory of one call, summed over all memories and tables. Default 64 MiB, at most 256 MiB.
    pub memory_bytes: u64,
    /// Length of the output's JSON text. Default 1 MiB.
    pub output_bytes: u64,
    /// Log text that is kept of one call; more is cut off. Default 64 KiB.
    pub log_bytes: u64,
    /// Requests, statements and mails of one call together. Default 32.
    pub requests_max: u32,
    /// Calls at the same time. Default 16.
    pub concurrency_max: u32,
    /// Calls that wait while [`Limits::concurrency_max`] run. Default 64.
    pub queue_max: u32,
    /// How often actions may be called; more are turned away at once, with the time after which to
    /// ask again. Checks and lookups do not count. Default: as often as they come.
    pub rate: Option<Rate>,
}

/// The largest memory that any call can have: the size of a slot in the large pool.
pub const MEMORY_BYTES_MAX: u64 = 256 << 20;
/// Below this no component can be instantiated (one page of memory and its tables).
pub(crate) const MEMORY_BYTES_MIN: u64 = 128 << 10;
/// Below this no component gets through its own initialisation.
pub(crate) const FUEL_MIN: u64 = 100_000;
/// The shortest JSON text: `{}`.
pub(crate) const OUTPUT_BYTES_MIN: u64 = 2;
pub(crate) const DURATION_MAX: Duration = Duration::from_hours(1);
pub(crate) const TEXT_BYTES_MAX: u64 = 64 << 20;
pub(crate) const COUNT_MAX: u64 = 10_000;

impl Default for Limits {
    fn default() -> Self {
        Self {
            fuel: Some(20_000_000_000),
            cpu_time: Duration::from_secs(1),
            timeout: Duration::from_secs(30),
            memory_bytes: 64 << 20,
            output_bytes: 1 << 20,
            log_bytes: 64 << 10,
            requests_max: 32,
            concurrency_max: 16,
            queue_max: 64,
            rate: None,
        }
    }
}

impl Limits {
    /// Refuses limits that would stop every call, or stop none.
    ///
    /// # Errors
    /// [`Error::BadLimit`] names the key and its range.
    pub fn validate(&self) -> Result<(), Error> {
        if let Some(fuel) = self.fuel {
            range("fuel", fuel, FUEL_MIN, u64::MAX)?;
        }
        span("cpu_time", self.cpu_time)?;
        span("timeout", self.timeout)?;
        range(
            "memory_bytes",
            self.memory_bytes,
            MEMORY_BYTES_MIN,
            MEMORY_BYTES_MAX,
        )?;
        range(
            "output_bytes",
            self.output_bytes,
            OUTPUT_BYTES_MIN,
            TEXT_BYTES_MAX,
        )?;
        range("log_bytes", self.log_bytes, 0, TEXT_BYTES_MAX)?;
        range("requests_max", self.requests_max.into(), 0, COUNT_MAX)?;
        range("concurrency_max", self.concurrency_max.into(), 1, COUNT_MAX)?;
        range("queue_max", self.queue_max.into(), 0, COUNT_MAX)
    }
}

/// Of a limit whose connection is not known where it is checked.
const PLACE: &str = "limits";

/// Refuses wishes of a manifest that no operator could grant: whoever makes or hands out the plugin
/// is told, instead of everybody who uses it. `place` is what the message begins with.
///
/// # Errors
/// [`Error::BadLimit`] names the key, what it asks for and what can be had.
pub fn check_wishes(wishes: &Wishes, place: &str) -> Result<(), Error> {
    let refuse = |key, written: &Option<String>, reason: &str| {
        Err(Error::BadLimit {
            place: place.to_owned(),
            key,
            value: format!("\"{}\"", written.as_deref().unwrap_or_default()),
            reason: reason.to_owned(),
        })
    };
    let memory = MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX;
    let is_memory = |bytes| memory.contains(&bytes);
    if !wishes.memory_bytes().is_none_or(is_memory) {
        let reason = "no connection can have it: ask for 128KiB to 256MiB, or leave it out";
        return refuse("limits.memory", &wishes.memory, reason);
    }
    let is_span = |span: Duration| span <= DURATION_MAX;
    let reason = "no connection can have it: ask for at most 1h, or leave it out";
    if !wishes.timeout().is_none_or(is_span) {
        return refuse("limits.timeout", &wishes.timeout, reason);
    }
    if !wishes.cpu_time().is_none_or(is_span) {
        return refuse("limits.cpu", &wishes.cpu, reason);
    }
    Ok(())
}

/// The same error with the connection and the plugin that it is about, and the remedy where the
/// plugin's manifest is what asked.
pub(crate) fn named(error: Error, connection: &str, manifest: Option<&Manifest>) -> Error {
    let Error::BadLimit {
        key, value, reason, ..
    } = error
    else {
        return error;
    };
    let asked = manifest.filter(|manifest| {
        let memory = manifest.limits.memory_bytes();
        key == "memory_bytes" && memory.is_some_and(|bytes| bytes.to_string() == value)
    });
    let (place, reason) = match (asked, manifest) {
        (Some(plugin), _) => {
            let line =
                format!("write `memory = \"64MiB\"` under [connections.{connection}.limits]");
            let wish = "which the plugin's manifest wishes for (`limits.memory`)";
            (
                of_plugin(connection, plugin),
                format!("{reason}, {wish}; {line}, or get a plugin that asks for enough"),
            )
        }
        (None, Some(plugin)) => (of_plugin(connection, plugin), reason),
        (None, None) => (format!("connection `{connection}`"), reason),
    };
    Error::BadLimit {
        place,
        key,
        value,
        reason,
    }
}

fn of_plugin(connection: &str, plugin: &Manifest) -> String {
    format!("connection `{connection}`, plugin `{}`", plugin.name)
}

pub(crate) fn range(key: &'static str, value: u64, min: u64, max: u64) -> Result<(), Error> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    let reason = if key.ends_with("_bytes") {
        format!("must be from {} to {}", size(min), size(max))
    } else {
        format!("must be from {min} to {max}")
    };
    Err(Error::BadLimit {
        place: PLACE.to_owned(),
        key,
        value: value.to_string(),
        reason,
    })
}

/// Bytes as somebody would write them.
fn size(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        _ if bytes.is_multiple_of(1 << 20) => format!("{}MiB", bytes >> 20),
        _ if bytes.is_multiple_of(1 << 10) => format!("{}KiB", bytes >> 10),
        _ => format!("{bytes}B"),
    }
}

pub(crate) fn span(key: &'static str, value: Duration) -> Result<(), Error> {
    if !value.is_zero() && value <= DURATION_MAX {
        return Ok(());
    }
    let reason = "must be longer than zero and at most one hour".to_owned();
    Err(Error::BadLimit {
        place: PLACE.to_owned(),
        key,
        value: format!("{value:?}"),
        reason,
    })
}

/// Bytes that one table element takes.
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Counts the memory of one call: every memory and every table, together.
#[derive(Debug)]
pub(crate) struct Meter {
    bytes: usize,
    bytes_max: usize,
    /// Highest sum so far.
    pub(crate) bytes_peak: usize,
    /// The growth that was allowed last, to be taken back if the engine cannot perform it.
    pending: usize,
    /// Whether a growth was refused.
    pub(crate) refused: bool,
}

impl Meter {
    pub(crate) fn new(bytes_max: u64) -> Self {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
        Self {
            bytes: 0,
            bytes_max,
            bytes_peak: 0,
            pending: 0,
            refused: false,
        }
    }

    fn grow(&mut self, by: usize) -> bool {
        let sum = self.bytes.saturating_add(by);
        if sum > self.bytes_max {
            self.refused = true;
            self.pending = 0;
            return false;
        }
        self.bytes = sum;
        self.bytes_peak = self.bytes_peak.max(sum);
        self.pending = by;
        true
    }

    /// What was allowed and could not be had: beyond the slot, or beyond what the module declares.
    fn take_back(&mut self) {
        self.refused = true;
        self.bytes = self.bytes.saturating_sub(std::mem::take(&mut self.pending));
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current)))
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let by = desired
            .saturating_sub(current)
            .saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(self.grow(by))
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.take_back();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        Limits::default().validate().unwrap();
    }

    #[test]
    fn limits_without_sense_are_refused_by_name() {
        type Spoil = fn(&mut Limits);
        let cases: [(&str, Spoil); 17] = [
            ("fuel", |limits| limits.fuel = Some(0)),
            ("cpu_time", |limits| limits.cpu_time = Duration::ZERO),
            ("cpu_time", |limits| limits.cpu_time = DURATION_MAX * 2),
            ("timeout", |limits| limits.timeout = Duration::ZERO),
            ("timeout", |limits| limits.timeout = DURATION_MAX * 2),
            ("memory_bytes", |limits| limits.memory_bytes = 0),
            ("memory_bytes", |limits| {
                limits.memory_bytes = MEMORY_BYTES_MAX + 1;
            }),
            ("memory_bytes", |limits| limits.memory_bytes = u64::MAX),
            ("output_bytes", |limits| limits.output_bytes = 0),
            ("output_bytes", |limits| limits.output_bytes = u64::MAX),
            ("log_bytes", |limits| limits.log_bytes = TEXT_BYTES_MAX + 1),
            ("log_bytes", |limits| limits.log_bytes = u64::MAX),
            ("requests_max", |limits| limits.requests_max = u32::MAX),
            ("concurrency_max", |limits| limits.concurrency_max = 0),
            ("concurrency_max", |limits| {
                limits.concurrency_max = u32::MAX;
            }),
            ("queue_max", |limits| limits.queue_max = 10_001),
            ("queue_max", |limits| limits.queue_max = u32::MAX),
        ];
        for (key, spoil) in cases {
            let mut limits = Limits::default();
            spoil(&mut limits);
            let error = limits.validate().unwrap_err().to_string();
            assert!(error.contains(&format!("`{key} = ")), "{error}");
        }
    }

    #[test]
    fn wishes_that_nobody_can_grant_are_refused_by_name() {
        let wishes = |memory: &str, timeout: &str, cpu: &str| Wishes {
            memory: Some(memory.to_owned()),
            timeout: Some(timeout.to_owned()),
            cpu: Some(cpu.to_owned()),
        };
        check_wishes(&Wishes::default(), "p").unwrap();
        for fine in [wishes("128KiB", "1ms", "1ms"), wishes("256MiB", "1h", "1h")] {
            check_wishes(&fine, "p").unwrap();
        }
        for (bad, told) in [
            (wishes("127KiB", "1s", "1s"), "`limits.memory = \"127KiB\"`"),
            (wishes("1GiB", "1s", "1s"), "`limits.memory = \"1GiB\"`"),
            (wishes("1MiB", "61m", "1s"), "`limits.timeout = \"61m\"`"),
            (wishes("1MiB", "1s", "2h"), "`limits.cpu = \"2h\"`"),
        ] {
            let error = check_wishes(&bad, "crm/plugin.toml")
                .unwrap_err()
                .to_string();
            assert!(
                error.starts_with(&format!("crm/plugin.toml: {told}")),
                "{error}"
            );
        }
    }

    #[test]
    fn memory_is_summed_and_taken_back_when_growing_fails() {
        let mut meter = Meter::new(1000);
        assert!(meter.memory_growing(0, 600, None).unwrap());
        assert!(meter.table_growing(0, 40, None).unwrap());
        assert!(!meter.memory_growing(600, 700, None).unwrap());
        assert!(meter.refused);
        assert!(meter.memory_growing(600, 660, None).unwrap());
        meter
            .memory_grow_failed(wasmtime::Error::msg("no memory"))
            .unwrap();
        assert_eq!(meter.bytes, 920);
        assert_eq!(meter.bytes_peak, 980);
    }
}
