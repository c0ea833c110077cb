//! One world from its beginning to its end: processes that live and die, clients, an operator.

use std::sync::Arc;
use std::time::Duration;

use cofferdam::{Clock, Rng, Runtime};
use cofferdam_host::{Host, HostOptions};
use futures::future::join_all;

use crate::clients::{self, client};
use crate::disk::FaultyStore;
use crate::finish::{finish, quiet, remove};
use crate::flow::CONNECTIONS;
use crate::mutation::Mutation;
use crate::plan::Plan;
use crate::services::{self, Way};
use crate::world::World;
use crate::{bus, tamper, verbs};

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
/// The same where schedules begin runs all the while, each of which makes the world slower.
const SCHEDULED_PATIENCE_MS: u64 = 4 * 60 * 60 * 1_000;
/// More processes than these, and none gets anywhere.
const PROCESSES_MAX: u64 = 200;

/// How the life of one process ended.
pub(crate) enum End {
    /// All is done and judged.
    Done,
    /// It has to be started again.
    Again,
}

/// Plays one seed to its end. The same seed gives the same history.
///
/// # Errors
/// If the virtual machine's host or a runtime for it cannot be made: nothing was played then.
pub fn play(seed: u64, host: &Host, options: Options) -> anyhow::Result<Played> {
    let world = World::new(seed, options.mutation, options.trace);
    let plan = Plan::new(&world);
    plan.tell(&mut world.lock().oracle);
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
    let mutation = world.lock().mutation;
    let config = tamper::config(mutation, &plan.config);
    let mut builder = Runtime::builder(config)
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
    if let Some(mutation) = mutation.and_then(Mutation::of_engine) {
        builder = builder.mutation(mutation);
    }
    let runtime = match builder.open().await {
        Ok(runtime) => runtime,
        Err(error) => {
            world.lock().note("", &format!("opening failed: {error}"));
            return End::Again;
        }
    };
    {
        let mut state = world.lock();
        let now_ms = state.now_ms();
        state.oracle.timing.opens(now_ms);
    }
    if world.lock().oracle.removes {
        remove(world, &runtime).await;
        return End::Done;
    }
    let restart = runtime.clone();
    tokio::select! {
        biased;
        () = stuck(world) => {
            world.lock().oracle.timing.closes();
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
    let starts = plan.starts.iter();
    let clients = starts.map(|start| client(world, plan, runtime, start));
    let all = async {
        let done = join_all(clients).await;
        done.into_iter().all(|ended| ended) && quiet(world, plan, runtime).await
    };
    let limit_ms = {
        let state = world.lock();
        let patience_ms = if state.swarm.schedules {
            SCHEDULED_PATIENCE_MS
        } else {
            PATIENCE_MS
        };
        state.fair_from_ms.saturating_sub(state.now_ms()) + patience_ms
    };
    let done = tokio::select! {
        biased;
        done = all => done,
        () = clients::operator(world, runtime) => false,
        () = clients::patrol(world) => false,
        () = bus::publish(world, runtime) => false,
        () = bus::subscribe(world, runtime) => false,
        () = verbs::act(world, runtime) => false,
        () = verbs::look(world, runtime) => false,
        () = verbs::schedule(world, plan, runtime) => false,
        () = tokio::time::sleep(Duration::from_millis(limit_ms)) => {
            world.violated(clients::unended(world));
            false
        }
    };
    if !done {
        return World::never().await;
    }
    finish(world, plan, runtime).await
}
