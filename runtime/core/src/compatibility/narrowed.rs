//! Whether one schema allows less than another.

use std::sync::LazyLock;

use serde_json::{Map, Value};

/// Where values that `wide` allows may not be allowed by `narrow`: JSON pointer and reason. Empty
/// if every such value is allowed, as far as the usual keywords tell. A property that `wide` does
/// not speak of and `narrow` describes is no narrowing: that is how schemas grow.
pub(super) fn narrowed(wide: &Value, narrow: &Value) -> Vec<String> {
    let mut comparison = Comparison {
        wide_root: wide,
        narrow_root: narrow,
        found: Vec::new(),
        steps_left: STEPS_MAX,
    };
    comparison.schemas(wide, narrow, &mut String::new(), 0);
    comparison.found
}

/// Schemas are written by third parties: neither their depth nor their size may hold up a swap.
const DEPTH_MAX: usize = 32;
const STEPS_MAX: usize = 10_000;
const FOUND_MAX: usize = 8;

struct Comparison<'a> {
    wide_root: &'a Value,
    narrow_root: &'a Value,
    found: Vec<String>,
    steps_left: usize,
}

/// Keywords that say nothing of which values are allowed.
const ANNOTATIONS: [&str; 11] = [
    "$schema",
    "$id",
    "$comment",
    "$defs",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];
/// Keywords with a comparison of their own.
const COMPARED: [&str; 20] = [
    "type",
    "enum",
    "const",
    "required",
    "properties",
    "additionalProperties",
    "items",
    "minimum",
    "exclusiveMinimum",
    "minLength",
    "minItems",
    "minProperties",
    "maximum",
    "exclusiveMaximum",
    "maxLength",
    "maxItems",
    "maxProperties",
    "uniqueItems",
    "anyOf",
    "oneOf",
];

impl<'a> Comparison<'a> {
    fn note(&mut self, at: &str, reason: &str) {
        if self.found.len() < FOUND_MAX {
            let place = if at.is_empty() { "the whole" } else { at };
            self.found.push(format!("{place}: {reason}"));
        }
    }

    fn schemas(&mut self, wide: &'a Value, narrow: &'a Value, at: &mut String, depth: usize) {
        if wide != narrow && has_more_beside_its_reference(narrow) {
            return self.note(at, "a reference with more beside it is different");
        }
        let wide = resolve(self.wide_root, wide);
        let narrow = resolve(self.narrow_root, narrow);
        self.steps_left = self.steps_left.saturating_sub(1);
        if depth > DEPTH_MAX || self.steps_left == 0 {
            // References may form a circle; equal texts around it are equal schemas.
            if wide != narrow {
                self.note(at, "it is too deep to be compared");
            }
            return;
        }
        match (wide, narrow) {
            (_, Value::Bool(true)) | (Value::Bool(false), _) => {}
            (_, Value::Bool(false)) => self.note(at, "nothing is allowed any more"),
            (Value::Bool(true), Value::Object(narrow)) => {
                self.objects(&NOTHING, narrow, at, depth);
            }
            (Value::Object(wide), Value::Object(narrow)) => self.objects(wide, narrow, at, depth),
            _ => self.note(at, "it cannot be compared"),
        }
    }

    fn objects(
        &mut self,
        wide: &'a Map<String, Value>,
        narrow: &'a Map<String, Value>,
        at: &mut String,
        depth: usize,
    ) {
        self.types(wide, narrow, at);
        self.values(wide, narrow, at);
        self.bounds(wide, narrow, at);
        self.members(wide, narrow, at, depth);
        if let Some(narrow_items) = narrow.get("items") {
            match wide.get("items") {
                Some(wide_items) => {
                    self.step(wide_items, narrow_items, at, "[]", depth);
                }
                None if allows_type(wide, "array") => {
                    self.step(&TRUE, narrow_items, at, "[]", depth);
                }
                None => {}
            }
        }
        self.alternatives(wide, narrow, at, depth);
        for (key, value) in narrow {
            let known = ANNOTATIONS.contains(&key.as_str()) || COMPARED.contains(&key.as_str());
            if !known && wide.get(key) != Some(value) {
                self.note(at, &format!("`{key}` is different"));
            }
        }
    }

