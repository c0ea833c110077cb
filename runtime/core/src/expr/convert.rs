//! JSON values to jq's and back.

use std::rc::Rc;

use jaq_json::{Map, Num, Val};
use serde_json::{Number, Value};

/// No value that goes in or comes out is nested deeper than this.
pub(super) const DEPTH_MAX: usize = 256;
/// No value that comes out has more parts than this.
pub(super) const NODES_MAX: usize = 2_000_000;
/// Integers up to this are exact in a double.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A value that one of the two sides cannot hold.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// Nested deeper than [`DEPTH_MAX`].
    Deep,
    /// More parts than [`NODES_MAX`].
    Large,
    /// JSON has no such value.
    NotJson(String),
}

/// JSON to jq.
pub(super) fn to_jq(value: &Value) -> Result<Val, Mismatch> {
    inward(value, 0)
}

fn inward(value: &Value, depth: usize) -> Result<Val, Mismatch> {
    if depth > DEPTH_MAX {
        return Err(Mismatch::Deep);
    }
    Ok(match value {
        Value::Null => Val::Null,
        Value::Bool(b) => Val::Bool(*b),
        Value::Number(n) => Val::Num(number_inward(n)),
        Value::String(s) => Val::utf8_str(s.clone()),
        Value::Array(items) => Val::Arr(Rc::new(
            items
                .iter()
                .map(|v| inward(v, depth + 1))
                .collect::<Result<_, _>>()?,
        )),
        Value::Object(map) => Val::obj(
            map.iter()
                .map(|(k, v)| Ok((Val::utf8_str(k.clone()), inward(v, depth + 1)?)))
                .collect::<Result<Map, Mismatch>>()?,
        ),
    })
}

fn number_inward(n: &Number) -> Num {
    if let Some(i) = n.as_i64() {
        Num::from_integral(i)
    } else if let Some(u) = n.as_u64() {
        Num::from_integral(u)
    } else {
        Num::Float(n.as_f64().unwrap_or(f64::NAN))
    }
}

/// jq to JSON. A float without a fraction becomes an integer, as jq prints it: `10 / 2` is `5`.
pub(super) fn to_json(value: &Val) -> Result<Value, Mismatch> {
    let mut left = NODES_MAX;
    outward(value, 0, &mut left)
}

fn outward(value: &Val, depth: usize, left: &mut usize) -> Result<Value, Mismatch> {
    if depth > DEPTH_MAX {
        return Err(Mismatch::Deep);
    }
    *left = left.checked_sub(1).ok_or(Mismatch::Large)?;
    Ok(match value {
        Val::Null => Value::Null,
        Val::Bool(b) => Value::Bool(*b),
        Val::Num(n) => number_outward(n)?,
        Val::TStr(bytes) => Value::String(text(bytes)?),
        Val::BStr(_) => return Err(Mismatch::NotJson("bytes; use @base64".into())),
        Val::Arr(items) => Value::Array(
            items
                .iter()
                .map(|v| outward(v, depth + 1, left))
                .collect::<Result<_, _>>()?,
        ),
        Val::Obj(map) => {
            let entries = map.iter().map(|(k, v)| {
                let Val::TStr(key) = k else {
                    return Err(Mismatch::NotJson(format!("an object with the key {k}")));
                };
                Ok((text(key)?, outward(v, depth + 1, left)?))
            });
            Value::Object(entries.collect::<Result<_, _>>()?)
        }
    })
}

fn text(bytes: &[u8]) -> Result<String, Mismatch> {
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| Mismatch::NotJson("bytes that are not UTF-8".into()))
}

fn number_outward(n: &Num) -> Result<Value, Mismatch> {
    let refuse = || Mismatch::NotJson(format!("the number {n}"));
    match n {
        Num::Int(i) => Ok(Value::from(*i as i64)),
        Num::BigInt(i) => i
            .to_string()
            .parse::<u64>()
            .map(Value::from)
            .map_err(|_| refuse()),
        Num::Float(f) => float_outward(*f).ok_or_else(refuse),
        Num::Dec(text) => text.parse().ok().and_then(float_outward).ok_or_else(refuse),
    }
}

fn float_outward(f: f64) -> Option<Value> {
    if f.fract() == 0.0 && f.abs() <= EXACT_MAX {
        return Some(Value::from(f as i64));
    }
    Number::from_f64(f).map(Value::Number)
}

/// How many parts a value has and how deep it is, both counted no further than the limits.
/// Text counts by its length, so that it cannot hide.
pub(super) fn weigh(value: &Val) -> (usize, usize) {
    let (mut nodes, mut depth) = (0, 0);
    weigh_into(value, 0, &mut nodes, &mut depth);
    (nodes, depth)
}

fn weigh_into(value: &Val, level: usize, nodes: &mut usize, depth: &mut usize) {
    *depth = (*depth).max(level);
    *nodes += 1;
    if *nodes > NODES_MAX || level > DEPTH_MAX {
        return;
    }
    match value {
        Val::TStr(bytes) | Val::BStr(bytes) => *nodes += bytes.len() / 32,
        Val::Arr(items) => items
            .iter()
            .for_each(|v| weigh_into(v, level + 1, nodes, depth)),
        Val::Obj(map) => map
            .values()
            .for_each(|v| weigh_into(v, level + 1, nodes, depth)),
        Val::Null | Val::Bool(_) | Val::Num(_) => {}
    }
}
