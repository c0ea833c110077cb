//! `cofferdam chaos`: drills. One thing goes wrong on purpose while leads arrive, and what was
//! promised for that is set beside what was seen, counted at the services.
//!
//! The stage is the demo's: the services, a worker process, and this one.

mod drill;
mod leads;
mod promise;
mod report;

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use cofferdam::Config;

use crate::args;
use crate::context::{Context, block_on};
use crate::demo::act::{self, Shown};
use crate::demo::example;
use crate::demo::screen::Screen;
use crate::exit::{self, usage};
use crate::output;
use crate::style::Style;
use drill::Drill;
use promise::Kept;

/// Shown by `cofferdam chaos --help`.
pub const EXAMPLES: &str = "\
Examples:
  cofferdam chaos timeout                       the CRM answers 30 s late
  cofferdam chaos outage --lasts 30s            it is gone for half a minute instead of five
  cofferdam chaos saturation --output json
  cofferdam chaos corruption --config mine.toml your policies instead of the example's

What is drilled is the example's workflow (examples/lead-intake) toward services that stand in for
real ones; a configuration of yours has to have its connections: normalize, score, crm, db, mail,
chat and pay. Exit code 0 if every promise was kept.";

/// What a drill takes.
#[derive(Debug, Args)]
pub struct ChaosArgs {
    /// What goes wrong
    #[arg(value_enum)]
    scenario: Scenario,
    /// How long it lasts [default: 60s of timeouts, 5m of outage]
    #[arg(long, value_name = "DURATION", value_parser = args::some_time)]
    lasts: Option<Duration>,
    /// How many leads arrive [default: 100, and 1000 for saturation]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(10..=10_000))]
    leads: Option<u64>,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// A connector answers each request 30 s late
    Timeout,
    /// A connector is gone
    Outage,
    /// Ten times the usual load
    Saturation,
    /// Leads that are no leads, and answers that make no sense
    Corruption,
}

/// Drills.
pub fn run(context: &Context, args: &ChaosArgs) -> Result<ExitCode> {
    let config = context.config_file().map(read).transpose()?;
    let config = config.or_else(|| drill::policies(args.scenario));
    let temporary = tempfile::tempdir().context("there is no room for temporary files")?;
    example::lay_out(temporary.path())?;
    let origin = context.config_file().map(|path| path.display().to_string());
    let origin = origin.unwrap_or_else(|| "the example's configuration".to_owned());
    let parsed = parse(config.as_deref(), &origin, temporary.path())?;
    let drill = drill::of(args.scenario, args.lasts, args.leads, &parsed);
    let (shown, drill) = block_on(play(drill, temporary.path(), config))?;
    let kept: Vec<Kept> = drill.promises.iter().map(|p| p.look(&shown)).collect();
    if context.is_json() {
        output::json(&report::json(&drill, &shown, &kept))?;
    } else {
        output::text(&report::text(&drill, &shown, &kept, Style::stdout()))?;
    }
    let all = kept.iter().all(|promise| promise.kept);
    Ok(if all {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::FAILED)
    })
}

async fn play(mut drill: Drill, dir: &Path, config: Option<String>) -> Result<(Shown, Drill)> {
    let mut screen = Screen::new();
    let plan = drill.plan(dir, config);
    Ok((act::show(plan, &mut screen).await?, drill))
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path)
        .map_err(|error| usage(format!(
            "cannot read `{}`: {error}\nhelp: check the path, or leave --config out to drill the example's policies",
            path.display()
        )))
}

/// The policies that the promises are about; a configuration that the drill cannot use is refused
/// before anything is started. Its paths are relative to the drill's folder.
fn parse(text: Option<&str>, origin: &str, dir: &Path) -> Result<Config> {
    let text = text.unwrap_or(example::CONFIG);
    let parsed = Config::parse(text, origin, dir);
    let config = parsed.map_err(cofferdam::Error::from)?;
    let missing: Vec<&str> = example::CONNECTIONS
        .into_iter()
        .filter(|name| config.connection(name).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(config);
    }
    Err(usage(format!(
        "{origin} has no connection {}, which the drill's workflow calls\n\
         help: begin with a copy of examples/lead-intake/cofferdam.toml and change its policies",
        missing.join(", ")
    )))
}
