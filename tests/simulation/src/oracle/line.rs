//! Who is next: in each line a higher priority goes first, and tenants get places by their weights.
//!
//! Judged when somebody leaves a line, by who left it while they stood there.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_store::Table;

use super::rows;
use crate::world::State;

/// Who came to a line so much sooner was there when another was let out of it.
const SURE_MS: u64 = 1_000;
/// The same for concurrency keys, of which only what is durable tells when they were given.
const SURE_OF_KEY_MS: u64 = 10_000;

/// Lines, by what the keys of their rows begin with.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// How important runs are, by what those who begin them said.
    pub priorities: BTreeMap<String, u8>,
    standing: BTreeMap<Vec<u8>, Standing>,
    left: Vec<Left>,
    /// The last of each tenant that was let in.
    served_ms: BTreeMap<String, u64>,
    /// Since when the process runs.
    open_ms: u64,
}

/// A run that stands in a line.
#[derive(Debug, Clone)]
struct Standing {
    line: Line,
    run: String,
    since_ms: u64,
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    Key(String),
    /// A place, by tenant.
    Place(String),
}

/// A run that was let out of a line.
#[derive(Debug)]
struct Left {
    line: Line,
    run: String,
    at_ms: u64,
}

impl Lines {
    /// A process begins.
    pub fn opens(&mut self, now_ms: u64) {
        self.open_ms = now_ms;
    }
}

impl Standing {
    fn read(key: &[u8], now_ms: u64) -> Option<Self> {
        let end = key.iter().position(|byte| *byte == 0)?;
        let name = String::from_utf8(key.get(1..end)?.to_vec()).ok()?;
        let line = match key.first()? {
            b'k' => Line::Key(name),
            b'q' => Line::Place(name),
            _ => return None,
        };
        // Priority and number.
        let run = key.get(end + 1 + 1 + size_of::<u64>()..)?;
        Some(Self {
            line,
            run: String::from_utf8(run.to_vec()).ok()?,
            since_ms: now_ms,
        })
    }
}

impl State {
    /// Looks who has come to a line, and who has left it.
    pub(super) fn fold_lines(&mut self) -> Result<(), String> {
        // Whoever suspends and redrives decides who waits.
        if !self.swarm.queue || self.swarm.verbs {
            return Ok(());
        }
        let now_ms = self.now_ms();
        let there: BTreeSet<Vec<u8>> = rows(&self.disk.durable, Table::Queue)
            .into_iter()
            .map(|(key, _)| key)
            .collect();
        let lines = &mut self.oracle.lines;
        let gone: Vec<Standing> = lines
            .standing
            .extract_if(.., |key, _| !there.contains(key))
            .map(|(_, standing)| standing)
            .collect();
        for key in there {
            if !lines.standing.contains_key(&key)
                && let Some(standing) = Standing::read(&key, now_ms)
            {
                lines.standing.insert(key, standing);
            }
        }
        for standing in gone {
            let at_ms = match &standing.line {
                Line::Key(_) => Some(now_ms),
                Line::Place(_) => self
                    .oracle
                    .runs
                    .get(&standing.run)
                    .and_then(|s| s.let_in_ms),
            };
            let Some(at_ms) = at_ms else { continue };
            // One that the store failed may stand still until the process is started again.
            let failed_ms = self.oracle.timing.failed_ms();
            let open_ms = self.oracle.lines.open_ms;
            if failed_ms < open_ms.max(standing.since_ms) {
                let from_ms = open_ms.max(standing.since_ms);
                self.judge_passed(&standing, from_ms, at_ms)?;
                self.judge_share(&standing, from_ms, at_ms)?;
            }
            let Standing { line, run, .. } = standing;
            let lines = &mut self.oracle.lines;
            if let Line::Place(tenant) = &line {
                lines.served_ms.insert(tenant.clone(), at_ms);
            }
            lines.left.push(Left { line, run, at_ms });
        }
        Ok(())
    }

    /// Nobody of a lower priority was let out of the line in front of this one.
    fn judge_passed(&self, standing: &Standing, from_ms: u64, at_ms: u64) -> Result<(), String> {
        let lines = &self.oracle.lines;
        let Some(priority) = lines.priorities.get(&standing.run) else {
            return Ok(());
        };
        let sure_ms = match standing.line {
            Line::Key(_) => SURE_OF_KEY_MS,
            Line::Place(_) => SURE_MS,
        };
        let from_ms = from_ms + sure_ms;
        let mut others = lines.left.iter().filter(|left| left.line == standing.line);
        let passed = others.find(|left| {
            let is_lower = lines
                .priorities
                .get(&left.run)
                .is_some_and(|p| p < priority);
            is_lower && left.at_ms > from_ms && left.at_ms < at_ms
        });
        match passed {
            None => Ok(()),
            Some(left) => Err(format!(
                "{} goes before {}, which is more important and has waited since {}",
                left.run, standing.run, standing.since_ms
            )),
        }
    }

    /// While a tenant waits, no other gets more places than its weight gives it.
    fn judge_share(&self, standing: &Standing, from_ms: u64, at_ms: u64) -> Result<(), String> {
        let Line::Place(tenant) = &standing.line else {
            return Ok(());
        };
        let admission = &self.oracle.admission;
        if admission.tenant(tenant).runs_max < admission.runs_active_max {
            return Ok(());
        }
        let lines = &self.oracle.lines;
        let served_ms = lines.served_ms.get(tenant).copied().unwrap_or_default();
        let from_ms = from_ms.max(served_ms) + SURE_MS;
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        for left in &lines.left {
            if let Line::Place(other) = &left.line
                && other != tenant
                && (from_ms..at_ms).contains(&left.at_ms)
            {
                *counts.entry(other).or_default() += 1;
            }
        }
        let weight = admission.tenant(tenant).weight;
        let most = |other: &str| admission.tenant(other).weight.div_ceil(weight) + 1;
        match counts.iter().find(|(other, count)| **count > most(other)) {
            None => Ok(()),
            Some((other, count)) => Err(format!(
                "`{other}` gets {count} places while {} of `{tenant}` waits",
                standing.run
            )),
        }
    }
}
