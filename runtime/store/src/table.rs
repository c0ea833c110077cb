//! Key spaces, keys and ranges of keys.

use crate::{Error, RUN_LEN_MAX};

/// A key space; every row of a store belongs to exactly one.
///
/// The discriminants are written to disk as the first byte of each key and never change; a
/// retired one is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Facts about the installation as a whole.
    Meta = 1,
    /// One row per run.
    Run = 2,
    /// The records of runs. Written by [`crate::Batch::append`] only; see [`journal_key`].
    Journal = 3,
    /// Due times.
    Timer = 4,
    /// Tasks that wait for a connection to recover.
    Parked = 5,
    /// Tasks and events that are out of options.
    DeadLetter = 6,
    /// Tasks that wait for a person's decision.
    Review = 7,
    /// Received events.
    Event = 8,
    /// Workflow definitions.
    Definition = 9,
    /// State of connections: breakers, health, generations.
    Connection = 10,
    /// Durable state of plugins.
    Kv = 11,
    /// Index of runs by status.
    RunByStatus = 12,
    /// Who waits for which events, and events on their way to them.
    Subscription = 13,
    /// How far readers of events have come.
    Cursor = 14,
    /// When workflows are run without being asked.
    Schedule = 15,
    /// Earlier answers of connections.
    Cache = 16,
    /// Runs that wait for their turn, and the concurrency keys that runs hold.
    Queue = 18,
    /// Calls that are kept for a connection until it works again.
    Outbox = 17,
    /// Where runs were at some record, so that they need not be read from their first one.
    Checkpoint = 20,
    /// Large values, each once, and who refers to them.
    Payload = 19,
}

impl Table {
    /// Every table, in the order of its byte.
    pub const ALL: [Self; 20] = [
        Self::Meta,
        Self::Run,
        Self::Journal,
        Self::Timer,
        Self::Parked,
        Self::DeadLetter,
        Self::Review,
        Self::Event,
        Self::Definition,
        Self::Connection,
        Self::Kv,
        Self::RunByStatus,
        Self::Subscription,
        Self::Cursor,
        Self::Schedule,
        Self::Cache,
        Self::Queue,
        Self::Outbox,
        Self::Checkpoint,
        Self::Payload,
    ];

    /// The byte that stands for this table on disk.
    pub fn byte(self) -> u8 {
        self as u8
    }

    /// The table that a byte on disk stands for.
    pub fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.byte() == byte)
    }

    /// The name used in messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Run => "run",
            Self::Journal => "journal",
            Self::Timer => "timer",
            Self::Parked => "parked",
            Self::DeadLetter => "dead-letter",
            Self::Review => "review",
            Self::Event => "event",
            Self::Definition => "definition",
            Self::Connection => "connection",
            Self::Kv => "kv",
            Self::RunByStatus => "run-by-status",
            Self::Subscription => "subscription",
            Self::Cursor => "cursor",
            Self::Schedule => "schedule",
            Self::Cache => "cache",
            Self::Queue => "queue",
            Self::Outbox => "outbox",
            Self::Checkpoint => "checkpoint",
            Self::Payload => "payload",
        }
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The key of a record in [`Table::Journal`]: length of the run's name (one byte), the name,
/// the sequence number (big-endian), so that a run's records lie together and in order.
///
/// The name's length comes first so that no name can be a prefix of another run's keys.
///
/// # Errors
/// [`Error::TooLarge`] and [`Error::Invalid`] for a name that is longer than [`RUN_LEN_MAX`]
/// bytes or empty.
pub fn journal_key(run: &str, seq: u64) -> Result<Vec<u8>, Error> {
    let mut key = run_prefix(run)?;
    key.extend_from_slice(&seq.to_be_bytes());
    Ok(key)
}

