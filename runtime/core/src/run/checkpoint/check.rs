//! Every test of the machine is also one of its checkpoints: after a step the run is written, read
//! and compared.

use std::cell::Cell;
use std::sync::Arc;

use super::Checkpoint;
use crate::run::Run;

/// So many steps of a test are looked at, and from then on one of so many: those of long
/// simulations are too many.
const ALL_OF: u64 = 500;
const ONE_OF: u64 = 1_999;

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// What a process that takes the run up would have.
pub(in crate::run) fn read_back(run: &Run) -> Run {
    let text = serde_json::to_vec(&run.save()).expect("a checkpoint can be written");
    let read: Checkpoint<'static> = serde_json::from_slice(&text).expect("and read");
    let (workflow, bindings) = (Arc::clone(&run.workflow), Arc::clone(&run.bindings));
    Run::restore(&run.id, workflow, bindings, read).expect("and fits its workflow")
}

pub(in crate::run) fn gives_the_same_run(run: &Run) {
    let step = STEPS.replace(STEPS.get() + 1);
    let is_looked_at = step < ALL_OF || step.is_multiple_of(ONE_OF);
    // What people hear of while it lives is not part of where it is.
    if !is_looked_at || run.is_recording() || run.changes.is_some() {
        return;
    }
    assert_eq!(format!("{:?}", read_back(run)), format!("{run:?}"));
}
