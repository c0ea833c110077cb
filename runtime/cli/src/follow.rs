//! Waits for a run: as long as it does something, and no longer than was asked for while it waits.

use std::future::Future;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use cofferdam::{Look, RunView, Status, TaskStatus, WaitsFor};

use crate::reach::Reach;

/// A run that goes on by itself within this time is waited for in any case: retries, short pauses.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// How often a run that waits is looked at.
const POLL: Duration = Duration::from_millis(100);

/// Where a run was left.
pub enum Followed {
    /// It has ended.
    Ended(RunView),
    /// It waits for a connection, a person, or a later instant.
    Waiting(RunView),
    /// Somebody asked this program to stop.
    Interrupted,
}

/// Follows a run until it ends, waits longer than `wait`, or is interrupted.
pub async fn follow(
    reach: &Reach,
    run: &str,
    wait: Duration,
    interrupted: impl Future<Output = ()>,
) -> Result<Followed> {
    tokio::select! {
        followed = until_settled(reach, run, wait) => followed,
        () = interrupted => Ok(Followed::Interrupted),
    }
}

async fn until_settled(reach: &Reach, run: &str, wait: Duration) -> Result<Followed> {
    let mut waits_since = None;
    loop {
        let view = match reach.settle(run).await? {
            Some(view) => view,
            // It works, or has waited for its turn for a while.
            None => {
                let run = run.to_owned();
                reach.look(Look::Run { run }).await?
            }
        };
        if view.status.is_final() {
            return Ok(Followed::Ended(view));
        }
        if goes_on_by_itself(&view, now_ms()) {
            waits_since = None;
        } else {
            let since = waits_since.get_or_insert_with(tokio::time::Instant::now);
            if since.elapsed() >= wait {
                return Ok(Followed::Waiting(view));
            }
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Whether nothing but a near instant is waited for.
fn goes_on_by_itself(view: &RunView, now_ms: u64) -> bool {
    if matches!(view.status, Status::Running | Status::Compensating) {
        return true;
    }
    if matches!(view.status, Status::Queued | Status::Suspended) {
        return false;
    }
    let needs_others = view.tasks.iter().any(|task| {
        task.status == TaskStatus::Waiting
            && matches!(
                task.waits_for,
                Some(WaitsFor::Connection | WaitsFor::Person)
            )
    });
    let is_near = view
        .due_ms
        .is_none_or(|due_ms| due_ms <= now_ms + PAUSE_MAX.as_millis() as u64);
    !needs_others && is_near
}

/// Milliseconds since the Unix epoch.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64
}
