//! From TOML to what keeps a connection going: breaker, bulkhead, health checks, what is done in an
//! outage.

use std::time::Duration;

use cofferdam_core::breaker::{self, WindowType};
use cofferdam_core::health;
use cofferdam_core::run::{DELIVER_MS_DEFAULT, PARK_MS_DEFAULT};
use cofferdam_core::workflow::OnOutage;

use super::document::{Item, Section};
use super::error::Error;
use super::read::{DAY, HOUR, MONTH};
use crate::outbox::ENTRIES_MAX;

/// More waiting calls than these hold too much memory.
const QUEUE_MAX: u64 = 1_000_000;
const OUTBOX_MAX: u64 = 10_000_000;
const THRESHOLD_MAX: u64 = 1_000;

/// How many calls may wait for a place at a connection, and for how long. How many run at once is
/// `limits.concurrency`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bulkhead {
    /// Most calls that wait; what comes on top is turned away as `busy`.
    pub queue_max: usize,
    /// A call that has waited for this long is turned away as `busy`.
    pub max_wait: Duration,
}

impl Default for Bulkhead {
    /// 10,000 calls, 30 s.
    fn default() -> Self {
        Self {
            queue_max: 10_000,
            max_wait: Duration::from_secs(30),
        }
    }
}

pub(super) fn breaker(section: &Section<'_>) -> Result<breaker::Config, Error> {
    let mut config = breaker::Config::default();
    let Some(section) = section.section("breaker")? else {
        return Ok(config);
    };
    section.only(&[
        "failure-rate-threshold-ratio",
        "slow-call-rate-threshold-ratio",
        "slow-call-duration",
        "sliding-window-type",
        "sliding-window-size",
        "minimum-number-of-calls",
        "wait-duration-in-open-state",
        "automatic-transition-from-open-to-half-open-enabled",
        "permitted-number-of-calls-in-half-open-state",
        "max-wait-duration-in-half-open-state",
    ])?;
    for item in section.items() {
        set_breaker(&mut config, &item)?;
    }
    config.validate().map_err(|error| unfit(&section, &error))?;
    Ok(config)
}

/// Says where a value stands that does not fit the others; one that nobody wrote stands in the
/// section.
fn unfit(section: &Section<'_>, error: &breaker::BadConfig) -> Error {
    let (found, remedy) = (&error.found, format!("it must be {}", error.must));
    if let Some(item) = section.get(error.key) {
        return item.refuse(format!("{found} is out of range"), remedy);
    }
    Error::Value {
        place: section
            .place()
            .with_key(format!("{}.{}", section.key, error.key)),
        problem: format!(
            "it is {found} as long as nothing is written, which does not fit the rest"
        ),
        remedy: format!("write it: {remedy}"),
    }
}

fn set_breaker(config: &mut breaker::Config, item: &Item<'_>) -> Result<(), Error> {
    let count = || item.integer(0, u64::from(u32::MAX));
    match item.name.as_str() {
        "failure-rate-threshold-ratio" => {
            config.failure_rate_threshold_ratio = item.number(0.0, 1.0)?;
        }
        "slow-call-rate-threshold-ratio" => {
            config.slow_call_rate_threshold_ratio = item.number(0.0, 1.0)?;
        }
        "slow-call-duration" => config.slow_call_duration_ms = item.duration_ms(HOUR)?,
        "sliding-window-type" => {
            config.sliding_window_type = item.choice(&[
                ("count-based", WindowType::CountBased),
                ("time-based", WindowType::TimeBased),
            ])?;
        }
        "sliding-window-size" => config.sliding_window_size = count()? as usize,
        "minimum-number-of-calls" => config.minimum_number_of_calls = count()? as usize,
        "wait-duration-in-open-state" => {
            config.wait_duration_in_open_state_ms = item.duration_ms(DAY)?;
        }
        "automatic-transition-from-open-to-half-open-enabled" => {
            config.automatic_transition_from_open_to_half_open_enabled = item.bool()?;
        }
        "max-wait-duration-in-half-open-state" => {
            config.max_wait_duration_in_half_open_state_ms = item.duration_ms(DAY)?;
        }
        _ => config.permitted_number_of_calls_in_half_open_state = count()? as u32,
    }
    Ok(())
}

