//! What is on the disk at which moment, and with which configuration a run goes on.

#![allow(clippy::unwrap_used, reason = "in a test, a panic is the report")]

mod stage;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use cofferdam::config::Connection;
use cofferdam::{Config, Definition, Error, Runtime, Source, Sources, Status};
use cofferdam_store::{JournalStore, MemoryStore};
use serde_json::{Value, json};
use stage::with_plugins;

const UNRULY: &str = r#"
[connections.unruly]
plugin = "unruly"
grants = { http = ["https://example.com"], kv = true }
"#;

async fn open(config: Config, store: &MemoryStore) -> Runtime {
    let store: Arc<dyn JournalStore> = Arc::new(store.clone());
    Runtime::builder(config).store(store).open().await.unwrap()
}

fn define(runtime: &Runtime, tasks: &Value) -> Definition {
    let document = json!({
        "document": {"dsl": "1.0.3", "namespace": "tests", "name": "durable", "version": "1.0.0"},
        "do": tasks,
    });
    let main = Source {
        origin: "durable.json".into(),
        text: document.to_string(),
    };
    let others = BTreeMap::default();
    runtime.define(&Sources { main, others }).unwrap()
}

#[tokio::test]
async fn what_came_of_an_effect_is_on_the_disk_while_the_next_read_is_under_way() {
    let store = MemoryStore::new();
    let config = with_plugins(Config::parse(UNRULY, "test", Path::new("")).unwrap());
    let runtime = open(config, &store).await;
    let tasks = json!([
        {"effect": {"call": "unruly.remember", "with": {"key": "k", "value": "v"}}},
        {"read": {"call": "unruly.sleep", "with": {"ms": 3_000}}},
    ]);
    let definition = define(&runtime, &tasks);
    let run = runtime.start(&definition, json!({})).await.unwrap();
    loop {
        let records = store.journal(&run, 0, 100).unwrap();
        let told = |record: &[u8]| String::from_utf8_lossy(record).contains("\"succeeded\"");
        let is_there = records.iter().any(|(_, record)| told(record));
        // Looked at after the journal: what was there then was there before the end.
        let has_ended = runtime.run(&run).unwrap().status.is_final();
        assert!(!has_ended, "the outcome came to the disk only with the end");
        if is_there {
            break;
        }
        tokio::task::yield_now().await;
    }
    runtime.shutdown().await;
}

#[tokio::test]
async fn a_run_is_left_as_it_is_by_a_configuration_without_its_connections() {
    let store = MemoryStore::new();
    let full =
        || with_plugins(Config::new()).with_connection(Connection::new("phone", "normalize"));
    let first = open(full(), &store).await;
    let tasks = json!([
        {"pause": {"wait": {"milliseconds": 500}}},
        {"call": {"call": "phone.normalize-phone", "with": {"phone": "030 901820", "country": "DE"}}},
    ]);
    let definition = define(&first, &tasks);
    let run = first.start(&definition, json!({})).await.unwrap();
    first.shutdown().await;
    let before = store.journal(&run, 0, 100).unwrap();

    let without = open(Config::new(), &store).await;
    match without.wait(&run).await {
        Err(Error::Stopped { reason, .. }) => assert!(reason.contains("CD0260"), "{reason}"),
        other => panic!("{other:?}"),
    }
    without.shutdown().await;
    assert_eq!(store.journal(&run, 0, 100).unwrap(), before);

    let again = open(full(), &store).await;
    assert_eq!(again.wait(&run).await.unwrap().status, Status::Completed);
}
