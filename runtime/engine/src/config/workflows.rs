//! `[workflows]` and `[events]`: what runs by itself, and what is kept of events.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::document::{Item, Section};
use super::error::Error;
use crate::events::{EventOptions, Lifecycle};

/// Longest name, in bytes: it is part of the ids of runs.
const NAME_LEN_MAX: usize = 60;
/// Keys of `[workflows]` that are no workflows.
const RESERVED: [&str; 3] = ["dir", "catalogs", "concurrency"];
const KEEP_MAX: u64 = 100_000_000;
const KEEP_FOR_MAX: Duration = Duration::from_hours(24 * 366);

/// A workflow that the configuration names.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfiguredWorkflow {
    /// Its name.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// The input of runs that its schedule begins at an instant; an empty object by default.
    pub input: Value,
}

/// Every entry but these few is a workflow: `NAME = "FILE"`, or a table with `file` and `input`.
pub(super) fn workflows(section: &Section<'_>) -> Result<Vec<ConfiguredWorkflow>, Error> {
    let items = section.items();
    let named = items
        .iter()
        .filter(|item| !RESERVED.contains(&item.name.as_str()));
    named.map(workflow).collect()
}

fn workflow(item: &Item<'_>) -> Result<ConfiguredWorkflow, Error> {
    let is_fine = (1..=NAME_LEN_MAX).contains(&item.name.len())
        && item
            .name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !is_fine {
        let remedy = "use 1 to 60 letters, digits, `-` and `_`";
        return Err(item.refuse("it cannot be the name of a workflow", remedy));
    }
    if !item.value.is_table() {
        return Ok(ConfiguredWorkflow {
            name: item.name.clone(),
            file: item.document.path(item.text()?),
            input: json!({}),
        });
    }
    let section = item.section()?;
    section.only(&["file", "input"])?;
    let file = section.require("file", "write `file = \"workflow.yaml\"`")?;
    let input = section.get("input").map(|input| input.json()).transpose()?;
    Ok(ConfiguredWorkflow {
        name: item.name.clone(),
        file: item.document.path(file.text()?),
        input: input.unwrap_or_else(|| json!({})),
    })
}

/// `keep`, `keep-for`, `lifecycle`.
pub(super) fn events(section: &Section<'_>) -> Result<EventOptions, Error> {
    section.only(&["keep", "keep-for", "lifecycle"])?;
    let mut options = EventOptions::default();
    if let Some(item) = section.get("keep") {
        options.keep_max = item.integer(1, KEEP_MAX)?;
    }
    if let Some(item) = section.get("keep-for") {
        options.keep_for = item.duration(KEEP_FOR_MAX)?;
    }
    if let Some(item) = section.get("lifecycle") {
        options.lifecycle = item.choice(&[
            ("off", Lifecycle::Off),
            ("workflow", Lifecycle::Workflow),
            ("task", Lifecycle::Task),
        ])?;
    }
    Ok(options)
}
