//! What was seen of the connections while a showing ran.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::message::Snapshot;

/// The worst of everything, over all snapshots.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Watched {
    /// By connection.
    pub connections: BTreeMap<String, Seen>,
    /// The most that the worker held in memory.
    pub resident_bytes_max: u64,
}

/// One connection.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// Every state that its breaker was in.
    pub breaker: BTreeSet<String>,
    /// The largest backlog.
    pub parked_max: usize,
    /// How many calls were turned away since there was no room for them.
    pub busy: u64,
    /// The most calls at the same time.
    pub in_flight_max: usize,
}

impl Watched {
    /// Takes in one snapshot.
    pub fn note(&mut self, snapshot: &Snapshot) {
        self.resident_bytes_max = self.resident_bytes_max.max(snapshot.resident_bytes);
        for line in &snapshot.connections {
            let seen = self.connections.entry(line.name.clone()).or_default();
            seen.breaker.insert(line.breaker.clone());
            seen.parked_max = seen.parked_max.max(line.parked);
            seen.busy = seen.busy.max(line.busy);
            seen.in_flight_max = seen.in_flight_max.max(line.in_flight);
        }
    }
}
