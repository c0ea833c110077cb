//! How an output came to be, so that a degraded answer is never taken for a whole one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the output of a task came to be. In JSON and in messages it is one word, with what it
/// needs after a colon: `backup:crm-eu`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Provenance {
    /// The connection answered.
    Live,
    /// Another connection answered.
    Backup(String),
    /// The value that the workflow names for this case.
    Default,
    /// Nothing yet: the call is in its connection's outbox.
    Deferred,
    /// Nothing: the task is not critical and was passed over.
    Skipped,
    /// An earlier answer to the same question, so many seconds old.
    Stale {
        /// Its age in whole seconds.
        age_s: u64,
    },
    /// A person decided.
    Manual,
}

impl Provenance {
    /// Whether the output is less than what the task would have given.
    pub fn is_degraded(&self) -> bool {
        match self {
            Self::Live | Self::Manual => false,
            Self::Backup(_)
            | Self::Stale { .. }
            | Self::Default
            | Self::Deferred
            | Self::Skipped => true,
        }
    }
}

impl fmt::Display for Provenance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live => f.write_str("live"),
            Self::Backup(connection) => write!(f, "backup:{connection}"),
            Self::Stale { age_s } => write!(f, "stale:{age_s}s"),
            Self::Default => f.write_str("default"),
            Self::Deferred => f.write_str("deferred"),
            Self::Skipped => f.write_str("skipped"),
            Self::Manual => f.write_str("manual"),
        }
    }
}

impl From<Provenance> for String {
    fn from(provenance: Provenance) -> Self {
        provenance.to_string()
    }
}

/// A word that is no provenance.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no provenance")]
pub struct Unknown(String);

impl TryFrom<String> for Provenance {
    type Error = Unknown;

    fn try_from(word: String) -> Result<Self, Unknown> {
        match word.as_str() {
            "live" => Ok(Self::Live),
            "default" => Ok(Self::Default),
            "deferred" => Ok(Self::Deferred),
            "skipped" => Ok(Self::Skipped),
            "manual" => Ok(Self::Manual),
            other => match other.split_once(':') {
                Some(("backup", connection)) => Ok(Self::Backup(connection.to_owned())),
                Some(("stale", age)) => match age.strip_suffix('s').map(str::parse) {
                    Some(Ok(age_s)) => Ok(Self::Stale { age_s }),
                    Some(Err(_)) | None => Err(Unknown(word)),
                },
                Some(_) | None => Err(Unknown(word)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_says_what_it_was_made_of() {
        let all = [
            Provenance::Live,
            Provenance::Backup("crm:eu".into()),
            Provenance::Stale { age_s: 61 },
            Provenance::Default,
            Provenance::Skipped,
            Provenance::Manual,
        ];
        for provenance in all {
            let word = provenance.to_string();
            assert_eq!(Provenance::try_from(word), Ok(provenance));
        }
        for word in ["stale:", "stale:5", "stale:-1s", "fresh", "backup"] {
            assert!(Provenance::try_from(word.to_owned()).is_err(), "{word}");
        }
    }
}
