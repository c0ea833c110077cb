//! Those who begin runs, and those who look after them.

use std::collections::BTreeMap;
use std::time::Duration;

use cofferdam::{Decision, OnConflict, Runtime};
use serde_json::json;

use crate::plan::{Plan, Start};
use crate::tamper;
use crate::world::World;

/// Parked tasks go on within this time of fair weather: breakers, quarantines and drains wait for
/// a few seconds each.
const RECOVERED_MS: u64 = 90_000;
/// What is published is heard within this time by those who have nothing else to do.
const HEARD_MS: u64 = 20_000;

/// Starts one run, however often it takes, and waits for its end.
pub(crate) async fn client(world: &World, plan: &Plan, runtime: &Runtime, start: &Start) -> bool {
    let Some(run) = begin(world, plan, runtime, start).await else {
        world.stuck.notify_one();
        return World::never().await;
    };
    match runtime.wait(&run).await {
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
        Err(cofferdam::Error::NoRun { .. }) if world.lock().oracle.gone.contains(&run) => true,
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

/// The run's id, once it is acknowledged; none if somebody has to start the process again.
async fn begin(world: &World, plan: &Plan, runtime: &Runtime, start: &Start) -> Option<String> {
    let known = |world: &World| {
        let state = world.lock();
        let id = start.options.id.clone()?;
        state.oracle.status(&id).map(|_| id)
    };
    let early_ms = {
        let state = world.lock();
        start.after_ms.saturating_sub(state.age_ms())
    };
    tokio::time::sleep(Duration::from_millis(early_ms)).await;
    loop {
        if let Some(run) = known(world) {
            return Some(run);
        }
        let mutation = world.lock().mutation;
        let definition = match runtime.define(&tamper::sources(mutation, &plan.flow.sources)) {
            Ok(definition) => definition,
            Err(error) => {
                world.violated(format!("the workflow is refused: {error}"));
                return World::never().await;
            }
        };
        let wait_ms = world.lock().dice.range(0..=3_000);
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        let options = tamper::start(mutation, start.options.clone());
        let (used_up, given) = {
            let state = world.lock();
            let key = start.options.key.as_deref();
            let used_up = key.map(|key| state.used_up(key)).unwrap_or_default();
            (used_up, tamper::given(mutation, &state.oracle, start))
        };
        if let Some(run) = given {
            acknowledged(world, start, &run, &used_up);
            return Some(run);
        }
        let starting = runtime.start_with(&definition, json!({}), options);
        let patience_ms = start.is_hasty.then(|| world.lock().dice.range(0..=30));
        let started = match patience_ms {
            None => starting.await,
            Some(ms) => {
                let patience = Duration::from_millis(ms);
                let Ok(started) = tokio::time::timeout(patience, starting).await else {
                    let told = format!("client: {} gives up", start.name);
                    world.lock().note("", &told);
                    continue;
                };
                started
            }
        };
        match started {
            Ok(run) => {
                acknowledged(world, start, &run, &used_up);
                return Some(run);
            }
            Err(error) => {
                let name = &start.name;
                world
                    .lock()
                    .note("", &format!("client: {name} is not begun: {error}"));
                return None;
            }
        }
    }
}

fn acknowledged(world: &World, start: &Start, run: &str, used_up: &BTreeMap<String, u64>) {
    let mut state = world.lock();
    if state.dead {
        return;
    }
    state.note("", &format!("client: {run} is begun"));
    if state.oracle.status(run).is_none() {
        state.violated(format!("{run} is acknowledged and not on the disk"));
        world.died.notify_one();
    }
    if let Err(wrong) = state.judge_given(run, used_up) {
        state.violated(wrong);
        world.died.notify_one();
    }
    if start.options.key.is_some() && state.oracle.on_conflict == OnConflict::UseExisting {
        let before = state.oracle.by_key.replace(run.to_owned());
        if before.as_deref().is_some_and(|before| before != run) {
            state.violated(format!("a key gave {before:?}, and gives {run}"));
            world.died.notify_one();
        }
    }
    state.oracle.acknowledged.insert(run.to_owned());
}

/// Looks at the reviews from time to time and decides, after having looked at the services.
pub(crate) async fn operator(world: &World, runtime: &Runtime) {
    loop {
        let nap_ms = {
            let mut state = world.lock();
            let longest_ms = if state.swarm.deadlines {
                120_000
            } else {
                8_000
            };
            state.dice.range(50..=longest_ms)
        };
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

/// Long after the weather has become fair no task may still wait for a connection, whatever its
/// parking deadline.
pub(crate) async fn patrol(world: &World) {
    let wait_ms = {
        let state = world.lock();
        state.fair_from_ms.saturating_sub(state.now_ms()) + RECOVERED_MS
    };
    tokio::time::sleep(Duration::from_millis(wait_ms)).await;
    // Who is let go of needs a place in memory, and others may hold all of them for long.
    let mut room_ms = world.lock().room_for_ms();
    while room_ms < RECOVERED_MS {
        tokio::time::sleep(Duration::from_millis(RECOVERED_MS - room_ms)).await;
        room_ms = world.lock().room_for_ms();
    }
    let parked = world.lock().oracle.parked();
    if let Some(parked) = parked {
        world.violated(format!("{parked} is parked, and every connection works"));
    }
    let (before, at_ms) = {
        let state = world.lock();
        (state.oracle.bus.last_seq() + 1, state.now_ms())
    };
    tokio::time::sleep(Duration::from_millis(HEARD_MS)).await;
    let unheard = world.lock().oracle.unheard(before, at_ms);
    if let Some(unheard) = unheard {
        world.violated(unheard);
    }
    World::never::<()>().await;
}

pub(crate) fn unended(world: &World) -> String {
    let state = world.lock();
    let oracle = &state.oracle;
    let runs = oracle.all_runs().into_iter();
    let status = runs.map(|run| (oracle.status(&run), run));
    let mut left: Vec<String> = status
        .filter(|(status, _)| !status.is_some_and(cofferdam::Status::is_final))
        .map(|(status, run)| format!("{run} is {status:?}"))
        .collect();
    left.extend(state.judge_schedules().err());
    left.extend(state.judge_deliveries().err());
    format!("a day has passed, and {}", left.join(", "))
}
