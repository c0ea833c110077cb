//! The chamber: one fresh store and instance for one call, and every limit around it.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use cofferdam_core::failure::{EffectState, Failure};
use futures::FutureExt;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::{HasSelf, ResourceTable};
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::bindings::cofferdam::connector::protocol;
use crate::call::{Call, Health, LogLine, Usage};
use crate::capabilities::{http, secrets, wasi};
use crate::connection::Settings;
use crate::cpu::CpuMeter;
use crate::gate::Entered;
use crate::host::Host;
use crate::limits::Meter;
use crate::plugin::Loaded;
use crate::scope::Scope;
use crate::ticker::Ticking;
use crate::verdict::{self, Stop};

/// What guest and host may copy in one host call, above the bytes of the largest output. A list of
/// empty strings takes memory of the host and none of the guest's.
pub(crate) const HOSTCALL_BYTES: usize = 32 << 20;
/// Resources of one call: streams, requests, responses, timers.
pub(crate) const HANDLES_MAX: usize = 4_096;

/// A call that has computed for so long goes on in the slow lane. Most calls end before; moving one
/// costs some 20 µs.
const LANE_AFTER: Duration = Duration::from_millis(2);
/// How long past its deadline a call in the lane may take to end by itself.
const GRACE: Duration = Duration::from_millis(3);

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

/// Performs one call in a chamber of its own, and holds its places until that is gone.
pub(crate) async fn run(
    host: &Host,
    loaded: &Arc<Loaded>,
    settings: &Arc<Settings>,
    work: Work,
    tenant: String,
    timeout: Duration,
    held: Option<Entered>,
) -> Ran {
    // Whoever calls without a pause lets its neighbours have their turn in between.
    step_back().await;
    let mut scope = Scope::new(Arc::clone(settings), tenant, timeout);
    if let Work::Invoke(call) = &work {
        scope.given = Some(call.timeout).filter(|given| *given < settings.limits.timeout);
        *scope.placeholders.lock() = secrets::brought(&settings.secrets, call);
    }
    let scope = Arc::new(scope);
    let ledger = Arc::new(Ledger::default());
    let fuel = settings.limits.fuel.unwrap_or(u64::MAX);
    let store = match open(loaded, &scope, &ledger.cpu, fuel) {
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
    let chamber = Chamber {
        store,
        fuel,
        ledger: Arc::clone(&ledger),
        _held: held,
        _ticking: host.inner.engines.ticker().call(),
        _host: host.clone(),
    };
    let call = Box::pin(chamber.serve(Arc::clone(loaded), Arc::clone(&scope), work, timeout));
    let result = if let Some(result) = in_time(host, call, &ledger, &scope).await {
        result
    } else {
        // It may still be running in the lane: from here on it changes nothing any more.
        scope.close();
        Err(verdict::timed_out(&scope))
    };
    let usage = Usage {
        fuel: ledger.fuel.load(Ordering::Acquire),
        cpu: ledger.cpu.ended(),
        wall: scope.began.elapsed(),
        memory_bytes_peak: ledger.memory_bytes_peak.load(Ordering::Acquire),
        requests: scope.requests(),
        log_bytes: 0,
    };
    let (logs, log_bytes) = scope.take_log();
    Ran {
        result,
        effect: scope.close(),
        usage: Usage { log_bytes, ..usage },
        logs,
    }
}

/// Lets whatever else is ready on this thread go first.
async fn step_back() {
    let mut stepped = false;
    poll_fn(|context| {
        if std::mem::replace(&mut stepped, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// Polls a call here, and in the slow lane once it has computed for long; there from the beginning
/// if the connection's last call did, or was the plugin's fault. `None` if its time is
/// over; it is then dropped, or about to be.
async fn in_time<F>(
    host: &Host,
    mut call: Pin<Box<F>>,
    ledger: &Arc<Ledger>,
    scope: &Scope,
) -> Option<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let deadline = tokio::time::Instant::from_std(scope.deadline);
    if !scope.settings.suspect.load(Ordering::Relaxed) {
        let here = poll_fn(
            |context| match ledger.cpu.measure(|| call.as_mut().poll(context)) {
                Poll::Ready(output) => Poll::Ready(Some(output)),
                Poll::Pending if is_long(ledger.cpu.ended()) => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            },
        );
        if let Some(output) = tokio::time::timeout_at(deadline, here).await.ok()? {
            return Some(output);
        }
    }
    let kept = Arc::clone(ledger);
    let rest = async move {
        let polled = poll_fn(|context| kept.cpu.measure(|| call.as_mut().poll(context)));
        tokio::time::timeout_at(deadline, polled).await.ok()
    };
    match host.inner.engines.lane().spawn(rest) {
        Ok(task) => {
            let task = AbortOnDropHandle::new(task);
            // The lane ends it by itself. On a machine so busy that its threads do not get to run,
            // the caller is told in time all the same.
            let ended = tokio::time::timeout_at(deadline + GRACE, task).await;
            ended.ok()?.ok()?
        }
        Err(rest) => rest.await,
    }
}

/// Whether a call that has used so much belongs into the slow lane.
pub(crate) fn is_long(cpu: Duration) -> bool {
    cpu >= LANE_AFTER
}

/// What a call has used; filled when its chamber goes, wherever that is.
#[derive(Default)]
struct Ledger {
    cpu: Arc<CpuMeter>,
    fuel: AtomicU64,
    memory_bytes_peak: AtomicU64,
}

/// The store of a call and all that has to outlive it. Fields are dropped in this order.
struct Chamber {
    store: Store<State>,
    fuel: u64,
    ledger: Arc<Ledger>,
    _held: Option<Entered>,
    _ticking: Ticking,
    /// Keeps the clock going for as long as a guest runs.
    _host: Host,
}

impl Chamber {
    async fn serve(
        mut self,
        loaded: Arc<Loaded>,
        scope: Arc<Scope>,
        work: Work,
        timeout: Duration,
    ) -> Result<Answer, Failure> {
        // A panic below is one of the host's own functions; it must cost this call and no other.
        let call = AssertUnwindSafe(perform(&loaded, &mut self.store, work, timeout));
        let ended = call.catch_unwind().await;
        let refused = self.store.data().meter.refused;
        // Ends the call's requests, and lets go of its output streams, whose last line may be open.
        drop(self);
        // A request that is being polled elsewhere outlives its abortion by that one poll.
        scope.close();
        match ended {
            Ok(Ok(answer)) => answer.map_err(|failure| verdict::of_guest(failure, &scope)),
            Ok(Err(error)) => Err(verdict::stopped(&error, &scope, refused)),
            Err(_panic) => Err(verdict::panicked(&scope)),
        }
    }
}

impl Drop for Chamber {
    fn drop(&mut self) {
        let left = self.store.get_fuel().unwrap_or(self.fuel);
        let (ledger, meter) = (&self.ledger, &self.store.data().meter);
        ledger
            .fuel
            .store(self.fuel.saturating_sub(left), Ordering::Release);
        ledger
            .memory_bytes_peak
            .store(meter.bytes_peak as u64, Ordering::Release);
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
