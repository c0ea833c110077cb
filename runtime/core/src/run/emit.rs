//! What `emit` publishes: the attributes that the workflow gave, completed to a CloudEvent.

use serde_json::{Map, Value, json};

use super::{GIVEN_BYTES_MAX, GIVEN_MAX, Run, Step};
use crate::cloud_event::{CloudEvent, size};
use crate::error::WorkflowError;

/// Runs with these semantics or later ones fail where they emit what is no event; before, they went
/// on, and what they emitted became a dead letter.
const CHECKED_SINCE: u32 = 2;

impl Run {
    /// Adds what every CloudEvent has where the workflow says nothing: the id is made of the run and
    /// a count, so that a repeated step publishes the same event again and not another one.
    pub(super) fn completed_event(&mut self, event: Value, now_ms: u64) -> Value {
        self.emitted += 1;
        let Value::Object(given) = event else {
            return event;
        };
        let document = &self.workflow.document;
        let source = format!(
            "cofferdam:{}/{}:{}",
            document.namespace, document.name, document.version
        );
        let mut whole = Map::new();
        whole.insert("specversion".to_owned(), json!("1.0"));
        whole.insert(
            "id".to_owned(),
            json!(format!("{}-{}", self.id, self.emitted)),
        );
        whole.insert("source".to_owned(), json!(source));
        whole.insert("time".to_owned(), json!(instant(now_ms)));
        for (name, value) in given {
            if !value.is_null() || name == "data" {
                whole.insert(name, value);
            }
        }
        Value::Object(whole)
    }

    /// Counts what a step gives, and refuses what could not be written with the rest of it.
    pub(super) fn check_given(
        &self,
        given: &Value,
        reference: &str,
        step: &mut Step,
    ) -> Result<(), WorkflowError> {
        step.given += 1;
        step.given_bytes = step.given_bytes.saturating_add(size(given));
        let fits = step.given <= GIVEN_MAX && step.given_bytes <= GIVEN_BYTES_MAX;
        if fits || self.bindings.semantics < CHECKED_SINCE {
            return Ok(());
        }
        let detail = format!(
            "without waiting for anything a workflow may publish {GIVEN_MAX} events or begin as many runs, \
             of {GIVEN_BYTES_MAX} bytes together; put a call or a wait between them"
        );
        Err(WorkflowError::runtime(detail, reference))
    }

    /// Refuses what cannot be published.
    pub(super) fn check_event(&self, event: &Value, reference: &str) -> Result<(), WorkflowError> {
        if self.bindings.semantics < CHECKED_SINCE {
            return Ok(());
        }
        CloudEvent::new(event.clone()).map(drop).map_err(|invalid| {
            let detail = format!("this is no event that can be published: {invalid}");
            WorkflowError::validation(detail, reference)
        })
    }
}

/// An instant, in milliseconds since the Unix epoch, as RFC 3339 writes it in UTC.
pub fn instant(ms: u64) -> String {
    jiff::Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX))
        .map(|t| t.to_string())
        .unwrap_or_default()
}
