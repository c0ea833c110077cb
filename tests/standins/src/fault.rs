//! Faults: what a stand-in can be told to do wrong.
//!
//! The JSON form is flat and tagged by `kind`, for instance
//! `{"kind": "status", "code": 429, "retry_after_s": 2, "times": 3, "path": "/v1/refunds"}`.
//! It is read by hand rather than derived, because a person types it into the control API and is
//! owed the name of the field that is wrong.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One thing that goes wrong, and for which requests.
///
/// Built in Rust as `Fault::latency(200).times(2).on_path("/v1")`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Fault {
    /// What goes wrong.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// How many requests it strikes before it is used up; `None` means until cleared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// Strikes only requests whose path (without query) starts with this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Strikes only requests whose body contains this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
}

/// The kinds of faults; each says whether the request still takes effect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum FaultKind {
    /// Waits before the request is carried out. It takes effect even if the caller hangs up
    /// meanwhile, as it would in a real service. Later faults in the list apply as well.
    Latency {
        /// How long to wait, in milliseconds.
        ms: u64,
    },
    /// The listening socket is closed, open connections are cut, and connecting is refused until
    /// the fault is cleared; then the same port is opened again. Takes no `times`, `path` or `body`.
    Refuse,
    /// The request takes effect; half of the answer is sent, then the connection is reset.
    Reset,
    /// Answered with this status, in the vendor's error shape; no effect. Over SMTP the reply
    /// code at the end of DATA.
    Status {
        /// HTTP status (200..=599), or SMTP reply code (400..=599).
        code: u16,
        /// Value of the `Retry-After` header, in seconds.
        #[serde(skip_serializing_if = "Option::is_none")]
        retry_after_s: Option<u64>,
    },
    /// The request takes effect; the answer is 200 with JSON that breaks off.
    Malformed,
    /// The request takes effect; the answer announces more bytes than it sends, then closes.
    Truncated,
    /// The request takes effect and is counted; the connection is closed without any answer.
    AcceptThenDrop,
    /// The request is held until the faults are replaced. Then it takes effect, even if the caller
    /// hung up meanwhile.
    Hang,
    /// The request takes effect; the answer lacks what stands at this place. An answer that does
    /// not have it, or is no JSON, is sent as it is.
    MissingField {
        /// JSON pointer into the answer, for instance `/results`.
        pointer: String,
    },
    /// The request takes effect; what stands at this place of the answer is of another type: text
    /// instead of a list or an object, else an empty list. An answer that does not have it, or is
    /// no JSON, is sent as it is.
    WrongType {
        /// JSON pointer into the answer, for instance `/results`.
        pointer: String,
    },
    /// The request takes effect; the answer arrives a few bytes at a time.
    SlowDrip {
        /// Bytes sent at a time, at least 1.
        bytes: usize,
        /// Pause between two portions, in milliseconds.
        every_ms: u64,
    },
}

/// A fault that cannot be used, and the field that makes it so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Error {
    /// Where the mistake is, for instance `faults[1].ms`.
    pub field: String,
    /// What is wrong there and what would be right.
    pub message: String,
}

/// Which protocol a fault is meant for: not every fault exists in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http,
    Smtp,
}

const KINDS: &str = "latency, refuse, reset, status, malformed, truncated, accept-then-drop, \
    hang, missing-field, wrong-type, slow-drip";

impl Fault {
    /// A fault of this kind that strikes every request until cleared.
    pub fn new(kind: FaultKind) -> Self {
        Self {
            kind,
            times: None,
            path: None,
            body: None,
        }
    }

    /// Waits `ms` milliseconds before each request is carried out.
    pub fn latency(ms: u64) -> Self {
        Self::new(FaultKind::Latency { ms })
    }

    /// Closes the listening socket: connections are refused.
    pub fn refuse() -> Self {
        Self::new(FaultKind::Refuse)
    }

    /// Resets the connection in the middle of the answer.
    pub fn reset() -> Self {
        Self::new(FaultKind::Reset)
    }

    /// Answers with `code` instead of carrying out the request.
    pub fn status(code: u16) -> Self {
        Self::new(FaultKind::Status {
            code,
            retry_after_s: None,
        })
    }

    /// Answers 429 with `Retry-After: retry_after_s`.
    pub fn rate_limited(retry_after_s: u64) -> Self {
        Self::new(FaultKind::Status {
            code: 429,
            retry_after_s: Some(retry_after_s),
        })
    }

    /// Carries out the request and answers 200 with broken JSON.
    pub fn malformed() -> Self {
        Self::new(FaultKind::Malformed)
    }

    /// Carries out the request and breaks off the answer.
    pub fn truncated() -> Self {
        Self::new(FaultKind::Truncated)
    }

    /// Carries out the request and closes the connection without an answer.
    pub fn accept_then_drop() -> Self {
        Self::new(FaultKind::AcceptThenDrop)
    }

    /// Holds the request until the faults are replaced.
    pub fn hang() -> Self {
        Self::new(FaultKind::Hang)
    }

    /// Carries out the request and leaves out what stands at this place of the answer.
    pub fn missing_field(pointer: impl Into<String>) -> Self {
        let pointer = pointer.into();
        Self::new(FaultKind::MissingField { pointer })
    }

