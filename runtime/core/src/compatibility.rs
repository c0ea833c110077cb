//! Whether a new version of a plugin can take the place of the old one under workflows that run.
//!
//! Workflows rely on the actions that they call, on the inputs that these take, on the fields that
//! these promise, and on what repeating a call does. A new descriptor that takes any of this away
//! is *breaking*. What cannot be compared is taken for breaking: a person may say otherwise, the
//! machine does not guess.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::descriptor::{Action, Descriptor, Effect};

mod narrowed;

use narrowed::narrowed;

/// One difference between two descriptors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    /// The action.
    pub action: String,
    /// Whether workflows that run may rely on what is gone.
    pub breaking: bool,
    /// What is different, for people.
    pub what: String,
}

/// What is different in `new`, in the order of the actions of `old` and then of `new`.
pub fn diff(old: &Descriptor, new: &Descriptor) -> Vec<Change> {
    let mut changes = Vec::new();
    for (name, before) in &old.actions {
        let mut note = |breaking, what: String| {
            changes.push(Change {
                action: name.clone(),
                breaking,
                what,
            });
        };
        match new.actions.get(name) {
            None => note(true, "the action is gone".to_owned()),
            Some(after) => diff_action(before, after, &mut note),
        }
    }
    for name in new.actions.keys() {
        if !old.actions.contains_key(name) {
            changes.push(Change {
                action: name.clone(),
                breaking: false,
                what: "the action is new".to_owned(),
            });
        }
    }
    changes
}

fn diff_action(old: &Action, new: &Action, note: &mut impl FnMut(bool, String)) {
    if old.effect != new.effect {
        let (from, to) = (word(old.effect), word(new.effect));
        // A run that relies on repeating being harmless must not meet code for which it is not.
        let breaking = harm(new.effect) > harm(old.effect);
        note(breaking, format!("the effect was `{from}` and is `{to}`"));
    }
    if old.lookup != new.lookup {
        let what = if old.lookup { "gone" } else { "new" };
        note(old.lookup, format!("`lookup` is {what}"));
    }
    if old.compensated_by != new.compensated_by {
        let by = |action: &Action| match &action.compensated_by {
            Some(by) => format!("`{by}`"),
            None => "nothing".to_owned(),
        };
        let what = format!("it was compensated by {} and is by {}", by(old), by(new));
        note(old.compensated_by.is_some(), what);
    }
    for reason in narrowed(&old.input, &new.input) {
        note(true, format!("the input takes less: {reason}"));
    }
    for reason in narrowed(&new.output, &old.output) {
        note(true, format!("the output promises less: {reason}"));
    }
    let before = changes_text(old);
    if before != changes_text(new) {
        note(false, "the schemas or texts are different".to_owned());
    }
}

fn changes_text(action: &Action) -> (&Value, &Value, &str, &str) {
    let Action {
        input,
        output,
        title,
        description,
        ..
    } = action;
    (input, output, title, description)
}

fn harm(effect: Effect) -> u8 {
    match effect {
        Effect::Read => 0,
        Effect::Idempotent => 1,
        Effect::Once => 2,
    }
}

fn word(effect: Effect) -> &'static str {
    match effect {
        Effect::Read => "read",
        Effect::Idempotent => "idempotent",
        Effect::Once => "once",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn descriptor(actions: &Value) -> Descriptor {
        let text = json!({"name": "demo", "version": "1.0.0", "actions": actions});
        Descriptor::parse(&text.to_string()).unwrap()
    }

    fn breaking(old: &Value, new: &Value) -> Vec<String> {
        diff(&descriptor(old), &descriptor(new))
            .into_iter()
            .filter(|c| c.breaking)
            .map(|c| format!("{}: {}", c.action, c.what))
            .collect()
    }

    fn go(effect: &str, input: &Value, output: &Value) -> Value {
        json!({"title": "Go", "effect": effect, "input": input, "output": output})
    }

    #[test]
    fn a_removed_action_is_breaking_and_a_new_one_is_not() {
        let one = json!({"go": go("read", &json!({}), &json!({}))});
        let two = json!({"go": go("read", &json!({}), &json!({})), "come": go("read", &json!({}), &json!({}))});
        assert_eq!(breaking(&one, &two), Vec::<String>::new());
        assert_eq!(breaking(&two, &one), ["come: the action is gone"]);
    }

    #[test]
    fn an_effect_may_become_milder_but_not_worse() {
        let with = |effect| json!({"go": go(effect, &json!({}), &json!({}))});
        assert_eq!(breaking(&with("once"), &with("read")), Vec::<String>::new());
        assert_eq!(
            breaking(&with("idempotent"), &with("once")),
            ["go: the effect was `idempotent` and is `once`"]
        );
    }

    #[test]
    fn an_output_may_promise_more_but_not_less() {
        let less = json!({"type": "object", "properties": {"id": {"type": "string"}}});
        let more =
            json!({"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]});
        let with = |output: &Value| json!({"go": go("read", &json!({}), output)});
        assert_eq!(breaking(&with(&less), &with(&more)), Vec::<String>::new());
        let lost = breaking(&with(&more), &with(&less));
        assert!(lost[0].contains("output promises less"), "{lost:?}");
    }
}
