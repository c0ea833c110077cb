//! What is told is on the disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use cofferdam::{Config, Runtime, Source, Sources};
use cofferdam_store::{Fault, JournalStore, MemoryStore};
use serde_json::json;

#[tokio::test]
async fn a_run_whose_last_commit_failed_is_not_told_to_have_ended() {
    let store = MemoryStore::new();
    let shared: Arc<dyn JournalStore> = Arc::new(store.clone());
    let runtime = Runtime::builder(Config::new())
        .store(shared)
        .open()
        .await
        .unwrap();
    let text = r#"
document: {dsl: "1.0.3", namespace: t, name: t, version: "1.0.0"}
do:
  - w: {wait: {milliseconds: 200}}
  - a: {set: {x: 1}}
"#;
    let main = Source {
        origin: "test.yaml".into(),
        text: text.into(),
    };
    let others = BTreeMap::new();
    let definition = runtime.define(&Sources { main, others }).unwrap();
    let run = runtime.start(&definition, json!({})).await.unwrap();
    // A read sees that it has ended; nothing says that this survives.
    store.inject(Fault::Unacknowledged);
    store.stop_after(1);
    let told = runtime.wait(&run).await;
    assert!(
        matches!(told, Err(ref error) if error.is_storage()),
        "{told:?}"
    );
}