    /// Carries out the request and answers with another type at this place.
    pub fn wrong_type(pointer: impl Into<String>) -> Self {
        let pointer = pointer.into();
        Self::new(FaultKind::WrongType { pointer })
    }

    /// Sends the answer `bytes` at a time, `every_ms` apart.
    pub fn slow_drip(bytes: usize, every_ms: u64) -> Self {
        Self::new(FaultKind::SlowDrip { bytes, every_ms })
    }

    /// Strikes `times` requests, then is used up.
    pub fn times(self, times: u32) -> Self {
        Self {
            times: Some(times),
            ..self
        }
    }

    /// Strikes only requests whose path starts with `prefix`.
    pub fn on_path(self, prefix: impl Into<String>) -> Self {
        Self {
            path: Some(prefix.into()),
            ..self
        }
    }

    /// Strikes only requests whose body contains `text`.
    pub fn on_body(self, text: impl Into<String>) -> Self {
        Self {
            body: Some(text.into()),
            ..self
        }
    }

    fn read(value: Value) -> Result<Self, Error> {
        let Value::Object(object) = value else {
            return Err(wrong("", "a fault is a JSON object"));
        };
        let mut fields = Fields(object);
        let kind = fields
            .text("kind")?
            .ok_or_else(|| wrong("kind", format!("is missing; one of {KINDS}")))?;
        let kind = match kind.as_str() {
            "latency" => FaultKind::Latency {
                ms: fields.required("ms")?,
            },
            "refuse" => FaultKind::Refuse,
            "reset" => FaultKind::Reset,
            "status" => FaultKind::Status {
                code: u16::try_from(fields.required("code")?)
                    .map_err(|_| wrong("code", "is not a status code"))?,
                retry_after_s: fields.number("retry_after_s")?,
            },
            "malformed" => FaultKind::Malformed,
            "truncated" => FaultKind::Truncated,
            "accept-then-drop" => FaultKind::AcceptThenDrop,
            "hang" => FaultKind::Hang,
            "missing-field" => FaultKind::MissingField {
                pointer: fields.pointer()?,
            },
            "wrong-type" => FaultKind::WrongType {
                pointer: fields.pointer()?,
            },
            "slow-drip" => FaultKind::SlowDrip {
                bytes: usize::try_from(fields.required("bytes")?)
                    .map_err(|_| wrong("bytes", "is too large"))?,
                every_ms: fields.required("every_ms")?,
            },
            other => {
                return Err(wrong(
                    "kind",
                    format!("`{other}` is not a fault; one of {KINDS}"),
                ));
            }
        };
        let times = fields.number("times")?;
        let times = times
            .map(u32::try_from)
            .transpose()
            .map_err(|_| wrong("times", "is too large"))?;
        let fault = Self {
            kind,
            times,
            path: fields.text("path")?,
            body: fields.text("body")?,
        };
        fields.finish()?;
        Ok(fault)
    }

    /// Refuses what would silently do nothing on a service that speaks `protocol`.
    fn check(&self, protocol: Protocol) -> Result<(), Error> {
        if self.times == Some(0) {
            return Err(wrong("times", "is at least 1"));
        }
        match &self.kind {
            FaultKind::Refuse => {
                let counted = self.times.map(|_| "times");
                let narrowed = self
                    .path
                    .as_ref()
                    .map(|_| "path")
                    .or(self.body.as_ref().map(|_| "body"));
                if let Some(field) = counted.or(narrowed) {
                    return Err(wrong(
                        field,
                        "does not go with `refuse`: a refused connection carries no request",
                    ));
                }
            }
            FaultKind::Status {
                code,
                retry_after_s,
            } => match protocol {
                Protocol::Http if !(200..=599).contains(code) => {
                    return Err(wrong("code", "is 200 to 599"));
                }
                Protocol::Smtp if !(400..=599).contains(code) => {
                    return Err(wrong("code", "is 400 to 599 over SMTP"));
                }
                Protocol::Smtp if retry_after_s.is_some() => {
                    return Err(wrong("retry_after_s", "does not exist in SMTP"));
                }
                Protocol::Http | Protocol::Smtp => {}
            },
            FaultKind::Malformed
            | FaultKind::Truncated
            | FaultKind::Hang
            | FaultKind::MissingField { .. }
            | FaultKind::WrongType { .. }
            | FaultKind::SlowDrip { .. }
                if protocol == Protocol::Smtp =>
            {
                return Err(wrong(
                    "kind",
                    "over SMTP one of latency, refuse, reset, status, accept-then-drop",
                ));
            }
            FaultKind::SlowDrip { bytes: 0, .. } => return Err(wrong("bytes", "is at least 1")),
            FaultKind::MissingField { pointer } | FaultKind::WrongType { pointer }
                if !pointer.starts_with('/') =>
            {
                return Err(wrong("pointer", "is a JSON pointer, such as `/results`"));
            }
            FaultKind::Latency { .. }
            | FaultKind::Reset
            | FaultKind::Malformed
            | FaultKind::Truncated
            | FaultKind::AcceptThenDrop
            | FaultKind::Hang
            | FaultKind::MissingField { .. }
            | FaultKind::WrongType { .. }
            | FaultKind::SlowDrip { .. } => {}
        }
        if protocol == Protocol::Smtp && self.path.is_some() {
            return Err(wrong("path", "does not exist in SMTP; narrow by `body`"));
        }
        Ok(())
    }
}

