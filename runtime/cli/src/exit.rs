//! Exit codes, and how an error becomes one.
//!
//! `0` completed, `1` faulted or failed, `2` bad usage or bad input files, `3` waiting,
//! `4` storage.

use std::fmt;
use std::process::ExitCode;

/// The run faulted, the call failed, or a check did not pass.
pub const FAILED: u8 = 1;
/// The command line or a file that it names is wrong.
pub const USAGE: u8 = 2;
/// The run waits for a connection, an instant or a person.
pub const WAITING: u8 = 3;
/// The store failed.
pub const STORAGE: u8 = 4;

/// An error of this program's own, with its exit code.
#[derive(Debug)]
pub struct Refusal {
    exit: u8,
    message: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

/// Something is wrong with the command line or with a file that it names.
pub fn usage(message: impl Into<String>) -> anyhow::Error {
    Refusal {
        exit: USAGE,
        message: message.into(),
    }
    .into()
}

/// Something is wrong with the store.
pub fn storage(message: impl Into<String>) -> anyhow::Error {
    Refusal {
        exit: STORAGE,
        message: message.into(),
    }
    .into()
}

/// Tells the error and chooses the exit code. A reader that has gone away is no error.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    // Standard error may be gone too; there is nobody left to tell then.
    let _ = fmt::Write::write_str(&mut Stderr, &format!("error: {}\n", text(error)));
    ExitCode::from(code(error))
}

/// Standard error, failures ignored.
struct Stderr;

impl fmt::Write for Stderr {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        use std::io::Write as _;
        std::io::stderr()
            .write_all(text.as_bytes())
            .map_err(|_| fmt::Error)
    }
}

fn text(error: &anyhow::Error) -> String {
    // These name their causes themselves.
    let text = if let Some(host) = error.downcast_ref::<cofferdam_host::Error>() {
        format!("{}: {host}", host.code())
    } else if let Some(runtime) = error.downcast_ref::<cofferdam::Error>() {
        runtime.to_string()
    } else if let Some(config) = error.downcast_ref::<cofferdam::config::Error>() {
        config.to_string()
    } else {
        format!("{error:#}")
    };
    // Multi-line messages indent what follows the first line.
    text.replace('\n', "\n  ")
}

fn code(error: &anyhow::Error) -> u8 {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return refusal.exit;
    }
    if let Some(error) = error.downcast_ref::<cofferdam::Error>() {
        return of_runtime(error);
    }
    let is_input = error.downcast_ref::<cofferdam_host::Error>().is_some()
        || error.downcast_ref::<cofferdam::config::Error>().is_some();
    if is_input { USAGE } else { FAILED }
}

fn of_runtime(error: &cofferdam::Error) -> u8 {
    use cofferdam::Class;
    if error.is_storage() {
        return STORAGE;
    }
    match error.class() {
        Class::InvalidInput | Class::NotFound | Class::Conflict | Class::Unsupported => USAGE,
        Class::Unavailable => WAITING,
        Class::Unauthenticated
        | Class::Denied
        | Class::RateLimited
        | Class::Timeout
        | Class::Refused
        | Class::Internal
        | Class::Other => FAILED,
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

/// Help and version go to stdout with 0, mistakes to stderr with 2.
pub fn of_clap(error: &clap::Error) -> ExitCode {
    // Nobody listens if this fails.
    let _ = error.print();
    if error.use_stderr() {
        ExitCode::from(USAGE)
    } else {
        ExitCode::SUCCESS
    }
}