    fn step(
        &mut self,
        wide: &'a Value,
        narrow: &'a Value,
        at: &mut String,
        by: &str,
        depth: usize,
    ) {
        let length = at.len();
        at.push_str(by);
        self.schemas(wide, narrow, at, depth + 1);
        at.truncate(length);
    }

    fn types(&mut self, wide: &Map<String, Value>, narrow: &Map<String, Value>, at: &str) {
        let Some(allowed) = narrow.get("type") else {
            return;
        };
        let allowed = names(allowed);
        let before = match wide.get("type") {
            Some(before) => names(before),
            None => match wide.get("enum").or(wide.get("const")) {
                // Its values tell; they are compared below.
                Some(_) => return,
                None if wide.contains_key("anyOf") || wide.contains_key("oneOf") => return,
                None => return self.note(at, "a type is required now"),
            },
        };
        let lost = before.iter().find(|name| {
            let is_number = **name == "integer" && allowed.contains(&"number");
            !allowed.contains(name) && !is_number
        });
        if let Some(lost) = lost {
            self.note(at, &format!("the type `{lost}` is not allowed any more"));
        }
    }

    fn values(&mut self, wide: &Map<String, Value>, narrow: &Map<String, Value>, at: &str) {
        let Some(allowed) = listed(narrow) else {
            return;
        };
        match listed(wide) {
            None => self.note(at, "only certain values are allowed now"),
            Some(before) => {
                if let Some(lost) = before.iter().find(|value| !allowed.contains(value)) {
                    self.note(at, &format!("the value {lost} is not allowed any more"));
                }
            }
        }
    }

    fn bounds(&mut self, wide: &Map<String, Value>, narrow: &Map<String, Value>, at: &str) {
        const LOWER: [&str; 5] = [
            "minimum",
            "exclusiveMinimum",
            "minLength",
            "minItems",
            "minProperties",
        ];
        const UPPER: [&str; 5] = [
            "maximum",
            "exclusiveMaximum",
            "maxLength",
            "maxItems",
            "maxProperties",
        ];
        let number = |map: &Map<String, Value>, key| map.get(key).and_then(Value::as_f64);
        for key in LOWER {
            if let Some(bound) = number(narrow, key)
                && number(wide, key).is_none_or(|before| before < bound)
                && !(bound <= 0.0 && key.starts_with("min") && key != "minimum")
            {
                self.note(at, &format!("`{key}` is {bound} now"));
            }
        }
        for key in UPPER {
            if let Some(bound) = number(narrow, key)
                && number(wide, key).is_none_or(|before| before > bound)
            {
                self.note(at, &format!("`{key}` is {bound} now"));
            }
        }
        let unique = |map: &Map<String, Value>| map.get("uniqueItems") == Some(&Value::Bool(true));
        if unique(narrow) && !unique(wide) {
            self.note(at, "items must be unique now");
        }
    }

    fn members(
        &mut self,
        wide: &'a Map<String, Value>,
        narrow: &'a Map<String, Value>,
        at: &mut String,
        depth: usize,
    ) {
        let empty = Vec::new();
        let required = |map: &'a Map<String, Value>| map.get("required").and_then(Value::as_array);
        let before = required(wide).unwrap_or(&empty);
        for name in required(narrow).into_iter().flatten() {
            if !before.contains(name) {
                self.note(at, &format!("{name} is required now"));
            }
        }
        let described =
            |map: &'a Map<String, Value>| map.get("properties").and_then(Value::as_object);
        let additional = narrow.get("additionalProperties");
        for (name, schema) in described(wide).into_iter().flatten() {
            let by = format!("/{name}");
            match described(narrow).and_then(|p| p.get(name)) {
                Some(other) => self.step(schema, other, at, &by, depth),
                None => self.step(schema, additional.unwrap_or(&TRUE), at, &by, depth),
            }
        }
        if let Some(additional) = additional {
            let before = wide.get("additionalProperties").unwrap_or(&TRUE);
            // What only describes values is for values; an object that was open and is closed
            // now refuses what it took.
            if allows_type(wide, "object") {
                self.step(before, additional, at, "/*", depth);
            }
        }
    }

