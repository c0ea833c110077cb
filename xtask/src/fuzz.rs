//! `cargo xtask fuzz`: the fuzz targets, each for a while.

use std::{
    ffi::OsString,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::{
    Verb,
    args::{self, Args},
    shell::{self, say},
    tools,
    workspace::Workspace,
};

pub(crate) const VERB: Verb = Verb {
    name: "fuzz",
    usage: "[--seconds N] [TARGET]",
    summary: "feed random input to everything that is read from others",
    help: "\
Runs each target of fuzz/ (or TARGET alone) for N seconds (60 unless told), one after the other,
and ends with 1 at the first input that breaks one; the input is kept and its path is told.

Built with coverage and without a sanitizer, which takes a stable compiler and no rebuild of the
standard library: the code is safe Rust, where a defect is a panic, an overflow, or an input that
takes too much time or memory. cargo-fuzz is built once into <target>/tools if none is installed.
What was learned is kept in <target>/fuzz/corpus; fuzz/seeds is where each target begins. The
first build takes as long as wasmtime takes to compile.",
    run: |args| {
        run(&Workspace::host()?, &Plan::parse(args)?)?;
        Ok(ExitCode::SUCCESS)
    },
};

/// Built when none is installed.
const VERSION: &str = "0.13.2";
const TARGETS: [&str; 6] = [
    "manifest",
    "descriptor",
    "config",
    "component",
    "package",
    "egress",
];
const SECONDS_DEFAULT: u64 = 60;
/// Larger inputs are slower and seldom reach other code.
const INPUT_BYTES_MAX: u64 = 16 << 10;
/// No input of that size may take longer, on a machine that is busy.
const INPUT_SECONDS_MAX: u64 = 10;
/// Nor more memory.
const MEMORY_MIB_MAX: u64 = 2_048;

/// What to run, and for how long.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    targets: Vec<&'static str>,
    seconds: u64,
}

impl Plan {
    fn parse(args: &[String]) -> Result<Self> {
        let mut seconds = SECONDS_DEFAULT;
        let mut others = Vec::new();
        let mut left = args.iter();
        while let Some(arg) = left.next() {
            if arg != "--seconds" {
                others.push(arg.clone());
                continue;
            }
            let number = left.next().and_then(|text| text.parse().ok());
            seconds = number.filter(|seconds| *seconds > 0).ok_or_else(|| {
                args::Error::new("`--seconds` needs a whole number above zero".to_owned())
            })?;
        }
        let names = Args::parse(&others, &[], 1)?.names;
        let targets = match names.first() {
            None => TARGETS.to_vec(),
            Some(name) => {
                let known = TARGETS.iter().find(|target| *target == name);
                let unknown = || {
                    let known = TARGETS.join(", ");
                    args::Error::new(format!("there is no target `{name}`; there are {known}"))
                };
                vec![*known.ok_or_else(unknown)?]
            }
        };
        Ok(Self { targets, seconds })
    }
}

fn run(workspace: &Workspace, plan: &Plan) -> Result<()> {
    let program = tools::find_or_build(workspace, "fuzz", "cargo-fuzz", VERSION, &[])?;
    let folder = workspace.target.join("fuzz");
    for target in &plan.targets {
        say("fuzz", &format!("{target}, for {} s", plan.seconds));
        let corpus = folder.join("corpus").join(target);
        let artifacts = folder.join("artifacts").join(target);
        for made in [&corpus, &artifacts] {
            std::fs::create_dir_all(made)
                .with_context(|| format!("cannot make {}", made.display()))?;
        }
        let seeds = workspace.root.join("fuzz/seeds").join(target);
        let mut cargo_fuzz = Command::new(&program);
        cargo_fuzz.args(["fuzz", "run", "--sanitizer", "none", "--fuzz-dir"]);
        cargo_fuzz.arg(workspace.root.join("fuzz"));
        cargo_fuzz.arg("--target-dir").arg(folder.join("build"));
        cargo_fuzz.arg(target).args([&corpus, &seeds]).arg("--");
        cargo_fuzz.args(limits(plan.seconds));
        let mut prefix = OsString::from("-artifact_prefix=");
        prefix.push(artifacts.join(""));
        cargo_fuzz.arg(prefix);
        shell::run(&mut cargo_fuzz).with_context(|| {
            format!(
                "`{target}` broke; its inputs are in {}",
                artifacts.display()
            )
        })?;
    }
    Ok(())
}

/// What libFuzzer is told.
fn limits(seconds: u64) -> [String; 5] {
    [
        format!("-max_total_time={seconds}"),
        format!("-max_len={INPUT_BYTES_MAX}"),
        format!("-timeout={INPUT_SECONDS_MAX}"),
        format!("-rss_limit_mb={MEMORY_MIB_MAX}"),
        "-print_final_stats=1".to_owned(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Plan> {
        let words: Vec<String> = line.split_whitespace().map(String::from).collect();
        Plan::parse(&words)
    }

    #[test]
    fn all_targets_run_for_a_minute_unless_told_otherwise() {
        let plan = parse("").expect("valid");
        assert_eq!((plan.targets.len(), plan.seconds), (TARGETS.len(), 60));
        let plan = parse("egress --seconds 5").expect("valid");
        assert_eq!((plan.targets, plan.seconds), (vec!["egress"], 5));
    }

    #[test]
    fn a_target_or_a_time_that_makes_no_sense_is_refused() {
        for (line, told) in [
            ("egres", "there is no target `egres`"),
            ("--seconds", "whole number"),
            ("--seconds 0", "whole number"),
            ("--seconds soon", "whole number"),
            ("manifest egress", "unknown argument"),
            ("--fast", "unknown argument"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.is::<args::Error>());
            assert!(error.to_string().contains(told), "{error}");
        }
    }

    #[test]
    fn every_target_is_there_and_has_seeds() {
        let fuzz = Workspace::host().expect("cargo metadata").root.join("fuzz");
        let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).expect("readable");
        for target in TARGETS {
            assert!(fuzz.join(format!("fuzz_targets/{target}.rs")).is_file());
            assert!(
                manifest.contains(&format!("name = \"{target}\"")),
                "{target}"
            );
            let seeds = std::fs::read_dir(fuzz.join("seeds").join(target)).expect("seeds");
            assert!(seeds.count() > 0, "{target}");
        }
    }
}
