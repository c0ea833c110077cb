//! How often a connection is called: no more than its rate over any span of time.

use std::collections::{BTreeMap, VecDeque};

use cofferdam_core::rate::Rate;

use crate::world::State;

/// So many calls of each connection are looked back at.
const CALLS_MAX: usize = 200;

/// The calls of one process, by connection.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    /// What is configured.
    pub rates: BTreeMap<String, Rate>,
    calls: BTreeMap<String, VecDeque<u64>>,
}

impl Pace {
    /// After a crash it begins anew.
    pub fn begins(&mut self) {
        self.calls.clear();
    }

    /// A call is made: whether there have been too many in any span that ends here.
    fn is_too_fast(&mut self, connection: &str, now_ms: u64) -> bool {
        let Some(rate) = self.rates.get(connection) else {
            return false;
        };
        let calls = self.calls.entry(connection.to_owned()).or_default();
        calls.push_front(now_ms);
        calls.truncate(CALLS_MAX);
        let at_once = rate.burst() as usize;
        let in_span = |from_ms: u64| {
            // Instants are told in whole milliseconds.
            let span_ms = u128::from(now_ms - from_ms + 1);
            (span_ms * u128::from(rate.calls()) / rate.per().as_millis()) as usize
        };
        let mut counts = calls.iter().zip(1..);
        counts.any(|(from_ms, count)| count > at_once + in_span(*from_ms))
    }
}

impl State {
    /// A call of a connection leaves.
    pub(super) fn judge_pace(&mut self, connection: &str) {
        let now_ms = self.now_ms();
        if self.oracle.pace.is_too_fast(connection, now_ms) {
            self.violated(format!(
                "`{connection}` is called more often than it may be"
            ));
        }
    }
}