pub(super) fn bulkhead(section: &Section<'_>) -> Result<Bulkhead, Error> {
    let mut bulkhead = Bulkhead::default();
    let Some(section) = section.section("bulkhead")? else {
        return Ok(bulkhead);
    };
    section.only(&["max-wait", "queue"])?;
    for item in section.items() {
        match item.name.as_str() {
            "max-wait" => bulkhead.max_wait = item.duration(HOUR)?,
            _ => bulkhead.queue_max = item.integer(0, QUEUE_MAX)? as usize,
        }
    }
    Ok(bulkhead)
}

/// Whoever writes the section wants to be probed; without it nobody is.
pub(super) fn health(section: &Section<'_>) -> Result<Option<health::Config>, Error> {
    let mut config = health::Config::default();
    let Some(section) = section.section("health")? else {
        return Ok(None);
    };
    section.only(&[
        "interval",
        "timeout",
        "unhealthy-threshold",
        "healthy-threshold",
        "slow",
    ])?;
    for item in section.items() {
        let threshold = || item.integer(1, THRESHOLD_MAX).map(|count| count as u32);
        match item.name.as_str() {
            "interval" => config.interval_ms = item.duration_ms(DAY)?,
            "timeout" => config.timeout_ms = item.duration_ms(HOUR)?,
            "unhealthy-threshold" => config.unhealthy_threshold = threshold()?,
            "healthy-threshold" => config.healthy_threshold = threshold()?,
            _ => config.slow_ms = Some(item.duration_ms(HOUR)?),
        }
    }
    match section.get("slow") {
        Some(item) if config.slow_ms > Some(config.timeout_ms) => Err(item.refuse(
            format!(
                "a check that takes {} has been given up before",
                item.shown()
            ),
            format!("write at most `timeout`, which is {} ms", config.timeout_ms),
        )),
        _ => Ok(Some(config)),
    }
}

pub(super) fn outbox_max(section: &Section<'_>) -> Result<usize, Error> {
    let Some(section) = section.section("outbox")? else {
        return Ok(ENTRIES_MAX);
    };
    section.only(&["entries"])?;
    let entries = section.get("entries");
    entries.map_or(Ok(ENTRIES_MAX), |item| {
        item.integer(0, OUTBOX_MAX).map(|entries| entries as usize)
    })
}

pub(super) fn on_outage(section: &Section<'_>) -> Result<OnOutage, Error> {
    let ms = |item: Option<&Item<'_>>, default_ms| {
        item.map_or(Ok(default_ms), |item| item.duration_ms(MONTH))
    };
    let (deadline, within) = (section.get("park-deadline"), section.get("deliver-within"));
    let park = OnOutage::Park {
        deadline_ms: ms(deadline.as_ref(), PARK_MS_DEFAULT)?,
    };
    let queue = OnOutage::QueueAndForward {
        deliver_within_ms: ms(within.as_ref(), DELIVER_MS_DEFAULT)?,
    };
    let choices = [
        ("park", park),
        ("queue-and-forward", queue),
        ("fallback", OnOutage::Fallback),
        ("fail", OnOutage::Fail),
    ];
    let chosen = section
        .get("on-outage")
        .map_or(Ok(park), |item| item.choice(&choices))?;
    match (deadline, within) {
        (Some(deadline), _) if chosen != park => {
            let remedy = "leave it out, or write `on-outage = \"park\"`";
            Err(deadline.refuse("nothing is parked with this `on-outage`", remedy))
        }
        (_, Some(within)) if chosen != queue => {
            let remedy = "leave it out, or write `on-outage = \"queue-and-forward\"`";
            Err(within.refuse("nothing is delivered later with this `on-outage`", remedy))
        }
        (_, _) => Ok(chosen),
    }
}
