//! An operator who does something with whole runs, one who looks at them, and one who stops
//! schedules for a while.

use std::time::Duration;

use cofferdam::{Error, Runtime, Status};

use crate::plan::{OF_TIME, Plan};
use crate::world::World;

/// No more runs are made of others.
const RUNS_MAX: usize = 14;
/// How often somebody looks at all runs, in one life of the process.
const LOOKS_MAX: usize = 1_000;

async fn nap(world: &World, ms: std::ops::RangeInclusive<u64>) {
    let ms = world.lock().dice.range(ms);
    tokio::time::sleep(Duration::from_millis(ms)).await;
}

/// Suspends, resumes, cancels, redrives, restarts and forks while the weather is bad; then lets
/// everybody go on.
pub(crate) async fn act(world: &World, runtime: &Runtime) {
    if !world.lock().swarm.verbs {
        return World::never().await;
    }
    loop {
        nap(world, 200..=5_000).await;
        if world.lock().dead {
            return World::never().await;
        }
        if world.lock().is_fair() {
            let suspended = world.lock().oracle.suspended();
            for run in suspended {
                let resumed = runtime.resume(&run).await;
                tell(world, &run, "resume", &resumed);
            }
            continue;
        }
        let (run, verb) = {
            let mut state = world.lock();
            let mut runs = state.oracle.all_runs();
            // When these end decides about others.
            runs.retain(|run| !run.starts_with("after.") && !run.starts_with("probe"));
            let verb = state.dice.range(0..=11);
            if matches!(verb, 6..=8) {
                let has_failed = |run: &String| state.oracle.status(run) == Some(Status::Faulted);
                runs.retain(has_failed);
            }
            if runs.is_empty() {
                continue;
            }
            (state.dice.pick(&runs).clone(), verb)
        };
        match verb {
            0..=2 => suspend(world, runtime, &run).await,
            3..=4 => {
                let resumed = runtime.resume(&run).await;
                if tell(world, &run, "resume", &resumed) && world.lock().oracle.is_suspended(&run) {
                    world.violated(format!("{run} was resumed, and is suspended"));
                }
            }
            5 => cancel(world, runtime, &run).await,
            6..=8 => redrive(world, runtime, &run).await,
            _ => again(world, runtime, &run, verb == 9).await,
        }
    }
}

/// Whether it was done, and the process lives.
fn tell(world: &World, run: &str, verb: &str, done: &Result<(), Error>) -> bool {
    let mut state = world.lock();
    let told = done
        .as_ref()
        .map_or_else(ToString::to_string, |()| "done".to_owned());
    state.note("", &format!("operator: {verb} {run}: {told}"));
    done.is_ok() && !state.dead
}

async fn suspend(world: &World, runtime: &Runtime, run: &str) {
    let done = runtime.suspend(run, Some("simulated".to_owned())).await;
    if tell(world, run, "suspend", &done) && !world.lock().oracle.is_suspended(run) {
        world.violated(format!(
            "{run} was suspended, and is not on the disk as such"
        ));
    }
}

async fn cancel(world: &World, runtime: &Runtime, run: &str) {
    let compensate = world.lock().dice.percent(60);
    let done = runtime.cancel(run, None, compensate).await;
    if tell(world, run, "cancel", &done) {
        let mut state = world.lock();
        let (is_cancelled, _) = state.oracle.acted_on(run);
        state.oracle.cancelled.insert(run.to_owned());
        drop(state);
        if !is_cancelled {
            world.violated(format!(
                "{run} was cancelled, and is not on the disk as such"
            ));
        }
    }
}

async fn redrive(world: &World, runtime: &Runtime, run: &str) {
    let (_, before) = world.lock().oracle.acted_on(run);
    let done = runtime.redrive(run, None).await;
    if tell(world, run, "redrive", &done) && world.lock().oracle.acted_on(run).1 <= before {
        world.violated(format!(
            "{run} was redriven, and is not on the disk as such"
        ));
    }
}

