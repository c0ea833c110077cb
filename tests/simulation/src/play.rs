//! One world from its beginning to its end: processes that live and die, clients, an operator.

use std::sync::Arc;
use std::time::Duration;

use cofferdam::{Clock, Config, Connection, Decision, OnOutage, Rng, Runtime, StartOptions};
use cofferdam_core::breaker;
use cofferdam_core::quarantine;
use cofferdam_core::retry::{Backoff, Growth, Jitter};
use cofferdam_host::{Host, HostOptions, Limits};
use futures::future::join_all;
use serde_json::json;

use crate::dice::Dice;
use crate::disk::FaultyStore;
use crate::flow::{self, CONNECTIONS, Flow};
use crate::mutation::Mutation;
use crate::services::{self, Way};
use crate::world::World;

/// What is played besides the seed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// A deliberate defect.
    pub mutation: Option<Mutation>,
    /// Whether every step is written down.
    pub trace: bool,
}

/// What came of one seed.
#[derive(Debug, Clone)]
pub struct Played {
    /// Hash of everything that happened, in order and with its instant.
    pub history: String,
    /// How many things the engine did to the world.
    pub steps: u64,
    /// Processes that were begun.
    pub processes: u64,
    /// What is wrong, if anything.
    pub violations: Vec<String>,
    /// Everything that happened, if it was asked for.
    pub trace: Option<String>,
}

/// Some people wait for a long time; nobody waits for ever.
const PATIENCE_MS: u64 = 24 * 60 * 60 * 1_000;
/// Parked tasks go on within this time of fair weather: breakers, quarantines and drains wait for
/// a few seconds each.
const RECOVERED_MS: u64 = 90_000;
/// More processes than these, and none gets anywhere.
const PROCESSES_MAX: u64 = 200;

/// How the life of one process ended.
enum End {
    /// All is done and judged.
    Done,
    /// It has to be started again.
    Again,
}

/// Everything that is fixed for a seed.
struct Plan {
    config: Config,
    flow: Flow,
    runs: Vec<String>,
    /// After how many records a checkpoint is written, in some worlds.
    checkpoint_every: Option<u64>,
}

/// Plays one seed to its end. The same seed gives the same history.
///
/// # Errors
/// If the virtual machine's host or a runtime for it cannot be made: nothing was played then.
pub fn play(seed: u64, host: &Host, options: Options) -> anyhow::Result<Played> {
    let world = World::new(seed, options.mutation, options.trace);
    let plan = Plan::new(&world);
    world.lock().oracle.promises.clone_from(&plan.flow.promises);
    let mut processes = 0;
    loop {
        processes += 1;
        // One task after the other, so that a crash comes right after the step that it is for.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .event_interval(1)
            .build()?;
        let end = runtime.block_on(live(&world, &plan, host));
        drop(runtime);
        if world.lock().is_violated() || matches!(end, End::Done) {
            break;
        }
        if processes > PROCESSES_MAX {
            world.violated(format!("{PROCESSES_MAX} processes, and no end"));
            break;
        }
    }
    let state = world.lock();
    let (history, steps, trace) = state.history();
    Ok(Played {
        history,
        steps,
        processes,
        violations: state.violations.clone(),
        trace,
    })
}

/// A host without plugins, which the builder of a runtime wants. Shared by all seeds.
///
/// # Errors
/// If wasmtime cannot be set up.
pub fn host() -> anyhow::Result<Host> {
    Ok(Host::new(HostOptions::default())?)
}

impl Plan {
    fn new(world: &World) -> Self {
        let mut state = world.lock();
        let mut dice = state.dice.split();
        let flow = flow::write(&mut dice);
        state.note("", &flow.sources.main.text);
        for other in flow.sources.others.values() {
            state.note("", &other.text);
        }
        let config = CONNECTIONS.iter().fold(Config::new(), |config, name| {
            config.with_connection(connection(name, &mut dice))
        });
        let durability = *dice.pick(&[
            cofferdam::Durability::OutputCommit,
            cofferdam::Durability::OutputCommit,
            cofferdam::Durability::EveryTask,
        ]);
        let config = config.with_durability(durability);
        for connection in config.connections() {
            let most = connection.spec().limits.concurrency_max as usize;
            let name = connection.name().to_owned();
            state.services.concurrency_max.insert(name, most);
        }
        let runs = (1..=dice.range(1..=3))
            .map(|n| format!("run-{n}"))
            .collect();
        let checkpoint_every = dice.percent(40).then(|| dice.range(1..=6));
        let forgets = checkpoint_every.is_some() && dice.percent(40);
        let config = if forgets {
            config.with_records_max(dice.range(1..=12))
        } else {
            config
        };
        Self {
            config,
            flow,
            runs,
            checkpoint_every,
        }
    }
}

