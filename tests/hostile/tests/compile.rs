//! What is compiled in a child is bounded, and comes back to be run.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use cofferdam_host::{ChildCompiler, Compiler, ConnectionSpec, Error, Host, HostOptions, Plugin};
use cofferdam_hostile::{Text, corpus::with_functions, guest, harness};

const PROGRAM: &str = env!("CARGO_BIN_EXE_cofferdam-hostile-compiler");

fn load(
    child: ChildCompiler,
    guest: &Text,
    cache: Option<&std::path::Path>,
) -> Result<Plugin, Error> {
    let host = Host::new(HostOptions {
        concurrency_max: 2,
        compiler: Compiler::Child(child),
        code_cache_dir: cache.map(Into::into),
    })?;
    host.load(guest.artifact().expect("the guest's text is right"))
}

fn refused(child: ChildCompiler, guest: &Text) -> Error {
    match load(child, guest, None) {
        Ok(_) => panic!("it has to be refused"),
        Err(error) => error,
    }
}

fn compile() -> ChildCompiler {
    ChildCompiler::new(PROGRAM, ["compile"])
}

/// Takes seconds to compile, and hundreds of megabytes.
fn large() -> Text {
    with_functions(40_000)
}

async fn answers(plugin: &Plugin) {
    let spec = ConnectionSpec::new("compiled");
    let connection = plugin
        .connect(spec, harness::services())
        .expect("it connects");
    let call = harness::call(guest::ACTION, guest::good(), Duration::from_mins(1));
    assert_eq!(
        connection.invoke(call).await.result,
        Ok(serde_json::Value::Null)
    );
}

#[tokio::test]
async fn what_a_child_compiled_runs_and_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let plugin = load(compile(), &Text::default(), Some(folder.path())).expect("it compiles");
    answers(&plugin).await;
    // From here on the compiler would fail.
    let broken = ChildCompiler::new(PROGRAM, ["nothing"]);
    let plugin = load(broken, &Text::default(), Some(folder.path())).expect("it is in the cache");
    answers(&plugin).await;
}

#[tokio::test]
async fn without_a_cache_what_a_child_compiled_runs_too() {
    answers(&load(compile(), &Text::default(), None).expect("it compiles")).await;
}

#[test]
fn a_component_that_takes_long_to_compile_is_given_up() {
    let child = ChildCompiler {
        time_max: Duration::from_millis(50),
        ..compile()
    };
    let error = refused(child, &large());
    assert!(matches!(error, Error::CompileTime { .. }), "{error}");
    assert_eq!(error.code(), "CD0330");
}

#[test]
fn a_component_that_takes_much_memory_to_compile_is_given_up() {
    let child = ChildCompiler {
        memory_bytes_max: 24 << 20,
        ..compile()
    };
    let error = refused(child, &large());
    assert!(matches!(error, Error::CompileMemory { .. }), "{error}");
    assert_eq!(error.code(), "CD0331");
}

/// Should the parent be gone, nobody but the system ends it.
#[cfg(unix)]
#[test]
fn a_child_ends_when_its_cpu_time_is_used_up() {
    use std::os::unix::process::ExitStatusExt as _;
    let mut child = Command::new(PROGRAM)
        .args(["compile", "small", "1", "1", &(2_u64 << 30).to_string()])
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let component = with_functions(150_000)
        .component()
        .expect("the guest's text is right");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(&component).expect("it reads");
    drop(stdin);
    let status = child.wait().expect("it ends");
    assert!(status.signal().is_some(), "{status}");
}

#[test]
fn a_component_that_does_not_compile_is_refused_as_without_a_child() {
    let many = Text::default().core("(memory 0)".repeat(50));
    let error = refused(compile(), &many);
    assert_eq!(error.code(), "CD0313");
    assert!(error.to_string().contains("memories"), "{error}");
}

#[test]
fn a_compiler_that_does_not_work_is_told_apart_from_a_bad_component() {
    let absent = ChildCompiler::new("no/such/program", ["compile"]);
    let silent = ChildCompiler::new(PROGRAM, ["nothing"]);
    for child in [absent, silent] {
        let error = refused(child, &Text::default());
        assert_eq!(error.code(), "CD0332", "{error}");
    }
    let garbage = refused(ChildCompiler::new(PROGRAM, ["garbage"]), &Text::default());
    assert_eq!(garbage.code(), "CD0313", "{garbage}");
}

#[test]
fn a_compiler_gets_no_environment() {
    let error = refused(
        ChildCompiler::new(PROGRAM, ["environment"]),
        &Text::default(),
    );
    assert!(error.to_string().contains(" 0 variables"), "{error}");
}
