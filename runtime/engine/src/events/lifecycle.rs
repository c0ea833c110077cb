//! What runs publish about themselves: the lifecycle events of the Open Workflow Specification.

use cofferdam_core::run::instant;
use cofferdam_core::workflow::Document;
use serde_json::{Map, Value, json};

use crate::Error;
use crate::definition::Definition;

/// What the types of all lifecycle events begin with.
const TYPE_BASE: &str = "io.serverlessworkflow.";
/// An output that is larger, in bytes of JSON, is left out: an event has at most a megabyte.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// Which events runs publish about themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Lifecycle {
    /// None.
    #[default]
    Off,
    /// Of each run: that it started, began and ended to wait for events, was suspended and
    /// resumed, and how it ended.
    Workflow,
    /// Those, and of each task that it was created and started, was retried, and how it ended.
    Task,
}

/// A lifecycle event. `subject` is the run.
#[allow(
    clippy::needless_pass_by_value,
    reason = "it is made where it is called"
)]
pub(crate) fn event(document: &Document, run: &str, id: &str, kind: &str, data: Value) -> Value {
    let (namespace, name, version) = (&document.namespace, &document.name, &document.version);
    json!({
        "specversion": "1.0",
        "id": id,
        "source": format!("cofferdam:{namespace}/{name}:{version}"),
        "type": format!("{TYPE_BASE}{kind}.v1"),
        "subject": run,
        "datacontenttype": "application/json",
        "data": data,
    })
}

/// The data of an event of a run: its qualified name, the instant under this name, and more.
pub(crate) fn of_run(document: &Document, run: &str, at: &str, at_ms: u64) -> Map<String, Value> {
    let mut data = Map::new();
    data.insert("name".to_owned(), json!(qualified(document, run)));
    data.insert(at.to_owned(), json!(instant(at_ms)));
    data
}

/// The data of an event of a task.
pub(crate) fn of_task(
    document: &Document,
    run: &str,
    task: &str,
    at: &str,
    at_ms: u64,
) -> Map<String, Value> {
    let mut data = Map::new();
    data.insert("workflow".to_owned(), json!(qualified(document, run)));
    data.insert("task".to_owned(), json!(task));
    data.insert(at.to_owned(), json!(instant(at_ms)));
    data
}

/// An output, if it is not too large for an event.
pub(crate) fn output(output: &Value) -> Option<Value> {
    (output.to_string().len() <= OUTPUT_BYTES_MAX).then(|| output.clone())
}

fn qualified(document: &Document, run: &str) -> String {
    format!("{}-{run}.{}", document.name, document.namespace)
}

/// Refuses a workflow that waits for lifecycle events that nobody publishes: it would wait for ever.
pub(crate) fn check(definition: &Definition, lifecycle: Lifecycle) -> Result<(), Error> {
    for kind in definition.workflow().event_types() {
        let wanted = match kind.strip_prefix(TYPE_BASE) {
            Some(rest) if rest.starts_with("workflow.") => Lifecycle::Workflow,
            Some(rest) if rest.starts_with("task.") => Lifecycle::Task,
            Some(_) | None => continue,
        };
        if lifecycle < wanted {
            return Err(Error::NoLifecycle {
                workflow: definition.name(),
                kind: kind.to_owned(),
                wanted: match wanted {
                    Lifecycle::Off | Lifecycle::Workflow => "workflow",
                    Lifecycle::Task => "task",
                },
            });
        }
    }
    Ok(())
}
