//! `run: workflow` with `await: false`: the other workflow becomes a run of its own.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::environment::Around;
use super::{Effect, Run};
use crate::error::WorkflowError;
use crate::workflow::Workflow;

/// No input of a run is longer, in bytes of JSON.
const INPUT_BYTES_MAX: usize = 8 << 20;
/// An id made of this run's id and more is no longer; else it is made of a hash alone.
const ID_BYTES_MAX: usize = 100;
/// So many bytes of the hash; two tasks of a run do not come upon the same.
const HASH_BYTES: usize = 12;

impl Run {
    /// The effect that begins the other run.
    pub(super) fn detach(
        &self,
        key: &str,
        workflow: &Workflow,
        input: &Value,
    ) -> Result<Effect, WorkflowError> {
        let reference = Around::new(self, key).reference().to_owned();
        let bytes = serde_json::to_vec(input).map_or(usize::MAX, |text| text.len());
        if !crate::depth::is_fine(input) || bytes > INPUT_BYTES_MAX {
            let detail = "the input of the other run nests too deeply or is too large to be kept";
            return Err(WorkflowError::expression(detail, &reference));
        }
        let document = &workflow.document;
        Ok(Effect::Begin {
            task: key.to_owned(),
            run: detached_id(&self.id, key),
            workflow: format!(
                "{}/{}:{}",
                document.namespace, document.name, document.version
            ),
            input: input.clone(),
        })
    }
}

/// The id of the run that a task begins: the same whenever it is asked for.
fn detached_id(run: &str, key: &str) -> String {
    use std::fmt::Write;
    let hash = Sha256::new()
        .chain_update((run.len() as u64).to_le_bytes())
        .chain_update(run)
        .chain_update(key)
        .finalize();
    let mut text = String::new();
    for byte in hash.iter().take(HASH_BYTES) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    let id = format!("{run}.{text}");
    if id.len() <= ID_BYTES_MAX { id } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_belongs_to_one_task_of_one_run() {
        let id = detached_id("run", "/a");
        assert_eq!(id, detached_id("run", "/a"));
        assert!(id.starts_with("run."));
        assert_ne!(id, detached_id("run", "/b"));
        assert_ne!(id, detached_id("run2", "/a"));
        let long = "x".repeat(ID_BYTES_MAX);
        assert!(detached_id(&long, "/a").len() <= ID_BYTES_MAX);
    }
}
