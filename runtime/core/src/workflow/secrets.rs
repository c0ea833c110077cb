//! Secrets of a workflow: their names, the placeholders that stand for them, and where they go.
//!
//! A run never holds a secret. `$secrets.NAME` is a placeholder, which the host swaps for the
//! connection's secret of that name in a request on its way out, and only toward the audience that
//! the operator named for it.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

/// What every placeholder begins with; the host knows its own by it.
const PREFIX: &str = "cofferdam-secret-";
/// So many bytes of the hash; as many as the host's own placeholders have.
const BYTES: usize = 16;

/// The secrets of a workflow.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets {
    /// `use.secrets` of this workflow: what its `$secrets` has.
    pub own: BTreeSet<String>,
    /// Those of this workflow and of every workflow that it runs.
    pub all: BTreeSet<String>,
    /// Calls that name a secret in their `with`, those of workflows that this one runs included.
    pub uses: Vec<SecretUse>,
}

/// A secret that a call sends.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretUse {
    /// The text in which the call stands.
    pub origin: String,
    /// 1-based line of the call.
    pub line: usize,
    /// The connection that it goes through.
    pub connection: String,
    /// The secret.
    pub name: String,
}

impl Secrets {
    /// Takes in those of a workflow that this one runs.
    pub(crate) fn include(&mut self, other: &Self) {
        self.all.extend(other.all.iter().cloned());
        self.uses.extend(other.uses.iter().cloned());
    }

    /// For each placeholder of a run, the secret that it stands for.
    pub fn placeholders(&self, run: &str) -> BTreeMap<String, String> {
        let pair = |name: &String| (placeholder(run, name), name.clone());
        self.all.iter().map(pair).collect()
    }
}

/// What stands for a secret in a run. The same whenever it is asked for, so that a run can be
/// rebuilt from its journal; and not to be guessed by who does not know the run's id, so that data
/// from outside cannot name a secret.
pub(crate) fn placeholder(run: &str, name: &str) -> String {
    use std::fmt::Write;
    let hash = Sha256::new()
        .chain_update("cofferdam workflow secret\0")
        .chain_update((run.len() as u64).to_le_bytes())
        .chain_update(run)
        .chain_update(name)
        .finalize();
    let mut text = PREFIX.to_owned();
    for byte in hash.iter().take(BYTES) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_placeholder_is_the_same_for_one_run_and_one_name_only() {
        let one = placeholder("run", "TOKEN");
        assert_eq!(one, placeholder("run", "TOKEN"));
        assert_eq!(one.len(), PREFIX.len() + 2 * BYTES);
        assert_ne!(one, placeholder("run", "OTHER"));
        assert_ne!(one, placeholder("other", "TOKEN"));
        assert_ne!(placeholder("a", "b\0c"), placeholder("a\0b", "c"));
    }
}
