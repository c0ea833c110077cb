//! Where events may be large.

use super::{Event, TakenOver};

impl Event {
    /// Where in the JSON of the event its large values may be, as JSON pointers ([RFC 6901]): what
    /// came from outside and is kept as it came. A shell may keep what is there elsewhere, as long
    /// as it puts the same value back before the event is read. The rest of an event is small.
    ///
    /// [RFC 6901]: https://www.rfc-editor.org/rfc/rfc6901
    pub fn places(&self) -> Vec<String> {
        let (fixed, taken): (&[&str], _) = match self {
            Self::Begun { .. } | Self::Queued { .. } => (&["/input"], None),
            Self::Forked { taken, .. } | Self::Redriven { taken, .. } => (&["/input"], Some(taken)),
            Self::Succeeded { .. } => (&["/output"], None),
            Self::Refused { .. } | Self::Failed { .. } => (&["/failure/details"], None),
            Self::LookedUp { .. } => (&["/answer/output", "/answer/failure/details"], None),
            Self::Decided { .. } => (&["/decision/output"], None),
            Self::Heard { .. } => (&["/event"], None),
            Self::Recalled { .. } => (&["/found/output"], None),
            Self::Admitted
            | Self::Cancelled { .. }
            | Self::Suspended { .. }
            | Self::Resumed
            | Self::Started { .. }
            | Self::Lost { .. }
            | Self::Recovered { .. }
            | Self::Deferred { .. }
            | Self::NotDeferred { .. }
            | Self::Tick => (&[], None),
        };
        let mut places: Vec<_> = fixed.iter().map(|place| (*place).to_owned()).collect();
        places.extend(taken.into_iter().flat_map(places_taken));
        places
    }
}

fn places_taken(taken: &TakenOver) -> impl Iterator<Item = String> {
    taken.keys().flat_map(|task| {
        let task = task.replace('~', "~0").replace('/', "~1");
        ["output", "context"].map(|part| format!("/taken/{task}/{part}"))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Every text that is long in the JSON of an event of each kind that may have one.
    #[test]
    fn what_came_from_outside_is_where_an_event_says() {
        let failure = json!({"class": "internal", "code": "c", "message": "m", "effect": "none", "details": "LARGE"});
        let event =
            json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": "LARGE"});
        let taken = json!({"/a~b/[3]": {"output": "LARGE", "context": "LARGE"}});
        let origin = json!({"run": "r", "task": "/a"});
        for event in [
            json!({"kind": "begun", "input": "LARGE"}),
            json!({"kind": "queued", "input": "LARGE"}),
            json!({"kind": "forked", "input": "LARGE", "origin": origin, "taken": taken}),
            json!({"kind": "redriven", "input": "LARGE", "taken": taken}),
            json!({"kind": "refused", "ticket": 1, "failure": failure}),
            json!({"kind": "failed", "ticket": 1, "failure": failure, "draw": 1}),
            json!({"kind": "succeeded", "ticket": 1, "output": "LARGE"}),
            json!({"kind": "lookedUp", "ticket": 1, "answer": {"kind": "found", "output": "LARGE"}, "draw": 1}),
            json!({"kind": "lookedUp", "ticket": 1, "answer": {"kind": "failed", "failure": failure}, "draw": 1}),
            json!({"kind": "decided", "task": "/a", "decision": {"kind": "approve", "output": "LARGE"}}),
            json!({"kind": "decided", "task": "/a", "decision": {"kind": "answer", "output": "LARGE"}}),
            json!({"kind": "heard", "task": "/a", "seq": 1, "event": event}),
            json!({"kind": "recalled", "ticket": 1, "found": {"output": "LARGE", "atMs": 1}}),
        ] {
            let read: Event = serde_json::from_value(event.clone()).unwrap();
            let mut written = serde_json::to_value(&read).unwrap();
            assert_eq!(written, event);
            for place in read.places() {
                if let Some(value) = written.pointer_mut(&place) {
                    *value = Value::Null;
                }
            }
            assert!(!written.to_string().contains("LARGE"), "{written}");
        }
    }
}
