//! The chamber: one fresh store and instance for one call, and every limit around it.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cofferdam_core::failure::{EffectState, Failure};
use futures::FutureExt;
use wasmtime::component::{HasSelf, ResourceTable};
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::bindings::cofferdam::connector::protocol;
use crate::call::{Call, Health, LogLine, Usage};
use crate::capabilities::{http, wasi};
use crate::connection::Settings;
use crate::cpu::CpuMeter;
use crate::host::Host;
use crate::limits::Meter;
use crate::plugin::Loaded;
use crate::scope::Scope;
use crate::verdict::{self, Stop};

/// What guest and host may copy in one host call, above the bytes of the largest output. A list of
/// empty strings takes memory of the host and none of the guest's.
const HOSTCALL_BYTES: usize = 32 << 20;
/// Resources of one call: streams, requests, responses, timers.
const HANDLES_MAX: usize = 4_096;

/// What the store of one call holds.
pub(crate) struct State {
    pub(crate) scope: Arc<Scope>,
    meter: Meter,
    table: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: http::Hooks,
}

/// The link between the store's data and the generated host traits.
pub(crate) type Data = HasSelf<State>;

/// What is asked of a guest.
pub(crate) enum Work {
    Describe,
    Invoke(Call),
    Check,
    Lookup { action: String, key: String },
}

/// What a guest answered.
pub(crate) enum Answer {
    Described(String),
    Output(String),
    Health(Health),
    Lookup(Option<String>),
}

/// How a call went.
pub(crate) struct Ran {
    pub(crate) result: Result<Answer, Failure>,
    /// What a failure found out later, about this call's output, has to say of its effect.
    pub(crate) effect: EffectState,
    pub(crate) usage: Usage,
    pub(crate) logs: Vec<LogLine>,
}

/// Performs one call in a chamber of its own.
pub(crate) async fn run(
    host: &Host,
    loaded: &Loaded,
    settings: &Arc<Settings>,
    work: Work,
    tenant: String,
    timeout: Duration,
) -> Ran {
    let scope = Arc::new(Scope::new(Arc::clone(settings), tenant, timeout));
    let cpu = Arc::new(CpuMeter::default());
    let _ticking = host.inner.engines.ticker().call();
    let fuel = settings.limits.fuel.unwrap_or(u64::MAX);
    let mut store = match open(loaded, &scope, &cpu, fuel) {
        Ok(store) => store,
        Err(error) => {
            let result = Err(verdict::stopped(&error, &scope, false));
            return Ran {
                result,
                effect: EffectState::None,
                usage: Usage::default(),
                logs: vec![],
            };
        }
    };
    let ended = {
        // A panic below is one of the host's own functions; it must cost this call and no other.
        let call = AssertUnwindSafe(perform(loaded, &mut store, work, timeout)).catch_unwind();
        let mut call = pin!(call);
        let metered = poll_fn(|context| cpu.measure(|| call.as_mut().poll(context)));
        tokio::time::timeout(timeout, metered).await
    };
    let refused = store.data().meter.refused;
    let result = match ended {
        Ok(Ok(Ok(answer))) => answer.map_err(|failure| verdict::of_guest(failure, &scope)),
        Ok(Ok(Err(error))) => Err(verdict::stopped(&error, &scope, refused)),
        Ok(Err(_panic)) => Err(verdict::panicked(&scope)),
        Err(_elapsed) => Err(verdict::timed_out(&scope)),
    };
    let usage = Usage {
        fuel: store.get_fuel().map_or(0, |left| fuel.saturating_sub(left)),
        cpu: cpu.spent(),
        wall: scope.began.elapsed(),
        memory_bytes_peak: store.data().meter.bytes_peak as u64,
        requests: scope.requests(),
        log_bytes: 0,
    };
    // Ends the call's requests, and lets go of its output streams, whose last line may be open.
    drop(store);
    let (logs, log_bytes) = scope.take_log();
    Ran {
        result,
        effect: scope.effect(),
        usage: Usage { log_bytes, ..usage },
        logs,
    }
}

/// Makes the store, with every limit that wasmtime offers.
fn open(
    loaded: &Loaded,
    scope: &Arc<Scope>,
    cpu: &Arc<CpuMeter>,
    fuel: u64,
) -> wasmtime::Result<Store<State>> {
    let limits = &scope.settings.limits;
    let mut table = ResourceTable::new();
    table.set_max_capacity(HANDLES_MAX);
    let state = State {
        meter: Meter::new(limits.memory_bytes),
        table,
        wasi: wasi::prepare(scope)?,
        http: http::context(),
        hooks: http::Hooks::new(Arc::clone(scope)),
        scope: Arc::clone(scope),
    };
    let mut store = Store::new(loaded.pre.engine(), state);
    store.limiter(|state| &mut state.meter);
    store.set_fuel(fuel)?;
    store.set_hostcall_fuel(HOSTCALL_BYTES.saturating_add(limits.output_bytes as usize));
    store.set_max_component_handles(HANDLES_MAX);
    let (cpu, cpu_max, deadline) = (Arc::clone(cpu), limits.cpu_time, scope.deadline);
    store.epoch_deadline_callback(move |_| {
        if cpu.spent() >= cpu_max {
            return Err(wasmtime::Error::new(Stop::Cpu));
        }
        if Instant::now() >= deadline {
            return Err(wasmtime::Error::new(Stop::Deadline));
        }
        // Yielding at every tick lets other calls run on this thread beside a busy guest.
        Ok(UpdateDeadline::Yield(1))
    });
    store.set_epoch_deadline(1);
    Ok(store)
}

type Answered = Result<Answer, protocol::Failure>;

async fn perform(
    loaded: &Loaded,
    store: &mut Store<State>,
    work: Work,
    timeout: Duration,
) -> wasmtime::Result<Answered> {
    let instance = loaded.pre.instantiate_async(&mut *store).await?;
    let connector = loaded.connector.load(&mut *store, &instance)?;
    let connection = store.data().scope.settings.name.clone();
    match work {
        Work::Describe => {
            let text = connector.call_describe(&mut *store).await?;
            Ok(Ok(Answer::Described(text)))
        }
        Work::Invoke(call) => {
            let call = lower(call, connection, timeout);
            let answer = connector.call_invoke(&mut *store, &call).await?;
            Ok(answer.map(Answer::Output))
        }
        Work::Check => {
            let answer = connector.call_check(&mut *store, &connection).await?;
            Ok(answer.map(|health| Answer::Health(verdict::health(health, &store.data().scope))))
        }
        Work::Lookup { action, key } => {
            let indices = loaded
                .recovery
                .as_ref()
                .ok_or_else(|| wasmtime::Error::msg("the component does not export `recovery`"))?;
            let recovery = indices.load(&mut *store, &instance)?;
            let answer = recovery.call_lookup(&mut *store, &action, &key).await?;
            Ok(answer.map(Answer::Lookup))
        }
    }
}

fn lower(call: Call, connection: String, timeout: Duration) -> protocol::Call {
    protocol::Call {
        action: call.action,
        input: call.input.to_string(),
        connection,
        idempotency_key: call.idempotency_key,
        attempt: call.attempt,
        deadline_ms: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        tenant: call.tenant,
        traceparent: call.traceparent,
        ext: "{}".to_owned(),
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.hooks,
        }
    }
}

impl protocol::Host for State {}
