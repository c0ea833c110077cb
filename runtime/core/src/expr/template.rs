//! Data with expressions in it.

use indexmap::IndexMap;
use serde_json::Value;

use super::{Error, Expr, Vars, brief};

/// A JSON value in which some strings are expressions.
///
/// A string that is `${ … }` as a whole is an expression; every other string is data, also one
/// that has `${ … }` in it somewhere (the strict mode of the Open Workflow Specification).
/// Values that come out of an expression are never looked at for expressions.
#[derive(Debug, Clone)]
pub enum Template {
    /// Data without expressions.
    Literal(Value),
    /// An expression.
    Expr(Expr),
    /// A URI with `{names}` in it; only where the language says that a URI template stands.
    Uri(UriTemplate),
    /// A list with at least one expression in it.
    Array(Vec<Template>),
    /// An object with at least one expression in it; keys are always data.
    Object(IndexMap<String, Template>),
}

impl Template {
    /// Makes a template from a value, its expressions with these names (without `$`) in scope.
    pub fn compile(value: &Value, vars: &[&str]) -> Result<Self, Error> {
        Ok(match value {
            Value::String(text) => match inside_braces(text) {
                Some(source) => Self::Expr(Expr::compile(source, vars)?),
                None => Self::Literal(value.clone()),
            },
            Value::Array(items) => Self::array(
                items
                    .iter()
                    .map(|v| Self::compile(v, vars))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(map) => Self::object(
                map.iter()
                    .map(|(k, v)| Ok((k.clone(), Self::compile(v, vars)?)))
                    .collect::<Result<_, Error>>()?,
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Literal(value.clone()),
        })
    }

    /// A list; a literal if all of it is literal.
    pub fn array(items: Vec<Self>) -> Self {
        if items.iter().all(|t| matches!(t, Self::Literal(_))) {
            let values = items.into_iter().filter_map(Self::into_literal);
            return Self::Literal(Value::Array(values.collect()));
        }
        Self::Array(items)
    }

    /// An object; a literal if all of it is literal.
    pub fn object(entries: IndexMap<String, Self>) -> Self {
        if entries.values().all(|t| matches!(t, Self::Literal(_))) {
            let values = entries
                .into_iter()
                .filter_map(|(k, t)| Some((k, t.into_literal()?)));
            return Self::Literal(Value::Object(values.collect()));
        }
        Self::Object(entries)
    }

    /// The value, if there is no expression in it.
    pub fn as_literal(&self) -> Option<&Value> {
        match self {
            Self::Literal(value) => Some(value),
            Self::Expr(_) | Self::Uri(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    fn into_literal(self) -> Option<Value> {
        match self {
            Self::Literal(value) => Some(value),
            Self::Expr(_) | Self::Uri(_) | Self::Array(_) | Self::Object(_) => None,
        }
    }

    /// The data with each expression replaced by its first output.
    pub fn evaluate(&self, input: &Value, vars: &Vars<'_>) -> Result<Value, Error> {
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Expr(expr) => expr.evaluate(input, vars)?,
            Self::Uri(uri) => Value::String(uri.expand(input)?),
            Self::Array(items) => {
                let values = items.iter().map(|t| t.evaluate(input, vars));
                Value::Array(values.collect::<Result<_, _>>()?)
            }
            Self::Object(entries) => {
                let values = entries
                    .iter()
                    .map(|(k, t)| Ok((k.clone(), t.evaluate(input, vars)?)));
                Value::Object(values.collect::<Result<_, Error>>()?)
            }
        })
    }
}

/// What is between `${` and `}` if that is the whole text.
pub fn inside_braces(text: &str) -> Option<&str> {
    text.trim()
        .strip_prefix("${")?
        .strip_suffix('}')
        .map(str::trim)
}

/// A URI with `{names}`: simple string expansion of RFC 6570, the only kind the Open Workflow
/// Specification has. A name is a top-level property of the task's input, taken verbatim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriTemplate {
    source: String,
    parts: Vec<UriPart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum UriPart {
    Text(String),
    Name(String),
}

impl UriTemplate {
    /// Parses a template; `Ok(None)` if the text has no `{`, so that it is just a URI.
    pub fn parse(text: &str) -> Result<Option<Self>, Error> {
        if !text.contains(['{', '}']) {
            return Ok(None);
        }
        let refuse = |reason: &str| Error::Syntax {
            expression: brief(text),
            reason: reason.to_owned(),
        };
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(open);
            if after.starts_with('}') {
                return Err(refuse("a `}` without a `{`"));
            }
            let end = after
                .find('}')
                .ok_or_else(|| refuse("a `{` without a `}`"))?;
            let name = after.get(1..end).unwrap_or_default();
            if name.is_empty() || name.contains(['{', '$', ' ', '\n']) {
                return Err(refuse("a `{name}` must be the name of a property"));
            }
            if name.starts_with(['+', '#', '.', '/', ';', '?', '&']) || name.contains([',', '*']) {
                return Err(refuse("only `{name}` is supported, no operators"));
            }
            parts.push(UriPart::Text(before.to_owned()));
            parts.push(UriPart::Name(name.to_owned()));
            rest = after.get(end + 1..).unwrap_or_default();
        }
        parts.push(UriPart::Text(rest.to_owned()));
        Ok(Some(Self {
            source: text.to_owned(),
            parts,
        }))
    }

    /// The names in it.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|p| match p {
            UriPart::Name(name) => Some(name.as_str()),
            UriPart::Text(_) => None,
        })
    }

    /// The URI for this input. A missing or `null` property becomes nothing; a list or an object
    /// is an error. Values are percent-encoded, so that they cannot change the URI's shape.
    pub fn expand(&self, input: &Value) -> Result<String, Error> {
        let mut uri = String::with_capacity(self.source.len());
        for part in &self.parts {
            match part {
                UriPart::Text(text) => uri.push_str(text),
                UriPart::Name(name) => match input.get(name) {
                    None | Some(Value::Null) => {}
                    Some(Value::String(text)) => percent_encode(text, &mut uri),
                    Some(value @ (Value::Bool(_) | Value::Number(_))) => {
                        percent_encode(&value.to_string(), &mut uri);
                    }
                    Some(Value::Array(_) | Value::Object(_)) => {
                        let reason = format!("`{name}` is neither text nor a number");
                        return Err(Error::Failed {
                            expression: brief(&self.source),
                            reason,
                        });
                    }
                },
            }
        }
        Ok(uri)
    }
}

/// Everything but the unreserved characters of RFC 3986.
fn percent_encode(text: &str, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push(char::from(HEX[usize::from(byte >> 4)]));
            out.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}