fn connection(name: &str, dice: &mut Dice) -> Connection {
    let backoff = Backoff {
        initial_ms: dice.range(1..=400),
        growth: Growth::Exponential { factor: 2.0 },
        delay_ms_max: 5_000,
        jitter: Jitter::Full,
    };
    let breaker = breaker::Config {
        sliding_window_size: 8,
        minimum_number_of_calls: dice.range(2..=6) as usize,
        wait_duration_in_open_state_ms: dice.range(100..=3_000),
        permitted_number_of_calls_in_half_open_state: dice.range(1..=3) as u32,
        slow_call_duration_ms: 400,
        ..breaker::Config::default()
    };
    let limits = Limits {
        concurrency_max: dice.range(1..=4) as u32,
        timeout: Duration::from_millis(dice.range(100..=2_000)),
        ..Limits::default()
    };
    let on_outage = match dice.range(0..=5) {
        0 => OnOutage::Fail,
        1 => OnOutage::Fallback,
        2..=3 => OnOutage::Park {
            deadline_ms: dice.range(1_000..=120_000),
        },
        _ => OnOutage::Park {
            deadline_ms: 60 * 60 * 1_000,
        },
    };
    let quarantine = quarantine::Config {
        delay_ms: dice.range(100..=2_000),
        delay_ms_max: 10_000,
        ..quarantine::Config::default()
    };
    let attempt = Duration::from_millis(dice.range(100..=1_500));
    let connection = Connection::new(name, "simulated")
        .with_retry(dice.range(1..=4) as u32, backoff)
        .with_breaker(breaker)
        .with_limits(limits)
        .with_on_outage(on_outage)
        .with_quarantine(quarantine)
        .with_timeouts(attempt, Duration::from_secs(dice.range(2..=60)));
    let backups: &[&str] = if name == "crm" && dice.percent(60) {
        &["crm2"]
    } else {
        &[]
    };
    connection.with_backups(backups.iter().copied())
}

/// The life of one process, until it is done, dies, or is started again.
async fn live(world: &Arc<World>, plan: &Plan, host: &Host) -> End {
    world.lock().begin_process();
    let end = tokio::select! {
        biased;
        () = world.died.notified() => End::Again,
        end = process(world, plan, host) => end,
    };
    let mut state = world.lock();
    let state = &mut *state;
    let down_ms = state.dice.range(0..=2_000);
    state.end_process(down_ms);
    state.note("", &format!("the process is gone, for {down_ms} ms"));
    if matches!(end, End::Again) && !state.is_violated() {
        state.lose_what_was_not_durable();
        for (_, request) in std::mem::take(&mut state.services.on_the_way) {
            // Lost on the way, or still to arrive.
            if state.dice.percent(60) {
                state.services.on_the_way.insert(request.id, request);
            }
        }
        state.services.waiting.clear();
    }
    end
}

async fn process(world: &Arc<World>, plan: &Plan, host: &Host) -> End {
    let (now_ms, late, seed) = {
        let mut state = world.lock();
        let state = &mut *state;
        let late: Vec<_> = state.services.on_the_way.values().cloned().collect();
        let late: Vec<_> = late
            .into_iter()
            .map(|request| (request, state.dice.range(0..=4_000)))
            .collect();
        (state.now_ms(), late, state.dice.roll())
    };
    for (request, after_ms) in late {
        tokio::spawn(services::arrive_late(Arc::clone(world), request, after_ms));
    }
    let store = FaultyStore::open(world);
    let mut builder = Runtime::builder(plan.config.clone())
        .host(host.clone())
        .store(store)
        .clock(Clock::tokio(now_ms))
        .rng(Rng::seeded(seed));
    if let Some(records) = plan.checkpoint_every {
        builder = builder.checkpoint_every(records);
    }
    for name in CONNECTIONS {
        builder = builder.connector(name, Way::to(world, name));
    }
    if let Some(mutation) = world.lock().mutation.and_then(Mutation::of_engine) {
        builder = builder.mutation(mutation);
    }
    let runtime = match builder.open().await {
        Ok(runtime) => runtime,
        Err(error) => {
            world.lock().note("", &format!("opening failed: {error}"));
            return End::Again;
        }
    };
    let restart = runtime.clone();
    tokio::select! {
        biased;
        () = stuck(world) => {
            // Some operators shut down in order, some do not.
            if world.lock().dice.percent(50) {
                restart.shutdown().await;
            }
            End::Again
        }
        end = serve(world, plan, &runtime) => end,
    }
}

