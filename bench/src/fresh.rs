//! One small call, of the same component: in a chamber, and in wasmtime and nothing else.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cofferdam_host::{
    Artifact, Call, Connection, ConnectionSpec, Host, HostOptions, MemoryKv, Services,
};
use serde_json::{Value, json};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::plugins;

#[allow(missing_docs, clippy::pedantic)]
mod bindings {
    wasmtime::component::bindgen!({path: "../wit", world: "plugin", exports: {default: async}});
}

const PLUGIN: &str = "normalize";
const ACTION: &str = "normalize-phone";

fn input() -> Value {
    json!({"phone": "030 901820", "country": "DE"})
}

/// How long each of so many calls takes.
///
/// # Errors
/// That of the first call that fails.
pub async fn measure<F: Future<Output = Result<()>>>(
    calls: usize,
    call: impl Fn() -> F,
) -> Result<Vec<Duration>> {
    let mut took = Vec::with_capacity(calls);
    for _ in 0..calls {
        let begun = Instant::now();
        call().await?;
        took.push(begun.elapsed());
    }
    Ok(took)
}

/// A connection of a host with every limit on.
pub struct Chamber {
    connection: Connection,
}

impl Chamber {
    /// Compiles the plugin.
    ///
    /// # Errors
    /// If it is not there, or cannot be loaded.
    pub fn new() -> Result<Self> {
        let host = Host::new(HostOptions::default())?;
        let plugin = host.load(Artifact::read(&plugins()?.join(PLUGIN))?)?;
        let services = Services {
            kv: Arc::new(MemoryKv::default()),
        };
        let connection = plugin.connect(ConnectionSpec::new("phone"), services)?;
        Ok(Self { connection })
    }

    /// One call.
    ///
    /// # Errors
    /// If it fails.
    pub async fn call(&self) -> Result<()> {
        let call = Call {
            action: ACTION.into(),
            input: input(),
            idempotency_key: "bench".into(),
            attempt: 1,
            timeout: Duration::from_secs(30),
            tenant: String::new(),
            traceparent: String::new(),
            secrets: std::collections::BTreeMap::new(),
        };
        let outcome = self.connection.invoke(call).await;
        outcome.result.context("the call failed")?;
        Ok(())
    }
}

/// The component in wasmtime and nothing else.
pub struct Bare {
    engine: Engine,
    instance: bindings::PluginPre<State>,
}

struct State {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl Bare {
    /// Compiles the plugin.
    ///
    /// # Errors
    /// If it is not there, or cannot be compiled.
    pub fn new() -> Result<Self> {
        let component = plugins()?.join(PLUGIN).join("plugin.wasm");
        let mut pool = PoolingAllocationConfig::default();
        pool.total_component_instances(64)
            .max_memory_size(64 << 20)
            .max_unused_warm_slots(64)
            .linear_memory_keep_resident(2 << 20)
            .table_keep_resident(64 << 10);
        if PoolingAllocationConfig::is_pagemap_scan_available() {
            pool.pagemap_scan(Enabled::Yes);
        }
        let mut config = Config::new();
        config
            .concurrency_support(false)
            .consume_fuel(true)
            .epoch_interruption(true)
            .memory_init_cow(true)
            .allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config)?;
        let component = Component::from_file(&engine, component)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        let instance = bindings::PluginPre::new(linker.instantiate_pre(&component)?)?;
        Ok(Self { engine, instance })
    }

    /// One call in a fresh instance, dropped after it.
    ///
    /// # Errors
    /// If the call fails.
    pub async fn call(&self) -> Result<()> {
        let state = State {
            wasi: WasiCtxBuilder::new().build(),
            table: ResourceTable::new(),
        };
        let mut store = Store::new(&self.engine, state);
        store.set_fuel(u64::MAX)?;
        store.set_epoch_deadline(u64::MAX / 2);
        let plugin = self.instance.instantiate_async(&mut store).await?;
        let call = bindings::exports::cofferdam::connector::connector::Call {
            action: ACTION.into(),
            input: input().to_string(),
            connection: "phone".into(),
            idempotency_key: "bench".into(),
            attempt: 1,
            deadline_ms: 30_000,
            tenant: String::new(),
            traceparent: String::new(),
            ext: "{}".into(),
        };
        let answer = plugin
            .cofferdam_connector_connector()
            .call_invoke(&mut store, &call)
            .await?;
        answer.ok().context("the call failed")?;
        Ok(())
    }
}
