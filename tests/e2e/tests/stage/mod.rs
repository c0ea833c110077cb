//! The lead-intake example in a folder of its own, toward stand-in services of its own.

// Each test file uses its own share of this.
#![allow(dead_code)]
#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use cofferdam::{Config, Definition, RunView, Runtime};
use cofferdam_standins::{Options, Standins};
use serde_json::{Value, json};

type Port = fn(&Standins) -> u16;

/// The ports that the example's configuration names.
const PORTS: [(&str, Port); 4] = [
    ("18081", |standins| standins.hubspot.address().port()),
    ("18082", |standins| standins.slack.address().port()),
    ("18083", |standins| standins.stripe.address().port()),
    ("18084", |standins| standins.smtp.address().port()),
];
const FILES: [&str; 6] = [
    "workflow.yaml",
    "rows.yaml",
    "leads.csv",
    "standin-secrets/hubspot-token",
    "standin-secrets/slack-token",
    "standin-secrets/stripe-key",
];

/// Nothing that these tests wait for takes longer, even on a machine that is busy.
pub(crate) const WAIT_MAX: Duration = Duration::from_mins(1);
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Services, and a folder with the example.
pub(crate) struct Stage {
    pub(crate) standins: Standins,
    dir: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let standins = Standins::start(Options::default()).await.unwrap();
        let dir = tempfile::tempdir().unwrap();
        let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/lead-intake");
        std::fs::create_dir(dir.path().join("standin-secrets")).unwrap();
        for name in FILES {
            std::fs::copy(example.join(name), dir.path().join(name)).unwrap();
        }
        let config = std::fs::read_to_string(example.join("cofferdam.toml")).unwrap();
        let config = PORTS.iter().fold(config, |text, (written, real)| {
            text.replace(written, &real(&standins).to_string())
        });
        std::fs::write(dir.path().join("cofferdam.toml"), config).unwrap();
        Self { standins, dir }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn config(&self) -> Config {
        with_plugins(Config::load(self.path("cofferdam.toml")).unwrap())
            .with_store(self.path("store"))
    }

    /// A runtime on the stage's store, and the workflow.
    pub(crate) async fn open(&self) -> (Runtime, Definition) {
        let runtime = Runtime::open(self.config()).await.unwrap();
        let workflow = runtime.load_workflow(self.path("workflow.yaml")).unwrap();
        (runtime, workflow)
    }

    /// Opens, runs one lead to its end, and closes.
    pub(crate) async fn run(&self, lead: Value) -> RunView {
        let (runtime, workflow) = self.open().await;
        let run = runtime.start(&workflow, lead).await.unwrap();
        let view = ended(&runtime, &run).await;
        runtime.shutdown().await;
        view
    }

    /// The addresses in the database.
    pub(crate) async fn rows(&self, runtime: &Runtime) -> Value {
        let workflow = runtime.load_workflow(self.path("rows.yaml")).unwrap();
        let run = runtime.start(&workflow, json!({})).await.unwrap();
        (*ended(runtime, &run).await.output.unwrap()).clone()
    }

    pub(crate) fn charges(&self, email: &str) -> u64 {
        let charged = self.standins.stripe.charged_by_email();
        charged.get(email).map_or(0, |charged| charged.charges)
    }

    pub(crate) fn mails(&self, email: &str) -> usize {
        let to = |mail: &cofferdam_standins::smtp::Message| {
            mail.rcpt_to.iter().any(|recipient| recipient == email)
        };
        self.standins
            .smtp
            .messages()
            .iter()
            .filter(|mail| to(mail))
            .count()
    }

    /// How often the CRM made, and archived, the contact.
    pub(crate) fn contacts(&self, email: &str) -> (u64, u64) {
        let effects = self.standins.hubspot.effects();
        let count = |what: &str| {
            effects
                .get(&format!("{what}:{email}"))
                .copied()
                .unwrap_or(0)
        };
        (count("create"), count("archive"))
    }
}

/// A lead that every service takes.
pub(crate) fn lead(email: &str) -> Value {
    json!({
        "email": email, "firstName": "Zoë", "lastName": "Müller", "company": "Müller GmbH",
        "country": "DE", "phone": "030 901820", "plan": "team", "amount": 49.0, "card": "pm_card_visa",
    })
}

/// Waits for a run's end.
pub(crate) async fn ended(runtime: &Runtime, run: &str) -> RunView {
    let ended = tokio::time::timeout(WAIT_MAX, runtime.wait(run)).await;
    assert!(ended.is_ok(), "{run} did not end: {:#?}", runtime.run(run));
    ended.unwrap().unwrap()
}

/// Waits until something holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let looking = async {
        while !holds() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    assert!(
        tokio::time::timeout(WAIT_MAX, looking).await.is_ok(),
        "not in time: {what}"
    );
}

/// Finds plugins where `cargo xtask guests` puts them, unless the environment says where they are.
pub(crate) fn with_plugins(config: Config) -> Config {
    // Nobody has signed what was built here.
    let config = config.with_allow_unsigned(true);
    if std::env::var_os("COFFERDAM_PLUGINS").is_some() {
        return config;
    }
    config.with_plugins_dir(plugins())
}

/// The folder with the plugins.
pub(crate) fn plugins() -> PathBuf {
    let named = std::env::var_os("COFFERDAM_PLUGINS").map(PathBuf::from);
    let dir = named.unwrap_or_else(|| target().join("plugins"));
    assert!(
        dir.is_dir(),
        "{} is not there: run `cargo xtask guests`, or the tests with `cargo xtask test`",
        dir.display()
    );
    dir
}

/// The command line that `cargo xtask test` builds.
pub(crate) fn cofferdam() -> PathBuf {
    let named = std::env::var_os("COFFERDAM_BIN").map(PathBuf::from);
    let program = named.unwrap_or_else(|| target().join("debug/cofferdam"));
    assert!(
        program.is_file(),
        "{} is not there: run the tests with `cargo xtask test`",
        program.display()
    );
    program
}

/// Tests run in `target/debug/deps`.
fn target() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(3).unwrap().to_owned()
}
