//! What every attack has to be survived with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use cofferdam_core::failure::EffectState;
use cofferdam_host::{
    Artifact, Call, Connection, ConnectionSpec, Host, HostOptions, LogLine, MemoryKv, Occupancy,
    Outcome, Secret, Services,
};
use serde_json::{Value, json};

use crate::corpus::{Case, Ends, Guest};
use crate::guest::{self, Text};
use crate::{memory, web};

/// The secret of every hostile connection. It must appear nowhere.
pub const SECRET: &str = "kq-9f3b7c1d5e-canary";

/// Attacks before memory is looked at: pools warm up, and allocators keep what they once had.
const ATTACKS_BEFORE: usize = 2;
/// Attacks over which memory may not grow.
const ATTACKS: usize = 4;
/// What resident memory may differ by for other reasons: slots kept warm, a neighbour's call that
/// is under way, an allocator's arenas. Less than one call of any memory bomb.
const RESIDENT_SLACK_BYTES: u64 = 48 << 20;
/// What a process that serves these calls may ever hold. Without bounds on what the host makes of
/// what guests send, several cases go beyond.
const RESIDENT_BYTES_MAX: u64 = 384 << 20;
/// What is shown of an answer that should not have been.
const SHOWN_CHARS: usize = 400;
/// Calls at the same time in the host; the neighbour needs one.
const SLOTS: u32 = 8;

/// A host as the tests use it.
///
/// # Errors
/// If the sandbox cannot be set up.
pub fn host(code_cache_dir: Option<PathBuf>) -> Result<Host> {
    host_of(SLOTS, code_cache_dir)
}

/// A host with so many slots.
///
/// # Errors
/// If the sandbox cannot be set up.
pub fn host_of(slots: u32, code_cache_dir: Option<PathBuf>) -> Result<Host> {
    Ok(Host::new(HostOptions {
        code_cache_dir,
        concurrency_max: slots,
        ..HostOptions::default()
    })?)
}

/// State for connections.
pub fn services() -> Services {
    Services {
        kv: Arc::new(MemoryKv::default()),
    }
}

/// A connection of a well-behaved plugin.
///
/// # Errors
/// If it cannot be loaded.
pub fn neighbour(host: &Host, name: &str) -> Result<Connection> {
    let plugin = host.load(Text::default().artifact()?)?;
    Ok(plugin.connect(ConnectionSpec::new(name), services())?)
}

/// One call.
pub fn call(action: &str, input: Value, timeout: Duration) -> Call {
    Call {
        action: action.to_owned(),
        input,
        idempotency_key: "hostile".to_owned(),
        attempt: 1,
        timeout,
        tenant: String::new(),
        traceparent: String::new(),
        secrets: std::collections::BTreeMap::new(),
    }
}

/// A stamped guest of the guest workspace; `cargo xtask guests` makes them.
///
/// # Errors
/// If it is not there.
pub fn stamped(name: &str) -> Result<Artifact> {
    let folder = std::env::var_os("COFFERDAM_PLUGINS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins"),
        PathBuf::from,
    );
    Artifact::read(&folder.join(name)).context("run `cargo xtask guests` first")
}

/// An attack that can be made again and again.
pub struct Attacker {
    host: Host,
    artifact: Artifact,
    attack: Call,
    good: Call,
    spec: ConnectionSpec,
}

impl Attacker {
    /// Makes a case's guest, and its server if it has one.
    ///
    /// # Errors
    /// If the guest cannot be made.
    pub async fn new(host: &Host, case: &Case) -> Result<Self> {
        let mut spec = ConnectionSpec::new("hostile");
        spec.limits = case.limits.clone();
        spec.secrets = vec![Secret {
            name: "UNRULY_SECRET".to_owned(),
            value: SECRET.to_owned(),
            audience: vec!["127.0.0.1".to_owned()],
        }];
        let go = |input| call(guest::ACTION, input, case.timeout);
        let (artifact, attack, good) = match &case.guest {
            Guest::Text(text) => (text.artifact()?, go(guest::attack()), go(guest::good())),
            Guest::Bytes(bytes) => {
                let artifact = guest::artifact(bytes()?);
                (artifact, go(guest::attack()), go(guest::good()))
            }
            Guest::Unruly {
                action,
                input,
                server,
            } => {
                let authority = web::start(*server).await?;
                spec.grants.kv = true;
                spec.grants.http = vec![format!("http://{authority}")];
                let attack = call(action, input(&authority), case.timeout);
                (
                    stamped("unruly")?,
                    attack,
                    call("echo", json!("good"), GOOD),
                )
            }
        };
        let host = host.clone();
        Ok(Self {
            host,
            artifact,
            attack,
            good: Call {
                timeout: GOOD,
                ..good
            },
            spec,
        })
    }

    /// Loads the guest.
    ///
    /// # Errors
    /// If it is refused.
    pub fn connect(&self) -> std::result::Result<Connection, cofferdam_host::Error> {
        let plugin = self.host.load(self.artifact.clone())?;
        plugin.connect(self.spec.clone(), services())
    }

    /// The call that attacks.
    pub fn attack(&self) -> Call {
        self.attack.clone()
    }

    /// A call of the same plugin that does not.
    pub fn good(&self) -> Call {
        self.good.clone()
    }
}

/// How long a call that is to succeed may take on a busy machine.
const GOOD: Duration = Duration::from_mins(1);

