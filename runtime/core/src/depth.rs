//! How deeply JSON may nest.
//!
//! Readers of JSON stop at a depth (`serde_json` at 128), and a journal wraps what it keeps. So that
//! whatever was written can be read again, values are bounded well below that before they are
//! taken.

use serde_json::Value;

/// No value that a run keeps nests deeper than this.
pub const DEPTH_MAX: usize = 100;

/// Whether a value nests no deeper than [`DEPTH_MAX`]. Does not itself recurse deeper than that.
pub fn is_fine(value: &Value) -> bool {
    within(value, DEPTH_MAX)
}

/// The same of a JSON text, before anything is made of it. Of a text that is no JSON it may say
/// either.
pub fn is_fine_text(text: &str) -> bool {
    let (mut depth, mut quoted, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => depth += 1,
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return false;
        }
    }
    true
}

fn within(value: &Value, left: usize) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
        Value::Array(items) => left > 0 && items.iter().all(|v| within(v, left - 1)),
        Value::Object(members) => left > 0 && members.values().all(|v| within(v, left - 1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Value {
        (0..depth).fold(Value::Null, |inner, _| Value::Array(vec![inner]))
    }

    #[test]
    fn the_bound_is_exact() {
        assert!(is_fine(&nested(DEPTH_MAX)));
        assert!(!is_fine(&nested(DEPTH_MAX + 1)));
        assert!(is_fine_text(&nested(DEPTH_MAX).to_string()));
        assert!(!is_fine_text(&nested(DEPTH_MAX + 1).to_string()));
    }

    #[test]
    fn brackets_in_texts_do_not_count() {
        let text = serde_json::json!({ "[\"\\": "[".repeat(DEPTH_MAX + 1) }).to_string();
        assert!(is_fine_text(&text));
    }
}
