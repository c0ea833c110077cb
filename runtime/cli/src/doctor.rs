//! `cofferdam doctor`: everything that has to be right before a run can go well.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use cofferdam::config::Connection;
use cofferdam::{Archive, Config, ConnectionState, QuarantineState, StoreReport, check_engine};
use cofferdam_host::{
    Artifact, Health, HealthStatus, Host, MemoryKv, Services, Signer, check_wishes,
};
use serde::Serialize;

use crate::context::{Context, block_on};
use crate::exit::{self, FAILED};
use crate::style::Style;
use crate::{output, plugin};

pub const EXAMPLES: &str = "\
One line for each thing that was looked at: ok, warn or fail, with a remedy. Each connection's
plugin is asked whether what is behind it works, which changes nothing there. Exits with 1 if
anything fails; warnings do not count.

Examples:
  cofferdam doctor --config cofferdam.toml
  cofferdam doctor --offline --output json";

/// Below this the store is about to stop.
const FREE_BYTES_FAIL: u64 = 100 << 20;
/// Below this somebody should look at the disk.
const FREE_BYTES_WARN: u64 = 1 << 30;

/// What `doctor` takes.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Do not ask connections whether what is behind them works
    #[arg(long)]
    offline: bool,
}

/// How one thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warn,
    Fail,
}

/// One line.
#[derive(Debug, Serialize)]
struct Finding {
    verdict: Verdict,
    what: String,
    message: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    remedy: String,
}

