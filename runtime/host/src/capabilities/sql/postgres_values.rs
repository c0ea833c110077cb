//! Values between PostgreSQL and JSON: parameters go as text, which the server reads by the type
//! that it inferred for each placeholder; columns come in its binary formats.

use std::error::Error;

use serde_json::Value;
use tokio_postgres::types::private::BytesMut;
use tokio_postgres::types::{Format, FromSql, IsNull, Kind, ToSql, Type, to_sql_checked};

use super::values;

type Boxed = Box<dyn Error + Sync + Send>;

/// A JSON value as a parameter of whatever type.
#[derive(Debug)]
pub(super) struct Parameter<'a>(pub(super) &'a Value);

impl ToSql for Parameter<'_> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Boxed> {
        match text_of(self.0, ty)? {
            None => Ok(IsNull::Yes),
            Some(text) => {
                out.extend_from_slice(text.as_bytes());
                Ok(IsNull::No)
            }
        }
    }

    fn accepts(_ty: &Type) -> bool {
        true
    }

    fn encode_format(&self, _ty: &Type) -> Format {
        Format::Text
    }

    to_sql_checked!();
}

/// What PostgreSQL would read at this place; `None` for null.
fn text_of(value: &Value, ty: &Type) -> Result<Option<String>, Boxed> {
    if *ty == Type::JSON || *ty == Type::JSONB {
        return Ok((!value.is_null()).then(|| value.to_string()));
    }
    Ok(Some(match value {
        Value::Null => return Ok(None),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if *ty == Type::BYTEA => {
            let bytes = values::from_base64(text).ok_or("bytes have to come as base64")?;
            format!("\\x{}", hex::encode(bytes))
        }
        Value::String(text) => text.clone(),
        Value::Array(items) => match ty.kind() {
            Kind::Array(member) => array(items, member)?,
            _ => value.to_string(),
        },
        Value::Object(_) => value.to_string(),
    }))
}

/// An array in its written form: `{"a","b",NULL}`.
fn array(items: &[Value], member: &Type) -> Result<String, Boxed> {
    let mut text = "{".to_owned();
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match text_of(item, member)? {
            None => text.push_str("NULL"),
            Some(item) => {
                text.push('"');
                text.push_str(&item.replace('\\', "\\\\").replace('"', "\\\""));
                text.push('"');
            }
        }
    }
    text.push('}');
    Ok(text)
}

/// A column's value as JSON.
#[derive(Debug)]
pub(super) struct Cell(pub(super) Value);

impl<'a> FromSql<'a> for Cell {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Boxed> {
        read(ty, raw).map(Self)
    }

    fn from_sql_null(_ty: &Type) -> Result<Self, Boxed> {
        Ok(Self(Value::Null))
    }

    fn accepts(_ty: &Type) -> bool {
        true
    }
}

fn read(ty: &Type, raw: &[u8]) -> Result<Value, Boxed> {
    match ty.kind() {
        Kind::Domain(inner) => return read(inner, raw),
        Kind::Enum(_) => return Ok(String::from_utf8_lossy(raw).into()),
        Kind::Array(_) => {
            let cells = Vec::<Cell>::from_sql(ty, raw)?;
            return Ok(cells.into_iter().map(|cell| cell.0).collect());
        }
        _ => {}
    }
    Ok(match *ty {
        Type::BOOL => bool::from_sql(ty, raw)?.into(),
        Type::INT2 => i16::from_sql(ty, raw)?.into(),
        Type::INT4 => i32::from_sql(ty, raw)?.into(),
        Type::INT8 => values::integer(i64::from_sql(ty, raw)?),
        Type::OID => u32::from_sql(ty, raw)?.into(),
        // Through its text, or 0.1 would become 0.10000000149011612.
        Type::FLOAT4 => {
            let value = f32::from_sql(ty, raw)?;
            value
                .to_string()
                .parse::<f64>()
                .map_or(Value::Null, values::double)
        }
        Type::FLOAT8 => values::double(f64::from_sql(ty, raw)?),
        Type::NUMERIC => values::decimal(numeric(raw)?),
        Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME | Type::UNKNOWN => {
            String::from_utf8_lossy(raw).into()
        }
        Type::JSON => serde_json::from_slice(raw)?,
        // One byte of version before the text.
        Type::JSONB => serde_json::from_slice(raw.get(1..).unwrap_or_default())?,
        Type::BYTEA => values::bytes(raw),
        Type::UUID => uuid(raw)?.into(),
        Type::TIMESTAMP | Type::TIMESTAMPTZ => timestamp(wide(raw)?)?.into(),
        Type::DATE => date(narrow(raw)?)?.into(),
        Type::TIME => time(wide(raw)?).into(),
        _ => return Err("this type has no JSON form here".into()),
    })
}

fn wide(raw: &[u8]) -> Result<i64, Boxed> {
    Ok(i64::from_be_bytes(raw.try_into()?))
}