/// Makes the attack of one case several times, and sees that it ends as it has to, that memory and
/// places come back, that the plugin's next call succeeds, and that a neighbour loses no call.
///
/// # Errors
/// Says what was not as it has to be.
pub async fn survive(case: &Case, code_cache_dir: Option<PathBuf>) -> Result<()> {
    let host = host(code_cache_dir)?;
    let beside = neighbour(&host, "neighbour")?;
    let stop = Arc::new(AtomicBool::new(false));
    let calls = tokio::spawn(call_until(beside.clone(), Arc::clone(&stop)));
    let attacker = Attacker::new(&host, case).await?;
    let survived = match case.ends {
        Ends::Refused(codes) => refuse(&attacker, codes).await,
        Ends::Fails(..) | Ends::Answers => attack(case, &attacker).await,
    };
    stop.store(true, Ordering::Release);
    let calls = calls.await?.context("the neighbour lost a call")?;
    survived?;
    ensure!(calls > 0, "the neighbour was not called");
    given_back(&host, &[&beside]).await?;
    let peak = memory::resident_bytes_peak();
    ensure!(peak < RESIDENT_BYTES_MAX, "the host held {peak} bytes");
    Ok(())
}

/// Sees that nothing is held, by these connections or by the host.
///
/// # Errors
/// Says what is lost.
pub async fn given_back(host: &Host, connections: &[&Connection]) -> Result<()> {
    given_back_by(connections).await?;
    wait_until(|| host.occupancy() == Occupancy::default())
        .await
        .with_context(|| format!("places of the host are lost: {:?}", host.occupancy()))
}

async fn given_back_by(connections: &[&Connection]) -> Result<()> {
    for connection in connections {
        let occupancy = || connection.occupancy();
        wait_until(|| occupancy() == Occupancy::default())
            .await
            .with_context(|| format!("`{}` holds {:?}", connection.name(), occupancy()))?;
    }
    Ok(())
}

/// A call that was given up lets go of its places at the guest's next tick, not at once.
async fn wait_until(done: impl Fn() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !done() {
        ensure!(begun.elapsed() < GOOD, "not within {GOOD:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}

/// Calls a good plugin without a pause. How often, or how it failed.
async fn call_until(connection: Connection, stop: Arc<AtomicBool>) -> Result<u64> {
    let mut calls = 0;
    while !stop.load(Ordering::Acquire) {
        let outcome = connection.invoke(call(guest::ACTION, guest::good(), GOOD));
        ensure!(outcome.await.result == Ok(Value::Null));
        calls += 1;
        tokio::task::yield_now().await;
    }
    Ok(calls)
}

async fn refuse(attacker: &Attacker, codes: &[&str]) -> Result<()> {
    let mut before = 0;
    for turn in 0..ATTACKS_BEFORE + ATTACKS {
        if turn == ATTACKS_BEFORE {
            before = memory::resident_bytes();
        }
        // Loading blocks.
        let (artifact, host) = (attacker.artifact.clone(), attacker.host.clone());
        let loaded = tokio::task::spawn_blocking(move || host.load(artifact)).await?;
        let error = loaded.err().context("it has to be refused")?;
        ensure!(codes.contains(&error.code()), "{}: {error}", error.code());
        ensure!(error.to_string().len() < 4 << 10, "a message of kilobytes");
    }
    came_back(before)
}

async fn attack(case: &Case, attacker: &Attacker) -> Result<()> {
    let connection = attacker.connect()?;
    let mut before = 0;
    for turn in 0..ATTACKS_BEFORE + ATTACKS {
        if turn == ATTACKS_BEFORE {
            before = memory::resident_bytes();
        }
        let outcome = connection.invoke(attacker.attack()).await;
        ended(case, &outcome)?;
        if case.recovers {
            let next = connection.invoke(attacker.good()).await;
            next.result.context("the plugin's next call")?;
        } else {
            let good = neighbour(&attacker.host, "hostile")?;
            let call = call(guest::ACTION, guest::good(), GOOD);
            good.invoke(call).await.result.context("its replacement")?;
        }
    }
    given_back_by(&[&connection]).await?;
    came_back(before)
}

/// Whether a call ended as the case says, and told no secret.
fn ended(case: &Case, outcome: &Outcome) -> Result<()> {
    match (&outcome.result, case.ends) {
        (Err(failure), Ends::Fails(class, code)) => {
            ensure!(
                failure.class == class && failure.code == code,
                "it ended with {:?} {}: {}",
                failure.class,
                failure.code,
                failure.message
            );
            // A guest that asked for nothing has changed nothing.
            ensure!(
                failure.effect == EffectState::None || outcome.usage.requests > 0,
                "its effect is told as {:?}",
                failure.effect
            );
        }
        (Ok(_), Ends::Answers) => {}
        (result, ends) => {
            let shown: String = format!("{result:?}").chars().take(SHOWN_CHARS).collect();
            anyhow::bail!("it has to end with {ends:?}, and did with {shown}")
        }
    }
    let log_bytes = outcome.usage.log_bytes;
    ensure!(
        log_bytes <= case.limits.log_bytes,
        "{log_bytes} bytes of log"
    );
    let kept: usize = outcome.logs.iter().map(line_bytes).sum();
    ensure!(kept as u64 <= case.limits.log_bytes + (1 << 10), "{kept}");
    let told = format!("{outcome:?}");
    ensure!(!told.contains(SECRET), "a secret is told: {told}");
    Ok(())
}

fn line_bytes(line: &LogLine) -> usize {
    line.message.len() + line.fields.to_string().len()
}

fn came_back(before: u64) -> Result<()> {
    let after = memory::resident_bytes();
    ensure!(
        after < before + RESIDENT_SLACK_BYTES,
        "resident memory grew from {before} to {after} bytes over {ATTACKS} attacks"
    );
    Ok(())
}
