//! Runtime expressions: jq, made safe to run inside the engine.
//!
//! The language is [jq](https://jqlang.org) as [jaq](https://github.com/01mf02/jaq) speaks it,
//! with three differences that durability and safety ask for:
//!
//! - **Deterministic.** Nothing that reads a clock, the environment, a file or another input
//!   exists (`now`, `env`, `input`, `localtime`, …). The same expression on the same values
//!   gives the same answer, so a run can be rebuilt from its journal.
//! - **Bounded.** Work, and the size and depth of values, are counted; an expression that goes
//!   over a limit fails, and no `try` inside it can catch that. `def` does not exist, since a
//!   function that calls itself could exhaust the stack.
//! - **Exact at the edges.** Integers stay integers (`i64`, `u64`); what JSON cannot say (NaN,
//!   infinities, larger integers, bytes that are not text) is an error.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

mod convert;
mod jq;
mod meter;
mod prelude;
mod template;
mod term;

pub use template::{Template, UriTemplate, inside_braces};

/// No expression is longer than this, in bytes.
pub const SOURCE_BYTES_MAX: usize = 16 * 1024;

/// Why an expression could not be compiled or evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not jq.
    #[error("`{expression}` is not a valid expression: {reason}")]
    Syntax {
        /// Its beginning.
        expression: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// It names something that does not exist here.
    #[error("`{expression}` uses {what}: {reason}")]
    Unknown {
        /// Its beginning.
        expression: String,
        /// The variable or function.
        what: String,
        /// Why it is not there, and what to use instead.
        reason: String,
    },
    /// It raised an error while running.
    #[error("`{expression}` failed: {reason}")]
    Failed {
        /// Its beginning.
        expression: String,
        /// What jq said, shortened.
        reason: String,
    },
    /// It does too much, or makes a value that is too large or too deep.
    #[error("`{expression}` was stopped: {reason}")]
    TooMuch {
        /// Its beginning.
        expression: String,
        /// Which limit.
        reason: String,
    },
    /// It gave something that JSON cannot say.
    #[error("`{expression}` gave a value that JSON cannot hold: {reason}")]
    NotJson {
        /// Its beginning.
        expression: String,
        /// What.
        reason: String,
    },
}

/// The variables of an evaluation: names without `$`. A name that is not set reads as `null`.
#[derive(Debug, Default, Clone)]
pub struct Vars<'a>(BTreeMap<Cow<'a, str>, Cow<'a, Value>>);

impl<'a> Vars<'a> {
    /// No variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Binds a name to a borrowed value, replacing what it was bound to.
    pub fn set(&mut self, name: impl Into<Cow<'a, str>>, value: &'a Value) {
        self.0.insert(name.into(), Cow::Borrowed(value));
    }

    /// Binds a name to a value of its own, replacing what it was bound to.
    pub fn set_owned(&mut self, name: impl Into<Cow<'a, str>>, value: Value) {
        self.0.insert(name.into(), Cow::Owned(value));
    }

    /// [`set`](Self::set), for chains.
    pub fn with(mut self, name: impl Into<Cow<'a, str>>, value: &'a Value) -> Self {
        self.set(name, value);
        self
    }

    /// The value of a name; `null` if it is not set.
    pub fn get(&self, name: &str) -> &Value {
        self.0.get(name).map_or(&Value::Null, |v| v)
    }
}

/// A compiled expression. Cheap to clone; may be shared between threads.
#[derive(Clone)]
pub struct Expr(Arc<Inner>);

struct Inner {
    source: String,
    plan: Plan,
}

/// How an expression is evaluated.
enum Plan {
    /// `.`, `.a.b`, `$context.a.b`: looked up in the value itself, nothing converted.
    Lookup {
        /// The variable it starts from; the input if none.
        root: Option<String>,
        /// The keys to follow.
        keys: Vec<String>,
    },
    /// Everything else.
    Run(Box<jq::Program>),
}

impl std::fmt::Debug for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Expr({})", self.0.source)
    }
}

impl PartialEq for Expr {
    fn eq(&self, other: &Self) -> bool {
        self.0.source == other.0.source
    }
}

impl Expr {
    /// Compiles an expression, written without `${ }`. `vars` are the names in scope, without
    /// `$`; any other variable is an error, and so is a function that does not exist.
    pub fn compile(source: &str, vars: &[&str]) -> Result<Self, Error> {
        let source = source.trim();
        let plan = jq::compile(source, vars)?;
        Ok(Self(Arc::new(Inner {
            source: source.to_owned(),
            plan,
        })))
    }

    /// The first output for this input; `null` if there is none.
    ///
    /// Takes at most about a second of CPU, whatever the expression: see [`Error::TooMuch`].
    pub fn evaluate(&self, input: &Value, vars: &Vars<'_>) -> Result<Value, Error> {
        match &self.0.plan {
            Plan::Run(program) => program.run(&self.0.source, input, vars),
            Plan::Lookup { root, keys } => {
                let start = root.as_ref().map_or(input, |name| vars.get(name));
                self.look_up(start, keys).cloned()
            }
        }
    }

    /// Whether the first output is neither `false` nor `null`.
    pub fn holds(&self, input: &Value, vars: &Vars<'_>) -> Result<bool, Error> {
        Ok(!matches!(
            self.evaluate(input, vars)?,
            Value::Null | Value::Bool(false)
        ))
    }

    /// The expression as it was written, without `${ }`.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    fn look_up<'v>(&self, start: &'v Value, keys: &[String]) -> Result<&'v Value, Error> {
        let mut value = start;
        for key in keys {
            value = match value {
                Value::Object(map) => map.get(key).unwrap_or(&Value::Null),
                Value::Null => &Value::Null,
                other => {
                    let found = brief(&other.to_string());
                    let reason = format!("cannot index {found} with \"{key}\"");
                    return Err(Error::Failed {
                        expression: brief(&self.0.source),
                        reason,
                    });
                }
            };
        }
        Ok(value)
    }
}

/// The beginning of a text: messages must not carry whole payloads.
fn brief(text: &str) -> String {
    const CHARS_MAX: usize = 120;
    let mut chars = text.chars();
    let head: String = chars.by_ref().take(CHARS_MAX).collect();
    if chars.next().is_some() {
        format!("{head}…")
    } else {
        head
    }
}

#[cfg(test)]
mod tests;
