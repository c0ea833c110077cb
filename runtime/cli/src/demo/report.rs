//! What it came to: for people, and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::act::Shown;
use super::message::{Ended, Outcome};
use super::screen::clip;
use super::tally::Tally;
use crate::style::Style;

/// Dead letters and reviews that are told one by one; the rest is counted.
const TOLD_MAX: usize = 6;
/// A reason is cut after so many characters.
const REASON_CHARS: usize = 40;
/// What the reason begins with if the input is refused; left out, since it is the same every time.
const SCHEMA: &str = "the input does not match its schema: ";

/// The whole.
pub fn json(resilient: &Shown, brittle: Option<&Shown>) -> Value {
    json!({
        "cofferdam": showing(resilient),
        "brittle": brittle.map(showing),
    })
}

fn showing(shown: &Shown) -> Value {
    json!({
        "counted": shown.tally,
        "runs": {
            "whole": of(shown, Outcome::Whole).count(),
            "degraded": of(shown, Outcome::Degraded).count(),
            "inReview": of(shown, Outcome::Review).count(),
            "deadLetters": of(shown, Outcome::DeadLetter).count() + of(shown, Outcome::Invalid).count(),
        },
        "degradedParts": parts(shown),
        "leads": shown.done.leads,
        "parkedMax": shown.parked_max,
        "drainedMs": shown.drained.map(millis),
        "tookMs": millis(shown.took),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn of(shown: &Shown, outcome: Outcome) -> impl Iterator<Item = &Ended> {
    shown
        .done
        .leads
        .iter()
        .filter(move |lead| lead.outcome == outcome)
}

fn parts(shown: &Shown) -> BTreeMap<String, usize> {
    let mut parts = BTreeMap::new();
    for (task, provenance) in of(shown, Outcome::Degraded).flat_map(|lead| &lead.parts) {
        *parts.entry(format!("{task} {provenance}")).or_default() += 1;
    }
    parts
}

/// For people.
pub fn text(resilient: &Shown, brittle: Option<&Shown>, style: Style) -> String {
    let mut text = String::new();
    about_runs(&mut text, resilient, style);
    about_letters(&mut text, resilient, style);
    about_counts(&mut text, resilient, brittle, style);
    text
}

fn about_runs(text: &mut String, shown: &Shown, style: Style) {
    let tally = &shown.tally;
    let parts: Vec<String> = parts(shown)
        .iter()
        .map(|(part, times)| format!("{part} {times}×"))
        .collect();
    let seconds = |duration: Duration| format!("{:.1} s", duration.as_secs_f64());
    let _ = writeln!(text, "\n{}", style.bold("What became of the leads"));
    let _ = writeln!(
        text,
        "  {} valid leads: {} served, {} undone after a refusal, {} in review, {} lost",
        tally.valid, tally.served, tally.undone, tally.in_review, tally.lost
    );
    let _ = writeln!(
        text,
        "  {} more were refused before anything was called",
        tally.invalid
    );
    let _ = writeln!(
        text,
        "  {} runs whole, {} degraded:\n    {}",
        of(shown, Outcome::Whole).count(),
        of(shown, Outcome::Degraded).count(),
        parts.join(", "),
    );
    let drained = shown.drained.map_or_else(|| "never".to_owned(), seconds);
    let _ = writeln!(
        text,
        "  up to {} leads parked for the CRM; none was left {drained} after its recovery",
        shown.parked_max
    );
    let _ = writeln!(
        text,
        "  {} in all, a SIGKILL of the worker included",
        seconds(shown.took)
    );
}

fn about_letters(text: &mut String, shown: &Shown, style: Style) {
    let letters = |lead: &&Ended| matches!(lead.outcome, Outcome::DeadLetter | Outcome::Invalid);
    let dead: Vec<&Ended> = shown.done.leads.iter().filter(letters).collect();
    let review: Vec<&Ended> = of(shown, Outcome::Review).collect();
    for (title, leads) in [
        ("Dead letters, with everything to go on from there", dead),
        ("In review", review),
    ] {
        if leads.is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n{}", style.bold(title));
        for lead in leads.iter().take(TOLD_MAX) {
            let who = lead.email.as_deref().unwrap_or("(no address)");
            let reason = lead.reason.as_deref().unwrap_or("no reason");
            let reason = reason.strip_prefix(SCHEMA).unwrap_or(reason);
            let reason = clip(reason, REASON_CHARS);
            let _ = writeln!(
                text,
                "  line {:<4} {who:<28} {}",
                lead.line,
                style.dim(&reason)
            );
        }
        if leads.len() > TOLD_MAX {
            let _ = writeln!(text, "  and {} more", leads.len() - TOLD_MAX);
        }
    }
}

fn about_counts(text: &mut String, resilient: &Shown, brittle: Option<&Shown>, style: Style) {
    type Count = (&'static str, fn(&Tally) -> usize);
    const COUNTS: [Count; 6] = [
        ("leads served", |tally| tally.served),
        ("leads lost", |tally| tally.lost),
        ("charged twice", |tally| tally.charged_twice),
        ("mailed twice", |tally| tally.mailed_twice),
        ("left half-done", |tally| tally.half_done),
        ("waiting for a person", |tally| tally.in_review),
    ];
    let _ = writeln!(text, "\n{}", style.bold("Counted at the services"));
    let without = if brittle.is_some() { "without" } else { "" };
    let _ = writeln!(text, "  {:<22} {:>14} {without:>10}", "", "with Cofferdam");
    for (what, count) in COUNTS {
        let other = brittle
            .map(|shown| count(&shown.tally).to_string())
            .unwrap_or_default();
        let _ = writeln!(
            text,
            "  {what:<22} {:>14} {other:>10}",
            count(&resilient.tally)
        );
    }
    if brittle.is_some() {
        let _ = writeln!(
            text,
            "\n  {}",
            style
                .dim("Without: each step once, no journal; run again from the top after the kill.")
        );
    }
    let verdict = if resilient.tally.is_clean() {
        style.good("Nothing was lost, nothing happened twice.")
    } else {
        style
            .bad("Something was lost, happened twice or was left half-done: a defect of Cofferdam.")
    };
    let _ = writeln!(text, "\n{verdict}");
}