    /// Alternatives that are there word for word, or that each have a wider one, are no narrowing.
    fn alternatives(
        &mut self,
        wide: &'a Map<String, Value>,
        narrow: &'a Map<String, Value>,
        at: &str,
        depth: usize,
    ) {
        for key in ["anyOf", "oneOf"] {
            let Some(allowed) = narrow.get(key).and_then(Value::as_array) else {
                continue;
            };
            if wide.get(key) == narrow.get(key) {
                continue;
            }
            if key == "oneOf" {
                // One more alternative may make a value fit two, which `oneOf` refuses.
                self.note(at, "`oneOf` is different");
                continue;
            }
            let Some(before) = wide.get(key).and_then(Value::as_array) else {
                self.note(at, &format!("`{key}` is required now"));
                continue;
            };
            for (n, alternative) in before.iter().enumerate() {
                let fits = allowed.iter().any(|other| {
                    let mut trial = Comparison {
                        wide_root: self.wide_root,
                        narrow_root: self.narrow_root,
                        found: Vec::new(),
                        steps_left: self.steps_left,
                    };
                    trial.schemas(alternative, other, &mut String::new(), depth + 1);
                    self.steps_left = trial.steps_left;
                    trial.found.is_empty()
                });
                if !fits {
                    self.note(at, &format!("alternative {} of `{key}` is gone", n + 1));
                }
            }
        }
    }
}

/// A reference and what stands beside it count both.
fn has_more_beside_its_reference(schema: &Value) -> bool {
    let is_more = |key: &String| key != "$ref" && !ANNOTATIONS.contains(&key.as_str());
    schema
        .as_object()
        .is_some_and(|schema| schema.contains_key("$ref") && schema.keys().any(is_more))
}

static NOTHING: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
static TRUE: Value = Value::Bool(true);

/// Follows references within the document, a bounded number of them.
fn resolve<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    for _ in 0..DEPTH_MAX {
        let target = schema
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| reference.strip_prefix('#'))
            .and_then(|pointer| root.pointer(pointer));
        match target {
            Some(target) => schema = target,
            None => return schema,
        }
    }
    schema
}

