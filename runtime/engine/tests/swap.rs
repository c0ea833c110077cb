//! Plugins swapped while calls go on: what serves, what is refused, what comes back.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

#[path = "swap/plugins.rs"]
mod plugins;

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cofferdam::config::Connection;
use cofferdam::{
    CanaryConfig, Config, Definition, Error, Happening, QuarantineState, Runtime, Source, Sources,
    Status, Swap,
};
use cofferdam_host::Limits;
use plugins::Plugins;
use serde_json::json;

use common::until;

/// Longer than anything here takes on the busiest machine.
const LONG: Duration = Duration::from_mins(1);

fn swap(artifact: impl AsRef<Path>) -> Swap {
    Swap {
        artifact: artifact.as_ref().to_owned(),
        canary: None,
        force: false,
    }
}

fn unsigned() -> Config {
    Config::new().with_allow_unsigned(true)
}

fn config(plugin: &Path) -> Config {
    let connection = Connection::new("crm", &plugin.display().to_string());
    unsigned().with_connection(connection.with_on_outage(cofferdam::OnOutage::Fail))
}

async fn open(config: Config) -> Runtime {
    Runtime::open(config).await.unwrap()
}

fn definition(runtime: &Runtime) -> Definition {
    calls_to(runtime, "crm")
}

/// A workflow of one call on this connection.
fn calls_to(runtime: &Runtime, connection: &str) -> Definition {
    let document = json!({
        "document": {"dsl": "1.0.3", "namespace": "tests", "name": "go", "version": "1.0.0"},
        "do": [{"act": {"call": format!("{connection}.go"), "with": {}}}],
    });
    let main = Source {
        origin: "go.json".into(),
        text: document.to_string(),
    };
    let others = BTreeMap::default();
    runtime.define(&Sources { main, others }).unwrap()
}

/// What one call answered: the tag of the plugin, or the code of the failure.
async fn call(runtime: &Runtime, definition: &Definition) -> Result<u64, String> {
    let run = runtime.start(definition, json!({})).await.unwrap();
    let ended = tokio::time::timeout(LONG, runtime.wait(&run)).await;
    let view = ended.expect("every run ends").unwrap();
    match view.status {
        Status::Completed => Ok(view.output.unwrap().as_u64().unwrap()),
        _ => Err(view.error.unwrap().cofferdam.unwrap().code),
    }
}

fn serving(runtime: &Runtime) -> u64 {
    runtime.generations("crm").unwrap().active.row.number
}

fn happened(runtime: &Runtime) -> Vec<Happening> {
    let rows = runtime.history("crm").unwrap();
    rows.into_iter().rev().map(|row| row.what).collect()
}

