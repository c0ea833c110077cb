//! Where components are compiled: in this process, or in a child that cannot take more time and
//! memory than it is given.
//!
//! A compiler is the one part of the host that works on what a stranger wrote for longer than a
//! moment. A child with limits on itself is killed without harm; this process could not stop a
//! thread of its own.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use wasmtime::{CodeBuilder, Engine};

use crate::Error;
use crate::artifact::COMPONENT_BYTES_MAX;
use crate::engines::{Size, config};
use crate::limits::{range, span};

/// Compiled code of one component. It is some five times as large as the component.
const CODE_BYTES_MAX: u64 = 1 << 30;
/// What is kept of what a child says.
const REASON_BYTES_MAX: u64 = 4 << 10;
/// Less is not enough for the compiler itself.
pub(crate) const MEMORY_BYTES_MIN: u64 = 16 << 20;
pub(crate) const MEMORY_BYTES_MAX: u64 = 64 << 30;

/// How a child says that the component is at fault.
const EXIT_REFUSED: u8 = 65;
/// How a child says that memory ran out and it noticed.
const EXIT_MEMORY: u8 = 71;
/// How a child says that it was not called as it has to be.
const EXIT_USAGE: u8 = 64;

/// Where components are compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Compiler {
    /// In this process, on the thread that loads the plugin and those of a pool. Nothing bounds
    /// how long it takes or how much memory: for components that are trusted to compile.
    #[default]
    InProcess,
    /// In a child, with bounds.
    Child(ChildCompiler),
}

/// A program that compiles one component and ends. It has to call [`compile_child`] with the
/// arguments that follow [`ChildCompiler::arguments`], and do nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildCompiler {
    /// The program. It gets no environment.
    pub program: PathBuf,
    /// What it is called with, before the arguments of [`compile_child`].
    pub arguments: Vec<String>,
    /// Wall clock time of one compilation. Default 2 min, at most one hour.
    pub time_max: Duration,
    /// Memory that one compilation may take above what the program has when it begins. Default
    /// 2 GiB, from 16 MiB to 64 GiB. Enforced on Linux, elsewhere as far as the system does.
    pub memory_bytes_max: u64,
}

