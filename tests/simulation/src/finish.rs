//! The end of a world: what was begun comes to its end, and everything is given back.

use std::sync::Arc;
use std::time::Duration;

use cofferdam::{Provenance, Runtime, StartOptions, Status};
use serde_json::json;

use crate::bus::SUBSCRIBERS;
use crate::flow;
use crate::plan::{OF_TIME, Plan};
use crate::play::End;
use crate::purge::purge;
use crate::world::{State, World};

/// What a schedule was doing when it was paused is done by then.
const PAUSED_MS: u64 = 10_000;
/// How often it is looked whether everything is quiet.
const LOOK_MS: u64 = 1_000;

/// Waits until nothing goes on any more, whoever began it; false if the process dies.
pub(crate) async fn quiet(world: &World, plan: &Plan, runtime: &Runtime) -> bool {
    if world.lock().swarm.is_plain() {
        return true;
    }
    let wait_ms = {
        let state = world.lock();
        state.fair_from_ms.saturating_sub(state.now_ms())
    };
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    world.lock().oracle.ends = true;
    for name in &plan.schedules {
        // Those that wait for events go on until there are no more.
        if OF_TIME.contains(name)
            && let Err(error) = runtime.pause_schedule(name).await
        {
            world.lock().note("", &format!("{name} goes on: {error}"));
            world.stuck.notify_one();
            return World::never().await;
        }
    }
    tokio::time::sleep(Duration::from_millis(PAUSED_MS)).await;
    while !world.lock().is_quiet() {
        tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
    }
    let runs = {
        let mut state = world.lock();
        state.oracle.scheduled = state.scheduled();
        state.oracle.all_runs()
    };
    for run in runs {
        let read = runtime.run(&run);
        if read.is_err() {
            // What is being removed may be on the disk until the next sync.
            tokio::time::sleep(Duration::from_millis(LOOK_MS)).await;
        }
        match read {
            Ok(view) => {
                let judged = world.lock().judge_end(&view);
                if let Err(wrong) = judged {
                    world.violated(wrong);
                    return false;
                }
            }
            Err(_) if world.lock().oracle.gone.contains(&run) => {}
            Err(error) if world.lock().dead => {
                world.lock().note("", &error.to_string());
                return false;
            }
            Err(error) => {
                world.violated(format!("{run} cannot be read: {error}"));
                return false;
            }
        }
    }
    let judged = world.lock().judge_deliveries();
    if let Err(wrong) = judged {
        world.violated(wrong);
        return false;
    }
    true
}

impl State {
    /// Every run has ended, every call was delivered, and every event has been seen to.
    fn is_quiet(&self) -> bool {
        let oracle = &self.oracle;
        let runs = oracle.all_runs();
        let is_over = |run: &String| oracle.status(run).is_some_and(Status::is_final);
        let is_read = !self.swarm.events || oracle.bus.is_caught_up(&SUBSCRIBERS);
        runs.iter().all(is_over) && is_read && self.is_delivered() && self.judge_schedules().is_ok()
    }
}

/// Every run has ended: everything has to be given back, and every connection has to work.
pub(crate) async fn finish(world: &Arc<World>, plan: &Plan, runtime: &Runtime) -> End {
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
        let mut ways = view.provenance.values();
        match view.status {
            // Who was out is back in service.
            Status::Completed if ways.all(|way| *way == Provenance::Live) => Ok(()),
            status => Err(format!(
                "{status:?}: {:?}, {:?}",
                view.provenance, view.error
            )),
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
    if !judge(world, plan, probed, &in_flight) {
        return End::Again;
    }
    remove(world, runtime).await;
    End::Done
}

/// Judges what is left; false if the process is dead.
fn judge(
    world: &World,
    plan: &Plan,
    probed: Result<Result<(), String>, tokio::time::error::Elapsed>,
    in_flight: &[String],
) -> bool {
    let mut state = world.lock();
    if state.dead {
        return false;
    }
    state.judge_time();
    let wrong = match probed {
        Err(_) => Some("in good weather a connection cannot be called".to_owned()),
        Ok(Err(why)) => Some(format!(
            "in good weather a connection cannot be called: {why}"
        )),
        Ok(Ok(())) if !in_flight.is_empty() => Some(format!("places of {in_flight:?} are taken")),
        Ok(Ok(())) => state.judge_rest().err(),
    };
    let wrong = wrong.or_else(|| {
        let is_still = state.oracle.scheduled == state.scheduled();
        (!is_still).then(|| "a schedule that is paused has begun a run".to_owned())
    });
    if let Some(wrong) = wrong {
        state.violated(wrong);
    }
    let ended = |start: &crate::plan::Start| match &start.options.id {
        Some(run) => state.oracle.status(run).is_some(),
        None => true,
    };
    if !plan.starts.iter().all(ended) {
        state.violated("a run has left no trace".to_owned());
    }
    true
}

/// What has ended is removed as a whole, and what somebody has to see to is kept.
pub(crate) async fn remove(world: &World, runtime: &Runtime) {
    world.lock().oracle.removes = true;
    tokio::time::sleep(Duration::from_millis(1)).await;
    purge(world, runtime).await;
    let is_wrong = world.lock().is_violated();
    if is_wrong || world.lock().dead || !world.lock().swarm.verbs {
        return;
    }
    let removed = runtime.remove_ended(Duration::ZERO).await;
    let mut state = world.lock();
    let wrong = match removed {
        _ if state.dead => None,
        Ok(_) => state.judge_removed().err(),
        Err(error) => Some(format!("runs cannot be removed: {error}")),
    };
    if let Some(wrong) = wrong {
        state.violated(wrong);
    }
}
