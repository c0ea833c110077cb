//! `cofferdam errors`: the pages of `docs/errors`, which travel in the program.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;

use crate::exit::usage;
use crate::output;

pub const EXAMPLES: &str = "\
Examples:
  cofferdam errors CD0202
  cofferdam errors";

/// Codes and pages, in the order of the codes; written by the build script.
const PAGES: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// What `errors` takes.
#[derive(Debug, Args)]
pub struct ErrorsArgs {
    /// The code, as it stands in a message [default: list every code]
    code: Option<String>,
}

pub fn run(args: &ErrorsArgs) -> Result<ExitCode> {
    let Some(code) = &args.code else {
        let titles: Vec<String> = PAGES
            .iter()
            .map(|(_, page)| format!("{}\n", title(page)))
            .collect();
        output::text(&titles.concat())?;
        return Ok(ExitCode::SUCCESS);
    };
    let wanted = code.to_ascii_uppercase();
    let Some((_, page)) = PAGES.iter().find(|(code, _)| *code == wanted) else {
        return Err(usage(format!(
            "there is no error code `{code}`\nhelp: `cofferdam errors` lists them all"
        )));
    };
    output::text(page)?;
    Ok(ExitCode::SUCCESS)
}

/// The first line, without its mark.
fn title(page: &str) -> &str {
    page.lines()
        .next()
        .unwrap_or_default()
        .trim_start_matches('#')
        .trim()
}
