//! What the simulation has found, each as small as can be: red before it was put right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use cofferdam::config::Admission;
use cofferdam::{
    Action, BreakerConfig, Call, Class, Clock, CloudEvent, Config, Connection, Connector,
    Definition, Descriptor, Effect, Failure, Health, HealthConfig, HealthStatus, Runtime, Source,
    Sources, StartOptions, Status, WaitFor,
};
use cofferdam_store::MemoryStore;
use futures::FutureExt;
use serde_json::{Value, json};

async fn open(runs_active_max: usize) -> Runtime {
    let admission = Admission {
        runs_active_max,
        ..Admission::default()
    };
    Runtime::builder(Config::new().with_admission(admission))
        .store(Arc::new(MemoryStore::new()))
        .clock(Clock::tokio(1_000_000))
        .open()
        .await
        .expect("the store opens")
}

fn source(name: &str, tasks: &Value) -> Source {
    let head = json!({"dsl": "1.0.3", "namespace": "found", "name": name, "version": "1.0.0"});
    Source {
        origin: format!("{name}.json"),
        text: json!({"document": head, "do": tasks}).to_string(),
    }
}

fn define(runtime: &Runtime, tasks: &Value) -> Definition {
    let sources = Sources {
        main: source("main", tasks),
        others: BTreeMap::new(),
    };
    runtime.define(&sources).expect("it is a workflow")
}

fn id(run: &str) -> StartOptions {
    StartOptions {
        id: Some(run.to_owned()),
        ..StartOptions::default()
    }
}

