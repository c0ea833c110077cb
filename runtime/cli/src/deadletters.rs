//! `cofferdam deadletters …`

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::context::Context;
use crate::output;
use crate::runs::instant;

const EXAMPLES: &str = "\
A dead letter is a run that is out of options, kept with its error and its input, so that it can be
run again once the cause is gone.

Examples:
  cofferdam deadletters list
  cofferdam deadletters list --output json | jq '.[].input'";

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadlettersVerb {
    /// List runs that are out of options
    #[command(after_long_help = EXAMPLES)]
    List,
}

pub fn run(context: &Context, verb: &DeadlettersVerb) -> Result<ExitCode> {
    let DeadlettersVerb::List = verb;
    let archive = context.archive()?;
    let letters = archive.query().dead_letters()?;
    if context.is_json() {
        output::json(&letters)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 4]> = letters
        .iter()
        .map(|letter| {
            [
                letter.run.clone(),
                instant(letter.at_ms),
                letter.workflow.clone(),
                letter.error.to_string(),
            ]
        })
        .collect();
    if rows.is_empty() {
        eprintln!("no dead letters in {}", archive.path().display());
    }
    output::table(["RUN", "SINCE", "WORKFLOW", "ERROR"], &rows)?;
    Ok(ExitCode::SUCCESS)
}
