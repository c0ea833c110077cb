//! What is promised, and whether it was kept.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::demo::act::Shown;
use crate::demo::message::{Calls, Outcome};

/// How much later than its limit a call may be seen to end: it is cut at the limit, and then the
/// machine may be busy.
const SLACK: Duration = Duration::from_secs(1);
/// What a call on a healthy connection may take beside a sick one.
const HEALTHY_MAX: Duration = Duration::from_secs(1);
/// What a worker may hold in memory, whatever arrives.
const RESIDENT_BYTES_MAX: u64 = 512 << 20;
/// A service that is gone is asked at most so often in a second, on the average.
const ASKED_PER_SECOND_MAX: f64 = 10.0;

/// A promise.
#[derive(Debug, Clone)]
pub enum Promise {
    /// Every lead is served, undone or kept.
    NothingLost,
    /// No effect happens twice.
    NothingTwice,
    /// Nothing is left half-done.
    NothingHalfDone,
    /// No call on this connection outlives its limit.
    CallsEnd { of: &'static str, limit: Duration },
    /// Calls on the other connections are as quick as ever.
    OthersGoOn { but: &'static str },
    /// The breaker of this connection opens.
    BreakerOpens { of: &'static str },
    /// While it is gone, it is hardly asked.
    LeftAlone { is: &'static str, lasts: Duration },
    /// What was parked on this connection goes on when it is well again.
    Drains { of: &'static str },
    /// No connection has more calls at once than its limit allows.
    WithinLimits { limits: BTreeMap<String, u32> },
    /// What this connection has no room for is turned away, and not lost for that.
    Sheds { of: &'static str },
    /// Memory stays bounded.
    MemoryBounded,
    /// What is no lead is refused before anything is called.
    Refused { at_least: usize },
    /// An answer that makes no sense is never taken for a result.
    Understood,
}

/// A promise, and what was seen.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_field_names, reason = "it is what the report calls it")]
pub struct Kept {
    /// Which promise, in a word.
    pub name: &'static str,
    /// What was promised.
    pub promised: String,
    /// What was seen.
    pub seen: String,
    /// Whether it was kept.
    pub kept: bool,
}

impl Promise {
    /// What holds whatever goes wrong.
    pub fn always() -> [Self; 3] {
        [Self::NothingLost, Self::NothingTwice, Self::NothingHalfDone]
    }

    /// Holds the promise against what was seen.
    pub fn look(&self, shown: &Shown) -> Kept {
        let (promised, seen, kept) = match self {
            Self::NothingLost => nothing_lost(shown),
            Self::NothingTwice => nothing_twice(shown),
            Self::NothingHalfDone => nothing_half_done(shown),
            Self::CallsEnd { of, limit } => calls_end(shown, of, *limit),
            Self::OthersGoOn { but } => others_go_on(shown, but),
            Self::BreakerOpens { of } => breaker_opens(shown, of),
            Self::LeftAlone { is, lasts } => left_alone(shown, is, *lasts),
            Self::Drains { of } => drains(shown, of),
            Self::WithinLimits { limits } => within_limits(shown, limits),
            Self::Sheds { of } => sheds(shown, of),
            Self::MemoryBounded => memory_bounded(shown),
            Self::Refused { at_least } => refused(shown, *at_least),
            Self::Understood => understood(shown),
        };
        Kept {
            name: self.name(),
            promised,
            seen,
            kept,
        }
    }
}

impl Promise {
    fn name(&self) -> &'static str {
        match self {
            Self::NothingLost => "nothing-lost",
            Self::NothingTwice => "nothing-twice",
            Self::NothingHalfDone => "nothing-half-done",
            Self::CallsEnd { .. } => "calls-end",
            Self::OthersGoOn { .. } => "others-go-on",
            Self::BreakerOpens { .. } => "breaker-opens",
            Self::LeftAlone { .. } => "left-alone",
            Self::Drains { .. } => "drains",
            Self::WithinLimits { .. } => "within-limits",
            Self::Sheds { .. } => "sheds",
            Self::MemoryBounded => "memory-bounded",
            Self::Refused { .. } => "refused",
            Self::Understood => "understood",
        }
    }
}

type Look = (String, String, bool);

fn calls<'a>(shown: &'a Shown, connection: &str) -> std::borrow::Cow<'a, Calls> {
    use std::borrow::Cow;
    let found = shown.done.calls.get(connection);
    found.map_or_else(|| Cow::Owned(Calls::default()), Cow::Borrowed)
}

fn nothing_lost(shown: &Shown) -> Look {
    let tally = &shown.tally;
    let seen = format!(
        "{} valid leads: {} served, {} undone, {} in review, {} lost",
        tally.valid, tally.served, tally.undone, tally.in_review, tally.lost
    );
    (
        "every lead is served, undone, or kept for a person".into(),
        seen,
        tally.lost == 0,
    )
}

fn nothing_twice(shown: &Shown) -> Look {
    let tally = &shown.tally;
    let seen = format!(
        "{} charged twice, {} mailed twice",
        tally.charged_twice, tally.mailed_twice
    );
    let twice = tally.charged_twice + tally.mailed_twice + tally.repeated_keys;
    ("nothing happens twice".into(), seen, twice == 0)
}

fn nothing_half_done(shown: &Shown) -> Look {
    let half_done = shown.tally.half_done;
    (
        "nothing is left half-done".into(),
        format!("{half_done} left half-done"),
        half_done == 0,
    )
}

fn calls_end(shown: &Shown, of: &str, limit: Duration) -> Look {
    let calls = calls(shown, of);
    let longest = Duration::from_millis(calls.longest_ms);
    let seen = format!(
        "{} calls, {} of them failed, the longest took {longest:?}",
        calls.attempts, calls.failed
    );
    (
        format!("a call on `{of}` ends at its limit of {limit:?}"),
        seen,
        longest <= limit + SLACK,
    )
}

fn others_go_on(shown: &Shown, but: &str) -> Look {
    let others = shown.done.calls.iter().filter(|(name, _)| *name != but);
    let longest = others.max_by_key(|(_, calls)| calls.longest_ms);
    let (name, took) = longest.map_or(("none", Duration::ZERO), |(name, calls)| {
        (name.as_str(), Duration::from_millis(calls.longest_ms))
    });
    (
        format!("calls on the other connections take less than {HEALTHY_MAX:?}"),
        format!("the longest, on `{name}`, took {took:?}"),
        took < HEALTHY_MAX,
    )
}

fn breaker_opens(shown: &Shown, of: &str) -> Look {
    let states = shown.watched.connections.get(of).map(|seen| &seen.breaker);
    let states: Vec<&str> = states.into_iter().flatten().map(String::as_str).collect();
    (
        format!("the breaker of `{of}` opens"),
        format!("it was {}", states.join(", ")),
        states.contains(&"Open"),
    )
}

fn left_alone(shown: &Shown, is: &str, lasts: Duration) -> Look {
    let failed = calls(shown, is).failed;
    let a_second = failed as f64 / lasts.as_secs_f64().max(1.0);
    (
        format!("`{is}` is asked at most {ASKED_PER_SECOND_MAX} times a second while it is gone"),
        format!("{failed} calls failed: {a_second:.1} a second"),
        a_second <= ASKED_PER_SECOND_MAX,
    )
}

fn drains(shown: &Shown, of: &str) -> Look {
    let parked = shown
        .watched
        .connections
        .get(of)
        .map_or(0, |seen| seen.parked_max);
    let drained = shown.drained.map_or_else(
        || "never".to_owned(),
        |d| format!("{:.1} s", d.as_secs_f64()),
    );
    (
        format!("what waits for `{of}` goes on when it is well"),
        format!("up to {parked} leads waited; none was left {drained} after its recovery"),
        shown.drained.is_some(),
    )
}

fn within_limits(shown: &Shown, limits: &BTreeMap<String, u32>) -> Look {
    let seen = |name: &str| {
        shown
            .watched
            .connections
            .get(name)
            .map_or(0, |seen| seen.in_flight_max)
    };
    let most = limits
        .iter()
        .map(|(name, limit)| (seen(name), name, *limit))
        .max();
    let kept = limits
        .iter()
        .all(|(name, limit)| seen(name) <= usize::try_from(*limit).unwrap_or(usize::MAX));
    let seen = most.map_or_else(String::new, |(count, name, limit)| {
        format!("at most {count}, on `{name}`, which may have {limit}")
    });
    (
        "no connection has more calls at once than it may".into(),
        seen,
        kept,
    )
}

fn sheds(shown: &Shown, of: &str) -> Look {
    let seen = shown.watched.connections.get(of);
    let (busy, parked) = seen.map_or((0, 0), |seen| (seen.busy, seen.parked_max));
    let lost = shown.tally.lost;
    (
        format!("what `{of}` has no room for is turned away (`busy`), and goes on when there is"),
        format!("{busy} calls turned away, up to {parked} leads waited, {lost} lost"),
        busy > 0 && lost == 0,
    )
}

fn memory_bounded(shown: &Shown) -> Look {
    let mebibytes = |bytes: u64| bytes >> 20;
    let seen = shown.watched.resident_bytes_max;
    (
        format!(
            "the worker holds at most {} MiB",
            mebibytes(RESIDENT_BYTES_MAX)
        ),
        format!("{} MiB at most", mebibytes(seen)),
        seen <= RESIDENT_BYTES_MAX,
    )
}

fn refused(shown: &Shown, at_least: usize) -> Look {
    let invalid = shown.tally.invalid;
    let of = |outcome| {
        let leads = shown.done.leads.iter();
        leads.filter(|lead| lead.outcome == outcome).count()
    };
    (
        "what is no lead is refused before anything is called, and kept with the reason".into(),
        format!(
            "{at_least} were none; {invalid} refused, {} failed later",
            of(Outcome::Failed)
        ),
        // The example itself has some that are none.
        invalid >= at_least && of(Outcome::Failed) == 0,
    )
}

fn understood(shown: &Shown) -> Look {
    let failed = calls(shown, "crm").failed;
    let wrong = shown.tally.lost + shown.tally.half_done;
    (
        "an answer that makes no sense is never taken for a result".into(),
        format!("{failed} such answers; {wrong} leads that one of them passed for served"),
        failed > 0 && wrong == 0,
    )
}