fn narrow(raw: &[u8]) -> Result<i32, Boxed> {
    Ok(i32::from_be_bytes(raw.try_into()?))
}

/// Microseconds since 2000-01-01, where PostgreSQL's clock starts.
fn timestamp(micros: i64) -> Result<String, Boxed> {
    const EPOCH_MICROS: i64 = 946_684_800_000_000;
    match micros {
        i64::MAX => return Ok("infinity".to_owned()),
        i64::MIN => return Ok("-infinity".to_owned()),
        _ => {}
    }
    let since_1970 = micros.checked_add(EPOCH_MICROS).ok_or("out of range")?;
    Ok(jiff::Timestamp::from_microsecond(since_1970)?.to_string())
}

fn date(days: i32) -> Result<String, Boxed> {
    match days {
        i32::MAX => return Ok("infinity".to_owned()),
        i32::MIN => return Ok("-infinity".to_owned()),
        _ => {}
    }
    let start = jiff::civil::date(2000, 1, 1);
    Ok(start
        .checked_add(jiff::Span::new().try_days(days)?)?
        .to_string())
}

fn time(micros: i64) -> String {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    let whole = format!(
        "{:02}:{:02}:{:02}",
        seconds / 3_600,
        seconds / 60 % 60,
        seconds % 60
    );
    if micros == 0 {
        whole
    } else {
        format!("{whole}.{micros:06}")
    }
}

fn uuid(raw: &[u8]) -> Result<String, Boxed> {
    let bytes: [u8; 16] = raw.try_into()?;
    let text = hex::encode(bytes);
    let parts = [
        &text[..8],
        &text[8..12],
        &text[12..16],
        &text[16..20],
        &text[20..],
    ];
    Ok(parts.join("-"))
}

/// The written form of a `numeric`: digits to the base 10,000, with a weight and a scale.
fn numeric(raw: &[u8]) -> Result<String, Boxed> {
    const NEGATIVE: u16 = 0x4000;
    let mut words = raw
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
    let mut next = || words.next().ok_or("a numeric is cut off");
    let (count, weight, sign, scale) = (next()?, next()? as i16, next()?, next()?);
    match sign {
        0 | NEGATIVE => {}
        0xC000 => return Ok("NaN".to_owned()),
        0xD000 => return Ok("Infinity".to_owned()),
        _ => return Ok("-Infinity".to_owned()),
    }
    let digits = (0..count).map(|_| next()).collect::<Result<Vec<_>, _>>()?;
    let digit = |place: i32| -> u16 {
        usize::try_from(i32::from(weight) - place)
            .ok()
            .and_then(|index| digits.get(index).copied())
            .unwrap_or(0)
    };
    let group = |place: i32| format!("{:04}", digit(place));
    let groups: Vec<String> = (0..=i32::from(weight)).rev().map(group).collect();
    let whole = match groups.concat().trim_start_matches('0') {
        "" => "0".to_owned(),
        whole => whole.to_owned(),
    };
    let groups: Vec<String> = (1..=i32::from(scale.div_ceil(4)))
        .map(|p| group(-p))
        .collect();
    let mut fraction = groups.concat();
    fraction.truncate(scale.into());
    let sign = if sign == NEGATIVE { "-" } else { "" };
    Ok(if fraction.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{fraction}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(words: &[u16]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_be_bytes()).collect()
    }

    #[test]
    fn decimals_keep_every_digit() {
        for (raw, text) in [
            (words(&[0, 0, 0, 0]), "0"),
            (words(&[2, 0, 0, 2, 12, 3400]), "12.34"),
            (words(&[2, 0, 0x4000, 2, 12, 3400]), "-12.34"),
            (words(&[1, 1, 0, 0, 1]), "10000"),
            (words(&[1, 0xFFFF, 0, 4, 1]), "0.0001"),
            (words(&[1, 0xFFFE, 0, 8, 1]), "0.00000001"),
            (words(&[0, 0, 0xC000, 0]), "NaN"),
        ] {
            assert_eq!(numeric(&raw).unwrap(), text);
        }
        assert!(numeric(&[0, 1]).is_err());
    }

    #[test]
    fn times_are_written_as_rfc_3339() {
        assert_eq!(timestamp(0).unwrap(), "2000-01-01T00:00:00Z");
        assert_eq!(date(366).unwrap(), "2001-01-01");
        assert_eq!(date(-1).unwrap(), "1999-12-31");
        assert_eq!(time(3_661_000_001), "01:01:01.000001");
    }

    #[test]
    fn arrays_are_quoted() {
        let value = json!(["a\"b", null, "c\\d"]);
        let text = text_of(&value, &Type::TEXT_ARRAY).unwrap().unwrap();
        assert_eq!(text, r#"{"a\"b",NULL,"c\\d"}"#);
    }
}
