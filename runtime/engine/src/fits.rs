//! What of a workflow's settings does not fit the actions that it calls.

use cofferdam_core::descriptor::Effect;
use cofferdam_core::run::Bindings;
use cofferdam_core::workflow::{HTTP_CONNECTION, Kind, Target, Task, Workflow};

use crate::Error;

/// A second attempt of a `once` action would hurt, and is never made: whoever asks for one has
/// meant something else.
pub(crate) fn check_hedges(
    workflow: &Workflow,
    bindings: &Bindings,
    origin: &str,
) -> Result<(), Error> {
    let calls = workflow.calls();
    for (task, ..) in calls.iter().filter(|(task, ..)| wants_hedge(task)) {
        let own = calls.iter().filter(|(t, connection, action)| {
            std::ptr::eq(*t, *task) && is_own(task, connection, action)
        });
        let effects = own.filter_map(|(_, connection, action)| {
            let binding = bindings.connections.get(connection)?;
            binding.actions.get(action).map(|bound| bound.effect)
        });
        if { effects }.all(|effect| effect == Effect::Once) {
            return Err(Error::Binding {
                origin: origin.to_owned(),
                line: task.line,
                problem: format!(
                    "task `{}`: `hedge` makes a second attempt beside the first, and repeating this action hurts",
                    task.name
                ),
                remedy: "remove `hedge`; bound the attempt with `timeout.startToClose` instead"
                    .to_owned(),
            });
        }
    }
    Ok(())
}

fn wants_hedge(task: &Task) -> bool {
    matches!(&task.kind, Kind::Call(call) if call.policy.hedge_ms.is_some())
}

/// Whether this is what the task itself calls, as opposed to what stands in for it or undoes it.
fn is_own(task: &Task, connection: &str, action: &str) -> bool {
    match &task.kind {
        Kind::Call(call) => match &call.target {
            Target::Action {
                connection: own,
                action: own_action,
            } => own == connection && own_action == action,
            Target::Http => connection == HTTP_CONNECTION,
        },
        _ => false,
    }
}
