//! `cofferdam compile-component`: the child in which a runtime compiles. Nobody else calls it, so it
//! is not in the help.

use std::process::ExitCode;

use clap::Args;

/// The verb's name.
pub const VERB: &str = "compile-component";

/// What the runtime passes on.
#[derive(Debug, Args)]
pub struct CompileArgs {
    /// As `cofferdam_host::compile_child` takes them
    #[arg(hide = true, trailing_var_arg = true)]
    arguments: Vec<String>,
}

pub fn run(args: &CompileArgs) -> ExitCode {
    cofferdam::compile_child(args.arguments.iter().cloned()).into()
}