/// Somebody has noticed, after a while, that the process must be started again; or does it without
/// a reason.
async fn stuck(world: &World) {
    let whim_ms = {
        let mut state = world.lock();
        let early = !state.is_fair() && state.dice.percent(30);
        early.then(|| state.dice.range(0..=20_000))
    };
    let whim = async {
        match whim_ms {
            Some(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
            None => World::never().await,
        }
    };
    tokio::select! {
        biased;
        () = world.stuck.notified() => {}
        () = whim => {}
    }
    let after_ms = world.lock().dice.range(0..=3_000);
    tokio::time::sleep(Duration::from_millis(after_ms)).await;
    world.lock().note("", "the process is started again");
}

async fn serve(world: &Arc<World>, plan: &Plan, runtime: &Runtime) -> End {
    let clients = plan
        .runs
        .iter()
        .map(|run| client(world, plan, runtime, run));
    let all = join_all(clients);
    let limit_ms = {
        let state = world.lock();
        state.fair_from_ms.saturating_sub(state.now_ms()) + PATIENCE_MS
    };
    let done = tokio::select! {
        biased;
        done = all => done.into_iter().all(|ended| ended),
        () = operator(world, runtime) => false,
        () = patrol(world) => false,
        () = tokio::time::sleep(Duration::from_millis(limit_ms)) => {
            world.violated(unended(world, plan));
            false
        }
    };
    if !done {
        return World::never().await;
    }
    finish(world, plan, runtime).await
}

/// Long after the weather has become fair no task may still wait for a connection, whatever its
/// parking deadline.
async fn patrol(world: &World) {
    let wait_ms = {
        let state = world.lock();
        state.fair_from_ms.saturating_sub(state.now_ms()) + RECOVERED_MS
    };
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    let parked = world.lock().oracle.parked();
    if let Some(parked) = parked {
        world.violated(format!("{parked} is parked, and every connection works"));
    }
    World::never::<()>().await;
}

fn unended(world: &World, plan: &Plan) -> String {
    let state = world.lock();
    let left: Vec<String> = plan
        .runs
        .iter()
        .filter(|run| {
            !state
                .oracle
                .status(run)
                .is_some_and(cofferdam::Status::is_final)
        })
        .map(|run| format!("{run} is {:?}", state.oracle.status(run)))
        .collect();
    format!("a day has passed, and {}", left.join(", "))
}

/// Starts one run, however often it takes, and waits for its end.
async fn client(world: &World, plan: &Plan, runtime: &Runtime, run: &str) -> bool {
    if !world.lock().oracle.acknowledged.contains(run) {
        let definition = match runtime.define(&plan.flow.sources) {
            Ok(definition) => definition,
            Err(error) => {
                world.violated(format!("the workflow is refused: {error}"));
                return false;
            }
        };
        let wait_ms = world.lock().dice.range(0..=3_000);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let options = StartOptions {
            id: Some(run.to_owned()),
            ..StartOptions::default()
        };
        let started = runtime.start_with(&definition, json!({}), options).await;
        match started {
            Ok(_) => acknowledged(world, run),
            Err(error) => {
                world
                    .lock()
                    .note("", &format!("client: {run} is not begun: {error}"));
                world.stuck.notify_one();
                return World::never().await;
            }
        }
    }
    match runtime.wait(run).await {
        Ok(view) => {
            let mut state = world.lock();
            if state.dead {
                return false;
            }
            state.note("", &format!("client: {run} is {:?}", view.status));
            if let Err(wrong) = state.judge_end(&view) {
                drop(state);
                world.violated(wrong);
            }
            true
        }
        Err(error) => {
            world
                .lock()
                .note("", &format!("client: {run} stands still: {error}"));
            if matches!(error, cofferdam::Error::NoRun { .. }) {
                world.violated(format!("acknowledged {run} is lost"));
            }
            world.stuck.notify_one();
            World::never().await
        }
    }
}

fn acknowledged(world: &World, run: &str) {
    let mut state = world.lock();
    if state.dead {
        return;
    }
    state.note("", &format!("client: {run} is begun"));
    if state.oracle.status(run).is_none() {
        state.violated(format!("{run} is acknowledged and not on the disk"));
        world.died.notify_one();
    }
    state.oracle.acknowledged.insert(run.to_owned());
}

/// Looks at the reviews from time to time and decides, after having looked at the services.
async fn operator(world: &World, runtime: &Runtime) {
    loop {
        let nap_ms = world.lock().dice.range(50..=8_000);
        tokio::time::sleep(Duration::from_millis(nap_ms)).await;
        let Ok(reviews) = runtime.query().reviews() else {
            continue;
        };
        for review in reviews {
            let (run, task) = (review.run, review.task);
            let decision = {
                let mut state = world.lock();
                let told = (run.clone(), task.clone());
                state.oracle.reviewed.insert(told);
                state.decide(&run, &task)
            };
            let name = format!("{decision:?}");
            let lasting = decision != Decision::Retry;
            let decided = runtime.decide(&run, &task, decision).await;
            let mut state = world.lock();
            if state.dead {
                continue;
            }
            let told = decided
                .as_ref()
                .map_or_else(ToString::to_string, |()| "yes".to_owned());
            state.note("", &format!("operator: {run} {task} {name}: {told}"));
            let is_undo = task.starts_with("undo:");
            if decided.is_ok() && lasting && !is_undo && state.oracle.waits_for_person(&run, &task)
            {
                state.violated(format!("{run} {task} was decided, and not on the disk"));
                world.died.notify_one();
            }
        }
    }
}

/// Every run has ended: everything has to be given back, and every connection has to work.
async fn finish(world: &Arc<World>, plan: &Plan, runtime: &Runtime) -> End {
    let wait_ms = {
        let state = world.lock();
        state.fair_from_ms.saturating_sub(state.now_ms())
    };
    // Late requests arrive, breakers may be probed, rows of tasks that are gone are removed.
    tokio::time::sleep(Duration::from_millis(wait_ms + 120_000)).await;
    let probe = async {
        let definition = runtime
            .define(&flow::probe().sources)
            .map_err(|e| e.to_string())?;
        let options = StartOptions {
            // Of its own: one that a crash cut short goes on in whatever weather follows.
            id: Some(format!("probe-{}", world.lock().now_ms())),
            ..StartOptions::default()
        };
        let started = runtime.start_with(&definition, json!({}), options).await;
        let run = started.map_err(|e| e.to_string())?;
        let view = runtime.wait(&run).await.map_err(|e| e.to_string())?;
        match view.status {
            cofferdam::Status::Completed => Ok(()),
            status => Err(format!("{status:?}: {:?}", view.error)),
        }
    };
    let probed = tokio::time::timeout(Duration::from_mins(10), probe).await;
    // Before the world is locked: they look into the store, which is part of it.
    let in_flight: Vec<_> = runtime
        .connections()
        .into_iter()
        .filter(|connection| connection.in_flight > 0)
        .map(|connection| connection.name)
        .collect();
    let mut state = world.lock();
    if state.dead {
        return End::Again;
    }
    let wrong = match probed {
        Err(_) => Some("in good weather a connection cannot be called".to_owned()),
        Ok(Err(why)) => Some(format!(
            "in good weather a connection cannot be called: {why}"
        )),
        Ok(Ok(())) if !in_flight.is_empty() => Some(format!("places of {in_flight:?} are taken")),
        Ok(Ok(())) => state.judge_rest().err(),
    };
    if let Some(wrong) = wrong {
        state.violated(wrong);
    }
    let ended = plan
        .runs
        .iter()
        .all(|run| state.oracle.status(run).is_some());
    if !ended {
        state.violated("a run has left no trace".to_owned());
    }
    End::Done
}