/// Another run, from the beginning or from some task on.
async fn again(world: &World, runtime: &Runtime, run: &str, is_whole: bool) {
    let id = {
        let state = world.lock();
        let runs = state.oracle.all_runs();
        // Who makes a delivery again asks for its effect again.
        if runs.len() >= RUNS_MAX || run.starts_with("outbox-") {
            return;
        }
        Some(format!("again-{}", runs.len()))
    };
    let begun = if is_whole {
        runtime.restart(run, None, id).await
    } else {
        let Ok(view) = runtime.run(run) else { return };
        if view.tasks.is_empty() {
            return;
        }
        let task = world.lock().dice.pick(&view.tasks).task.clone();
        runtime.fork(run, &task, id).await
    };
    let verb = if is_whole { "restart" } else { "fork" };
    let new = begun.as_ref().ok().cloned();
    if tell(world, run, verb, &begun.map(drop))
        && let Some(new) = new
        && world.lock().oracle.status(&new).is_none()
    {
        world.violated(format!("{new} is acknowledged and not on the disk"));
    }
}

/// Looks at runs: each that waits says why. Sees to it that the process is started again if one
/// was stopped by an error and nobody waits for it.
pub(crate) async fn look(world: &World, runtime: &Runtime) {
    if world.lock().swarm.is_plain() {
        return World::never().await;
    }
    for _ in 0..LOOKS_MAX {
        nap(world, 500..=8_000).await;
        let runs = world.lock().oracle.all_runs();
        for run in runs {
            let is_over = world
                .lock()
                .oracle
                .status(&run)
                .is_some_and(Status::is_final);
            if world.lock().dead {
                return World::never().await;
            }
            if is_over {
                continue;
            }
            if let Ok(Err(error)) = tokio::time::timeout(Duration::ZERO, runtime.wait(&run)).await {
                world
                    .lock()
                    .note("", &format!("somebody looks: {run}: {error}"));
                world.stuck.notify_one();
                return World::never().await;
            }
            let Ok(view) = runtime.run(&run) else {
                continue;
            };
            let waits = matches!(
                view.status,
                Status::Waiting | Status::Suspended | Status::Queued
            );
            let is_silent = view.waits.is_empty() || view.waits.iter().any(|w| w.next.is_empty());
            if waits && is_silent {
                world.violated(format!("{run} is {:?}, and does not say why", view.status));
            }
        }
    }
    World::never::<()>().await;
}

/// Lets schedules run, and stops them for a while now and then.
pub(crate) async fn schedule(world: &World, plan: &Plan, runtime: &Runtime) {
    if plan.schedules.is_empty() {
        return World::never().await;
    }
    // Begun once; what it does before it can fail is read the store.
    while let Err(error) = runtime.run_schedules().await {
        world.lock().note("", &format!("schedules wait: {error}"));
        nap(world, 200..=1_000).await;
    }
    {
        let mut state = world.lock();
        let now_ms = state.now_ms();
        state.oracle.timing.schedules_open(now_ms);
    }
    loop {
        for name in &plan.schedules {
            if world.lock().oracle.ends && OF_TIME.contains(name) {
                continue;
            }
            // Until it is heard: a schedule that stays paused begins nothing.
            loop {
                let resumed = runtime.resume_schedule(name).await;
                tell(world, name, "resume", &resumed);
                if resumed.is_ok() {
                    break;
                }
                nap(world, 1_000..=5_000).await;
            }
        }
        if world.lock().oracle.ends {
            return World::never().await;
        }
        nap(world, 1_000..=20_000).await;
        if world.lock().is_fair() {
            return World::never().await;
        }
        for name in &plan.schedules {
            let paused = runtime.pause_schedule(name).await;
            tell(world, name, "pause", &paused);
        }
        nap(world, 1_000..=20_000).await;
    }
}
