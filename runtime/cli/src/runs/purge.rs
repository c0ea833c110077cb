//! `cofferdam runs purge`

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, ValueEnum};
use cofferdam::{Act, PurgeFilter, Purged, Status};
use serde_json::{Value, json};

use crate::context::{Context, block_on};
use crate::reach::{Others, Reach};
use crate::{exit, output};

pub const EXAMPLES: &str = "\
Removes runs that have ended, with all that they left: journal, inputs and outputs, dead letter, reviews.
What they published stays, and so do calls that still wait for delivery. A run that has not ended is refused:
cancel it first. A run that is gone can be started again under its id or key. Nothing is removed unless runs
are named or --ended-before says how old they have to be; --dry-run tells what would go.

Examples:
  cofferdam runs purge 01K0ABCDEFGHJKMNPQRSTVWXYZ
  cofferdam runs purge --ended-before 30d --status completed --dry-run
  cofferdam runs purge --ended-before 0s --tenant acme --output json";

/// What `runs purge` takes.
#[derive(Debug, Args)]
pub struct PurgeArgs {
    /// The runs' ids
    #[arg(value_name = "RUN", required_unless_present = "ended_before")]
    runs: Vec<String>,
    /// Runs that ended at least so long ago
    #[arg(long, value_name = "DURATION", value_parser = crate::args::duration)]
    ended_before: Option<Duration>,
    /// Only runs that ended like this
    #[arg(long, value_enum)]
    status: Option<Ended>,
    /// Only runs of this tenant
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Remove nothing, and tell what would be removed
    #[arg(long)]
    dry_run: bool,
}

/// How a run has ended, as it is written on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Ended {
    Completed,
    Faulted,
    Cancelled,
}

impl From<Ended> for Status {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Completed => Self::Completed,
            Ended::Faulted => Self::Faulted,
            Ended::Cancelled => Self::Cancelled,
        }
    }
}

pub fn run(context: &Context, args: &PurgeArgs) -> Result<ExitCode> {
    context.store_is_there()?;
    let config = context.config()?;
    let mut gone = Gone::default();
    let done = block_on(async {
        let reach = Reach::new(config, Others::Stay).await?;
        let done = purge(context, args, &reach, &mut gone).await;
        reach.close().await;
        done
    });
    match &done {
        // Nothing was begun.
        Err(_) if gone.removed == 0 && gone.kept.is_none() => {}
        _ => gone.tell(context, args)?,
    }
    done?;
    Ok(ExitCode::SUCCESS)
}

/// What has become of the runs so far.
#[derive(Debug, Default)]
struct Gone {
    removed: usize,
    /// Those that are still there although they should not be, if it went wrong on the way.
    kept: Option<usize>,
}

impl Gone {
    /// Takes in what an error says of what went before it, and names the runs to people.
    fn hear(&mut self, error: &anyhow::Error, is_told: bool) {
        let Some(details) = exit::details(error) else {
            return;
        };
        let names = |key: &str| {
            let list = details[key].as_array().into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let (removed, kept): (Vec<String>, Vec<String>) = (names("removed"), names("kept"));
        let all = [("removed", &removed), ("still there", &kept)];
        for (what, runs) in all.into_iter().filter(|_| is_told) {
            for run in runs {
                eprintln!("{what}: {run}");
            }
        }
        self.removed += removed.len();
        self.kept = Some(kept.len());
    }

    fn tell(&self, context: &Context, args: &PurgeArgs) -> Result<()> {
        let removed = self.removed;
        let (key, done) = if args.dry_run {
            ("wouldRemove", "would be removed")
        } else {
            ("removed", "removed")
        };
        if context.is_json() {
            let mut told = json!({ key: removed });
            if let Some(kept) = self.kept {
                told["kept"] = kept.into();
            }
            return output::json(&told);
        }
        let kept = self
            .kept
            .map_or_else(String::new, |kept| format!(", {kept} still there"));
        output::text(&format!("{removed} runs {done}{kept}\n"))
    }
}

/// Goes from page to page, so that each request is short, unless runs are named: of those all go, or none.
/// What was removed is counted, whatever comes after it.
async fn purge(context: &Context, args: &PurgeArgs, reach: &Reach, gone: &mut Gone) -> Result<()> {
    let filter = PurgeFilter {
        runs: args.runs.clone(),
        ended_before_ms: args.ended_before.map(|age| age.as_millis() as u64),
        status: args.status.map(Status::from),
        tenant: args.tenant.clone(),
        dry_run: args.dry_run,
    };
    let mut after = None;
    loop {
        let filter = filter.clone();
        let page: Result<Purged> = reach.act(Act::Purge { filter, after }).await;
        let is_told = !context.is_json() && !args.dry_run;
        let page = page.inspect_err(|error| gone.hear(error, is_told))?;
        gone.removed += page.runs.len();
        if args.dry_run && !context.is_json() {
            for run in &page.runs {
                eprintln!("{run}");
            }
        }
        after = page.next;
        if after.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_before_an_error_is_counted() {
        let mut gone = Gone {
            removed: 500,
            kept: None,
        };
        gone.hear(&anyhow::anyhow!("another"), true);
        assert_eq!((gone.removed, gone.kept), (500, None));
        let error = cofferdam::Error::PurgeStopped {
            removed: vec!["a".to_owned(), "b".to_owned()],
            kept: vec!["c".to_owned()],
            why: Box::new(cofferdam::Error::ShuttingDown),
        };
        gone.hear(&error.into(), true);
        assert_eq!((gone.removed, gone.kept), (502, Some(1)));
    }
}
