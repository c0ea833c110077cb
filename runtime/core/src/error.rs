//! The error object of the Open Workflow Specification: what a `catch` sees and what a faulted
//! run ends with. Problem details as in RFC 9457, with `instance` a JSON pointer to the task.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::{Class, EffectState, Failure};

/// Where the types of the standard errors begin.
pub const TYPE_BASE: &str = "https://open-workflow-specification.org/spec/1.0.0/errors/";
/// The same before the specification was renamed; [`same_type`] treats both as one.
pub const TYPE_BASE_OLD: &str = "https://serverlessworkflow.io/spec/1.0.0/errors/";

/// The standard errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Standard {
    /// Something is set up wrongly.
    Configuration,
    /// Data breaks its schema.
    Validation,
    /// An expression failed.
    Expression,
    /// Credentials were not accepted.
    Authentication,
    /// Not allowed.
    Authorization,
    /// It took too long.
    Timeout,
    /// A system that was called failed or could not be reached.
    Communication,
    /// The engine or a plugin failed.
    Runtime,
}

impl Standard {
    /// Every standard error.
    pub const ALL: [Self; 8] = [
        Self::Configuration,
        Self::Validation,
        Self::Expression,
        Self::Authentication,
        Self::Authorization,
        Self::Timeout,
        Self::Communication,
        Self::Runtime,
    ];

    /// The last part of its type.
    pub fn word(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Validation => "validation",
            Self::Expression => "expression",
            Self::Authentication => "authentication",
            Self::Authorization => "authorization",
            Self::Timeout => "timeout",
            Self::Communication => "communication",
            Self::Runtime => "runtime",
        }
    }

    /// Its type, in the form of today.
    pub fn uri(self) -> String {
        format!("{TYPE_BASE}{}", self.word())
    }

    /// Its status where nothing more exact is known.
    pub fn status(self) -> u16 {
        match self {
            Self::Configuration | Self::Validation | Self::Expression => 400,
            Self::Authentication => 401,
            Self::Authorization => 403,
            Self::Timeout => 408,
            Self::Communication | Self::Runtime => 500,
        }
    }
}

/// An error of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{} ({status}) at {}{}", .title.as_deref().unwrap_or(.r#type), .instance.as_deref().unwrap_or("/"), .detail.as_deref().map(|d| format!(": {d}")).unwrap_or_default())]
pub struct WorkflowError {
    /// A URI that names the kind of error.
    pub r#type: String,
    /// An HTTP-like status.
    pub status: u16,
    /// The kind of error, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// This occurrence, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// JSON pointer to the task that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// What the failed call said, if a call failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cofferdam: Option<Box<Details>>,
}

/// What a failed call said; the extension member `cofferdam` of an error object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// The class, which decides about retries.
    pub class: Class,
    /// A stable word: `card_declined`, `limit.cpu`.
    pub code: String,
    /// Whether the call left anything behind.
    pub effect: EffectState,
    /// What the task says is to be done with a run that faults with this error.
    #[serde(skip)]
    pub on_exhausted: Option<crate::workflow::OnExhausted>,
    /// More for a machine.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

impl WorkflowError {
    /// A standard error at the task with this JSON pointer.
    pub fn standard(kind: Standard, detail: impl Into<String>, instance: &str) -> Self {
        Self {
            r#type: kind.uri(),
            status: kind.status(),
            title: Some(title(kind).to_owned()),
            detail: Some(detail.into()),
            instance: Some(instance.to_owned()),
            cofferdam: None,
        }
    }

    /// Something is set up wrongly.
    pub fn configuration(detail: impl Into<String>, instance: &str) -> Self {
        Self::standard(Standard::Configuration, detail, instance)
    }

    /// Data breaks its schema.
    pub fn validation(detail: impl Into<String>, instance: &str) -> Self {
        Self::standard(Standard::Validation, detail, instance)
    }

    /// An expression failed.
    pub fn expression(detail: impl Into<String>, instance: &str) -> Self {
        Self::standard(Standard::Expression, detail, instance)
    }

    /// Credentials were not accepted.
    pub fn authentication(detail: impl Into<String>, instance: &str) -> Self {
        Self::standard(Standard::Authentication, detail, instance)
    }

    /// Not allowed.
    pub fn authorization(detail: impl Into<String>, instance: &str) -> Self {
        Self::standard(Standard::Authorization, detail, instance)
    }

    /// It took too long.
    pub fn timeout(detail: impl Into<String>, instance: &str) -> Self {
        Self::standard(Standard::Timeout, detail, instance)
    }

    /// A system that was called failed or could not be reached.
    pub fn communication(detail: impl Into<String>, instance: &str) -> Self {
        Self::standard(Standard::Communication, detail, instance)
    }

    /// The engine or a plugin failed.
    pub fn runtime(detail: impl Into<String>, instance: &str) -> Self {
        Self::standard(Standard::Runtime, detail, instance)
    }

    /// The error of a failed call: the class gives type and status, the message the detail.
    pub fn from_failure(failure: &Failure, instance: &str) -> Self {
        let mut error = Self::standard(kind_of(failure.class), &failure.message, instance);
        error.status = failure.class.status();
        error.cofferdam = Some(Box::new(Details {
            class: failure.class,
            code: failure.code.clone(),
            effect: failure.effect,
            details: failure.details.clone(),
            on_exhausted: None,
        }));
        error
    }

