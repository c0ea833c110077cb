//! The workflow language: Open Workflow Specification DSL 1.0.3 to [`Workflow`].
//!
//! [`compile`] parses YAML or JSON into a tree that knows its positions, then walks it once. What
//! the engine cannot do is refused here, with a reason, and never ignored: a workflow that
//! compiles does what its text says. Errors are collected, so that a person sees all of them.
//!
//! What the language lacks is under `metadata.cofferdam`; `docs/workflows.md` lists every key.

use crate::workflow::{Sources, Workflow};

mod authentication;
mod call;
mod context;
mod data;
mod document;
mod extensions;
mod external;
mod flow;
mod handling;
mod mcp;
mod openapi;
mod options;
mod policy;
mod report;
mod retry;
mod secrets;
mod subflow;
mod task;
mod tree;

pub use external::{CatalogFunction, External, external};
pub use report::{Error, Errors};

/// Compiles a workflow and those that it runs.
///
/// # Errors
/// Everything that is wrong with the texts, up to 50 errors; never none.
pub fn compile(sources: &Sources) -> Result<Workflow, Errors> {
    subflow::Library::new(sources).main()
}

/// The identity that a text gives itself, `namespace/name:version`; none if it is no workflow.
pub fn document_name(text: &str) -> Option<String> {
    let root = tree::parse(text).ok()?;
    document::identity(&report::At::root(&root))
}

/// Line and column, both beginning with 1, of the part of a text that a JSON pointer names:
/// `/do/0/charge` gives the task's name. `None` if the text is no YAML or has no such part.
pub fn locate(text: &str, pointer: &str) -> Option<(usize, usize)> {
    let root = tree::parse(text).ok()?;
    let (mut node, mut spot) = (&root, root.spot);
    for step in pointer.split('/').skip(1) {
        let key = step.replace("~1", "/").replace("~0", "~");
        (node, spot) = match &node.data {
            tree::Data::Map(_) => node.entry(&key).map(|e| (&e.value, e.spot))?,
            tree::Data::List(items) => {
                let item = items.get(key.parse::<usize>().ok()?)?;
                (item, item.spot)
            }
            _ => return None,
        };
    }
    Some((spot.line, spot.column))
}

#[cfg(test)]
mod tests;
