//! What one call in a chamber costs, beside the same component in bare wasmtime: same engine
//! settings, a fresh instance per call, no Cofferdam.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use cofferdam_bench::{load, percentile_us, plugins, quick, ratio};
use cofferdam_host::{Artifact, Call, ConnectionSpec, Host, HostOptions, MemoryKv, Services};
use serde_json::{Value, json};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
};
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

#[allow(missing_docs, clippy::pedantic)]
mod bindings {
    wasmtime::component::bindgen!({path: "../wit", world: "plugin", exports: {default: async}});
}

const ACTION: &str = "normalize-phone";

fn input() -> Value {
    json!({"phone": "030 901820", "country": "DE"})
}

#[tokio::main]
async fn main() -> Result<()> {
    let calls = if quick() { 500 } else { 20_000 };
    let before = load();
    let component = plugins()?.join("normalize/plugin.wasm");
    let mut bare = Bare::new(&component)?.measure(calls).await?;
    let mut ours = chamber(calls).await?;
    let (bare_p50, ours_p50) = (percentile_us(&mut bare, 0.5), percentile_us(&mut ours, 0.5));
    let report = json!({
        "bench": "calls", "unit": "microseconds per call, fresh instance, one small action",
        "before": before, "after": load(), "calls": calls,
        "bareWasmtime": {"p50": bare_p50, "p99": percentile_us(&mut bare, 0.99)},
        "chamber": {"p50": ours_p50, "p99": percentile_us(&mut ours, 0.99)},
        "ratio": ratio(ours_p50, bare_p50),
    });
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

async fn chamber(calls: usize) -> Result<Vec<Duration>> {
    let host = Host::new(HostOptions::default())?;
    let plugin = host.load(Artifact::read(&plugins()?.join("normalize"))?)?;
    let services = Services {
        kv: std::sync::Arc::new(MemoryKv::default()),
    };
    let connection = plugin.connect(ConnectionSpec::new("phone"), services)?;
    let mut took = Vec::with_capacity(calls);
    for _ in 0..calls {
        let call = Call {
            action: ACTION.into(),
            input: input(),
            idempotency_key: "bench".into(),
            attempt: 1,
            timeout: Duration::from_secs(30),
            tenant: String::new(),
            traceparent: String::new(),
        };
        let begun = Instant::now();
        let outcome = connection.invoke(call).await;
        took.push(begun.elapsed());
        outcome.result.context("the call failed")?;
    }
    Ok(took)
}

/// The component in wasmtime and nothing else.
struct Bare {
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
    fn new(component: &std::path::Path) -> Result<Self> {
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

    async fn measure(&self, calls: usize) -> Result<Vec<Duration>> {
        let input = input().to_string();
        let mut took = Vec::with_capacity(calls);
        for _ in 0..calls {
            let begun = Instant::now();
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
                input: input.clone(),
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
            drop(store);
            took.push(begun.elapsed());
            answer.ok().context("the call failed")?;
        }
        Ok(took)
    }
}