impl Finding {
    fn new(
        verdict: Verdict,
        what: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            verdict,
            what: what.into(),
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    fn ok(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(Verdict::Ok, what, message, "")
    }

    fn fail(what: impl Into<String>, error: &str) -> Self {
        Self::told(Verdict::Fail, what, error)
    }

    fn warn(what: impl Into<String>, error: &str) -> Self {
        Self::told(Verdict::Warn, what, error)
    }

    /// A message of ours ends in its remedy; the two are told apart for programs.
    fn told(verdict: Verdict, what: impl Into<String>, error: &str) -> Self {
        let (message, remedy) = error.split_once("\nhelp: ").unwrap_or((error, ""));
        Self::new(verdict, what, message, remedy)
    }
}

pub fn run(context: &Context, args: &DoctorArgs) -> Result<ExitCode> {
    let mut findings = Vec::new();
    let config = configuration(context, &mut findings);
    let data = config.store_path().map(Path::to_owned);
    match Context::host(&config) {
        Ok(host) => {
            plugins(&config, &host, &mut findings);
            connections(&config, &host, args.offline, &mut findings)?;
        }
        Err(error) => findings.push(Finding::fail("sandbox", &exit::text(&error))),
    }
    findings.extend(workflows(&config));
    if let Some(path) = &data {
        findings.push(store(path));
        if let Some(Err(error)) = config.engine().map(|engine| check_engine(path, engine)) {
            findings.push(Finding::fail("store engine", &error.to_string()));
        }
        if let Err(error) = cofferdam::control::check_place(path) {
            findings.push(Finding::warn("control socket", &error.to_string()));
        }
        findings.extend(disk(path, config.reserve_bytes()));
    }
    findings.push(toolchain());
    tell(context, &findings)
}

/// The configuration, or one without connections if it is wrong.
fn configuration(context: &Context, findings: &mut Vec<Finding>) -> Config {
    let file = context.config_file().map(|path| path.display().to_string());
    match context.config() {
        Ok(config) => {
            let count = config.connections().count();
            findings.push(match file {
                Some(file) => Finding::ok("configuration", format!("{file}: {count} connections")),
                None => Finding::new(
                    Verdict::Warn,
                    "configuration",
                    "there is none: workflows can call nothing but `http`",
                    "write a cofferdam.toml, or name one with --config FILE",
                ),
            });
            config
        }
        Err(error) => {
            findings.push(Finding::fail("configuration", &exit::text(&error)));
            match context.store_path() {
                Ok(path) => Config::new().with_store(path),
                Err(_) => Config::new(),
            }
        }
    }
}

/// The workflows that are named, for whoever serves them.
fn workflows(config: &Config) -> Vec<Finding> {
    let judge = |configured: &cofferdam::config::ConfiguredWorkflow| {
        let what = format!("workflow {}", configured.name);
        let file = configured.file.display();
        let read = config.read_workflow(&configured.file);
        let sources = match read {
            Ok(sources) => sources,
            Err(error) => {
                let remedy = format!("check the path in `[workflows] {}`", configured.name);
                return Finding::new(Verdict::Fail, what, error.to_string(), remedy);
            }
        };
        match cofferdam_core::dsl::compile(&sources) {
            Ok(_) => Finding::ok(what, format!("{file} compiles")),
            Err(errors) => Finding::fail(what, &errors.to_string()),
        }
    };
    config.workflows().iter().map(judge).collect()
}

fn plugins(config: &Config, host: &Host, findings: &mut Vec<Finding>) {
    let plugins = config.plugins();
    if plugins.is_empty() {
        findings.push(Finding::new(
            Verdict::Warn,
            "plugins",
            "there are none in the plugin folders",
            "name the folder with `[plugins] dir` or COFFERDAM_PLUGINS",
        ));
    }
    for (name, path) in plugins {
        let what = format!("plugin {name}");
        let admitted = plugin::load(host, &path);
        if let Ok(plugin) = &admitted
            && let Some(manifest) = plugin.manifest()
            && let Err(error) = check_wishes(&manifest.limits, "plugin.toml")
        {
            let told = format!(
                "{}: {error}\nhelp: get another version from its author; until then, what \
                 [connections.NAME.limits] says counts",
                error.code()
            );
            findings.push(Finding::warn(what.clone(), &told));
        }
        findings.push(match admitted {
            Ok(plugin) => match plugin.descriptor() {
                Some(descriptor) => Finding::ok(
                    what,
                    format!(
                        "{}, {} actions",
                        descriptor.version,
                        descriptor.actions.len()
                    ),
                ),
                None => Finding::new(
                    Verdict::Fail,
                    what,
                    "it carries no descriptor",
                    format!("cofferdam plugin stamp {}", path.display()),
                ),
            },
            Err(error) => Finding::fail(what, &format!("{}: {error}", error.code())),
        });
    }
}

fn connections(
    config: &Config,
    host: &Host,
    offline: bool,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    for connection in config.connections() {
        let what = format!("connection {}", connection.name());
        if !connection.enabled() {
            findings.push(Finding::new(
                Verdict::Warn,
                what,
                "is switched off",
                "write `enabled = true` to use it",
            ));
            continue;
        }
        let made = match make(connection, config, host) {
            Ok((made, signer)) => {
                let advice = connection.advice(made.plugin().manifest());
                if !signer.is_trusted() {
                    findings.push(Finding::new(
                        Verdict::Warn,
                        what.clone(),
                        format!("its plugin is {signer}, and let in by allow-unsigned"),
                        "sign it with `cofferdam plugin sign`, and name the key in `[plugins] trusted-keys`",
                    ));
                }
                findings.extend(advice.map(|advice| Finding::warn(what.clone(), &advice)));
                made
            }
            Err(error) => {
                findings.push(Finding::fail(what, &error));
                continue;
            }
        };
        if offline {
            findings.push(Finding::ok(
                what,
                "its plugin is admitted; what is behind it was not asked",
            ));
            continue;
        }
        let health = block_on(async { Ok(made.check().await) })?;
        findings.push(asked(what, health));
    }
    Ok(())
}

fn make(
    connection: &Connection,
    config: &Config,
    host: &Host,
) -> Result<(cofferdam_host::Connection, Signer), String> {
    let path = connection
        .resolve_plugin()
        .map_err(|error| error.to_string())?;
    let coded = |error: &cofferdam_host::Error| format!("{}: {error}", error.code());
    let artifact = Artifact::read(&path).map_err(|error| coded(&error))?;
    // Before anything of it is run: it is about to be asked how it is.
    let signer = config
        .trust(connection)
        .judge(&artifact)
        .map_err(|error| coded(&error))?;
    let plugin = host.load(artifact).map_err(|error| coded(&error))?;
    let services = Services {
        kv: Arc::new(MemoryKv::default()),
    };
    let made = plugin
        .connect(connection.spec_for(plugin.manifest()), services)
        .map_err(|error| coded(&error))?;
    Ok((made, signer))
}

fn asked(what: String, health: Result<Health, cofferdam::Failure>) -> Finding {
    const REMEDY: &str =
        "see that what is behind it runs and that address and credentials are right";
    match health {
        Ok(Health {
            status: HealthStatus::Healthy,
            message,
        }) => Finding::ok(what, message),
        Ok(Health {
            status: HealthStatus::Degraded,
            message,
        }) => Finding::new(Verdict::Warn, what, message, REMEDY),
        Ok(Health {
            status: HealthStatus::Unhealthy,
            message,
        }) => Finding::new(Verdict::Fail, what, message, REMEDY),
        Err(failure) if failure.class == cofferdam::Class::Unsupported => Finding::new(
            Verdict::Warn,
            what,
            failure.to_string(),
            "its plugin cannot be asked; call an action instead",
        ),
        Err(failure) => Finding::new(Verdict::Fail, what, failure.to_string(), REMEDY),
    }
}

fn store(path: &Path) -> Finding {
    let what = format!("store {}", path.display());
    match verify(path) {
        Ok(None) => Finding::ok(what, "is not there yet; the first run makes it"),
        Ok(Some((report, bytes))) if report.is_clean() => Finding::ok(
            what,
            format!(
                "{} runs, {} rows, {} KiB, all in order",
                report.runs,
                report.rows,
                bytes >> 10
            ),
        ),
        Ok(Some((report, _))) => {
            let first = report
                .problems
                .first()
                .map_or_else(String::new, |p| format!("{}: {}", p.place, p.what));
            let count = report.problems.len() as u64 + report.problems_left_off;
            let remedy =
                "stop every process that uses it, copy the directory away, and restore a backup";
            Finding::new(
                Verdict::Fail,
                what,
                format!("{count} rows do not fit: {first}"),
                remedy,
            )
        }
        Err(error) => match served(path) {
            Some(states) => serving(what, &states),
            None => Finding::fail(what, &error.to_string()),
        },
    }
}

/// How the connections are in the process that has the store open, if one answers.
fn served(path: &Path) -> Option<Vec<ConnectionState>> {
    let request = cofferdam::control::Request::Connections;
    let answer = block_on(async { Ok(cofferdam::control::ask(path, &request).await?) });
    serde_json::from_value(answer.ok()??).ok()
}

/// A store that is in use is well if its process answers; what is held there is told.
fn serving(what: String, states: &[ConnectionState]) -> Finding {
    let held = states
        .iter()
        .find(|state| matches!(state.quarantine, QuarantineState::Held { .. }));
    match held {
        None => Finding::ok(what, "is in use by a process that answers"),
        Some(state) => Finding::new(
            Verdict::Warn,
            what,
            format!(
                "is in use; the plugin of connection `{}` is held for its crashes",
                state.name
            ),
            "`cofferdam plugin history` says since when; swap in one that works",
        ),
    }
}

/// What the store says of itself, and its size in bytes; nothing if it is not there.
fn verify(path: &Path) -> Result<Option<(StoreReport, u64)>, Box<cofferdam::Error>> {
    let Some(archive) = Archive::open(path)? else {
        return Ok(None);
    };
    Ok(Some((archive.verify()?, archive.size_on_disk()?)))
}

/// The space where the store is or will be.
fn disk(path: &Path, reserve_bytes: u64) -> Option<Finding> {
    let there: PathBuf = path
        .ancestors()
        .map(|dir| {
            if dir.as_os_str().is_empty() {
                Path::new(".")
            } else {
                dir
            }
        })
        .find(|dir| dir.exists())?
        .to_owned();
    let found = rustix::fs::statvfs(&there).ok()?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let message = format!("{} MiB free at {}", free >> 20, there.display());
    if free < reserve_bytes {
        let message = format!(
            "{message}, and `[store] reserve` is {} MiB",
            reserve_bytes >> 20
        );
        let remedy = "make room, lower `[store] reserve`, or move the store with --data DIR";
        return Some(Finding::new(Verdict::Fail, "disk", message, remedy));
    }
    let verdict = match free {
        ..FREE_BYTES_FAIL => Verdict::Fail,
        FREE_BYTES_FAIL..FREE_BYTES_WARN => Verdict::Warn,
        FREE_BYTES_WARN.. => return Some(Finding::ok("disk", message)),
    };
    Some(Finding::new(
        verdict,
        "disk",
        message,
        "make room, or move the store with --data DIR",
    ))
}

/// Whether plugins could be built here; only their authors need that.
fn toolchain() -> Finding {
    const TARGET: &str = "wasm32-wasip2";
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .stderr(Stdio::null())
        .output();
    let libraries = asked
        .ok()
        .filter(|output| output.status.success())
        .map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    match libraries {
        Some(dir) if dir.is_dir() => {
            Finding::ok("toolchain", format!("rustc can build plugins for {TARGET}"))
        }
        Some(_) | None => Finding::new(
            Verdict::Warn,
            "toolchain",
            format!("no rustc with the target {TARGET}; only authors of plugins need it"),
            format!("rustup target add {TARGET}; in a checkout, cargo xtask setup"),
        ),
    }
}

fn tell(context: &Context, findings: &[Finding]) -> Result<ExitCode> {
    if context.is_json() {
        output::json(&findings)?;
    } else {
        output::text(&lines(findings, Style::stdout()))?;
    }
    let failed = findings
        .iter()
        .any(|finding| finding.verdict == Verdict::Fail);
    Ok(if failed {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn lines(findings: &[Finding], style: Style) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = match finding.verdict {
            Verdict::Ok => style.good("ok  "),
            Verdict::Warn => style.warn("warn"),
            Verdict::Fail => style.bad("fail"),
        };
        let message = finding.message.replace('\n', "\n      ");
        let _ = writeln!(text, "{word}  {}: {message}", finding.what);
        if !finding.remedy.is_empty() {
            let _ = writeln!(text, "      -> {}", finding.remedy);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_stands_below_its_finding() {
        let findings = [
            Finding::ok("disk", "fine"),
            Finding::fail("store", "is broken\nhelp: mend it"),
        ];
        let text = lines(&findings, Style::plain());
        assert_eq!(
            text,
            "ok    disk: fine\nfail  store: is broken\n      -> mend it\n"
        );
    }
}
