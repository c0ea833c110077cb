//! `cargo xtask VERB`: the build tasks of this repository.
//!
//! One verb per file, each a plain sequence of commands; what a verb does is told in short lines
//! on standard error, so that standard output stays free for data. Every verb may be run again:
//! what is done already is found and not repeated.

mod args;
mod bench;
mod ci;
mod demo;
mod deny;
mod fingerprint;
mod fuzz;
mod guests;
mod postgres;
mod setup;
mod shell;
mod simulate;
mod test;
mod tools;
mod workspace;

use std::{fmt::Write, process::ExitCode};

use anyhow::Result;

/// One thing that `cargo xtask` can do.
struct Verb {
    name: &'static str,
    /// What may follow the name.
    usage: &'static str,
    /// One line for the list of verbs.
    summary: &'static str,
    /// The rest of what `--help` says.
    help: &'static str,
    run: fn(&[String]) -> Result<ExitCode>,
}

/// In the order in which somebody new meets them; the last ones are for CI.
const VERBS: &[Verb] = &[
    setup::VERB,
    guests::VERB,
    demo::VERB,
    test::VERB,
    bench::VERB,
    simulate::VERB,
    fuzz::VERB,
    ci::FMT,
    ci::LINT,
    ci::DOCS,
    deny::VERB,
    ci::VERB,
];

/// The exit code of a command line that makes no sense.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = args.split_first() else {
        eprint!("{}", overview());
        return ExitCode::from(USAGE);
    };
    if matches!(name.as_str(), "help" | "--help" | "-h") {
        print!("{}", overview());
        return ExitCode::SUCCESS;
    }
    let Some(verb) = VERBS.iter().find(|verb| verb.name == name) else {
        eprintln!("error: there is no verb `{name}`\n");
        eprint!("{}", overview());
        return ExitCode::from(USAGE);
    };
    if args::wants_help(rest) {
        print!("{}", page(verb));
        return ExitCode::SUCCESS;
    }
    match (verb.run)(rest) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            let is_usage = error.is::<args::Error>();
            ExitCode::from(if is_usage { USAGE } else { 1 })
        }
    }
}

/// The list of verbs.
fn overview() -> String {
    let mut text = String::from("Usage: cargo xtask VERB [ARGUMENTS]\n\n");
    for verb in VERBS {
        let _ = writeln!(text, "  {:<8} {}", verb.name, verb.summary);
    }
    text + "\n`cargo xtask VERB --help` says more about one of them.\n"
}

/// What `cargo xtask VERB --help` prints.
fn page(verb: &Verb) -> String {
    let line = format!("Usage: cargo xtask {} {}", verb.name, verb.usage);
    format!("{}\n\n{}\n\n{}\n", line.trim_end(), verb.summary, verb.help)
}
