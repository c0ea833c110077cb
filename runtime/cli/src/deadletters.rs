//! `cofferdam deadletters …`

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};
use cofferdam::{Act, DeadLetter, LetterFilter, Look, REDRIVE_MAX, Redriven};

use crate::context::{Context, block_on};
use crate::exit::{self, usage};
use crate::reach::{Others, Reach, look};
use crate::runs::control::FollowArgs;
use crate::runs::{control, instant};
use crate::{output, run};

const EXAMPLES: &str = "\
A dead letter is a run that is out of options, kept with its error and its input, so that it can go on
once the cause is gone.

Examples:
  cofferdam deadletters list --workflow acme/intake --error timeout
  cofferdam deadletters list --output json | jq '.[].input'";

const EXAMPLES_SHOW: &str = "\
Prints the letter as JSON: the error, the task that failed, what had come into it, the run's input.

Examples:
  cofferdam deadletters show 01K0ABCDEFGHJKMNPQRSTVWXYZ | jq .taskInput > edited.json";

const EXAMPLES_REDRIVE: &str = "\
Lets the run go on from the task that failed; finished tasks are not repeated. --input replaces what had
come into that task. With --all every letter that fits is redriven, the oldest first, and what became
of each is listed; then the runs go on by themselves while a process has the store open.

Exit codes with --all: 0 all were redriven; 1 some were not.

Examples:
  cofferdam deadletters redrive 01K0ABCDEFGHJKMNPQRSTVWXYZ --input edited.json
  cofferdam deadletters redrive --all --workflow acme/intake --error timeout";

const EXAMPLES_DISCARD: &str = "\
Takes a letter off the list. The run stays as it is.

Examples:
  cofferdam deadletters discard 01K0ABCDEFGHJKMNPQRSTVWXYZ";

/// What can be done with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadlettersVerb {
    /// List runs that are out of options
    #[command(after_long_help = EXAMPLES)]
    List(FilterArgs),
    /// Print a dead letter with everything that is known of it
    #[command(after_long_help = EXAMPLES_SHOW)]
    Show(LetterArg),
    /// Let runs go on from the task that failed
    #[command(after_long_help = EXAMPLES_REDRIVE)]
    Redrive(RedriveLettersArgs),
    /// Take a dead letter off the list
    #[command(after_long_help = EXAMPLES_DISCARD)]
    Discard(LetterArg),
}

/// Which dead letters are meant.
#[derive(Debug, Args)]
pub struct FilterArgs {
    /// Only of this workflow: namespace/name, or namespace/name:version
    #[arg(long, value_name = "WORKFLOW")]
    workflow: Option<String>,
    /// Only with this error: its type or the last part of it, or the class or code of the failure
    #[arg(long, value_name = "TYPE")]
    error: Option<String>,
    /// Only of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
}

/// One dead letter.
#[derive(Debug, Args)]
pub struct LetterArg {
    /// The run's id
    run: String,
}

/// What `deadletters redrive` takes.
#[derive(Debug, Args)]
pub struct RedriveLettersArgs {
    /// The run's id
    run: Option<String>,
    /// What is to come into the task that failed, as JSON: a file, or `-` for standard input
    #[arg(long, value_name = "FILE|-", requires = "run", conflicts_with = "all")]
    input: Option<String>,
    #[command(flatten)]
    follow: FollowArgs,
    /// Redrive every letter that fits
    #[arg(long, conflicts_with = "run")]
    all: bool,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = REDRIVE_MAX, value_parser = crate::args::count, requires = "all")]
    limit: usize,
    #[command(flatten)]
    filter: FilterArgs,
}

impl FilterArgs {
    fn filter(&self) -> LetterFilter {
        LetterFilter {
            workflow: self.workflow.clone(),
            error: self.error.clone(),
            tenant: self.tenant.clone(),
        }
    }
}

pub fn run(context: &Context, verb: &DeadlettersVerb) -> Result<ExitCode> {
    match verb {
        DeadlettersVerb::List(filter) => list(context, filter),
        DeadlettersVerb::Show(letter) => show(context, letter),
        DeadlettersVerb::Redrive(args) => redrive(context, args),
        DeadlettersVerb::Discard(letter) => discard(context, letter),
    }
}

fn list(context: &Context, filter: &FilterArgs) -> Result<ExitCode> {
    let filter = filter.filter();
    let letters: Vec<DeadLetter> = look(context, Look::DeadLetters { filter })?;
    if context.is_json() {
        output::json(&letters)?;
        return Ok(ExitCode::SUCCESS);
    }
    let rows: Vec<[String; 5]> = letters
        .iter()
        .map(|letter| {
            [
                letter.run.clone(),
                instant(letter.at_ms),
                letter.workflow.clone(),
                letter.task.clone().unwrap_or_default(),
                letter.error.to_string(),
            ]
        })
        .collect();
    if rows.is_empty() {
        eprintln!("no dead letters in {}", context.store_path()?.display());
    }
    output::table(["RUN", "SINCE", "WORKFLOW", "TASK", "ERROR"], &rows)?;
    Ok(ExitCode::SUCCESS)
}

fn show(context: &Context, letter: &LetterArg) -> Result<ExitCode> {
    let run = letter.run.clone();
    let letter: DeadLetter = look(context, Look::DeadLetter { run })?;
    output::json(&letter)?;
    Ok(ExitCode::SUCCESS)
}

fn redrive(context: &Context, args: &RedriveLettersArgs) -> Result<ExitCode> {
    match &args.run {
        Some(run) => control::redrive(context, run, args.input.as_deref(), &args.follow),
        None if args.all => redrive_all(context, args),
        None => Err(usage(
            "name the run of a dead letter, or --all\nhelp: `cofferdam deadletters list` shows those that there are",
        )),
    }
}

fn redrive_all(context: &Context, args: &RedriveLettersArgs) -> Result<ExitCode> {
    context.store_is_there()?;
    let config = context.config()?;
    let act = Act::RedriveAll {
        filter: args.filter.filter(),
        limit: args.limit,
    };
    let redriven: Vec<Redriven> = block_on(async {
        let reach = Reach::new(config, Others::Stay).await?;
        let done = reach.act(act).await;
        reach.close().await;
        done
    })?;
    let failed = redriven.iter().any(|one| one.error.is_some());
    if context.is_json() {
        output::json(&redriven)?;
    } else {
        let row = |one: &Redriven| {
            let came = one.error.clone().unwrap_or_else(|| "redriven".to_owned());
            [one.run.clone(), came]
        };
        let rows: Vec<[String; 2]> = redriven.iter().map(row).collect();
        if rows.is_empty() {
            eprintln!("no dead letter fits");
        }
        output::table(["RUN", "CAME OF IT"], &rows)?;
    }
    Ok(if failed {
        ExitCode::from(exit::FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn discard(context: &Context, letter: &LetterArg) -> Result<ExitCode> {
    let run = letter.run.clone();
    run::act_alone(context, Act::Discard { run })
}
