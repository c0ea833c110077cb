//! Embeds the runtime: runs a workflow, reads its result and how each part of it came to be.
//!
//! `cargo xtask guests && cargo run -p embed-example -- https://example.com/status.json`
//! The address need not answer: that is what the fallback is for.

use std::collections::BTreeMap;

use cofferdam::{Config, Connection, OnOutage, Runtime, Source, Sources};
use serde_json::json;

const WORKFLOW: &str = r#"
document: { dsl: "1.0.3", namespace: examples, name: greet, version: "1.0.0" }
do:
  - status:
      call: http.get
      with: { url: "${ .status }" }
      metadata:
        cofferdam:
          attempts: 1
          fallback: [{ value: { state: unknown } }]
  - greeting:
      set: { text: "${ \"Hello \" + $workflow.input.name }", status: "${ . }" }
"#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args()
        .nth(1)
        .unwrap_or("http://localhost:9/status".into());
    let origin = url.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
    let http = Connection::new("http", "http")
        .allow_http(origin)
        .with_on_outage(OnOutage::Fallback);
    let config = Config::new()
        .with_store(std::env::temp_dir().join("embed-example"))
        // The plugins were built in this checkout, and nobody has signed them.
        .with_allow_unsigned(true)
        .with_connection(http);

    let runtime = Runtime::open(config).await?;
    let main = Source {
        origin: "greet.yaml".into(),
        text: WORKFLOW.into(),
    };
    let workflow = runtime.define(&Sources {
        main,
        others: BTreeMap::new(),
    })?;

    let run = runtime
        .start(&workflow, json!({"name": "Ada", "status": url}))
        .await?;
    let end = runtime.wait(&run).await?;
    println!("{}, degraded: {}", end.status.as_str(), end.degraded);
    println!("{}", serde_json::to_string_pretty(&end.output)?);
    for (task, provenance) in &end.provenance {
        println!("{task} is {provenance}");
    }
    runtime.shutdown().await;
    Ok(())
}
