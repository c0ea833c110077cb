//! What the process that has the connections adds to why a run waits.

use cofferdam_core::run::{For, Wait};

use crate::connections::Slot;
use crate::runtime::Inner;

impl Inner {
    /// Adds how the connection is that is waited for, and when it is asked again.
    pub(crate) fn explain(&self, wait: &mut Wait) {
        let name = wait.connection.as_deref().unwrap_or_default();
        let Some(slot) = self.connections.get(name) else {
            if wait.r#for == For::Connection {
                wait.state = Some("which this configuration does not have".to_owned());
            }
            return;
        };
        if wait.r#for == For::Connection {
            wait.state = Some(state(slot));
            wait.at_ms = slot.probe_due_ms();
            wait.next = match wait.at_ms {
                Some(_) => "asked again".to_owned(),
                None => "asked again soon".to_owned(),
            };
        }
    }
}

fn state(slot: &Slot) -> String {
    let last = slot.state().last_failure;
    let last = last.map_or_else(String::new, |last| format!(" (the last failure: {last})"));
    match slot.breaker_state() {
        _ if !slot.enabled => "which is switched off".to_owned(),
        "Open" => format!("whose breaker is open{last}"),
        "HalfOpen" => format!("which is being tried with a few calls{last}"),
        "ForcedOpen" => "whose breaker somebody holds open".to_owned(),
        _ if slot.probe_due_ms().is_some() => {
            "whose plugin is held because it crashed too often".to_owned()
        }
        _ => format!("which is being asked whether it works again{last}"),
    }
}
