//! What the store knows of the generations of a connection: which there are, and what happened.

use cofferdam_core::canary::Canary;
use cofferdam_host::Plugin;
use cofferdam_store::{Batch, JournalStore, KeyRange, Table};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::generations::GenerationRow;
use crate::rows::{decode, encode};

/// The generations of one connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct StateRow {
    /// What the configuration named when this was written; see [`fingerprint`].
    pub configured: String,
    /// The number of the next generation.
    pub next: u64,
    pub active: GenerationRow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<GenerationRow>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trial: Option<TrialRow>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TrialRow {
    pub generation: GenerationRow,
    pub canary: Canary,
}

/// What can happen to the generations of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Happening {
    /// It came into service.
    Activated,
    /// It is on trial.
    Tried,
    /// Its trial went well, or a person said so: it came into service.
    Promoted,
    /// It went, and the one before it serves.
    RolledBack,
    /// It was not let in; the row's generation is the one that stayed.
    Refused,
    /// It is held for its crashes.
    Quarantined,
}

impl Happening {
    /// The name used in JSON and in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Activated => "activated",
            Self::Tried => "tried",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled-back",
            Self::Refused => "refused",
            Self::Quarantined => "quarantined",
        }
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryRow {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What.
    pub what: Happening,
    /// To which generation.
    pub generation: GenerationRow,
    /// Why, if there is more to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Older rows are removed as new ones come.
const ROWS_MAX: usize = 200;

impl StateRow {
    pub fn begin(configured: String, active: GenerationRow, next: u64) -> Self {
        Self {
            configured,
            next,
            active,
            previous: None,
            trial: None,
        }
    }

    /// Every generation that it names.
    pub fn generations(&self) -> impl Iterator<Item = &GenerationRow> {
        let trial = self.trial.as_ref().map(|trial| &trial.generation);
        std::iter::once(&self.active)
            .chain(self.previous.as_ref())
            .chain(trial)
    }
}

/// Tells whether a configuration still names the same plugin: component and manifest.
pub(crate) fn fingerprint(plugin: &Plugin) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(plugin.digest().as_bytes());
    if let Some(manifest) = plugin.manifest() {
        // A manifest is text and numbers, which can always be written.
        hasher.update(&serde_json::to_vec(manifest).unwrap_or_default());
    }
    hasher.finalize().to_hex().to_string()
}

fn state_key(connection: &str) -> Vec<u8> {
    format!("generations\0{connection}").into_bytes()
}

fn history_prefix(connection: &str) -> Vec<u8> {
    format!("history\0{connection}\0").into_bytes()
}

pub(crate) fn state(store: &dyn JournalStore, connection: &str) -> Result<Option<StateRow>, Error> {
    match store.get(Table::Connection, &state_key(connection))? {
        None => Ok(None),
        Some(bytes) => decode("generations of connection", connection, &bytes).map(Some),
    }
}

pub(crate) fn write(batch: Batch, connection: &str, state: &StateRow) -> Result<Batch, Error> {
    Ok(batch.put(Table::Connection, state_key(connection), encode(state)?))
}

/// Adds a row to the history, and removes what has become too old.
pub(crate) fn note(
    store: &dyn JournalStore,
    batch: Batch,
    connection: &str,
    what: Happening,
    about: &GenerationRow,
    why: Option<&str>,
    at_ms: u64,
) -> Result<Batch, Error> {
    let keys = keys(store, connection)?;
    let sequence = keys.last().map_or(0, |key| sequence_of(key) + 1);
    let mut key = history_prefix(connection);
    key.extend_from_slice(&sequence.to_be_bytes());
    let row = HistoryRow {
        at_ms,
        what,
        generation: about.clone(),
        why: why.map(ToOwned::to_owned),
    };
    let too_old = (keys.len() + 1).saturating_sub(ROWS_MAX);
    let batch = batch.put(Table::Connection, key, encode(&row)?);
    Ok(keys
        .into_iter()
        .take(too_old)
        .fold(batch, |batch, key| batch.delete(Table::Connection, key)))
}

fn keys(store: &dyn JournalStore, connection: &str) -> Result<Vec<Vec<u8>>, Error> {
    let range = KeyRange::prefix(history_prefix(connection));
    let rows = store.scan(Table::Connection, range, 2 * ROWS_MAX)?;
    Ok(rows.into_iter().map(|(key, _)| key).collect())
}

fn sequence_of(key: &[u8]) -> u64 {
    key.last_chunk::<8>()
        .map_or(0, |last| u64::from_be_bytes(*last))
}

/// What happened, newest first.
pub(crate) fn rows(store: &dyn JournalStore, connection: &str) -> Result<Vec<HistoryRow>, Error> {
    let range = KeyRange::prefix(history_prefix(connection));
    let rows = store.scan(Table::Connection, range, 2 * ROWS_MAX)?;
    let decoded = rows
        .iter()
        .rev()
        .map(|(_, bytes)| decode("history of connection", connection, bytes));
    decoded.collect()
}