#[tokio::test]
async fn a_swap_serves_the_next_call_and_a_rollback_the_one_after() {
    let plugins = Plugins::new();
    let runtime = open(config(&plugins.good(1001))).await;
    let go = definition(&runtime);
    assert_eq!(call(&runtime, &go).await, Ok(1001));
    let swapped = runtime.swap("crm", swap(plugins.good(1002))).await.unwrap();
    assert_eq!(swapped.generations.active.row.number, 2);
    assert_eq!(call(&runtime, &go).await, Ok(1002));
    let back = runtime.rollback("crm").await.unwrap();
    assert_eq!(back.active.row.number, 1);
    assert_eq!(call(&runtime, &go).await, Ok(1001));
    let again = runtime.rollback("crm").await;
    assert!(matches!(again, Err(Error::NothingBefore { .. })));
    assert_eq!(
        happened(&runtime),
        [Happening::Activated, Happening::RolledBack]
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn whatever_is_wrong_with_a_new_plugin_the_old_one_stays_and_the_reason_is_kept() {
    let plugins = Plugins::new();
    let runtime = open(config(&plugins.good(1001))).await;
    let go = definition(&runtime);
    let junk = plugins.write("junk.wasm", b"not wasm at all");
    let world = plugins.write("world.wasm", &wat::parse_str("(component)").unwrap());
    let cases = [
        (plugins.without_actions(1002), "CD0264"),
        (plugins.needs_more_input(1002), "CD0264"),
        (plugins.hurts_when_repeated(1002), "CD0264"),
        (plugins.another_plugin(1002), "CD0264"),
        (plugins.traps_at_check(1002), "CD0265"),
        (plugins.good(1001), "CD0269"),
        (junk, "CD03"),
        (world, "CD03"),
        (plugins.path("absent.wasm"), "CD03"),
    ];
    for (artifact, code) in &cases {
        let refused = runtime.swap("crm", swap(artifact)).await.unwrap_err();
        assert!(refused.to_string().contains(code), "{refused}");
        assert_eq!(call(&runtime, &go).await, Ok(1001));
    }
    assert_eq!(serving(&runtime), 1);
    let history = runtime.history("crm").unwrap();
    // What serves already is no news.
    assert_eq!(history.len(), cases.len() - 1);
    assert!(history.iter().all(|row| row.what == Happening::Refused));
    assert!(history.iter().all(|row| row.why.is_some()));
    let nobody = runtime.swap("mail", swap(plugins.good(1002))).await;
    assert!(matches!(nobody, Err(Error::UnknownConnection { .. })));
    runtime.shutdown().await;
}

#[tokio::test]
async fn force_takes_what_is_incompatible_and_never_what_is_no_plugin() {
    let plugins = Plugins::new();
    let runtime = open(config(&plugins.good(1001))).await;
    let forced = |artifact| Swap {
        force: true,
        ..swap(artifact)
    };
    let junk = plugins.write("junk.wasm", b"not wasm at all");
    assert!(runtime.swap("crm", forced(junk)).await.is_err());
    let narrow = plugins.needs_more_input(1002);
    let swapped = runtime.swap("crm", forced(narrow)).await.unwrap();
    assert!(swapped.changes.iter().any(|change| change.breaking));
    assert_eq!(serving(&runtime), 2);
    runtime.shutdown().await;
}

#[tokio::test]
async fn calls_end_on_the_generation_that_they_began_on() {
    let plugins = Plugins::new();
    let limits = Limits {
        cpu_time: LONG,
        timeout: LONG,
        fuel: None,
        ..Limits::default()
    };
    let connection = Connection::new("crm", &plugins.slow(1001).display().to_string());
    let config = unsigned().with_connection(connection.with_limits(limits));
    let runtime = open(config).await;
    let go = definition(&runtime);
    let (of_slow, again) = (runtime.clone(), go.clone());
    let slow = tokio::spawn(async move { call(&of_slow, &again).await });
    until(|| runtime.generations("crm").unwrap().active.in_flight == 1).await;
    let swapped = runtime.swap("crm", swap(plugins.good(1002))).await.unwrap();
    assert_eq!(swapped.generations.previous.unwrap().in_flight, 1);
    assert_eq!(call(&runtime, &go).await, Ok(1002));
    assert_eq!(slow.await.unwrap(), Ok(1001));
    assert_eq!(
        runtime
            .generations("crm")
            .unwrap()
            .previous
            .unwrap()
            .in_flight,
        0
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_crashes_after_a_swap_is_rolled_back_by_itself() {
    let plugins = Plugins::new();
    // The crash that makes it held opens the breaker, too.
    let breaker = cofferdam_core::breaker::Config {
        minimum_number_of_calls: 3,
        ..cofferdam_core::breaker::Config::default()
    };
    let connection = Connection::new("crm", &plugins.good(1001).display().to_string());
    let connection = connection
        .with_on_outage(cofferdam::OnOutage::Fail)
        .with_breaker(breaker);
    let runtime = open(unsigned().with_connection(connection)).await;
    let go = definition(&runtime);
    runtime
        .swap("crm", swap(plugins.traps(1002)))
        .await
        .unwrap();
    for _ in 0..3 {
        assert_eq!(call(&runtime, &go).await, Err("plugin.trap".into()));
    }
    until(|| serving(&runtime) == 1 && runtime.connections()[0].breaker == "Closed").await;
    assert_eq!(call(&runtime, &go).await, Ok(1001));
    assert_eq!(
        happened(&runtime),
        [
            Happening::Activated,
            Happening::Quarantined,
            Happening::RolledBack
        ]
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_keeps_crashing_is_held_visibly_when_there_is_nothing_to_go_back_to() {
    let plugins = Plugins::new();
    let runtime = open(config(&plugins.traps(1001))).await;
    let go = definition(&runtime);
    for _ in 0..3 {
        assert_eq!(call(&runtime, &go).await, Err("plugin.trap".into()));
    }
    assert_eq!(call(&runtime, &go).await, Err("plugin.quarantined".into()));
    let state = &runtime.connections()[0];
    assert!(matches!(state.quarantine, QuarantineState::Held { .. }));
    until(|| happened(&runtime) == [Happening::Quarantined]).await;
    // A plugin that works takes over at once.
    runtime.swap("crm", swap(plugins.good(1002))).await.unwrap();
    assert_eq!(call(&runtime, &go).await, Ok(1002));
    runtime.shutdown().await;
}

fn canary(artifact: &Path, share_percent: u8, duration: Duration) -> Swap {
    let duration_ms = u64::try_from(duration.as_millis()).unwrap();
    Swap {
        canary: Some(CanaryConfig::new(share_percent, duration_ms).unwrap()),
        ..swap(artifact)
    }
}

#[tokio::test]
async fn a_trial_takes_its_share_and_is_promoted_when_its_time_is_over() {
    let plugins = Plugins::new();
    let runtime = open(config(&plugins.good(1001))).await;
    let go = definition(&runtime);
    let trial = canary(&plugins.good(1002), 50, Duration::from_secs(1));
    let swapped = runtime.swap("crm", trial).await.unwrap();
    assert_eq!(swapped.generations.active.row.number, 1);
    let second = runtime.swap("crm", swap(plugins.good(1003))).await;
    assert!(matches!(second, Err(Error::OnTrial { number: 2, .. })));
    let mut answers = [0, 0];
    for _ in 0..100 {
        match call(&runtime, &go).await {
            Ok(1001) => answers[0] += 1,
            Ok(1002) => answers[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(answers.iter().all(|n| *n > 10), "{answers:?}");
    until(|| serving(&runtime) == 2).await;
    let generations = runtime.generations("crm").unwrap();
    assert!(generations.trial.is_none());
    assert_eq!(generations.previous.unwrap().row.number, 1);
    assert_eq!(
        happened(&runtime),
        [Happening::Tried, Happening::Refused, Happening::Promoted]
    );
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_trial_that_crashes_is_ended_and_the_stable_generation_serves_all() {
    let plugins = Plugins::new();
    let runtime = open(config(&plugins.good(1001))).await;
    let go = definition(&runtime);
    let trial = canary(&plugins.traps(1002), 50, Duration::from_hours(1));
    runtime.swap("crm", trial).await.unwrap();
    let mut crashed = 0;
    while runtime.generations("crm").unwrap().trial.is_some() {
        match call(&runtime, &go).await {
            Ok(1001) => {}
            Err(code) if code == "plugin.trap" => crashed += 1,
            other => panic!("{other:?}"),
        }
    }
    // Some were under way when the third ended.
    assert!(crashed >= 3, "{crashed}");
    assert_eq!(serving(&runtime), 1);
    for _ in 0..20 {
        assert_eq!(call(&runtime, &go).await, Ok(1001));
    }
    let row = runtime.history("crm").unwrap().remove(0);
    assert_eq!(row.what, Happening::RolledBack);
    assert_eq!(row.why.as_deref(), Some("it crashed too often"));
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_person_can_promote_and_roll_back_a_trial() {
    let plugins = Plugins::new();
    let runtime = open(config(&plugins.good(1001))).await;
    assert!(matches!(
        runtime.promote("crm").await,
        Err(Error::NoTrial { .. })
    ));
    let hour = Duration::from_hours(1);
    let trial = canary(&plugins.good(1002), 10, hour);
    runtime.swap("crm", trial).await.unwrap();
    assert_eq!(runtime.promote("crm").await.unwrap().active.row.number, 2);
    let trial = canary(&plugins.good(1003), 10, hour);
    runtime.swap("crm", trial).await.unwrap();
    let left = runtime.rollback("crm").await.unwrap();
    assert_eq!(left.active.row.number, 2);
    assert_eq!(left.previous.unwrap().row.number, 1);
    assert!(left.trial.is_none());
    runtime.shutdown().await;
}

#[tokio::test]
async fn what_serves_and_what_is_on_trial_survive_a_restart_without_the_files() {
    let plugins = Plugins::new();
    let data = plugins.path("data");
    let configured = plugins.good(1001);
    let config = config(&configured).with_store(&data);
    let runtime = open(config.clone()).await;
    let second = plugins.good(1002);
    runtime.swap("crm", swap(&second)).await.unwrap();
    let third = plugins.good(1003);
    let trial = canary(&third, 30, Duration::from_hours(1));
    runtime.swap("crm", trial).await.unwrap();
    let go = definition(&runtime);
    for _ in 0..10 {
        call(&runtime, &go).await.unwrap();
    }
    let before = runtime.generations("crm").unwrap();
    let canary = before.trial.unwrap().canary;
    assert_eq!(canary.stable.calls + canary.trial.calls, 10);
    runtime.shutdown().await;

    for gone in [second, third] {
        std::fs::remove_file(gone).unwrap();
    }
    let runtime = open(config.clone()).await;
    let after = runtime.generations("crm").unwrap();
    assert_eq!(after.active.row.number, 2);
    assert_eq!(after.previous.unwrap().row.number, 1);
    assert_eq!(after.trial.unwrap().canary, canary);
    assert_eq!(runtime.promote("crm").await.unwrap().active.row.number, 3);
    assert_eq!(call(&runtime, &definition(&runtime)).await, Ok(1003));
    runtime.shutdown().await;

    let runtime = open(config).await;
    assert_eq!(call(&runtime, &definition(&runtime)).await, Ok(1003));
    assert_eq!(runtime.rollback("crm").await.unwrap().active.row.number, 2);
    assert_eq!(call(&runtime, &definition(&runtime)).await, Ok(1002));
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_rollback_after_a_restart_brings_back_the_bytes_and_not_only_the_number() {
    let plugins = Plugins::new();
    let file = plugins.good(1001);
    let config = config(&file)
        .with_store(plugins.path("data"))
        .with_plugins_watched();
    let runtime = open(config.clone()).await;
    // What the configuration names is written over: no file holds the first one any more.
    std::fs::copy(plugins.good(1002), &file).unwrap();
    until(|| serving(&runtime) == 2).await;
    runtime.shutdown().await;
    let runtime = open(config.clone()).await;
    assert_eq!(call(&runtime, &definition(&runtime)).await, Ok(1002));
    assert_eq!(runtime.rollback("crm").await.unwrap().active.row.number, 1);
    assert_eq!(call(&runtime, &definition(&runtime)).await, Ok(1001));
    runtime.shutdown().await;
    let runtime = open(config).await;
    assert_eq!(call(&runtime, &definition(&runtime)).await, Ok(1001));
    runtime.shutdown().await;
}

#[tokio::test]
async fn what_serves_goes_on_although_what_served_before_cannot_be_loaded() {
    let plugins = Plugins::new();
    let data = plugins.path("data");
    let config = config(&plugins.good(1001)).with_store(&data);
    let runtime = open(config.clone()).await;
    runtime.swap("crm", swap(plugins.good(1002))).await.unwrap();
    runtime.swap("crm", swap(plugins.good(1003))).await.unwrap();
    runtime.shutdown().await;
    std::fs::remove_dir_all(data.join("plugins/crm/2")).unwrap();
    let runtime = open(config).await;
    let generations = runtime.generations("crm").unwrap();
    assert_eq!(generations.active.row.number, 3);
    assert!(generations.previous.is_none());
    assert_eq!(call(&runtime, &definition(&runtime)).await, Ok(1003));
    runtime.shutdown().await;
}

#[tokio::test]
async fn asking_a_store_writes_nothing_into_it() {
    let plugins = Plugins::new();
    let data = plugins.path("data");
    let asked = config(&plugins.good(1001)).with_store(&data);
    let runtime = open(asked.clone()).await;
    runtime.swap("crm", swap(plugins.good(1002))).await.unwrap();
    runtime.shutdown().await;
    let other = config(&plugins.good(1003)).with_store(&data);
    let idle = Runtime::builder(other).idle().open().await.unwrap();
    assert_eq!(serving(&idle), 3);
    assert_eq!(happened(&idle), [Happening::Activated]);
    idle.shutdown().await;
    let runtime = open(asked).await;
    assert_eq!(call(&runtime, &definition(&runtime)).await, Ok(1002));
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_swap_gives_nobody_a_fresh_rate() {
    let plugins = Plugins::new();
    let rate = cofferdam_core::rate::Rate::new(2, Duration::from_hours(1), 2).unwrap();
    let limits = Limits {
        rate: Some(rate),
        ..Limits::default()
    };
    let connection = Connection::new("crm", &plugins.good(1001).display().to_string());
    let connection = connection
        .with_limits(limits)
        .with_retry(1, cofferdam_core::retry::Backoff::default())
        .with_on_outage(cofferdam::OnOutage::Fail);
    let runtime = open(unsigned().with_connection(connection)).await;
    let go = definition(&runtime);
    for _ in 0..2 {
        assert_eq!(call(&runtime, &go).await, Ok(1001));
    }
    runtime.swap("crm", swap(plugins.good(1002))).await.unwrap();
    let run = runtime.start(&go, json!({})).await.unwrap();
    let refused = || {
        let view = runtime.run(&run).unwrap();
        format!("{view:?}").contains("limit.rate")
    };
    until(refused).await;
    assert!(runtime.run(&run).unwrap().output.is_none());
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_manifest_alone_makes_another_generation() {
    let plugins = Plugins::new();
    let first = plugins.good(1001);
    let runtime = open(config(&first)).await;
    let folder = plugins.path("same");
    std::fs::create_dir(&folder).unwrap();
    std::fs::copy(&first, folder.join("plugin.wasm")).unwrap();
    let manifest = "name = \"crm\"\nversion = \"1.0.1001\"\nwit = \"1.0\"\n";
    std::fs::write(folder.join("plugin.toml"), manifest).unwrap();
    runtime.swap("crm", swap(&folder)).await.unwrap();
    assert_eq!(serving(&runtime), 2);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_configuration_that_names_another_plugin_wins_over_what_was_swapped_in() {
    let plugins = Plugins::new();
    let data = plugins.path("data");
    let runtime = open(config(&plugins.good(1001)).with_store(&data)).await;
    runtime.swap("crm", swap(plugins.good(1002))).await.unwrap();
    runtime.shutdown().await;
    let runtime = open(config(&plugins.good(1003)).with_store(&data)).await;
    assert_eq!(call(&runtime, &definition(&runtime)).await, Ok(1003));
    assert_eq!(serving(&runtime), 3);
    let row = runtime.history("crm").unwrap().remove(0);
    assert!(row.why.unwrap().contains("names another plugin"));
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_copy_that_is_gone_leaves_what_is_configured_and_says_so() {
    let plugins = Plugins::new();
    let data = plugins.path("data");
    let config = config(&plugins.good(1001)).with_store(&data);
    let runtime = open(config.clone()).await;
    runtime.swap("crm", swap(plugins.good(1002))).await.unwrap();
    runtime.shutdown().await;
    let (kept, away) = (data.join("plugins"), plugins.path("away"));
    std::fs::rename(&kept, &away).unwrap();
    let runtime = open(config.clone()).await;
    assert_eq!(call(&runtime, &definition(&runtime)).await, Ok(1001));
    let row = runtime.history("crm").unwrap().remove(0);
    assert!(row.why.unwrap().contains("cannot be loaded"));
    runtime.shutdown().await;
    // Put back, it serves again.
    std::fs::rename(&away, &kept).unwrap();
    let runtime = open(config).await;
    assert_eq!(call(&runtime, &definition(&runtime)).await, Ok(1002));
    runtime.shutdown().await;
}

#[tokio::test]
async fn copies_that_nothing_names_any_more_are_removed() {
    let plugins = Plugins::new();
    let data = plugins.path("data");
    let runtime = open(config(&plugins.good(1001)).with_store(&data)).await;
    for tag in 1002..1010 {
        runtime.swap("crm", swap(plugins.good(tag))).await.unwrap();
    }
    let kept = std::fs::read_dir(data.join("plugins/crm")).unwrap().count();
    assert_eq!(kept, 2);
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_watched_plugin_is_swapped_when_its_file_is_written_and_junk_is_not() {
    let plugins = Plugins::new();
    let file = plugins.good(1001);
    let runtime = open(config(&file).with_plugins_watched()).await;
    let go = definition(&runtime);
    std::fs::copy(plugins.good(1002), &file).unwrap();
    until(|| serving(&runtime) == 2).await;
    assert_eq!(call(&runtime, &go).await, Ok(1002));
    std::fs::write(&file, "half a plugin").unwrap();
    until(|| happened(&runtime).last() == Some(&Happening::Refused)).await;
    assert_eq!(call(&runtime, &go).await, Ok(1002));
    runtime.shutdown().await;
}

/// How often plugins are swapped under load, and on how many connections.
const SWAPS: usize = 1_000;
const CONNECTIONS: usize = 4;

fn name(n: usize) -> String {
    format!("c{}", n % CONNECTIONS)
}

/// Calls on every connection until it is told to stop; every answer, by connection.
struct Callers {
    calling: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<Vec<Result<u64, String>>>>,
}

impl Callers {
    fn start(runtime: &Runtime) -> Self {
        let calling = Arc::new(AtomicBool::new(true));
        let caller = |n| {
            let go = calls_to(runtime, &name(n));
            let (runtime, calling) = (runtime.clone(), Arc::clone(&calling));
            tokio::spawn(async move {
                let mut answers = Vec::new();
                while calling.load(Ordering::Relaxed) {
                    answers.push(call(&runtime, &go).await);
                }
                answers
            })
        };
        let tasks = (0..2 * CONNECTIONS).map(caller).collect();
        Self { calling, tasks }
    }

    async fn stop(self) -> Vec<Result<u64, String>> {
        self.calling.store(false, Ordering::Relaxed);
        let mut answers = Vec::new();
        for task in self.tasks {
            let more = task.await.unwrap();
            assert!(!more.is_empty(), "nobody was kept from calling");
            answers.extend(more);
        }
        answers
    }
}

fn many(first: &Path) -> Config {
    (0..CONNECTIONS).fold(unsigned(), |config, n| {
        let connection = Connection::new(name(n), &first.display().to_string());
        config.with_connection(connection.with_on_outage(cofferdam::OnOutage::Fail))
    })
}

fn at_rest(runtime: &Runtime) -> bool {
    (0..CONNECTIONS).all(|n| {
        let generations = runtime.generations(&name(n)).unwrap();
        let before = generations.previous.map_or(0, |before| before.in_flight);
        generations.active.in_flight + before == 0
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_swaps_under_load_lose_no_call_and_a_quarter_of_them_are_bad() {
    let plugins = Plugins::new();
    let runtime = open(many(&plugins.good(1000))).await;
    let callers = Callers::start(&runtime);
    let good: Vec<_> = (1000..1008).map(|tag| plugins.good(tag)).collect();
    let world = wat::parse_str("(component)").unwrap();
    let bad = [
        plugins.traps_at_check(2000),
        plugins.without_actions(2001),
        plugins.needs_more_input(2002),
        plugins.write("world.wasm", &world),
        plugins.write("junk.wasm", b"not wasm at all"),
    ];
    let (mut taken, mut refused) = (0, 0);
    for n in 0..SWAPS {
        let artifact = match n % 4 {
            3 => &bad[(n / 4) % bad.len()],
            _ => &good[(n - n / 4) % good.len()],
        };
        // Each connection meets good and bad ones in turn.
        match runtime.swap(&name(n + n / 4), swap(artifact)).await {
            Ok(_) => taken += 1,
            Err(Error::Same { .. }) => {}
            Err(_) => refused += 1,
        }
    }
    for answer in callers.stop().await {
        let tag = answer.unwrap();
        assert!((1000..1008).contains(&tag), "{tag}");
    }
    assert_eq!((taken >= SWAPS / 2, refused), (true, SWAPS / 4));
    assert!(at_rest(&runtime));
    runtime.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_that_trap_under_load_are_taken_back_each_time_and_every_call_is_answered() {
    let plugins = Plugins::new();
    let runtime = open(many(&plugins.good(1000))).await;
    let callers = Callers::start(&runtime);
    for n in 0..5 * CONNECTIONS {
        let tag = 2000 + u32::try_from(n).unwrap();
        let trapping = swap(plugins.traps(tag));
        runtime.swap(&name(n), trapping).await.unwrap();
        let serves = || runtime.generations(&name(n)).unwrap().active.row.number;
        until(|| serves() == 1).await;
    }
    for answer in callers.stop().await {
        match answer {
            Ok(tag) => assert_eq!(tag, 1000),
            Err(code) => assert!(
                ["plugin.trap", "plugin.quarantined", "breaker.open"].contains(&&*code),
                "{code}"
            ),
        }
    }
    assert!(at_rest(&runtime));
    runtime.shutdown().await;
}
