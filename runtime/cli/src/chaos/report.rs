//! What a drill showed: for people, and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::drill::Drill;
use super::promise::Kept;
use crate::demo::act::Shown;
use crate::style::Style;

/// For machines.
pub fn json(drill: &Drill, shown: &Shown, kept: &[Kept]) -> Value {
    json!({
        "scenario": drill.name,
        "what": drill.what,
        "kept": kept.iter().all(|promise| promise.kept),
        "promises": kept,
        "counted": shown.tally,
        "calls": shown.done.calls,
        "watched": shown.watched,
        "drainedMs": shown.drained.map(|d| d.as_millis() as u64),
        "tookMs": shown.took.as_millis() as u64,
    })
}

/// For people.
pub fn text(drill: &Drill, shown: &Shown, kept: &[Kept], style: Style) -> String {
    let mut text = format!("\n{}\n", style.bold(&drill.what));
    for promise in kept {
        let mark = if promise.kept {
            style.good("kept  ")
        } else {
            style.bad("BROKEN")
        };
        let _ = writeln!(text, "  {mark}  {}", promise.promised);
        let _ = writeln!(text, "          {}", style.dim(&promise.seen));
    }
    let _ = writeln!(text, "\n  {:.1} s in all", shown.took.as_secs_f64());
    let verdict = if kept.iter().all(|promise| promise.kept) {
        style.good("Every promise was kept.")
    } else {
        style.bad("A promise was broken: a defect of Cofferdam, or of the policies.")
    };
    let _ = writeln!(text, "\n{verdict}");
    text
}