impl ChildCompiler {
    /// A program with these arguments and the default bounds.
    pub fn new(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = impl Into<String>>,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            time_max: Duration::from_mins(2),
            memory_bytes_max: 2 << 30,
        }
    }

    /// The program that runs, with these arguments.
    ///
    /// # Errors
    /// [`Error::Compiler`] if the system does not tell where the program is.
    pub fn this_program(
        arguments: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<Self, Error> {
        // Names the file that was started, even after an upgrade has put another in its place.
        let itself = Path::new("/proc/self/exe");
        if itself.exists() {
            return Ok(Self::new(itself, arguments));
        }
        let program = std::env::current_exe().map_err(|error| Error::Compiler {
            program: "this program".to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self::new(program, arguments))
    }
}

impl Compiler {
    pub(crate) fn validate(&self) -> Result<(), Error> {
        match self {
            Self::InProcess => Ok(()),
            Self::Child(child) => {
                span("compile.time_max", child.time_max)?;
                range(
                    "compile.memory_bytes_max",
                    child.memory_bytes_max,
                    MEMORY_BYTES_MIN,
                    MEMORY_BYTES_MAX,
                )
            }
        }
    }

    /// The code of a component, for an engine made by `config(size, slots)`.
    pub(crate) fn compile(
        &self,
        engine: &Engine,
        (size, slots): (Size, u32),
        component: &[u8],
        origin: &str,
    ) -> Result<Vec<u8>, Error> {
        match self {
            Self::InProcess => compile(engine, component).map_err(|error| Error::Compile {
                origin: origin.to_owned(),
                reason: format!("{error:#}"),
            }),
            Self::Child(child) => child.compile(size, slots, component, origin),
        }
    }
}

fn compile(engine: &Engine, component: &[u8]) -> wasmtime::Result<Vec<u8>> {
    CodeBuilder::new(engine)
        .wasm_binary(component, None)?
        .compile_component_serialized()
}

/// What came of a child.
struct Ended {
    /// None if it had to be killed.
    status: Option<ExitStatus>,
    code: Vec<u8>,
    reason: String,
}

impl ChildCompiler {
    fn compile(
        &self,
        size: Size,
        slots: u32,
        component: &[u8],
        origin: &str,
    ) -> Result<Vec<u8>, Error> {
        let failed = |reason: String| Error::Compiler {
            program: self.program.display().to_string(),
            reason,
        };
        let child = self
            .spawn(size, slots)
            .map_err(|error| failed(error.to_string()))?;
        let ended = self
            .converse(child, component)
            .map_err(|error| failed(error.to_string()))?;
        let Ended {
            status,
            code,
            reason,
        } = ended;
        let too_slow = || Error::CompileTime {
            origin: origin.to_owned(),
            time_max: self.time_max,
        };
        let too_large = || Error::CompileMemory {
            origin: origin.to_owned(),
            bytes_max: self.memory_bytes_max,
        };
        let Some(status) = status else {
            return Err(too_slow());
        };
        match (status.code(), signal(status)) {
            (Some(0), _) if code.len() as u64 > CODE_BYTES_MAX => Err(too_large()),
            (Some(0), _) => Ok(code),
            (Some(exit), _) if exit == i32::from(EXIT_REFUSED) => Err(Error::Compile {
                origin: origin.to_owned(),
                reason,
            }),
            (Some(exit), _) if exit == i32::from(EXIT_MEMORY) => Err(too_large()),
            (_, Some(End::CpuTime)) => Err(too_slow()),
            (_, Some(End::Memory)) => Err(too_large()),
            _ => Err(failed(format!("it ended with {status}: {}", reason.trim()))),
        }
    }

    fn spawn(&self, size: Size, slots: u32) -> std::io::Result<Child> {
        Command::new(&self.program)
            .args(&self.arguments)
            .args([
                size.name().to_owned(),
                slots.to_string(),
                self.time_max.as_secs().saturating_add(1).to_string(),
                self.memory_bytes_max.to_string(),
            ])
            // What the environment holds is not for a compiler of strangers' code.
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    }

    /// Gives the component and takes the code; kills the child when its time is over.
    fn converse(&self, mut child: Child, component: &[u8]) -> std::io::Result<Ended> {
        let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(std::io::Error::other("it has no pipes"));
        };
        std::thread::scope(|scope| {
            scope.spawn(move || {
                // A child that ends early has said why.
                let _ = stdin.write_all(component);
            });
            let reason = scope.spawn(move || {
                let mut text = Vec::new();
                let _ = stderr.take(REASON_BYTES_MAX).read_to_end(&mut text);
                String::from_utf8_lossy(&text).into_owned()
            });
            let (sender, receiver) = mpsc::channel();
            scope.spawn(move || {
                let mut code = Vec::new();
                let read = stdout.take(CODE_BYTES_MAX + 1).read_to_end(&mut code);
                let _ = sender.send(read.map(|_| code));
            });
            let code = receiver.recv_timeout(self.time_max);
            if code.is_err() {
                child.kill()?;
            }
            let status = child.wait()?;
            let reason = reason.join().unwrap_or_default();
            match code {
                Ok(code) => Ok(Ended {
                    status: Some(status),
                    code: code?,
                    reason,
                }),
                Err(RecvTimeoutError::Timeout) => Ok(Ended {
                    status: None,
                    code: Vec::new(),
                    reason,
                }),
                Err(RecvTimeoutError::Disconnected) => {
                    Err(std::io::Error::other("its output could not be read"))
                }
            }
        })
    }
}

/// What a signal says of a child.
enum End {
    CpuTime,
    Memory,
}

#[cfg(unix)]
fn signal(status: ExitStatus) -> Option<End> {
    use std::os::unix::process::ExitStatusExt;
    let signal = rustix::process::Signal::from_named_raw(status.signal()?)?;
    match signal {
        rustix::process::Signal::XCPU => Some(End::CpuTime),
        // Rust aborts when an allocation fails; the system kills when it has no memory left.
        rustix::process::Signal::ABORT | rustix::process::Signal::KILL => Some(End::Memory),
        _ => None,
    }
}

#[cfg(not(unix))]
fn signal(_status: ExitStatus) -> Option<End> {
    None
}

/// Compiles one component from standard input to standard output, within limits that it sets on
/// this process first. For a program that a [`ChildCompiler`] names; it gets the arguments after
/// [`ChildCompiler::arguments`] and exits with what this returns.
///
/// ```no_run
/// let mut arguments = std::env::args().skip(1);
/// if arguments.next().as_deref() == Some("compile-component") {
///     std::process::exit(cofferdam_host::compile_child(arguments).into());
/// }
/// ```
pub fn compile_child(arguments: impl IntoIterator<Item = String>) -> ChildExit {
    let arguments: Vec<String> = arguments.into_iter().collect();
    match work(&arguments) {
        Ok(()) => ChildExit(0),
        Err((exit, reason)) => {
            // Nobody is left to tell if this fails.
            let _ = writeln!(std::io::stderr(), "{reason}");
            ChildExit(exit)
        }
    }
}

