//! Plays seeds and tells what went wrong: `cargo xtask simulate`.

use std::process::ExitCode;

use anyhow::{Context, bail};
use cofferdam_simulation::{Mutation, Options, host, play};

/// What was asked for.
struct Arguments {
    from: u64,
    seeds: u64,
    options: Options,
}

/// A line of progress after so many seeds.
const PROGRESS: u64 = 1_000;

fn main() -> anyhow::Result<ExitCode> {
    let arguments = parse(std::env::args().skip(1))?;
    let host = host()?;
    let (mut steps, mut processes, mut wrong) = (0, 0, Vec::new());
    for (count, seed) in (arguments.from..)
        .zip(0..arguments.seeds)
        .map(|(s, c)| (c + 1, s))
    {
        let played = play(seed, &host, arguments.options)?;
        steps += played.steps;
        processes += played.processes;
        if let Some(trace) = &played.trace {
            print!("{trace}");
        }
        if let Some(violation) = played.violations.first() {
            eprintln!("seed {seed}: {violation}");
            eprintln!("  again, step by step: cargo xtask simulate --seed {seed} --trace");
            wrong.push(seed);
        }
        if count % PROGRESS == 0 {
            let failed = wrong.len();
            eprintln!("{count} seeds, {processes} processes, {steps} steps, {failed} failed");
        }
    }
    let failed = wrong.len();
    println!(
        "{} seeds, {processes} processes, {steps} steps, {failed} failed",
        arguments.seeds
    );
    Ok(ExitCode::from(u8::from(failed > 0)))
}

fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Arguments> {
    let mut arguments = Arguments {
        from: 0,
        seeds: 1_000,
        options: Options::default(),
    };
    while let Some(word) = words.next() {
        let mut number = || -> anyhow::Result<u64> {
            let value = words
                .next()
                .with_context(|| format!("{word} needs a number"))?;
            value
                .parse()
                .with_context(|| format!("{word} {value}: not a number"))
        };
        match word.as_str() {
            "--seeds" => arguments.seeds = number()?,
            "--from" => arguments.from = number()?,
            "--seed" => (arguments.from, arguments.seeds) = (number()?, 1),
            "--trace" => arguments.options.trace = true,
            "--mutation" => {
                let name = words.next().context("--mutation needs a name")?;
                let found = Mutation::named(&name);
                arguments.options.mutation = Some(found.with_context(|| {
                    format!(
                        "there is no mutation `{name}`; there are {:?}",
                        Mutation::ALL
                    )
                })?);
            }
            other => bail!("`{other}` is none of --seeds, --from, --seed, --trace, --mutation"),
        }
    }
    Ok(arguments)
}
