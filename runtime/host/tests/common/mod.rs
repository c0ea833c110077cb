//! What the host's tests share: where guests are, and small guests written by hand.

#![allow(dead_code, reason = "every test file uses a part of it")]

pub mod wat;
pub mod web;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cofferdam_core::failure::Failure;
use cofferdam_host::{
    Artifact, Call, Connection, ConnectionSpec, Host, HostOptions, MemoryKv, Outcome, Plugin,
    Secret, Services,
};
use serde_json::Value;

pub const SECRET: &str = "kq-9f3b7c1d5e";

/// A stamped guest of the guest workspace.
pub fn guest(name: &str) -> Artifact {
    let folder = std::env::var_os("COFFERDAM_PLUGINS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/plugins"),
        PathBuf::from,
    );
    let folder = folder.join(name);
    assert!(
        folder.join("plugin.wasm").is_file(),
        "{} holds no plugin.wasm: run `cargo xtask guests` first",
        folder.display()
    );
    Artifact::read(&folder).unwrap()
}

pub fn host() -> Host {
    Host::new(HostOptions {
        concurrency_max: 8,
        ..HostOptions::default()
    })
    .unwrap()
}

pub fn services() -> Services {
    Services {
        kv: Arc::new(MemoryKv::default()),
    }
}

/// The unruly guest with everything that it asks for, and one URL that it may reach.
pub fn unruly_spec(url: Option<&str>) -> ConnectionSpec {
    let mut spec = ConnectionSpec::new("unruly");
    spec.grants.kv = true;
    spec.grants.http = vec![url.unwrap_or("https://nowhere.example").to_owned()];
    spec.secrets = vec![Secret {
        name: "UNRULY_SECRET".to_owned(),
        value: SECRET.to_owned(),
        audience: vec!["127.0.0.1".to_owned()],
    }];
    spec
}

pub fn unruly(spec: ConnectionSpec) -> Connection {
    host()
        .load(guest("unruly"))
        .unwrap()
        .connect(spec, services())
        .unwrap()
}

pub fn connect(plugin: &Plugin, spec: ConnectionSpec) -> Connection {
    plugin.connect(spec, services()).unwrap()
}

pub fn call(action: &str, input: Value) -> Call {
    Call {
        action: action.to_owned(),
        input,
        idempotency_key: "key-1".to_owned(),
        attempt: 1,
        timeout: Duration::from_secs(20),
        tenant: String::new(),
        traceparent: String::new(),
        secrets: std::collections::BTreeMap::new(),
    }
}

pub async fn fails(connection: &Connection, call: Call) -> (Failure, Outcome) {
    let outcome = connection.invoke(call).await;
    (
        outcome.result.clone().expect_err("the call has to fail"),
        outcome,
    )
}