    /// The error as it is kept and told, without what decides only while it travels.
    pub(crate) fn told(mut self) -> Self {
        if let Some(details) = &mut self.cofferdam {
            details.on_exhausted = None;
        }
        self
    }

    /// Reads what a `raise` made: an object with `type` and `status`. `instance` is used if the
    /// object has none.
    ///
    /// # Errors
    /// A sentence if `type` is no text, `status` no number from 100 to 599, or another member is
    /// not text.
    pub fn from_value(value: &Value, instance: &str) -> Result<Self, String> {
        let text = |name: &str| match value.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(other) => Err(format!("`{name}` of an error must be text, not {other}")),
        };
        let status = value.get("status").and_then(Value::as_u64);
        let status = status
            .and_then(|s| u16::try_from(s).ok())
            .filter(|s| (100..600).contains(s));
        Ok(Self {
            r#type: text("type")?.ok_or("an error needs a `type`")?,
            status: status.ok_or("an error needs a `status` from 100 to 599")?,
            title: text("title")?,
            detail: text("detail")?,
            instance: text("instance")?.or_else(|| Some(instance.to_owned())),
            cofferdam: None,
        })
    }

    /// The error as the value of `$error`.
    pub fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }

    /// Whether every attribute of a `catch.errors.with` is this error's. An empty filter matches
    /// every error.
    pub fn matches(&self, filter: &indexmap::IndexMap<String, Value>) -> bool {
        let own = self.to_value();
        filter
            .iter()
            .all(|(name, wanted)| match (name.as_str(), wanted) {
                ("type", Value::String(wanted)) => same_type(&self.r#type, wanted),
                (_, wanted) => own.get(name).unwrap_or(&Value::Null) == wanted,
            })
    }
}

/// Whether two error types are the same; the old and the new base of the standard types count as
/// one.
pub fn same_type(a: &str, b: &str) -> bool {
    normal(a) == normal(b)
}

fn normal(uri: &str) -> std::borrow::Cow<'_, str> {
    // The specification's own examples also write the old types in this way.
    const SHORT: [&str; 2] = [
        "https://serverlessworkflow.io/dsl/errors/types/",
        "https://open-workflow-specification.org/dsl/errors/types/",
    ];
    let rest = [TYPE_BASE_OLD]
        .iter()
        .chain(&SHORT)
        .find_map(|base| uri.strip_prefix(base));
    match rest {
        Some(word) => format!("{TYPE_BASE}{word}").into(),
        None => uri.into(),
    }
}

fn kind_of(class: Class) -> Standard {
    match class {
        Class::InvalidInput => Standard::Validation,
        Class::Unauthenticated => Standard::Authentication,
        Class::Denied => Standard::Authorization,
        Class::Timeout => Standard::Timeout,
        Class::NotFound
        | Class::Conflict
        | Class::RateLimited
        | Class::Unavailable
        | Class::Refused => Standard::Communication,
        Class::Unsupported | Class::Internal | Class::Other => Standard::Runtime,
    }
}

fn title(kind: Standard) -> &'static str {
    match kind {
        Standard::Configuration => "Configuration error",
        Standard::Validation => "Invalid data",
        Standard::Expression => "Expression error",
        Standard::Authentication => "Not authenticated",
        Standard::Authorization => "Not allowed",
        Standard::Timeout => "Timeout",
        Standard::Communication => "Call failed",
        Standard::Runtime => "Runtime error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn filter(value: Value) -> indexmap::IndexMap<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn both_families_of_types_are_one() {
        let error = WorkflowError::communication("down", "/do/0/a");
        for base in [TYPE_BASE, TYPE_BASE_OLD] {
            assert!(error.matches(&filter(json!({"type": format!("{base}communication")}))));
            assert!(!error.matches(&filter(json!({"type": format!("{base}timeout")}))));
        }
    }

    #[test]
    fn a_filter_needs_every_attribute() {
        let failure = Failure::new(Class::Unavailable, "down", "connection refused");
        let error = WorkflowError::from_failure(&failure, "/do/0/a");
        assert!(error.matches(&filter(json!({}))));
        assert!(error.matches(&filter(json!({"status": 503}))));
        assert!(error.matches(&filter(json!({"status": 503, "instance": "/do/0/a"}))));
        assert!(!error.matches(&filter(json!({"status": 503, "title": "x"}))));
    }

    #[test]
    fn a_failure_keeps_its_class_and_code() {
        let failure = Failure::new(Class::Refused, "card_declined", "no");
        let value = WorkflowError::from_failure(&failure, "/do/0/a").to_value();
        assert_eq!(value["status"], 422);
        assert_eq!(value["cofferdam"]["class"], "refused");
        assert_eq!(value["cofferdam"]["code"], "card_declined");
        let back: WorkflowError = serde_json::from_value(value).unwrap();
        assert_eq!(back, WorkflowError::from_failure(&failure, "/do/0/a"));
    }

    #[test]
    fn a_raised_error_is_checked() {
        let good = json!({"type": "https://x.example/e", "status": 418, "title": "t"});
        let error = WorkflowError::from_value(&good, "/do/0/a").unwrap();
        assert_eq!(error.instance.as_deref(), Some("/do/0/a"));
        for bad in [
            json!({"status": 400}),
            json!({"type": "x"}),
            json!({"type": "x", "status": 99}),
            json!(1),
        ] {
            assert!(WorkflowError::from_value(&bad, "/").is_err(), "{bad}");
        }
    }
}