/// How a program that called [`compile_child`] has to exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "the program has to exit with it"]
pub struct ChildExit(u8);

impl From<ChildExit> for i32 {
    fn from(exit: ChildExit) -> Self {
        exit.0.into()
    }
}

impl From<ChildExit> for ExitCode {
    fn from(exit: ChildExit) -> Self {
        exit.0.into()
    }
}

fn work(arguments: &[String]) -> Result<(), (u8, String)> {
    let usage = || {
        let text = "called without SIZE SLOTS SECONDS BYTES; only a runtime calls this";
        (EXIT_USAGE, text.to_owned())
    };
    let [size, slots, seconds, bytes] = arguments else {
        return Err(usage());
    };
    let (Some(size), Ok(slots), Ok(seconds), Ok(bytes)) = (
        Size::from_name(size),
        slots.parse::<u32>(),
        seconds.parse::<u64>(),
        bytes.parse::<u64>(),
    ) else {
        return Err(usage());
    };
    let refused = |error: &wasmtime::Error| {
        let exit = if is_out_of_memory(error) {
            EXIT_MEMORY
        } else {
            EXIT_REFUSED
        };
        (exit, format!("{error:#}"))
    };
    // The engine reserves its pool before memory is bounded: the bound is for the compiler.
    let engine = Engine::new(&config(size, slots)).map_err(|e| (EXIT_USAGE, format!("{e:#}")))?;
    bound_this_process(seconds, bytes).map_err(|error| (EXIT_USAGE, error.to_string()))?;
    let broken = |error: std::io::Error| (EXIT_USAGE, error.to_string());
    let mut component = Vec::new();
    std::io::stdin()
        .take(COMPONENT_BYTES_MAX)
        .read_to_end(&mut component)
        .map_err(broken)?;
    let code = compile(&engine, &component).map_err(|error| refused(&error))?;
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&code).map_err(broken)?;
    stdout.flush().map_err(broken)
}

fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    error.chain().any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| io.kind() == std::io::ErrorKind::OutOfMemory)
    })
}

/// CPU time over all threads, memory that can be written to, and no files at all.
#[cfg(unix)]
fn bound_this_process(seconds: u64, bytes: u64) -> std::io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let threads = std::thread::available_parallelism().map_or(1, usize::from) as u64;
    let bounds = [
        (Resource::Cpu, seconds.saturating_mul(threads)),
        (Resource::Data, data_bytes().saturating_add(bytes)),
        (Resource::Fsize, 0),
        (Resource::Core, 0),
    ];
    for (resource, most) in bounds {
        let limit = Rlimit {
            current: Some(most),
            maximum: Some(most),
        };
        setrlimit(resource, limit)?;
    }
    Ok(())
}

#[cfg(not(unix))]
fn bound_this_process(_seconds: u64, _bytes: u64) -> std::io::Result<()> {
    Ok(())
}

/// Memory that this process can write to by now, reserved address space not included.
#[cfg(unix)]
fn data_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmData:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_without_sense_are_refused_by_name() {
        let child = ChildCompiler::new("compiler", ["compile"]);
        let no_time = ChildCompiler {
            time_max: Duration::ZERO,
            ..child.clone()
        };
        let no_memory = ChildCompiler {
            memory_bytes_max: 0,
            ..child.clone()
        };
        assert!(Compiler::Child(child).validate().is_ok());
        for (child, key) in [
            (no_time, "compile.time_max"),
            (no_memory, "compile.memory_bytes_max"),
        ] {
            let error = Compiler::Child(child).validate().unwrap_err().to_string();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_child_that_is_called_by_hand_says_so() {
        let called = |arguments: &[&str]| {
            work(
                &arguments
                    .iter()
                    .map(|a| (*a).to_owned())
                    .collect::<Vec<_>>(),
            )
        };
        for arguments in [
            &[][..],
            &["small"],
            &["tiny", "1", "1", "1"],
            &["small", "x", "1", "1"],
        ] {
            assert_eq!(called(arguments).unwrap_err().0, EXIT_USAGE);
        }
    }
}