/// The run and sequence number in a key of [`Table::Journal`]; `None` if it is no such key.
pub fn parse_journal_key(key: &[u8]) -> Option<(&str, u64)> {
    let (&len, rest) = key.split_first()?;
    let (run, seq) = rest.split_at_checked(usize::from(len))?;
    Some((
        std::str::from_utf8(run).ok()?,
        u64::from_be_bytes(seq.try_into().ok()?),
    ))
}

/// What all keys of a run's records begin with.
pub(crate) fn run_prefix(run: &str) -> Result<Vec<u8>, Error> {
    check_run(run)?;
    let mut key = Vec::with_capacity(1 + run.len() + size_of::<u64>());
    // The check above bounds the length by 255.
    key.push(run.len() as u8);
    key.extend_from_slice(run.as_bytes());
    Ok(key)
}

pub(crate) fn check_run(run: &str) -> Result<(), Error> {
    if run.is_empty() {
        return Err(Error::invalid("the name of a run is empty; give it one"));
    }
    if run.len() > RUN_LEN_MAX {
        return Err(Error::too_large(
            "the name of a run",
            run.len(),
            RUN_LEN_MAX,
        ));
    }
    Ok(())
}

/// A range of keys of one table: from `start`, inclusive, to `end`, exclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key in the range.
    pub start: Vec<u8>,
    /// The first key after the range; `None` for the end of the table.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Every key of the table.
    pub fn all() -> Self {
        Self {
            start: Vec::new(),
            end: None,
        }
    }

    /// From `start`, inclusive, to `end`, exclusive; empty if `end` is not after `start`.
    pub fn between(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self {
            start: start.into(),
            end: Some(end.into()),
        }
    }

    /// From `start`, inclusive, to the end of the table.
    pub fn from(start: impl Into<Vec<u8>>) -> Self {
        Self {
            start: start.into(),
            end: None,
        }
    }

    /// Every key that begins with `prefix`.
    pub fn prefix(prefix: impl Into<Vec<u8>>) -> Self {
        let start = prefix.into();
        let mut end = start.clone();
        // The first key after all that share a prefix is the prefix with its last byte that can
        // still grow grown by one, and cut there; a prefix of 0xFF bytes alone has none.
        while end.pop_if(|last| *last == u8::MAX).is_some() {}
        let end = end.split_last().map(|(last, head)| {
            let mut end = head.to_vec();
            end.push(last + 1);
            end
        });
        Self { start, end }
    }

    /// The same range without `key` and all before it: where to go on after a page of a scan
    /// that ended with `key`.
    pub fn after(mut self, key: &[u8]) -> Self {
        let mut next = key.to_vec();
        next.push(0);
        self.start = self.start.max(next);
        self
    }

    /// Whether no key can be in the range.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_a_byte_and_a_name_of_its_own() {
        for table in Table::ALL {
            assert_eq!(Table::from_byte(table.byte()), Some(table));
            let namesakes = Table::ALL.iter().filter(|t| t.as_str() == table.as_str());
            assert_eq!(namesakes.count(), 1);
        }
        assert_eq!(Table::from_byte(0), None);
    }

    #[test]
    fn a_journal_key_is_read_back_and_sorts_by_sequence() {
        let low = journal_key("r1", 255).unwrap();
        let high = journal_key("r1", 256).unwrap();
        assert!(low < high);
        assert_eq!(parse_journal_key(&high), Some(("r1", 256)));
        assert_eq!(parse_journal_key(&high[1..]), None);
        assert_eq!(parse_journal_key(&[]), None);
        assert!(matches!(journal_key("", 0), Err(Error::Invalid { .. })));
        let long = "x".repeat(RUN_LEN_MAX + 1);
        assert!(matches!(journal_key(&long, 0), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn a_prefix_ends_where_the_next_begins() {
        assert_eq!(KeyRange::prefix("ab").end, Some(b"ac".to_vec()));
        assert_eq!(KeyRange::prefix([1, 255, 255]).end, Some(vec![2]));
        assert_eq!(KeyRange::prefix([255, 255]).end, None);
        assert_eq!(KeyRange::prefix("").end, None);
    }
}