impl TryFrom<Value> for Fault {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self, Error> {
        Self::read(value)
    }
}

/// Reads the body of `PUT …/faults`; the error names the index and the field.
pub(crate) fn read_list(value: Value) -> Result<Vec<Fault>, Error> {
    let Value::Array(items) = value else {
        return Err(Error {
            field: "faults".into(),
            message: "is a JSON array of faults".into(),
        });
    };
    items
        .into_iter()
        .enumerate()
        .map(|(index, item)| Fault::read(item).map_err(|error| error.at(index)))
        .collect()
}

/// Checks that every fault means something over `protocol`.
pub(crate) fn check_list(faults: &[Fault], protocol: Protocol) -> Result<(), Error> {
    faults
        .iter()
        .enumerate()
        .try_for_each(|(index, fault)| fault.check(protocol).map_err(|error| error.at(index)))
}

impl Error {
    fn at(self, index: usize) -> Self {
        let dot = if self.field.is_empty() { "" } else { "." };
        Self {
            field: format!("faults[{index}]{dot}{}", self.field),
            message: self.message,
        }
    }
}

fn wrong(field: &str, message: impl Into<String>) -> Error {
    Error {
        field: field.to_owned(),
        message: message.into(),
    }
}

/// The members of a fault that nobody has taken yet; what is left at the end is a mistake.
struct Fields(Map<String, Value>);

impl Fields {
    fn text(&mut self, name: &str) -> Result<Option<String>, Error> {
        match self.0.shift_remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, format!("is a string, not {other}"))),
        }
    }

    fn pointer(&mut self) -> Result<String, Error> {
        let pointer = self.text("pointer")?;
        pointer.ok_or_else(|| wrong("pointer", "is missing"))
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>, Error> {
        match self.0.shift_remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => {
                let number = value.as_u64();
                number.map(Some).ok_or_else(|| {
                    wrong(
                        name,
                        format!("is a whole number of at least 0, not {value}"),
                    )
                })
            }
        }
    }

    fn required(&mut self, name: &str) -> Result<u64, Error> {
        self.number(name)?.ok_or_else(|| wrong(name, "is missing"))
    }

    fn finish(self) -> Result<(), Error> {
        match self.0.keys().next() {
            Some(name) => Err(wrong(name, "is not a field of this kind of fault")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_fault_reads_back_as_it_was_written() {
        for fault in [
            Fault::latency(5).times(2).on_path("/v1"),
            Fault::refuse(),
            Fault::rate_limited(3).on_body("ada"),
            Fault::slow_drip(4, 1),
            Fault::accept_then_drop(),
            Fault::hang(),
            Fault::missing_field("/results"),
            Fault::wrong_type("/results/0/id").times(1),
        ] {
            let written = serde_json::to_value(&fault).unwrap();
            assert_eq!(serde_json::from_value::<Fault>(written).unwrap(), fault);
        }
    }

    #[test]
    fn a_mistake_is_named_by_index_and_field() {
        let said = |value| read_list(value).unwrap_err().to_string();
        assert!(
            said(json!([{"kind": "refuse"}, {"kind": "latency", "ms": "5"}]))
                .starts_with("faults[1].ms: ")
        );
        assert!(said(json!([{"kind": "latency"}])).contains("faults[0].ms: is missing"));
        assert!(said(json!([{"kind": "lateness"}])).contains("accept-then-drop"));
        assert!(said(json!([{"kind": "reset", "ms": 5}])).starts_with("faults[0].ms: "));
        assert!(said(json!([{"kind": "wrong-type"}])).contains("faults[0].pointer: is missing"));
        assert!(said(json!([7])).starts_with("faults[0]: "));
        assert!(said(json!({})).starts_with("faults: "));
    }

    #[test]
    fn a_fault_that_could_never_strike_is_refused() {
        let said = |fault: Fault, protocol| check_list(&[fault], protocol).unwrap_err().field;
        assert_eq!(
            said(Fault::refuse().times(1), Protocol::Http),
            "faults[0].times"
        );
        assert_eq!(said(Fault::status(99), Protocol::Http), "faults[0].code");
        assert_eq!(said(Fault::status(250), Protocol::Smtp), "faults[0].code");
        assert_eq!(said(Fault::malformed(), Protocol::Smtp), "faults[0].kind");
        assert_eq!(
            said(Fault::latency(1).on_path("/"), Protocol::Smtp),
            "faults[0].path"
        );
        assert_eq!(said(Fault::hang(), Protocol::Smtp), "faults[0].kind");
        assert_eq!(
            said(Fault::missing_field("results"), Protocol::Http),
            "faults[0].pointer"
        );
        assert_eq!(
            said(Fault::reset().times(0), Protocol::Http),
            "faults[0].times"
        );
    }
}
