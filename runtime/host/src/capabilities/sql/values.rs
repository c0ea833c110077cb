//! Values between databases and JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Number, Value};

/// Whole numbers beyond this are not exact in every JSON reader.
const EXACT_MAX: u64 = 1 << 53;
/// Decimal digits that a double keeps.
const EXACT_DIGITS_MAX: usize = 15;

/// A whole number: as a JSON number while it is exact, else as a string.
pub(super) fn integer(value: i64) -> Value {
    if value.unsigned_abs() <= EXACT_MAX {
        value.into()
    } else {
        value.to_string().into()
    }
}

/// A double; what JSON has no word for (`NaN`, infinities) comes as a string.
pub(super) fn double(value: f64) -> Value {
    Number::from_f64(value).map_or_else(|| value.to_string().into(), Value::Number)
}

/// A decimal in its written form: as a JSON number while a double keeps it, else as a string.
pub(super) fn decimal(text: String) -> Value {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    if digits <= EXACT_DIGITS_MAX
        && let Some(number) = text.parse::<f64>().ok().and_then(Number::from_f64)
    {
        return Value::Number(number);
    }
    text.into()
}

pub(super) fn bytes(value: &[u8]) -> Value {
    STANDARD.encode(value).into()
}

pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}
