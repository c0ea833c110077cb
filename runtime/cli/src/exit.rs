//! Exit codes, and how an error becomes one.
//!
//! `0` completed, `1` faulted or failed, `2` bad usage or bad input files, `3` waiting,
//! `4` storage.

use std::fmt;
use std::process::ExitCode;

use serde_json::Value;

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

/// Nothing is wrong, and it has to be asked again later.
pub fn waiting(message: impl Into<String>) -> anyhow::Error {
    Refusal {
        exit: WAITING,
        message: message.into(),
    }
    .into()
}

/// Tells the error and chooses the exit code. A reader that has gone away is no error.
pub fn report(error: &anyhow::Error, json: bool) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    let exit = code(error);
    tell(&text(error), exit, json, details(error));
    ExitCode::from(exit)
}

/// Standard error may be gone too; there is nobody left to tell then.
fn tell(text: &str, exit: u8, json: bool, details: Option<Value>) {
    let code = code_in(text);
    let known = if exit == FAILED { UNEXPECTED } else { COMMAND };
    if json {
        let message = text.strip_prefix(code.unwrap_or_default()).unwrap_or(text);
        let message = message.trim_start_matches(": ");
        let (message, help) = match message.split_once("\nhelp: ") {
            Some((message, help)) => (message, Some(help)),
            None => (message, None),
        };
        let mut error = serde_json::json!({
            "code": code.unwrap_or(known), "message": message, "exit": exit,
        });
        if let Some(help) = help {
            error["help"] = help.into();
        }
        if let Some(details) = details {
            error["details"] = details;
        }
        let line = serde_json::json!({ "error": error });
        let _ = fmt::Write::write_str(&mut Stderr, &format!("{line:#}\n"));
        return;
    }
    // Multi-line messages indent what follows the first line.
    let text = text.replace('\n', "\n  ");
    let text = match code {
        Some(_) => text,
        None => format!("{known}: {text}"),
    };
    let _ = fmt::Write::write_str(&mut Stderr, &format!("error: {text}\n"));
}

/// The code of messages about the command line and what it names that have none of their own.
const COMMAND: &str = "CD0218";
/// The code of failures that nothing else explains: of the operating system, mostly.
const UNEXPECTED: &str = "CD0219";

/// The code that a message begins with, or has after the place that it begins with.
fn code_in(text: &str) -> Option<&str> {
    text.match_indices("CD").find_map(|(at, _)| {
        let code = text.get(at..at + 6)?;
        let is_code = code[2..].bytes().all(|b| b.is_ascii_digit());
        (is_code && text.get(at + 6..)?.starts_with(':')).then_some(code)
    })
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

/// What programs are told besides.
pub fn details(error: &anyhow::Error) -> Option<Value> {
    error.downcast_ref::<cofferdam::Error>()?.details()
}

/// The message, with its code where it has one and its help in a line of its own.
pub fn text(error: &anyhow::Error) -> String {
    // These name their causes themselves.
    if let Some(host) = error.downcast_ref::<cofferdam_host::Error>() {
        format!("{}: {host}", host.code())
    } else if let Some(runtime) = error.downcast_ref::<cofferdam::Error>() {
        runtime.to_string()
    } else if let Some(config) = error.downcast_ref::<cofferdam::config::Error>() {
        config.to_string()
    } else {
        format!("{error:#}")
    }
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
pub fn of_clap(error: &clap::Error, json: bool) -> ExitCode {
    if !error.use_stderr() {
        // Nobody listens if this fails.
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    if let Some(text) = negative(error).or_else(|| no_text(error)) {
        tell(&text, USAGE, json, None);
        return ExitCode::from(USAGE);
    }
    if json {
        let text = error.render().to_string();
        let text = text.trim().trim_start_matches("error: ");
        // What clap adds in paragraphs of their own says how it is done.
        let (message, help) = text.split_once("\n\n").unwrap_or((text, ""));
        let help: Vec<&str> = help.split("\n\n").map(str::trim).collect();
        let help = help.join("; ");
        let text = match help.as_str() {
            "" => message.to_owned(),
            help => format!("{message}\nhelp: {help}"),
        };
        tell(&text, USAGE, true, None);
    } else {
        let text = error.render();
        let text = if crate::style::stderr_is_terminal() {
            text.ansi().to_string()
        } else {
            text.to_string()
        };
        let text = text.replacen("error:", &format!("error: {COMMAND}:"), 1);
        let _ = fmt::Write::write_str(&mut Stderr, &text);
    }
    ExitCode::from(USAGE)
}

/// What is told of a number below zero: alone it looks like an option that nobody knows.
fn negative(error: &clap::Error) -> Option<String> {
    use clap::error::{ContextKind, ErrorKind};
    let said = |kind| Some(error.get(kind)?.to_string());
    let is_number = |text: &str| {
        let digits = text.strip_prefix('-').unwrap_or_default();
        digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
    };
    let (place, value) = match error.kind() {
        ErrorKind::UnknownArgument => {
            let unknown = said(ContextKind::InvalidArg).filter(|arg| is_number(arg))?;
            let args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
            let args: Vec<String> = args.collect();
            let at = args.iter().position(|arg| arg.starts_with(&unknown))?;
            let before = at.checked_sub(1).map_or("", |before| &args[before]);
            // Anything else that begins like this may be meant as a name.
            if !before.starts_with("--") {
                return None;
            }
            (before.to_owned(), args[at].clone())
        }
        ErrorKind::ValueValidation => (
            said(ContextKind::InvalidArg)?,
            said(ContextKind::InvalidValue).filter(|value| is_number(value))?,
        ),
        _ => return None,
    };
    Some(format!(
        "`{place} {value}`: it cannot be negative\nhelp: write a value from zero on, such as `{}`; \
         `cofferdam VERB --help` tells what is allowed",
        value.trim_start_matches('-')
    ))
}

/// Which argument is not text; few of them have to be.
fn no_text(error: &clap::Error) -> Option<String> {
    if error.kind() != clap::error::ErrorKind::InvalidUtf8 {
        return None;
    }
    let mut args = std::env::args_os().enumerate();
    let (at, arg) = args.find(|(_, arg)| arg.to_str().is_none())?;
    Some(format!(
        "argument {at}, `{}`, is not text in UTF-8\nhelp: write it again, or set a locale with UTF-8; only paths may \
         have other bytes",
        arg.to_string_lossy()
    ))
}

/// Whether errors of a command line that cannot be read are wanted as JSON all the same.
pub fn wants_json(args: impl IntoIterator<Item = std::ffi::OsString>) -> bool {
    let args: Vec<_> = args.into_iter().collect();
    let is_pair = |pair: &[std::ffi::OsString]| pair[0] == "--output" && pair[1] == "json";
    args.iter().any(|arg| arg == "--output=json") || args.windows(2).any(is_pair)
}
