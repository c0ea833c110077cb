//! `cofferdam demo`: a hundred leads through five services while these fail, once with Cofferdam
//! and once without, counted at the services.
//!
//! Three kinds of processes: the stand-in services; the worker, which is this program with a
//! runtime and gets killed; and this one, which plays the [`script`], draws, and counts.

pub mod act;
pub mod example;
mod leads;
pub mod message;
mod report;
pub mod screen;
pub mod script;
mod standins;
pub mod tally;
pub mod watched;
mod worker;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;

use crate::context::{Context, block_on};
use crate::style::Style;
use crate::{exit, interrupt, output};
use act::{Plan, Shown};
use screen::Screen;
use standins::Standins;

/// Leads arrive this far apart.
const PACE_MS: u64 = 100;
/// With `--fast`.
const PACE_FAST_MS: u64 = 25;
/// The folder of each showing.
const WITH: &str = "with";
const WITHOUT: &str = "without";
/// The example has no more.
const LEADS_MAX: u64 = 100;
/// Runs that are in memory at once; more leads wait outside. A parked run is not in memory.
pub const ACTIVE_MAX: usize = 16;
/// A showing that takes longer is stuck; the whole takes half a minute on a machine that is free.
const TAKES_MAX: Duration = Duration::from_mins(5);

/// Shown by `cofferdam demo --help`.
pub const EXAMPLES: &str = "\
Examples:
  cofferdam demo                    the whole
  cofferdam demo --fast --no-brittle --output json
  cofferdam demo --services         the stand-in services alone, for examples/lead-intake";

/// What the demo takes.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many leads arrive
    #[arg(long, value_name = "N", default_value_t = LEADS_MAX, value_parser = clap::value_parser!(u64).range(1..=LEADS_MAX))]
    leads: u64,
    /// Let the leads arrive faster
    #[arg(long)]
    fast: bool,
    /// Keep configuration, store, database and log in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Leave the comparison out
    #[arg(long)]
    no_brittle: bool,
    /// Run the stand-in services alone, on the ports of examples/lead-intake, until Ctrl-C
    #[arg(long, conflicts_with_all = ["leads", "fast", "keep", "no_brittle"])]
    services: bool,
    /// Do the work that this file describes
    #[arg(long, hide = true, value_name = "FILE")]
    worker: Option<PathBuf>,
}

/// Shows it. Exit code 0 only if nothing was lost, done twice or left half-done.
pub fn run(context: &Context, args: &DemoArgs) -> Result<ExitCode> {
    if let Some(job) = &args.worker {
        return block_on(worker::work(job)).map(|()| ExitCode::SUCCESS);
    }
    if args.services {
        return block_on(serve()).map(|()| ExitCode::SUCCESS);
    }
    let temporary = tempfile::tempdir().context("there is no room for temporary files")?;
    let dir = folder(args.keep.as_deref().unwrap_or(temporary.path()))?;
    let (resilient, brittle) = block_on(show(args, dir))?;
    if context.is_json() {
        output::json(&report::json(&resilient, brittle.as_ref()))?;
    } else {
        output::text(&report::text(&resilient, brittle.as_ref(), Style::stdout()))?;
    }
    let clean = resilient.tally.is_clean();
    Ok(if clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::FAILED)
    })
}

/// A folder for the files of both showings. One that has those of an earlier demo would be gone on
/// with instead of begun.
fn folder(dir: &Path) -> Result<PathBuf> {
    let dir = std::path::absolute(dir)?;
    if dir.exists() && !dir.is_dir() {
        return Err(exit::usage(format!(
            "`{}` is no folder\nhelp: name an empty or absent folder with --keep DIR",
            dir.display()
        )));
    }
    if dir.join(WITH).exists() || dir.join(WITHOUT).exists() {
        let shown = dir.display();
        return Err(exit::usage(format!(
            "`{shown}` has an earlier demo in it\nhelp: name another folder with --keep DIR"
        )));
    }
    Ok(dir)
}

async fn show(args: &DemoArgs, dir: PathBuf) -> Result<(Shown, Option<Shown>)> {
    let mut screen = Screen::new();
    let leads = usize::try_from(args.leads).unwrap_or(usize::MAX);
    let plan = |title, name: &str, brittle| Plan {
        title,
        dir: dir.join(name),
        leads,
        pace_ms: if args.fast { PACE_FAST_MS } else { PACE_MS },
        brittle,
        csv: example::LEADS.to_owned(),
        config: None,
        active_max: ACTIVE_MAX,
        script: script::script(leads),
        takes_max: TAKES_MAX,
    };
    let resilient = act::show(plan("With Cofferdam", WITH, false), &mut screen).await?;
    if args.no_brittle {
        return Ok((resilient, None));
    }
    let plan = plan("The same steps without it", WITHOUT, true);
    let brittle = act::show(plan, &mut screen).await?;
    Ok((resilient, Some(brittle)))
}

/// The services alone.
async fn serve() -> Result<()> {
    let arguments = [
        ("--control", format!("127.0.0.1:{}", example::CONTROL_PORT)),
        ("--hubspot-port", example::HUBSPOT_PORT.to_string()),
        ("--slack-port", example::SLACK_PORT.to_string()),
        ("--stripe-port", example::STRIPE_PORT.to_string()),
        ("--smtp-port", example::SMTP_PORT.to_string()),
        ("--generic-port", example::GENERIC_PORT.to_string()),
    ];
    let arguments: Vec<String> = arguments
        .into_iter()
        .flat_map(|(name, value)| [name.to_owned(), value])
        .collect();
    let mut standins = Standins::start(&arguments).await?;
    let rows = [
        ("CRM (HubSpot)", example::HUBSPOT_PORT),
        ("chat (Slack)", example::SLACK_PORT),
        ("payment (Stripe)", example::STRIPE_PORT),
        ("mail (SMTP)", example::SMTP_PORT),
        ("control: faults and counts", example::CONTROL_PORT),
    ];
    let rows = rows.map(|(what, port)| [what.to_owned(), format!("127.0.0.1:{port}")]);
    output::table(["service", "listens on"], &rows)?;
    eprintln!("they run until Ctrl-C");
    tokio::select! {
        ended = standins.ended() => ended,
        () = interrupt::asked() => standins.stop().await,
    }
}
