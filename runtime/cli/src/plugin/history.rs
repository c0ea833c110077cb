//! `cofferdam plugin history`

use std::process::ExitCode;

use anyhow::Result;
use cofferdam::control::{GenerationsHistory, Request};
use cofferdam::{GenerationState, Generations, Happening, QuarantineState};

use super::swap::{ConnectionArg, ask};
use crate::context::Context;
use crate::output;

pub const EXAMPLES: &str = "\
Shows which generations of a connection there are and what happened to them, newest first: swaps,
trials, rollbacks, what was refused and why. The last 200 entries are kept.

Examples:
  cofferdam plugin history crm
  cofferdam plugin history crm --output json";

/// A line for each generation: what it does, and how it is.
pub type Line = [String; 6];

const DIGEST_CHARS: usize = 12;

pub fn run(context: &Context, args: &ConnectionArg) -> Result<ExitCode> {
    let connection = args.connection().to_owned();
    let answer: GenerationsHistory = ask(context, Request::History { connection })?;
    if context.is_json() {
        output::json(&answer)?;
        return Ok(ExitCode::SUCCESS);
    }
    table_of(&lines(&answer.generations))?;
    if answer.history.is_empty() {
        eprintln!("nothing was ever swapped");
        return Ok(ExitCode::SUCCESS);
    }
    output::text("\n")?;
    let rows: Vec<[String; 4]> = answer
        .history
        .iter()
        .map(|row| {
            let about = &row.generation;
            let plugin = match row.what {
                Happening::Refused => about.artifact.clone(),
                _ => format!("{} {} ({})", about.plugin, about.version, about.artifact),
            };
            [
                crate::runs::instant(row.at_ms),
                row.what.as_str().to_owned(),
                plugin,
                row.why.clone().unwrap_or_default(),
            ]
        })
        .collect();
    output::table(["WHEN", "WHAT", "PLUGIN", "WHY"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

/// The generations, the one that serves first.
pub fn lines(generations: &Generations) -> Vec<Line> {
    let mut lines = vec![line("serves", &generations.active)];
    if let Some(trial) = &generations.trial {
        let canary = &trial.canary;
        let role = format!(
            "on trial, {} %: {} of {} calls failed",
            canary.config.share_percent, canary.trial.failures, canary.trial.calls
        );
        lines.push(line(&role, &trial.generation));
    }
    if let Some(previous) = &generations.previous {
        lines.push(line("before", previous));
    }
    lines
}

fn line(role: &str, generation: &GenerationState) -> Line {
    let row = &generation.row;
    [
        row.number.to_string(),
        role.to_owned(),
        format!("{} {}", row.plugin, row.version),
        row.digest.chars().take(DIGEST_CHARS).collect(),
        crate::runs::instant(row.since_ms),
        health(generation.quarantine),
    ]
}

/// Whether a generation is held, in words.
pub fn health(state: QuarantineState) -> String {
    match state {
        QuarantineState::Clear { .. } => "well".to_owned(),
        QuarantineState::Probation { .. } => "on probation".to_owned(),
        QuarantineState::Held { until_ms, .. } => {
            format!("held until {}", crate::runs::instant(until_ms))
        }
    }
}

pub fn table_of(lines: &[Line]) -> Result<()> {
    let head = ["GENERATION", "ROLE", "PLUGIN", "DIGEST", "SINCE", "HEALTH"];
    output::table(head, lines)
}
