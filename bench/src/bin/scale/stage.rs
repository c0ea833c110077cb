//! A runtime on a store of its own, a connector in this program, and this program as a child that
//! can be killed.

#![allow(
    clippy::trivially_copy_pass_by_ref,
    reason = "a stage grows as more is measured"
)]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use cofferdam::{
    Action, Call, Clock, Config, Connection, Connector, Definition, Descriptor, Durability, Effect,
    Engine, Failure, Health, HealthStatus, Runtime, Source, Sources, StartOptions,
};
use serde_json::{Value, json};

/// Runs that are begun at the same time, so that their commits share a sync.
const BEGUN_AT_ONCE: usize = 256;
/// Longer than any bench.
const NEVER: Duration = Duration::from_hours(24);

#[derive(Clone, Copy)]
pub(crate) struct Stage {
    pub engine: Engine,
    pub durability: Durability,
}

/// Answers at once, or never.
struct Echo {
    hangs: bool,
}

#[async_trait]
impl Connector for Echo {
    fn descriptor(&self) -> Descriptor {
        let action = |effect| Action {
            title: String::new(),
            description: String::new(),
            effect,
            input: json!({}),
            output: json!({}),
            compensated_by: None,
            lookup: false,
            examples: Vec::new(),
        };
        let actions = [("read", Effect::Read), ("keep", Effect::Idempotent)];
        Descriptor {
            name: "echo".into(),
            version: "1.0.0".into(),
            description: String::new(),
            actions: actions
                .into_iter()
                .map(|(name, effect)| (name.to_owned(), action(effect)))
                .collect(),
        }
    }

    async fn invoke(&self, call: Call) -> Result<Value, Failure> {
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Ok(call.input)
    }

    async fn lookup(&self, _: &str, _: &str) -> Result<Option<Value>, Failure> {
        Ok(None)
    }

    async fn check(&self) -> Result<Health, Failure> {
        Ok(Health {
            status: HealthStatus::Healthy,
            message: String::new(),
        })
    }
}

impl Stage {
    pub(crate) fn durability_name(&self) -> &'static str {
        match self.durability {
            Durability::OutputCommit => "output-commit",
            Durability::EveryTask => "every-task",
        }
    }

    pub(crate) async fn open(&self, dir: &Path) -> Result<Runtime> {
        self.open_with(dir, false, Clock::default()).await
    }

    pub(crate) async fn open_with(&self, dir: &Path, hangs: bool, clock: Clock) -> Result<Runtime> {
        let builder = Runtime::builder(self.config(dir)).clock(clock);
        let echo = Arc::new(Echo { hangs });
        Ok(builder.connector("echo", echo).open().await?)
    }

    /// The same with no checkpoints of runs.
    pub(crate) async fn open_without_checkpoints(&self, dir: &Path) -> Result<Runtime> {
        let builder = Runtime::builder(self.config(dir)).checkpoint_every(u64::MAX);
        let echo = Arc::new(Echo { hangs: false });
        Ok(builder.connector("echo", echo).open().await?)
    }

    fn config(&self, dir: &Path) -> Config {
        let echo = Connection::new("echo", "none").with_timeouts(NEVER, NEVER);
        Config::new()
            .with_store(dir)
            .with_engine(self.engine)
            .with_durability(self.durability)
            .with_connection(echo)
    }
}

pub(crate) fn define(runtime: &Runtime, tasks: &str) -> Result<Definition> {
    let head =
        "document: {dsl: \"1.0.3\", namespace: bench, name: scale, version: \"1.0.0\"}\ndo:\n";
    let sources = Sources {
        main: Source {
            origin: "scale.yaml".into(),
            text: format!("{head}{tasks}"),
        },
        others: BTreeMap::new(),
    };
    Ok(runtime.define(&sources)?)
}

/// Begins `run-FROM` to `run-TO`, some at a time.
pub(crate) async fn begin(
    runtime: &Runtime,
    definition: &Definition,
    range: std::ops::Range<usize>,
) -> Result<()> {
    let mut begun = tokio::task::JoinSet::new();
    for n in range {
        if begun.len() >= BEGUN_AT_ONCE {
            begun.join_next().await.context("there is one")???;
        }
        let (runtime, definition) = (runtime.clone(), definition.clone());
        let options = StartOptions {
            id: Some(name(n)),
            ..StartOptions::default()
        };
        begun.spawn(async move {
            let run = runtime.start_with(&definition, json!({"n": n}), options);
            run.await.map(|_| ()).map_err(anyhow::Error::from)
        });
    }
    while let Some(run) = begun.join_next().await {
        run??;
    }
    Ok(())
}

pub(crate) fn name(n: usize) -> String {
    format!("run-{n:09}")
}

pub(crate) async fn wait_all(runtime: &Runtime, runs: usize) -> Result<()> {
    for n in 0..runs {
        let end = runtime.wait(&name(n)).await?;
        anyhow::ensure!(end.output.is_some(), "a run failed: {:?}", end.error);
    }
    Ok(())
}

/// This program as a process that begins runs whose calls hang, to be killed.
pub(crate) struct Child {
    stage: Stage,
    dir: PathBuf,
    runs: usize,
}

const CHILD: &str = "--child";

/// What this process is to do, if it is a child.
pub(crate) fn child() -> Option<Child> {
    let mut arguments = std::env::args().skip_while(|argument| argument != CHILD);
    arguments.next()?;
    let stage = Stage {
        engine: Engine::from_name(&arguments.next()?)?,
        durability: match arguments.next()?.as_str() {
            "every-task" => Durability::EveryTask,
            _ => Durability::OutputCommit,
        },
    };
    Some(Child {
        stage,
        dir: arguments.next()?.into(),
        runs: arguments.next()?.parse().ok()?,
    })
}

impl Child {
    pub(crate) async fn work(self) -> Result<()> {
        let open = self.stage.open_with(&self.dir, true, Clock::default());
        let runtime = open.await?;
        let definition = define(&runtime, IN_FLIGHT)?;
        begin(&runtime, &definition, 0..self.runs).await?;
        println!("ready");
        std::future::pending().await
    }
}

/// One call, which is under way.
pub(crate) const IN_FLIGHT: &str = "  - call: {call: echo.keep, with: {n: \"${ .n }\"}}\n";

/// Lets a child begin so many runs, and kills it when all are under way.
pub(crate) fn begin_and_kill(stage: &Stage, dir: &Path, runs: usize) -> Result<()> {
    let mut child = Command::new(std::env::current_exe()?)
        .args([CHILD, stage.engine.as_str(), stage.durability_name()])
        .arg(dir)
        .arg(runs.to_string())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("it has one")?;
    BufReader::new(stdout).read_line(&mut line)?;
    child.kill()?;
    child.wait()?;
    anyhow::ensure!(line == "ready\n", "the child did not begin the runs");
    Ok(())
}