fn names(kind: &Value) -> Vec<&str> {
    match kind {
        Value::String(name) => vec![name.as_str()],
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn allows_type(schema: &Map<String, Value>, name: &str) -> bool {
    schema
        .get("type")
        .is_none_or(|kind| names(kind).contains(&name))
}

/// The values that a schema is confined to, if it is.
fn listed(schema: &Map<String, Value>) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(Value::Array(values))) => Some(values.iter().collect()),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn takes_less(old: &Value, new: &Value) -> bool {
        !narrowed(old, new).is_empty()
    }

    #[test]
    fn schemas_that_grow_are_compatible() {
        let object = |properties: Value, required: Value| json!({"type": "object", "properties": properties, "required": required});
        let cases = [
            (json!({}), json!({})),
            (json!({"type": "integer"}), json!({"type": "number"})),
            (
                json!({"type": "string"}),
                json!({"type": ["string", "null"]}),
            ),
            (json!({"type": "string"}), json!(true)),
            (json!({"enum": ["a"]}), json!({"enum": ["a", "b"]})),
            (json!({"const": "a"}), json!({"enum": ["a", "b"]})),
            (
                json!({"enum": ["a"]}),
                json!({"type": "string", "enum": ["a"]}),
            ),
            (
                object(json!({"a": {"type": "string"}}), json!(["a"])),
                object(
                    json!({"a": {"type": "string"}, "b": {"type": "string"}}),
                    json!([]),
                ),
            ),
            (
                json!({"minLength": 2, "maxLength": 5}),
                json!({"minLength": 1, "maxLength": 9}),
            ),
            (
                json!({"type": "string"}),
                json!({"type": "string", "minLength": 0}),
            ),
            (
                json!({"type": "object", "additionalProperties": false}),
                json!({"type": "object"}),
            ),
            (
                json!({"anyOf": [{"type": "string"}]}),
                json!({"anyOf": [{"type": "null"}, {"type": ["string", "integer"]}]}),
            ),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}),
                json!({"type": "string", "title": "A"}),
            ),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}),
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"items": {"$ref": "#/$defs/a"}}}}),
            ),
            (json!({"pattern": "^a"}), json!({"pattern": "^a"})),
        ];
        for (old, new) in cases {
            assert_eq!(narrowed(&old, &new), Vec::<String>::new(), "{old} → {new}");
        }
    }

    #[test]
    fn schemas_that_shrink_are_breaking() {
        let cases = [
            (json!({}), json!(false)),
            (json!({}), json!({"type": "string"})),
            (json!({"type": "number"}), json!({"type": "integer"})),
            (
                json!({"type": ["string", "null"]}),
                json!({"type": "string"}),
            ),
            (
                json!({"type": "string"}),
                json!({"type": "string", "enum": ["a"]}),
            ),
            (json!({"enum": ["a", "b"]}), json!({"enum": ["a"]})),
            (json!({"enum": ["a", "b"]}), json!({"const": "a"})),
            (
                json!({"properties": {}}),
                json!({"properties": {}, "required": ["a"]}),
            ),
            (
                json!({"properties": {"a": {"properties": {"b": {"type": "string"}}}}}),
                json!({"properties": {"a": {"properties": {"b": {"type": "integer"}}}}}),
            ),
            (
                json!({"properties": {"a": {}}}),
                json!({"properties": {}, "additionalProperties": false}),
            ),
            (
                json!({"type": "object"}),
                json!({"type": "object", "additionalProperties": false}),
            ),
            (json!({"maxLength": 9}), json!({"maxLength": 5})),
            (json!({}), json!({"minimum": 0})),
            (
                json!({"items": {"type": "string"}}),
                json!({"items": {"type": "integer"}}),
            ),
            (
                json!({"type": "array"}),
                json!({"type": "array", "items": {"type": "integer"}}),
            ),
            (
                json!({"type": "array"}),
                json!({"type": "array", "uniqueItems": true}),
            ),
            (
                json!({"type": "string"}),
                json!({"type": "string", "pattern": "^a"}),
            ),
            (json!({"pattern": "^a"}), json!({"pattern": "^b"})),
            (
                json!({"type": "string"}),
                json!({"type": "string", "format": "email"}),
            ),
            (
                json!({"anyOf": [{"type": "string"}, {"type": "null"}]}),
                json!({"anyOf": [{"type": "string"}]}),
            ),
            (json!({}), json!({"not": {"type": "string"}})),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {}}}),
                json!({"$ref": "#/$defs/a", "required": ["t"], "$defs": {"a": {}}}),
            ),
            (
                json!({"oneOf": [{"type": "integer"}]}),
                json!({"oneOf": [{"type": "integer"}, {"type": "number"}]}),
            ),
            (
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}),
                json!({"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}}),
            ),
        ];
        for (old, new) in cases {
            assert!(takes_less(&old, &new), "{old} → {new}");
        }
    }

    #[test]
    fn a_schema_of_any_depth_is_compared_in_bounded_work() {
        let (mut old, mut new) = (json!({"type": "string"}), json!({"type": "integer"}));
        for _ in 0..100 {
            old = json!({"anyOf": [old.clone(), {"items": old}]});
            new = json!({"anyOf": [new.clone(), {"items": new}]});
            if old.to_string().len() > 100_000 {
                break;
            }
        }
        assert!(takes_less(&old, &new));
    }
}
