//! The process that is killed: runs that read, keep and pay at the server outside.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use cofferdam::{
    Action, Call, Class, Config, Connector, Descriptor, Effect, EffectState, Engine, Failure,
    Health, HealthStatus, Runtime, Source, Sources, StartOptions,
};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

pub(crate) const DIR: &str = "COFFERDAM_KILLS_DIR";
pub(crate) const SERVER: &str = "COFFERDAM_KILLS_SERVER";
pub(crate) const ENGINE: &str = "COFFERDAM_KILLS_ENGINE";
pub(crate) const RUNS: &str = "COFFERDAM_KILLS_RUNS";

/// Runs that are begun at the same time, so that their commits share a sync.
const BEGUN_AT_ONCE: usize = 64;

const WORKFLOW: &str = r"
document: { dsl: '1.0.3', namespace: test, name: pay, version: '1.0.0' }
do:
  - look: { call: shop.read }
  - keep: { call: shop.keep }
  - pay: { call: shop.pay }
";

/// Much at the same time, and nothing that a slow machine could be late for.
const CONFIG: &str = r#"
[limits]
concurrency = 128
timeout = "1h"

[connections.shop]
plugin = "none"
timeout.start-to-close = "1h"
timeout.schedule-to-close = "31d"
"#;

struct Shop {
    server: SocketAddr,
}

impl Shop {
    async fn ask(&self, what: String) -> std::io::Result<bool> {
        let mut stream = BufReader::new(TcpStream::connect(self.server).await?);
        stream.write_all(format!("{what}\n").as_bytes()).await?;
        let mut answer = String::new();
        stream.read_line(&mut answer).await?;
        match answer.as_str() {
            "yes\n" => Ok(true),
            "no\n" => Ok(false),
            _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

fn failed(error: &std::io::Error) -> Failure {
    Failure::new(Class::Unavailable, "shop.down", error.to_string())
        .with_effect(EffectState::Unknown)
}

#[async_trait]
impl Connector for Shop {
    fn descriptor(&self) -> Descriptor {
        let action = |effect| Action {
            title: String::new(),
            description: String::new(),
            effect,
            input: json!({}),
            output: json!({}),
            compensated_by: None,
            lookup: effect != Effect::Read,
            examples: Vec::new(),
        };
        let actions = [
            ("read", Effect::Read),
            ("keep", Effect::Idempotent),
            ("pay", Effect::Once),
        ];
        Descriptor {
            name: "shop".into(),
            version: "1.0.0".into(),
            description: String::new(),
            actions: actions
                .into_iter()
                .map(|(name, effect)| (name.to_owned(), action(effect)))
                .collect(),
        }
    }

    async fn invoke(&self, call: Call) -> Result<Value, Failure> {
        let key = format!("do {} {}", call.action, call.idempotency_key);
        self.ask(key).await.map_err(|error| failed(&error))?;
        Ok(json!({}))
    }

    async fn lookup(&self, action: &str, key: &str) -> Result<Option<Value>, Failure> {
        let happened = self.ask(format!("ask {action} {key}")).await;
        let happened = happened.map_err(|error| failed(&error))?;
        Ok(happened.then(|| json!({})))
    }

    async fn check(&self) -> Result<Health, Failure> {
        Ok(Health {
            status: HealthStatus::Healthy,
            message: String::new(),
        })
    }
}

/// Does the work of the environment, if it names any.
pub(crate) fn work_if_told() {
    let Ok(dir) = std::env::var(DIR) else {
        assert!(std::env::var(SERVER).is_err(), "run by other tests only");
        return;
    };
    let told = |name| std::env::var(name).unwrap();
    let server = told(SERVER).parse().unwrap();
    let runs = told(RUNS).parse().unwrap();
    let engine = Engine::from_name(&told(ENGINE)).unwrap();
    let config = Config::parse(CONFIG, "kills.toml", std::path::Path::new(""))
        .unwrap()
        .with_store(dir)
        .with_engine(engine);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work(config, server, runs));
}

async fn work(config: Config, server: SocketAddr, runs: usize) {
    let runtime = Runtime::builder(config)
        .connector("shop", Arc::new(Shop { server }))
        .open()
        .await
        .unwrap();
    let sources = Sources {
        main: Source {
            origin: "pay.yaml".into(),
            text: WORKFLOW.into(),
        },
        others: BTreeMap::new(),
    };
    let definition = runtime.define(&sources).unwrap();
    let names: Vec<String> = (0..runs).map(|n| format!("run-{n}")).collect();
    for names in names.chunks(BEGUN_AT_ONCE) {
        let mut begun = tokio::task::JoinSet::new();
        for name in names {
            let (runtime, definition) = (runtime.clone(), definition.clone());
            let options = StartOptions {
                id: Some(name.clone()),
                ..StartOptions::default()
            };
            begun.spawn(async move { runtime.start_with(&definition, json!({}), options).await });
        }
        while let Some(run) = begun.join_next().await {
            // A store that fails is told by the parent's test, which starts this again.
            let Ok(run) = run.unwrap() else {
                std::process::exit(1)
            };
            say(&format!("acknowledged {run}"));
        }
    }
    for name in &names {
        if runtime.wait(name).await.is_err() {
            std::process::exit(1);
        }
    }
    runtime.shutdown().await;
    say("all done");
}

fn say(what: &str) {
    let mut out = std::io::stdout().lock();
    let said = out.write_all(format!("{what}.\n").as_bytes());
    if said.and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}
