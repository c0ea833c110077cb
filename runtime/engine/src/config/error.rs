//! What can be wrong with a configuration.

use std::fmt;

/// Where something stands in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, as the caller named it; `configuration` for one made by a program.
    pub origin: String,
    /// 1-based line; 0 for a configuration made by a program.
    pub line: usize,
    /// 1-based column, in characters; 0 for a configuration made by a program.
    pub column: usize,
    /// The key with its tables: `connections.crm.on-outage`; empty for the file as a whole.
    pub key: String,
}

impl Place {
    /// Another key at the same place.
    pub(super) fn with_key(&self, key: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            ..self.clone()
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.origin)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

/// Why a configuration was refused. Each message names the file, the line, the key, the cause and
/// the remedy; none contains the value of a secret.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error(
        "{origin}: CD0200: cannot read the configuration: {source}\n\
         help: check the path, its permissions and that it is text in UTF-8, or name another file with `--config`"
    )]
    Read {
        /// The file.
        origin: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The text is not TOML.
    #[error(
        "{place}: CD0201: not TOML: {reason}\nhelp: correct this line; https://toml.io has the rules"
    )]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser said.
        reason: String,
    },
    /// A key that nobody reads.
    #[error("{place}: CD0202: `{}` is not a key\nhelp: {remedy}", place.key)]
    UnknownKey {
        /// Where.
        place: Place,
        /// What may have been meant.
        remedy: String,
    },
    /// A key that has to be there.
    #[error("{place}: CD0203: `{}` is missing\nhelp: {remedy}", place.key)]
    Missing {
        /// Where its table begins.
        place: Place,
        /// What to write.
        remedy: String,
    },
    /// A value of the wrong type.
    #[error("{place}: CD0204: `{}` is {found}\nhelp: write {wanted}", place.key)]
    Type {
        /// Where.
        place: Place,
        /// The type it has.
        found: &'static str,
        /// What it must be.
        wanted: &'static str,
    },
    /// A value of the right type that makes no sense.
    #[error("{place}: CD0205: `{}`: {problem}\nhelp: {remedy}", place.key)]
    Value {
        /// Where.
        place: Place,
        /// What is wrong with it.
        problem: String,
        /// What to write instead.
        remedy: String,
    },
    /// A name of something that the configuration does not have.
    #[error("{place}: CD0206: `{}`: {problem}\nhelp: {remedy}", place.key)]
    Reference {
        /// Where.
        place: Place,
        /// What is not there.
        problem: String,
        /// What there is.
        remedy: String,
    },
    /// A secret that cannot be had.
    #[error("{place}: CD0207: `{}`: {problem}\nhelp: {remedy}", place.key)]
    Secret {
        /// Where.
        place: Place,
        /// What is not there.
        problem: String,
        /// How to provide it.
        remedy: String,
    },
    /// A plugin that is nowhere to be found.
    #[error("{place}: CD0208: there is no plugin `{name}`: {searched}\nhelp: {remedy}")]
    NoPlugin {
        /// Where it was asked for.
        place: Place,
        /// The plugin.
        name: String,
        /// Where it was looked for.
        searched: String,
        /// What was found there instead.
        remedy: String,
    },
}

impl Error {
    /// The stable code under which the documentation explains this.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "CD0200",
            Self::Syntax { .. } => "CD0201",
            Self::UnknownKey { .. } => "CD0202",
            Self::Missing { .. } => "CD0203",
            Self::Type { .. } => "CD0204",
            Self::Value { .. } => "CD0205",
            Self::Reference { .. } => "CD0206",
            Self::Secret { .. } => "CD0207",
            Self::NoPlugin { .. } => "CD0208",
        }
    }

    /// Where it is wrong; none if the file could not be read.
    pub fn place(&self) -> Option<&Place> {
        match self {
            Self::Read { .. } => None,
            Self::Syntax { place, .. }
            | Self::UnknownKey { place, .. }
            | Self::Missing { place, .. }
            | Self::Type { place, .. }
            | Self::Value { place, .. }
            | Self::Reference { place, .. }
            | Self::Secret { place, .. }
            | Self::NoPlugin { place, .. } => Some(place),
        }
    }
}