async fn publish(runtime: &Runtime, n: u64, kind: &str) {
    let event = json!({
        "specversion": "1.0", "id": n.to_string(), "source": "/found", "type": kind, "data": {"n": n},
    });
    let event = CloudEvent::new(event).expect("it is an event");
    runtime.publish(event).await.expect("it is published");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_tried_again_hears_nothing_from_before() {
    let runtime = open(10).await;
    let listen = json!({
        "listen": {"to": {"any": [{"with": {"type": "x"}}], "until": {"one": {"with": {"type": "stop"}}}}},
        "timeout": {"after": {"seconds": 10}},
        "foreach": {"item": "e", "do": [
            {"work": {"if": "${ $e.n == 1 }", "wait": {"minutes": 1}}},
            {"got": {"set": {"got": "${ $e.n }"}}},
        ]},
    });
    let retry = json!({"delay": {"milliseconds": 0}, "limit": {"attempt": {"count": 2}}});
    let tasks = json!([{"t": {"try": [{"l": listen}], "catch": {"retry": retry}}}]);
    let definition = define(&runtime, &tasks);
    let started = runtime.start_with(&definition, json!({}), id("r")).await;
    let run = started.expect("it begins");
    runtime.settle(&run).await.expect("it waits");
    publish(&runtime, 1, "x").await;
    publish(&runtime, 2, "x").await;
    // The second event lies in the letter box, behind the work for the first, when time is over.
    tokio::time::sleep(Duration::from_secs(12)).await;
    publish(&runtime, 3, "x").await;
    publish(&runtime, 4, "stop").await;
    let view = runtime.wait(&run).await.expect("it ends");
    assert_eq!(view.output.as_deref(), Some(&json!([{"got": 3}])));
}

/// What comes of a task that takes two events, if a task that works on the first one waits for the
/// third, which the other task would take as well.
async fn two_listen_at_once(name: &str) -> Value {
    let runtime = open(10).await;
    let inner = json!({
        "if": "${ $e.n == 1 }",
        "listen": {"to": {"one": {"with": {"type": "x", "data": {"n": 3}}}}},
    });
    let outer = json!({
        "listen": {"to": {"any": [{"with": {"type": "x"}}], "until": "${ length == 2 }"}},
        "foreach": {"item": "e", "do": [{name: inner}, {"got": {"set": {"got": "${ $e.n }"}}}]},
    });
    let definition = define(&runtime, &json!([{"outer": outer}]));
    let started = runtime.start_with(&definition, json!({}), id("r")).await;
    let run = started.expect("it begins");
    for n in 1..=3 {
        runtime.settle(&run).await.expect("it waits");
        publish(&runtime, n, "x").await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let view = runtime.wait(&run).await.expect("it ends");
    view.output.as_deref().cloned().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn an_event_that_had_to_wait_is_not_overtaken() {
    // Letters of one event lie in an order that nobody can choose.
    for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        let taken = two_listen_at_once(name).await;
        assert_eq!(taken, json!([{"got": 1}, {"got": 2}]), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_caller_has_given_up_gets_its_turn() {
    let runtime = open(1).await;
    let definition = define(&runtime, &json!([{"w": {"wait": {"seconds": 1}}}]));
    let first = runtime
        .start_with(&definition, json!({}), id("first"))
        .await;
    let first = first.expect("it begins");
    let second = runtime.start_with(&definition, json!({}), id("second"));
    assert!(
        second.now_or_never().is_none(),
        "nobody waits for the answer"
    );
    runtime.wait(&first).await.expect("it ends");
    let ended = tokio::time::timeout(Duration::from_mins(1), runtime.wait("second")).await;
    let view = ended.expect("its turn comes").expect("it ends");
    assert_eq!(view.status, Status::Completed);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_another_asked_for_says_that_it_waits_for_its_turn() {
    let runtime = open(1).await;
    let workflow = json!({"namespace": "found", "name": "other", "version": "1.0.0"});
    let tasks = json!([
        {"ask": {"run": {"await": false, "workflow": workflow}}},
        {"w": {"wait": {"seconds": 1}}},
    ]);
    let other = source("other", &json!([{"s": {"set": {"done": true}}}]));
    let sources = Sources {
        main: source("main", &tasks),
        others: BTreeMap::from([("found/other:1.0.0".to_owned(), other)]),
    };
    let definition = runtime.define(&sources).expect("it is a workflow");
    let started = runtime.start_with(&definition, json!({}), id("r")).await;
    started.expect("it begins");
    let rows = runtime.query().runs(Some(Status::Queued), 10);
    let row = rows.expect("it can be read").remove(0);
    let view = runtime.run(&row.run).expect("it is there");
    assert_eq!(view.status, Status::Queued);
    assert_eq!(view.waits.len(), 1);
    assert_eq!(view.waits[0].r#for, WaitFor::Turn);
    let view = runtime.wait(&row.run).await.expect("it ends");
    assert_eq!(view.status, Status::Completed);
}

/// A service that is down until it is told that it is well.
#[derive(Default)]
struct Service {
    is_well: AtomicBool,
}

impl Service {
    fn ask(&self) -> Result<(), Failure> {
        let is_well = self.is_well.load(Ordering::Relaxed);
        let down = || Failure::new(Class::Unavailable, "found.down", "down");
        is_well.then_some(()).ok_or_else(down)
    }
}

#[async_trait]
impl Connector for Service {
    fn descriptor(&self) -> Descriptor {
        let action = Action {
            title: "read".to_owned(),
            description: String::new(),
            effect: Effect::Read,
            input: json!({}),
            output: json!({}),
            compensated_by: None,
            lookup: false,
            examples: Vec::new(),
        };
        Descriptor {
            name: "found".to_owned(),
            version: "1.0.0".to_owned(),
            description: String::new(),
            actions: [("read".to_owned(), action)].into(),
        }
    }

    async fn invoke(&self, _: Call) -> Result<Value, Failure> {
        self.ask().map(|()| json!("read"))
    }

    async fn lookup(&self, _: &str, _: &str) -> Result<Option<Value>, Failure> {
        Ok(None)
    }

    async fn check(&self) -> Result<Health, Failure> {
        self.ask().map(|()| Health {
            status: HealthStatus::Healthy,
            message: String::new(),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn nobody_asks_without_a_pause_while_a_connection_is_unhealthy_and_its_breaker_may_be_probed()
{
    let breaker = BreakerConfig {
        minimum_number_of_calls: 1,
        wait_duration_in_open_state_ms: 100,
        ..BreakerConfig::default()
    };
    let health = HealthConfig {
        interval_ms: 1_000,
        unhealthy_threshold: 1,
        healthy_threshold: 1,
        ..HealthConfig::default()
    };
    let connection = Connection::new("crm", "found")
        .with_breaker(breaker)
        .with_health(health);
    let service = Arc::new(Service::default());
    let runtime = Runtime::builder(Config::new().with_connection(connection))
        .store(Arc::new(MemoryStore::new()))
        .clock(Clock::tokio(1_000_000))
        .connector("crm", Arc::clone(&service) as Arc<dyn Connector>)
        .open()
        .await
        .expect("the store opens");
    let definition = define(
        &runtime,
        &json!([{"look": {"call": "crm.read", "with": {}}}]),
    );
    let started = runtime.start_with(&definition, json!({}), id("r")).await;
    let run = started.expect("it begins");
    tokio::time::sleep(Duration::from_mins(1)).await;
    let view = runtime.run(&run).expect("it is there");
    assert_eq!(view.waits[0].r#for, WaitFor::Connection);
    service.is_well.store(true, Ordering::Relaxed);
    let view = runtime.wait(&run).await.expect("it ends");
    assert_eq!(view.status, Status::Completed);
}
