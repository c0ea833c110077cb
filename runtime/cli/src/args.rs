//! What can be written on the command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::output::Format;
use crate::{
    backup, call, chaos, compile, completions, connection, deadletters, demo, doctor, errors,
    events, plugin, reviews, run, runs, schedules, serve,
};

const EXIT_CODES: &str = "\
Exit codes:
  0  completed
  1  the run faulted, the call failed, a check did not pass
  2  the command line is wrong, or a file that it names (config, workflow, plugin, input)
  3  the run waits: parked on a connection, or for an event or a person's decision
  4  the store cannot be opened, read or written

Data goes to standard output and nothing else does. Every error has a code (CD0202) that
`cofferdam errors CODE` explains.";

/// An agent runtime whose connectors cannot sink it.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, after_help = EXIT_CODES, propagate_version = true)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub verb: Verb,
}

/// What every verb takes.
#[derive(Debug, Args)]
pub struct Global {
    /// The configuration [default: cofferdam.toml in this folder, if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "COFFERDAM_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where runs are kept [default: the configuration's [store] path, else .cofferdam]
    #[arg(long, global = true, value_name = "DIR", env = "COFFERDAM_DATA")]
    pub data: Option<PathBuf>,
    /// How data is written
    #[arg(
        long,
        global = true,
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    pub output: Format,
    /// Tell more on standard error; twice for still more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a workflow and print its output
    #[command(after_long_help = run::EXAMPLES)]
    Run(run::RunArgs),
    /// Go on with what waits, and stay until asked to stop
    #[command(after_long_help = serve::EXAMPLES)]
    Serve,
    /// Call one action of a plugin, in a chamber, without a store
    #[command(after_long_help = call::EXAMPLES)]
    Call(call::CallArgs),
    /// Look at plugins, prepare them, and swap them
    #[command(subcommand)]
    Plugin(plugin::PluginVerb),
    /// Look at runs, and let them go on
    #[command(subcommand)]
    Runs(runs::RunsVerb),
    /// Look at runs that are out of options
    #[command(subcommand)]
    Deadletters(deadletters::DeadlettersVerb),
    /// Look at tasks that wait for a person, and decide
    #[command(subcommand)]
    Reviews(reviews::ReviewsVerb),
    /// Look at the configured connections
    #[command(subcommand)]
    Connection(connection::ConnectionVerb),
    /// Look at events, publish them, and look after those who read them
    #[command(subcommand)]
    Events(events::EventsVerb),
    /// Look at the schedules of workflows, and pause them
    #[command(subcommand)]
    Schedules(schedules::SchedulesVerb),
    /// Write the store to a file
    #[command(after_long_help = backup::BACKUP_EXAMPLES)]
    Backup(backup::BackupArgs),
    /// Make a store out of a backup
    #[command(after_long_help = backup::RESTORE_EXAMPLES)]
    Restore(backup::RestoreArgs),
    /// Let another engine keep the store
    #[command(after_long_help = backup::MIGRATE_EXAMPLES)]
    MigrateStore(backup::MigrateArgs),
    /// Check configuration, plugins, store, disk and connections
    #[command(after_long_help = doctor::EXAMPLES)]
    Doctor(doctor::DoctorArgs),
    /// See it survive outages, crashes and wrong answers, with services that stand in for real ones
    #[command(after_long_help = demo::EXAMPLES)]
    Demo(demo::DemoArgs),
    /// Drill: let one thing go wrong on purpose, and see what was promised for that
    #[command(after_long_help = chaos::EXAMPLES)]
    Chaos(chaos::ChaosArgs),
    /// Print completions for a shell
    #[command(after_long_help = completions::EXAMPLES)]
    Completions(completions::CompletionsArgs),
    /// Explain an error code
    #[command(after_long_help = errors::EXAMPLES)]
    Errors(errors::ErrorsArgs),
    /// Compile a component, for a runtime that is this program too
    #[command(name = compile::VERB, hide = true)]
    CompileComponent(compile::CompileArgs),
}

/// Longer than anybody waits, and far from where counting milliseconds ends.
const DURATION_MAX: Duration = Duration::from_hours(100 * 366 * 24);

/// Reads `30s`, `5m`, `1h 30m`; `0` is zero.
pub fn duration(text: &str) -> Result<Duration, String> {
    const FORM: &str = "write a number and a unit, such as 500ms, 30s or 1h";
    if text.trim_start().starts_with('-') {
        return Err(format!("a duration is not negative; {FORM}"));
    }
    let parsed = humantime::parse_duration(text).map_err(|error| format!("{error}; {FORM}"))?;
    if parsed > DURATION_MAX {
        return Err("that is longer than a century; write at most 100years".to_owned());
    }
    Ok(parsed)
}

/// The same for what is nothing if it takes no time.
pub fn some_time(text: &str) -> Result<Duration, String> {
    let parsed = duration(text)?;
    if parsed.is_zero() {
        return Err("nothing would happen in no time; write at least 1ms".to_owned());
    }
    Ok(parsed)
}

/// More rows than these are no list for anybody.
const ROWS_MAX: usize = 1_000_000;

/// Reads how many of something are wanted: at least one.
pub fn count(text: &str) -> Result<usize, String> {
    let count = text
        .parse()
        .ok()
        .filter(|count| (1..=ROWS_MAX).contains(count));
    count.ok_or_else(|| format!("write a whole number from 1 to {ROWS_MAX}"))
}

/// Reads `64MiB`.
pub fn bytes(text: &str) -> Result<u64, String> {
    cofferdam_core::manifest::parse_bytes(text).ok_or_else(|| {
        "write a whole number above zero and a unit (B, KiB, MiB or GiB), such as 64MiB".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
